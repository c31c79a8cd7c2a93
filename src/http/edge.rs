//! Edge: what every request passes: its name, the limits of its head, the one shape of errors, the line in the log.

use std::fmt;
use std::rc::Rc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::uri::Authority;
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use tokio::time::Instant;

use super::Api;
use super::connection::Line;
use super::cors::Cors;
use super::error::{ApiError, ApiResult};
use super::path::Allowed;
use super::timing::Timing;
use crate::chat::RequestId;
use crate::config::{self, Config};
use crate::failure::{Code, Failure};
use crate::metrics::Metrics;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The name of a request in the response, its errors and the log.
#[derive(Debug, Clone)]
struct Label(String);

/// Names the request; later names win over the client's and the generated one.
pub(super) fn name(request: &HttpRequest, id: &str) {
    request.extensions_mut().insert(Label(id.to_owned()));
}

/// The middleware.
pub(super) async fn edge(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let began = Instant::now();
    let own_label = given_label(&request);
    let api = request.app_data::<web::Data<Api>>().cloned();
    let config = api.as_ref().map(|api| api.config());
    let cors = config.as_ref().map_or(Cors::Off, |config| Cors::of(request.request(), &config.server));
    let limits = config.map_or(Ok(()), |config| check(&request, &config, &cors));
    if let Err(error) = limits {
        count(api.as_ref(), &error);
        let response = error.response(Some(&own_label));
        return Ok(labelled(request.into_response(response), &own_label, &cors, began).map_into_right_body());
    }
    // Only a handler that panics gets here without a response.
    let panicked = |_| Panicked::new(api.as_ref().map(|api| &*api.metrics), own_label.clone(), cors.clone());
    let response = next.call(request).await.map_err(panicked)?;
    let label = response.request().extensions().get::<Label>().map_or(own_label, |label| label.0.clone());
    let Some(error) = readable_error(&response) else {
        return Ok(labelled(response, &label, &cors, began).map_into_left_body());
    };
    let preflight = response.request().extensions().get::<Allowed>().cloned();
    let preflight = preflight.and_then(|Allowed(methods)| cors.preflight(response.request(), &methods));
    let answer = preflight.unwrap_or_else(|| {
        count(api.as_ref(), &error);
        error.response(Some(&label))
    });
    let (request, _) = response.into_parts();
    Ok(labelled(ServiceResponse::new(request, answer), &label, &cors, began).map_into_right_body())
}

/// What is looked at before anybody knows who asks, and for what.
fn check(request: &ServiceRequest, config: &Config, cors: &Cors) -> ApiResult<()> {
    check_place(request)?;
    check_head(request, &config.server)?;
    if config.auth.keys.is_empty() { check_origin(request, &config.server, cors) } else { Ok(()) }
}

/// The name that the client gave, if it can be one, else a new one.
fn given_label(request: &ServiceRequest) -> String {
    let given = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let fits = |label: &&str| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (1..=RequestId::LEN_MAX).contains(&label.len()) && label.bytes().all(is_word)
    };
    given.filter(fits).map_or_else(new_label, str::to_owned)
}

/// A name that nothing else has.
pub(super) fn new_label() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// On a connection that is one too many, only health checks are answered.
fn check_place(request: &ServiceRequest) -> ApiResult<()> {
    let is_extra = request.conn_data::<Rc<Line>>().is_some_and(|line| line.is_extra());
    if is_extra && !matches!(request.path(), "/health" | "/ready") { Err(ApiError(no_place())) } else { Ok(()) }
}

/// There are more connections than `server.connections_max`.
pub(super) fn no_place() -> Failure {
    let message = "the server has as many connections as it may (server.connections_max)";
    Failure::new(Code::Overloaded, message).retry_after_ms(1_000)
}

/// What the server is called by, if the client says. The request's target wins over the header `Host`.
pub(super) fn called(request: &HttpRequest) -> ApiResult<Option<Authority>> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(host) = request.headers().get(header::HOST).filter(|host| !host.is_empty()) else { return Ok(None) };
    let called = host.to_str().ok().filter(|host| !host.contains('@')).and_then(|host| host.parse().ok());
    called.map(Some).ok_or_else(|| ApiError::field("Host", "Host is not the name of a server"))
}

fn check_head(request: &ServiceRequest, server: &config::Server) -> ApiResult<()> {
    let uri_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if uri_bytes > server.uri_bytes_max {
        let message = format!("the request target may have at most {} bytes", server.uri_bytes_max);
        return Err(ApiError::new(Code::UriTooLong, message));
    }
    let head_bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head_bytes > server.head_bytes_max {
        let message = format!("the headers may have at most {} bytes", server.head_bytes_max);
        return Err(ApiError::new(Code::HeadersTooLarge, message));
    }
    let called = called(request.request())?;
    let host = called.as_ref().map_or("", Authority::host);
    if !server.allowed_hosts.is_empty() && !server.allowed_hosts.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        let message = "this server is not called by that name (server.allowed_hosts)";
        return Err(ApiError(Failure::new(Code::Forbidden, message).param("Host")));
    }
    Ok(())
}

