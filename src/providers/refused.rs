//! Refused: what HTTP itself says about an answer that is no success, the same in every dialect: the code behind a
//! status, how long to wait, and the provider's id of the call.

use super::Head;
use super::moments::{answered_s, duration_ms, epoch_s, finite, http_date_s};
use crate::failure::{Code, Failure};

/// No pause is longer than this, whatever a provider asks for.
const PAUSE_MAX_MS: f64 = 60_000.0;

/// Where servers put their id of a call, the most telling one first.
const REQUEST_ID_HEADERS: [&str; 6] =
    ["x-request-id", "request-id", "apim-request-id", "x-generation-id", "x-amzn-requestid", "cf-ray"];

/// The failure of a call that was answered with `head`. `asked_ms` is the pause that the body asks for, if any; what
/// the headers ask for comes first. Pauses count only where a status means "later" (429, 503, 529): some providers
/// send the header with every answer.
pub(super) fn failure(head: &Head, code: Code, asked_ms: Option<f64>) -> Failure {
    let mut failure = Failure::new(code, message(code, head.status));
    if matches!(head.status, 429 | 503 | 529) && code.retryable() {
        failure.retry_after_ms = asked_by_headers_ms(head).or(asked_ms).and_then(pause_ms);
    }
    failure.upstream_request_id = request_id(head);
    failure
}

/// The failure of a call whose path the server does not know: of a model that it does not know it would say so.
pub(super) fn unknown_path(head: &Head) -> Failure {
    let mut failure = failure(head, Code::UpstreamRejected, None);
    failure.message = "the provider does not know the path: is base_url right? (HTTP 404)".into();
    failure
}

/// What a status means when nothing more precise is known.
pub(super) fn code(status: u16) -> Code {
    match status {
        300..=399 => Code::UpstreamRedirect,
        401 | 403 => Code::UpstreamAuth,
        402 => Code::UpstreamQuota,
        404 => Code::UpstreamModel,
        408 | 504 | 522 | 524 => Code::UpstreamTimeout,
        429 => Code::UpstreamRateLimit,
        503 | 529 => Code::UpstreamOverloaded,
        400..=499 => Code::UpstreamRejected,
        500..=599 => Code::UpstreamError,
        _ => Code::UpstreamProtocol,
    }
}

/// A pause as it is granted: whole milliseconds, at most a minute; `None` when it is none at all.
pub(super) fn pause_ms(asked_ms: f64) -> Option<u64> {
    (asked_ms > 0.0).then(|| asked_ms.min(PAUSE_MAX_MS).ceil() as u64)
}

/// A code's sentence about providers.
pub(super) fn sentence(code: Code) -> &'static str {
    match code {
        Code::UpstreamRedirect => "the provider answered with a redirect, which is never followed",
        Code::UpstreamAuth => "the provider refused the server's key",
        Code::UpstreamQuota => "the provider's account is exhausted",
        Code::UpstreamModel => "the provider does not know the model",
        Code::UpstreamTimeout => "the provider did not answer in time",
        Code::UpstreamRateLimit => "the provider's rate limit is reached",
        Code::UpstreamOverloaded => "the provider is overloaded",
        Code::UpstreamRejected => "the provider refused the request as it is",
        Code::ContextLength => "the conversation is longer than the model's window",
        Code::ContentFilter => "the provider's policy refused the request",
        Code::UpstreamProtocol => "the provider answered with what its protocol does not allow",
        _ => "the provider failed",
    }
}

fn message(code: Code, status: u16) -> String {
    format!("{} (HTTP {status})", sentence(code))
}

