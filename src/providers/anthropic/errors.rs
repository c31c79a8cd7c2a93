//! Errors: what the API means by one, in the stream or in place of it.
//!
//! Most words are the common ones, and gateways answer in OpenAI's shape anyway, so what is not the API's own is read
//! as in `openai_chat`. Its own are: limits of spending that call themselves a bad request or a rate limit, and limits
//! of rate that say when they end as dates.

use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::providers::openai_chat::errors;
use crate::providers::{Head, json, refused};

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
    let now_s = head.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now_s = now_s?.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    let until = |what: &&str| {
        let left = head.header(&format!("anthropic-ratelimit-{what}-remaining"));
        let reset = head.header(&format!("anthropic-ratelimit-{what}-reset")).filter(|_| left == Some("0"))?;
        rfc3339_s(reset).map(|then_s| (then_s - now_s) * 1_000.0)
    };
    LIMITS.iter().filter_map(until).reduce(f64::max)
}

/// A moment such as `2026-11-24T14:01:26Z`, in seconds since 1970. The API writes them in UTC.
fn rfc3339_s(text: &str) -> Option<f64> {
    let (date, time) = text.trim().strip_suffix(['Z', 'z'])?.split_once(['T', 't'])?;
    let three = |text: &str, separator: char| {
        let mut parts = text.split(separator).map(|part| part.parse::<f64>().ok().filter(|number| *number >= 0.0));
        let three = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(three)
    };
    let (year, month, day) = three(date, '-')?;
    let (hour, minute, second) = three(time, ':')?;
    // Years begin in March here, so that leap days come last.
    let (year, month) = if month > 2.0 { (year, month - 3.0) } else { (year - 1.0, month + 9.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    let days = 365.0 * year + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day - 1.0 - 719_468.0;
    Some(((days * 24.0 + hour) * 60.0 + minute) * 60.0 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_seconds() {
        assert_eq!(rfc3339_s("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(rfc3339_s("1994-11-06T08:49:37Z"), Some(784_111_777.0));
        assert_eq!(rfc3339_s("2000-02-29T23:59:59.5Z"), Some(951_868_799.5));
        for other in ["", "soon", "2026-11-24", "2026-11-24T14:01:26+01:00", "2026-11-24T14:01Z", "a-b-cTd:e:fZ"] {
            assert_eq!(rfc3339_s(other), None, "{other}");
        }
    }
}
