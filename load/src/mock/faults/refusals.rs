//! Refusals: answers without an answer.

use super::{Asked, Script, event_stream, frames, shapes};
use crate::mock::script::{end, respond};

const JSON: &str = "application/json";
const PAGE: &str = "<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>";

pub(super) fn rate_limited(asked: &Asked) -> Script {
    too_many(asked.plan.after_s)
}

/// A 429 that says when to come back.
pub(crate) fn too_many(after_s: u32) -> Script {
    let body = frames::error("too many requests", "requests", Some("rate_limit_exceeded"));
    respond(429, &format!("retry-after: {after_s}\r\n"), JSON, &body)
}

pub(super) fn flaky(asked: &Asked) -> Script {
    match (asked.earlier < asked.plan.k, asked.plan.status) {
        (false, _) => shapes::text(asked),
        (true, 429) => too_many(asked.plan.after_s),
        (true, status) => respond(status, "", JSON, &frames::error("try again", "server_error", None)),
    }
}

pub(super) fn overloaded(_: &Asked) -> Script {
    let body = frames::error("the server is overloaded", "server_error", Some("server_is_overloaded"));
    respond(503, "", JSON, &body)
}

pub(super) fn server_error(_: &Asked) -> Script {
    respond(500, "", JSON, &frames::error("the server had an error", "server_error", None))
}

pub(super) fn html_error(_: &Asked) -> Script {
    respond(502, "", "text/html", PAGE)
}

pub(super) fn auth(_: &Asked) -> Script {
    let body = frames::error("incorrect API key", "invalid_request_error", Some("invalid_api_key"));
    respond(401, "", JSON, &body)
}

pub(super) fn quota(_: &Asked) -> Script {
    let body = frames::error("you exceeded your quota", "insufficient_quota", Some("insufficient_quota"));
    respond(429, "", JSON, &body)
}

pub(super) fn not_found(_: &Asked) -> Script {
    no_model("the model does not exist")
}

/// A 404 for a model.
pub(crate) fn no_model(message: &str) -> Script {
    respond(404, "", JSON, &frames::error(message, "invalid_request_error", Some("model_not_found")))
}

pub(super) fn error_in_200(_: &Asked) -> Script {
    respond(200, "", JSON, &frames::error("the engine failed", "server_error", None))
}

pub(super) fn empty_200(_: &Asked) -> Script {
    Box::new([event_stream()].into_iter().chain(end()))
}

pub(super) fn wrong_type(_: &Asked) -> Script {
    respond(200, "", "text/html", PAGE)
}

pub(super) fn redirect(_: &Asked) -> Script {
    respond(307, "location: /elsewhere\r\n", "text/plain", "elsewhere")
}
