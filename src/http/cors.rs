//! Cors: which pages of other origins may ask this server, and read what it answers (`server.cors_origins`).
//!
//! Such a page acts by a key that it has. No answer allows credentials, so a browser hands out none that was got with a
//! cookie; and a session refuses other pages by itself, listed or not.

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use crate::config;

/// How long a browser may remember what it was allowed, in seconds: so long an origin that is listed no more gets on.
const MAX_AGE_S: u32 = 600;
/// The headers of answers that a page may read, beside those that any may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-Id, X-Stream-Id, X-Next-Cursor, Retry-After, Retry-After-Ms, X-Should-Retry, Server-Timing, Allow, \
     WWW-Authenticate",
);
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// What the answer to a request says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cors {
    /// Nothing: no origin is listed.
    Off,
    /// It comes from no page, or from one that is not listed.
    Unlisted,
    /// It comes from a listed origin.
    Listed(HeaderValue),
    /// Every origin is.
    Anybody,
}

impl Cors {
    pub(super) fn of(request: &HttpRequest, server: &config::Server) -> Self {
        let listed = |origin: &[u8]| server.cors_origins.iter().any(|known| known.as_bytes() == origin);
        if server.cors_origins.is_empty() {
            return Cors::Off;
        }
        if listed(b"*") {
            return Cors::Anybody;
        }
        let origin = request.headers().get(header::ORIGIN).filter(|origin| listed(origin.as_bytes()));
        origin.cloned().map_or(Cors::Unlisted, Cors::Listed)
    }

    /// Whether it comes from an origin that the configuration names.
    pub(super) fn is_listed(&self) -> bool {
        matches!(self, Cors::Listed(_))
    }

    /// The answer to a browser that asks whether a page may send a request. `methods` are those of the path. `None` when
    /// that is not what is asked, or not allowed: then the request is one like any other.
    pub(super) fn preflight(&self, request: &HttpRequest, methods: &str) -> Option<HttpResponse> {
        let asked = request.headers();
        let is_preflight = *request.method() == Method::OPTIONS
            && asked.contains_key(header::ORIGIN)
            && asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight || !matches!(self, Cors::Listed(_) | Cors::Anybody) {
            return None;
        }
        let mut response = HttpResponse::NoContent();
        response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, methods));
        response.insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S));
        // Clients bring headers of their own, which mean nothing here: all of them may come.
        if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone()));
        }
        Some(response.finish())
    }

    /// Adds to an answer what it says.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let allowed = match self {
            Cors::Off | Cors::Unlisted => None,
            Cors::Listed(origin) => Some(origin.clone()),
            Cors::Anybody => Some(ANYBODY),
        };
        if let Some(allowed) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        // To another origin the same path answers otherwise, which caches have to know.
        if matches!(self, Cors::Unlisted | Cors::Listed(_)) {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
}