/// The pause that the headers ask for. Dates are measured against the answer's own `date`, so that no clock is needed
/// here and a wrong one does not matter; without it they say nothing.
fn asked_by_headers_ms(head: &Head) -> Option<f64> {
    let number = |name: &str| head.header(name).and_then(finite);
    let now = answered_s(head);
    let until = |then_s: f64| now.map(|now_s| (then_s - now_s) * 1_000.0);
    let retry_after = |text: &str| finite(text).map(|s| s * 1_000.0).or_else(|| http_date_s(text).and_then(until));
    let reset = |text: &str| match epoch_s(text) {
        Some(then_s) => until(then_s),
        None => duration_ms(text),
    };
    // Of several limits only the exhausted ones have to be waited for.
    let limit = |what: &str| {
        let exhausted = number(&format!("x-ratelimit-remaining-{what}")).is_none_or(|left| left <= 0.0);
        let text = head.header(&format!("x-ratelimit-reset-{what}")).filter(|_| exhausted)?;
        reset(text)
    };
    let limits = [limit("requests"), limit("tokens")].into_iter().flatten().reduce(f64::max);
    number("retry-after-ms")
        .or_else(|| head.header("retry-after").and_then(retry_after))
        .or(limits)
        .or_else(|| head.header("x-ratelimit-reset").and_then(reset))
}

/// The provider's id of the call, if it is short and plain enough to be one.
fn request_id(head: &Head) -> Option<Box<str>> {
    let plain = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    REQUEST_ID_HEADERS.iter().filter_map(|name| head.header(name)).find(plain).map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'h> = &'h [(&'h str, &'h str)];

    fn pause(status: u16, headers: Headers<'_>) -> Option<u64> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        failure(&Head { status, headers }, code(status), None).retry_after_ms
    }

    #[test]
    fn the_pause_is_read_from_every_header_that_tells_it() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let cases: &[(Headers<'_>, Option<u64>)] = &[
            (&[("retry-after", "7")], Some(7_000)),
            (&[("retry-after", "0.25")], Some(250)),
            (&[("retry-after-ms", "120"), ("retry-after", "7")], Some(120)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"), date], Some(10_000)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date], None),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], None),
            (&[("x-ratelimit-reset-requests", "1.5s")], Some(1_500)),
            (&[("x-ratelimit-reset-requests", "6ms"), ("x-ratelimit-reset-tokens", "2s")], Some(2_000)),
            (&[("x-ratelimit-reset-requests", "9s"), ("x-ratelimit-remaining-requests", "3")], None),
            (&[("x-ratelimit-reset", "1784111780000"), ("date", "Wed, 15 Jul 2026 10:36:00 GMT")], Some(20_000)),
            (&[("x-ratelimit-reset", "1784111780")], None),
            (&[("x-ratelimit-reset", "4")], Some(4_000)),
            (&[], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(pause(429, headers), *expected, "{headers:?}");
        }
    }

    #[test]
    fn absurd_pauses_are_capped_or_ignored() {
        for long in ["86400", "1e300"] {
            assert_eq!(pause(503, &[("retry-after", long)]), Some(60_000), "{long}");
        }
        assert_eq!(pause(429, &[("x-ratelimit-reset-tokens", "20m52.666s")]), Some(60_000));
        for none in ["0", "-5", "NaN", "inf", "soon", "", "5 parsecs", "1h-", "s"] {
            assert_eq!(pause(429, &[("retry-after", none)]), None, "{none}");
            assert_eq!(pause(429, &[("x-ratelimit-reset-tokens", none)]), None, "{none}");
        }
    }

    #[test]
    fn only_statuses_that_mean_later_have_a_pause() {
        for status in [429, 503, 529] {
            assert_eq!(pause(status, &[("retry-after", "1")]), Some(1_000), "{status}");
        }
        for status in [200, 301, 400, 401, 402, 500, 502] {
            assert_eq!(pause(status, &[("retry-after", "1")]), None, "{status}");
        }
    }

    #[test]
    fn an_id_that_is_no_id_is_dropped() {
        let id = |value: &str| {
            let headers = vec![("x-request-id".to_owned(), value.to_owned()), ("cf-ray".to_owned(), "ray".to_owned())];
            failure(&Head { status: 500, headers }, Code::UpstreamError, None).upstream_request_id
        };

        assert_eq!(id("req_1").as_deref(), Some("req_1"));
        assert_eq!(id("a b").as_deref(), Some("ray"));
        assert_eq!(id(&"x".repeat(129)).as_deref(), Some("ray"));
    }
}