/// Without keys, whoever reaches the server may use it: a page of another site that a person has open must not.
///
/// Such a page says so in `Sec-Fetch-Site`, or in `Origin`. One that has made its own name point here (DNS rebinding)
/// does not; but it comes with a name that has a dot, by which a server on loopback is not called. Pages of the origins
/// in `server.cors_origins` may.
fn check_origin(request: &ServiceRequest, server: &config::Server, cors: &Cors) -> ApiResult<()> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let called = called(request.request())?;
    let (host, name) = called.as_ref().map_or(("", ""), |called| (called.as_str(), called.host()));
    let refuse =
        |param: &'static str, message: &'static str| Err(ApiError(Failure::new(Code::Forbidden, message).param(param)));
    let is_domain = name.contains('.') && name.parse::<std::net::Ipv4Addr>().is_err() && !name.starts_with('[');
    if server.allowed_hosts.is_empty() && server.bind.ip().is_loopback() && is_domain {
        return refuse("Host", "a server without keys is called localhost, or by a name in server.allowed_hosts");
    }
    if request.method().is_safe() || cors.is_listed() {
        return Ok(());
    }
    match (header("sec-fetch-site"), header("origin")) {
        (Some("cross-site"), _) => {
            refuse("Sec-Fetch-Site", "a server without keys takes nothing from other sites' pages")
        }
        (Some(_), _) | (None, None) => Ok(()),
        (None, Some(origin)) if origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host)) => Ok(()),
        (None, Some(_)) => refuse("Origin", "a server without keys takes nothing from other sites' pages"),
    }
}

fn count(api: Option<&web::Data<Api>>, error: &ApiError) {
    if let Some(api) = api {
        api.metrics.refused(error.0.code);
    }
}

/// The error that a response is; `None` when it is none.
fn readable_error<B>(response: &ServiceResponse<B>) -> Option<ApiError> {
    let error = response.response().error()?;
    if let Some(ApiError(failure)) = error.as_error::<ApiError>() {
        return Some(ApiError(failure.clone()));
    }
    // An extractor of the framework, refusing a path or a query.
    let (code, message) = match response.status() {
        StatusCode::NOT_FOUND => (Code::NotFound, "there is no such path"),
        status if status.is_client_error() => (Code::InvalidRequest, "the path or the query cannot be read"),
        _ => (Code::Internal, "the request could not be processed"),
    };
    Some(ApiError::new(code, message))
}

fn labelled<B>(mut response: ServiceResponse<B>, label: &str, cors: &Cors, began: Instant) -> ServiceResponse<B> {
    let allowed = response.request().extensions().get::<Allowed>().cloned();
    let allowed = allowed.and_then(|Allowed(methods)| HeaderValue::from_str(&methods).ok());
    if let Some(methods) = allowed.filter(|_| response.status() == StatusCode::METHOD_NOT_ALLOWED) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    let timing = response.request().extensions().get::<Timing>().copied();
    if let Some(value) = timing.and_then(|timing| timing.value(Instant::now())) {
        response.headers_mut().insert(SERVER_TIMING, value);
    }
    cors.write(response.headers_mut());
    finish_headers(response.headers_mut(), label);
    log::debug!(
        target: "weir::http",
        request_id = label,
        method = response.request().method().as_str(),
        path = response.request().path(),
        status = response.status().as_u16(),
        head_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        "answered"
    );
    response
}

/// The headers that every answer has.
pub(super) fn finish_headers(headers: &mut HeaderMap, label: &str) {
    if let Ok(value) = HeaderValue::from_str(label) {
        headers.insert(X_REQUEST_ID, value);
    }
    for (name, value) in [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::CACHE_CONTROL, "no-store")] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// A handler has panicked. Its client gets an answer all the same.
#[derive(Debug)]
struct Panicked {
    label: String,
    cors: Cors,
}

impl Panicked {
    const CODE: Code = Code::Internal;

    fn new(metrics: Option<&Metrics>, label: String, cors: Cors) -> Self {
        if let Some(metrics) = metrics {
            metrics.refused(Self::CODE);
        }
        Self { label, cors }
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} could not be processed", self.label)
    }
}

impl ResponseError for Panicked {
    fn error_response(&self) -> HttpResponse {
        log::error!(request_id = self.label.as_str(); "a handler has panicked");
        let error = ApiError::new(Self::CODE, "the request could not be processed");
        let mut response = error.response(Some(&self.label));
        self.cors.write(response.headers_mut());
        finish_headers(response.headers_mut(), &self.label);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Exposition;

    #[test]
    fn that_a_handler_has_panicked_is_counted_and_answered_like_every_error() {
        let origin = HeaderValue::from_static("https://app.example");
        let metrics = Metrics::new(&Config::default().metrics);

        let panicked = Panicked::new(Some(&metrics), "r_1".to_owned(), Cors::Listed(origin.clone()));
        let response = panicked.error_response();

        let header = |name: HeaderName| response.headers().get(name).map(HeaderValue::as_bytes);
        assert_eq!(header(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some(origin.as_bytes()), "a listed page reads it");
        assert_eq!(header(X_REQUEST_ID), Some(&b"r_1"[..]));
        assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), Some(&b"nosniff"[..]));
        assert_eq!(header(header::CACHE_CONTROL), Some(&b"no-store"[..]));
        let mut text = Exposition::default();
        metrics.write_totals(&mut text);
        assert!(text.into_text().contains("weir_error_responses_total{code=\"internal\"} 1\n"));
    }
}
