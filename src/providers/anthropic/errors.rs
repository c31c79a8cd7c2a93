//! Errors: what the API means by one, in the stream or in place of it.
//!
//! Most words are the common ones, and gateways answer in OpenAI's shape anyway, so what is not the API's own is read
//! as in `openai_chat`. Its own are: limits of spending that call themselves a bad request or a rate limit, and limits
//! of rate that say when they end as dates.

use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::providers::openai_chat::errors;
use crate::providers::{Head, json, moments, refused};

/// What messages say that the common words do not cover.
const PHRASES: [(Code, &str); 3] = [
    (Code::UpstreamQuota, "api usage limits"),
    (Code::ContentFilter, "content filtering policy"),
    (Code::ContextLength, "exceed context limit"),
];

/// What is limited, in the names of the headers.
const LIMITS: [&str; 4] = ["requests", "tokens", "input-tokens", "output-tokens"];

/// Request fields that a failure may name.
const PARAMS: [&str; 11] = [
    "max_tokens",
    "messages",
    "model",
    "stop_sequences",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// The failure of an answer that has this error in its stream. `document` is what the error stands in, if anything.
pub(super) fn in_stream(document: &Value) -> Failure {
    let error = errors::error_in(document).unwrap_or(document);
    let failure = match own_code(error) {
        Some(code) => Failure::new(code, refused::sentence(code)),
        None => errors::in_stream(error),
    };
    complete(failure, document, error)
}

/// The failure of a call that was answered with something else than a stream.
pub(super) fn refused(head: &Head, body: &[u8]) -> Failure {
    let document = json::parse(&String::from_utf8_lossy(body)).unwrap_or_default();
    let error = errors::error_in(&document).unwrap_or(&document);
    let mut failure = match own_code(error).filter(|_| (400..600).contains(&head.status)) {
        Some(code) => refused::failure(head, code, None),
        None => errors::refused(head, body),
    };
    let waits = matches!(head.status, 429 | 503 | 529) && failure.code.retryable();
    if failure.retry_after_ms.is_none() && waits {
        failure.retry_after_ms = until_reset_ms(head).and_then(refused::pause_ms);
    }
    complete(failure, &document, error)
}

fn own_code(error: &Value) -> Option<Code> {
    let detail = json::get(error, "details").and_then(|details| json::text(details, "error_code"));
    if detail == Some("enforced_spend_limit_reached") || json::text(error, "type") == Some("billing_error") {
        return Some(Code::UpstreamQuota);
    }
    let message = errors::message(error)?;
    PHRASES.iter().find(|(_, phrase)| message.contains(phrase)).map(|(code, _)| *code)
}

/// Adds what the body says beside the code: the id of the call, and the field at the beginning of the message, as in
/// "messages.1.content: …".
fn complete(mut failure: Failure, document: &Value, error: &Value) -> Failure {
    let plain = |id: &&str| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic());
    if failure.upstream_request_id.is_none() {
        failure.upstream_request_id = json::text(document, "request_id").filter(plain).map(Box::from);
    }
    if failure.param.is_none() {
        let message = json::text(error, "message").unwrap_or_default().trim_start_matches('`');
        let end = message.find(|char: char| !char.is_ascii_lowercase() && char != '_').unwrap_or(message.len());
        failure.param = PARAMS.into_iter().find(|known| *known == &message[..end]).map(Into::into);
    }
    failure
}

/// How long until every exhausted limit is restored, by the answer's own clock.
fn until_reset_ms(head: &Head) -> Option<f64> {
    let now_s = moments::answered_s(head)?;
    let until = |what: &&str| {
        let left = head.header(&format!("anthropic-ratelimit-{what}-remaining"));
        let reset = head.header(&format!("anthropic-ratelimit-{what}-reset")).filter(|_| left == Some("0"))?;
        moments::rfc3339_s(reset).map(|then_s| (then_s - now_s) * 1_000.0)
    };
    LIMITS.iter().filter_map(until).reduce(f64::max)
}
