//! Errors: what Google means by one, in the stream or in place of it.
//!
//! An error is `{"error": {"code", "message", "status", "details"}}`, where `status` is one of the words of gRPC and
//! `details` are objects that say more: whose fault it is, which quota, how long to wait. A wrong key is an
//! `INVALID_ARGUMENT` with status 400, and an exhausted day looks like a busy minute; only the details tell them
//! apart. Messages are searched for a few telling words, never quoted.

use serde_json::Value;

use crate::event::Finish;
use crate::failure::{Code, Failure};
use crate::providers::openai_chat::errors;
use crate::providers::{Head, json, moments, refused};

/// What messages say where nothing else does.
const PHRASES: &[(Code, &[&str])] = &[
    (Code::UpstreamAuth, &["api key not valid", "api key expired", "reported as leaked"]),
    (Code::UpstreamQuota, &["credits are depleted", "spending cap", "spend cap"]),
    (Code::ContextLength, &["exceeds the maximum number of tokens", "input context is too long"]),
];

/// Beginnings of Google's names of request fields, and the client's names for them.
const FIELDS: &[(&str, &str)] = &[
    ("contents", "messages"),
    ("generation_config.max_output_tokens", "max_tokens"),
    ("generation_config.temperature", "temperature"),
    ("generationConfig.maxOutputTokens", "max_tokens"),
    ("generationConfig.temperature", "temperature"),
    ("tools", "tools"),
];

/// The failure of an answer that has this error in its stream.
pub(super) fn in_stream(error: &Value) -> Failure {
    let status = json::get(error, "code").and_then(json::count).and_then(|code| u16::try_from(code).ok());
    let by_status = status.filter(|status| (400..600).contains(status)).map(refused::code);
    let code = code(error).or(by_status).unwrap_or(Code::UpstreamError);
    let mut failure = with_param(Failure::new(code, refused::sentence(code)), error);
    if matches!(code, Code::UpstreamRateLimit | Code::UpstreamOverloaded) {
        failure.retry_after_ms = asked_ms(error).and_then(refused::pause_ms);
    }
    failure
}

/// The failure of a call that was answered with something else than a stream.
pub(super) fn refused(head: &Head, body: &[u8]) -> Failure {
    let by_status = refused::code(head.status);
    if !(400..600).contains(&head.status) {
        return refused::failure(head, by_status, None);
    }
    let text = String::from_utf8_lossy(body);
    // Since a stream was asked for, some errors come as its only frame.
    let text = text.trim_start();
    let document = json::parse(text.strip_prefix("data:").unwrap_or(text)).unwrap_or_default();
    let Some(error) = error_in(&document) else {
        return match by_status {
            Code::UpstreamModel => refused::unknown_path(head),
            other => refused::failure(head, other, None),
        };
    };
    let code = code(error).unwrap_or(by_status);
    with_param(refused::failure(head, code, asked_ms(error)), error)
}

/// The failure of an answer that ended by a finish reason which is none.
pub(super) fn broken_off(finish: &Finish) -> Failure {
    if finish.native.as_deref() == Some("MISSING_THOUGHT_SIGNATURE") {
        return Failure::new(Code::UpstreamRejected, "the provider misses its signature on a call in the conversation");
    }
    Failure::new(Code::UpstreamError, "the model wrote something that cannot be read, and broke off")
}

/// The error in a document, if it is one that tells of an error. Some come in an array.
pub(super) fn error_in(document: &Value) -> Option<&Value> {
    let document = match document {
        Value::Array(items) => items.first()?,
        other => other,
    };
    json::get(document, "error").filter(|error| !json::is_blank(error))
}

/// What an error says: its details first, then its message, then its word.
fn code(error: &Value) -> Option<Code> {
    by_details(error).or_else(|| by_phrase(error)).or_else(|| by_word(error))
}

fn by_details(error: &Value) -> Option<Code> {
    let details = json::items(error, "details").iter();
    let mut reasons = details.clone().filter_map(|detail| json::text(detail, "reason"));
    let by_reason = reasons.find_map(|reason| match reason {
        "BILLING_DISABLED" => Some(Code::UpstreamQuota),
        "SERVICE_DISABLED" | "CONSUMER_INVALID" | "CONSUMER_SUSPENDED" => Some(Code::UpstreamAuth),
        _ if ["API_KEY_", "ACCESS_TOKEN_", "CREDENTIALS_"].iter().any(|kind| reason.starts_with(kind)) => {
            Some(Code::UpstreamAuth)
        }
        _ => None,
    });
    let mut violations = details.flat_map(|detail| json::items(detail, "violations"));
    by_reason.or_else(|| violations.any(is_exhausted).then_some(Code::UpstreamQuota))
}

/// Whether the quota comes back too late for any retry: tomorrow, or never, because there is none. The pause that
/// Google names beside it means nothing then.
fn is_exhausted(violation: &Value) -> bool {
    let names = ["quotaId", "quotaMetric"].iter().filter_map(|key| json::text(violation, key));
    let mut names = names.map(|name| name.to_ascii_lowercase().replace('_', ""));
    let is_long = names.any(|name| name.contains("perday") || name.contains("permonth"));
    is_long || json::get(violation, "quotaValue").and_then(json::count) == Some(0)
}

fn by_phrase(error: &Value) -> Option<Code> {
    let message = errors::message(error)?;
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    PHRASES.iter().find(|(_, phrases)| says(phrases)).map(|(code, _)| *code)
}

fn by_word(error: &Value) -> Option<Code> {
    Some(match json::text(error, "status")? {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" | "UNIMPLEMENTED" => Code::UpstreamRejected,
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => Code::UpstreamAuth,
        "NOT_FOUND" => Code::UpstreamModel,
        "RESOURCE_EXHAUSTED" => Code::UpstreamRateLimit,
        "UNAVAILABLE" => Code::UpstreamOverloaded,
        "DEADLINE_EXCEEDED" => Code::UpstreamTimeout,
        // `CANCELLED` is the provider's own doing: who cancels here does not listen any longer.
        "ABORTED" | "CANCELLED" | "DATA_LOSS" | "INTERNAL" | "UNKNOWN" => Code::UpstreamError,
        _ => return None,
    })
}

/// The pause that an error asks for: `"34.4s"`, or an object of seconds and nanoseconds.
fn asked_ms(error: &Value) -> Option<f64> {
    let delay = |detail: &Value| {
        let delay = json::get(detail, "retryDelay")?;
        let part = |key: &str| json::get(delay, key).and_then(json::count).unwrap_or(0) as f64;
        let spelled = delay.as_str().and_then(moments::duration_ms);
        spelled.or_else(|| delay.is_object().then(|| part("seconds") * 1e3 + part("nanos") / 1e6))
    };
    json::items(error, "details").iter().find_map(delay)
}

fn with_param(mut failure: Failure, error: &Value) -> Failure {
    let violations = json::items(error, "details").iter().flat_map(|detail| json::items(detail, "fieldViolations"));
    let mut fields = violations.filter_map(|violation| json::text(violation, "field"));
    let known = |field: &str| FIELDS.iter().find(|(name, _)| field.starts_with(name)).map(|(_, param)| *param);
    failure.param = fields.find_map(known).map(Into::into);
    failure
}
