//! Failures: which codes come of what, and their responses, written from the table of codes.

use serde_json::{Map, Value, json};

use super::operation::reference;
use super::schemas::Schemas;
use crate::failure::Code;
use crate::http::error::ErrorBody;

/// What any request can be answered with, whatever it asks for.
pub(super) const ANY: &[Code] = &[
    Code::InvalidRequest,
    Code::Forbidden,
    Code::RequestTimeout,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::Internal,
    Code::Overloaded,
];

/// Where a key is needed.
pub(super) const KEYED: &[Code] = &[Code::Unauthorized, Code::Forbidden];

/// Where a body is read.
pub(super) const BODY: &[Code] = &[Code::InvalidJson, Code::TooLarge, Code::UnsupportedMedia];

/// Where a thread is asked for.
pub(super) const THREAD: &[Code] = &[Code::ThreadNotFound, Code::Storage];

/// Where a request is asked for.
pub(super) const REQUEST: &[Code] = &[Code::RequestNotFound, Code::Storage];

/// Where a message joins its thread.
pub(super) const TURN: &[Code] =
    &[Code::UnknownProvider, Code::UnknownModel, Code::TurnInProgress, Code::IdempotencyConflict, Code::Interrupted];

/// Where a provider answers.
pub(super) const ANSWER: &[Code] = &[
    Code::Unprocessable,
    Code::ProviderUnavailable,
    Code::RequestIdInUse,
    Code::ProviderBusy,
    Code::QueueTimeout,
    Code::BreakerOpen,
    Code::RateLimited,
    Code::Draining,
    Code::Storage,
    Code::UpstreamConnect,
    Code::UpstreamDns,
    Code::UpstreamTls,
    Code::UpstreamTimeout,
    Code::UpstreamStalled,
    Code::UpstreamTruncated,
    Code::UpstreamProtocol,
    Code::UpstreamRedirect,
    Code::UpstreamAuth,
    Code::UpstreamRateLimit,
    Code::UpstreamQuota,
    Code::UpstreamOverloaded,
    Code::UpstreamError,
    Code::UpstreamRejected,
    Code::UpstreamModel,
    Code::ContextLength,
    Code::ContentFilter,
    Code::ResponseTooLarge,
];

/// Where an answer is told in OpenAI's words.
pub(super) const V1: &[Code] = &[Code::ModelNotFound, Code::Interrupted, Code::Cancelled];

/// The headers of every response.
pub(super) fn headers_of_all() -> Map<String, Value> {
    let names = ["X-Request-Id", "X-Content-Type-Options", "Cache-Control"];
    names.into_iter().map(|name| (name.to_owned(), reference("headers", name))).collect()
}

/// The responses of these codes by status. Each is a component, named by its codes.
pub(super) fn responses(codes: &[Code], schemas: &mut Schemas) -> Map<String, Value> {
    let mut of_status: Map<String, Value> = Map::new();
    let told = |status: u16| Code::ALL.iter().copied().filter(move |code| code.status() == status);
    for status in codes.iter().map(|code| code.status()) {
        let codes: Vec<_> = told(status).filter(|code| codes.contains(code)).map(Code::as_str).collect();
        let name = codes.join(".");
        let reference = reference("responses", &name);
        if of_status.insert(status.to_string(), reference).is_none() && !schemas.has_response(&name) {
            let response = response(status, &codes, schemas);
            schemas.add_response(name, response);
        }
    }
    of_status
}

fn response(status: u16, codes: &[&str], schemas: &mut Schemas) -> Value {
    let mut headers = headers_of_all();
    let mut also = |name: &str, component: &str| headers.insert(name.to_owned(), reference("headers", component));
    also("x-should-retry", "x-should-retry");
    if matches!(status, 429 | 503) {
        also("Retry-After", "Retry-After");
        also("retry-after-ms", "retry-after-ms");
    }
    if status == 401 {
        also("WWW-Authenticate", "WWW-Authenticate");
    }
    let narrowed = json!({ "properties": { "error": { "properties": { "code": { "enum": codes } } } } });
    let schema = json!({ "allOf": [schemas.of::<ErrorBody<'_>>(), narrowed] });
    let description = format!("`{}`", codes.join("`, `"));
    json!({ "description": description, "headers": headers, "content": { "application/json": { "schema": schema } } })
}
