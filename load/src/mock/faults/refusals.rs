//! Refusals: answers without an answer.

use super::{Asked, Script, Step, shapes};
use crate::mock::dialect::Dialect;
use crate::mock::frames::{self, Refusal};
use crate::mock::script::{end, respond};

const JSON: &str = "application/json";
const PAGE: &str = "<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>";

pub(super) fn rate_limited(asked: &Asked) -> Script {
    too_many(asked.dialect, asked.plan.after_s)
}

/// A 429 that says when to come back.
pub(crate) fn too_many(dialect: Dialect, after_s: u32) -> Script {
    refuse(dialect, Refusal::TooMany, None, &format!("retry-after: {after_s}\r\n"))
}

pub(super) fn flaky(asked: &Asked) -> Script {
    match (asked.earlier < asked.plan.k, asked.plan.status) {
        (false, _) => shapes::text(asked),
        (true, 429) => too_many(asked.dialect, asked.plan.after_s),
        (true, status) => refuse(asked.dialect, Refusal::Failed, Some(status), ""),
    }
}

pub(super) fn overloaded(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Overloaded, Some(asked.plan.status), "")
}

pub(super) fn server_error(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Failed, None, "")
}

pub(super) fn html_error(_: &Asked) -> Script {
    respond(502, "", "text/html", PAGE)
}

pub(super) fn auth(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Auth, None, "")
}

pub(super) fn forbidden(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Forbidden, None, "")
}

pub(super) fn rejected(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Rejected, None, "")
}

pub(super) fn too_long(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::TooLong, None, "")
}

pub(super) fn too_large(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::TooLarge, None, "")
}

pub(super) fn unprocessable(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Unprocessable, None, "")
}

pub(super) fn quota(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Quota, None, "")
}

pub(super) fn not_found(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::NoModel, None, "")
}

/// A 404 for a model that is none of the mock's.
pub(crate) fn no_model(message: &str) -> Script {
    respond(404, "", JSON, &frames::error(message, "invalid_request_error", Some("model_not_found")))
}

/// A refusal of what only OpenAI's dialect has here.
pub(super) fn not_in_this_dialect(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Unprocessable, None, "")
}

pub(super) fn error_in_200(asked: &Asked) -> Script {
    refuse(asked.dialect, Refusal::Failed, Some(200), "")
}

pub(super) fn empty_200(asked: &Asked) -> Script {
    Box::new([asked.stream_head()].into_iter().chain(end()))
}

pub(super) fn no_content(_: &Asked) -> Script {
    Box::new([Step::Bytes("HTTP/1.1 204 No Content\r\n\r\n".into()), Step::End].into_iter())
}

pub(super) fn wrong_type(_: &Asked) -> Script {
    respond(200, "", "text/html", PAGE)
}

pub(super) fn redirect(_: &Asked) -> Script {
    respond(307, "location: /elsewhere\r\n", "text/plain", "elsewhere")
}

/// The dialect's own words for a refusal, and its own status unless another is given. `headers` are whole lines.
fn refuse(dialect: Dialect, why: Refusal, status: Option<u16>, headers: &str) -> Script {
    let (own, body) = dialect.speech().refusal(why);
    let content_type = if body.starts_with('<') { "text/html" } else { JSON };
    respond(status.unwrap_or(own), headers, content_type, &body)
}
