//! Rate: what a provider says of its limits with every answer: how much of each is left, and how long it lasts.
//!
//! Only a hint. Names and forms differ between providers, many say nothing, and gateways pass on what is meant for
//! themselves; so what cannot be read is nothing, and what is absurd is capped.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use super::{Head, moments};

/// More than this need not be told apart from this.
pub const REMAINING_MAX: u64 = 1_000_000_000;
/// A limit that lasts longer than this is a matter for another hour.
pub const RESET_MAX: Duration = Duration::from_secs(3600);

/// The headers for one limit: what is left, and when it is restored.
type Names = (&'static str, &'static str);

const REQUESTS: [Names; 4] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
];
const TOKENS: [Names; 4] = [
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];

/// What is left of a provider's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateHint {
    /// Of its limit of calls.
    pub requests: Allowance,
    /// Of its limit of tokens; where it has several, of the scarcest.
    pub tokens: Allowance,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How much, at most [`REMAINING_MAX`]; `None` where the provider does not say.
    pub remaining: Option<u64>,
    /// How long until the whole limit is there again, at most [`RESET_MAX`]; zero when that is past. `None` where the
    /// provider does not say.
    pub reset: Option<Duration>,
}

/// Reads what an answer's head says of the provider's limits; works on answers of every status. Points of time are
/// measured against the answer's own `date`, so that a wrong clock on either side does not matter, else against `now`.
pub fn rate_headers(head: &Head, now: SystemTime) -> RateHint {
    let now_s = moments::answered_s(head).or_else(|| moments::since_1970_s(now));
    let scarcest = |names: &[Names]| {
        let told =
            names.iter().map(|names| allowance(head, *names, now_s)).filter(|told| *told != Allowance::default());
        // Of two that are equally scarce, the one that lasts longer.
        told.min_by_key(|told| (told.remaining.unwrap_or(u64::MAX), Reverse(told.reset))).unwrap_or_default()
    };
    RateHint { requests: scarcest(&REQUESTS), tokens: scarcest(&TOKENS) }
}

fn allowance(head: &Head, (remaining, reset): Names, now_s: Option<f64>) -> Allowance {
    let remaining = head.header(remaining).and_then(moments::finite).filter(|left| *left >= 0.0);
    Allowance {
        remaining: remaining.map(|left| (left as u64).min(REMAINING_MAX)),
        reset: head.header(reset).and_then(|text| until(text, now_s)),
    }
}

/// How long it is until `text`, which may be a point or a length of time.
fn until(text: &str, now_s: Option<f64>) -> Option<Duration> {
    let point_s = moments::epoch_s(text).or_else(|| moments::rfc3339_s(text)).or_else(|| moments::http_date_s(text));
    let seconds = match point_s {
        Some(then_s) => (then_s - now_s?).max(0.0),
        None => moments::duration_ms(text).filter(|ms| *ms >= 0.0)? / 1_000.0,
    };
    Some(Duration::from_secs_f64(seconds.min(RESET_MAX.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-07-15 10:36:17 UTC.
    const NOW_S: u64 = 1_784_111_777;

    fn hint(headers: &[(&str, &str)]) -> RateHint {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        rate_headers(&Head { status: 200, headers }, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S))
    }

    fn allowance(remaining: impl Into<Option<u64>>, reset_ms: impl Into<Option<u64>>) -> Allowance {
        Allowance { remaining: remaining.into(), reset: reset_ms.into().map(Duration::from_millis) }
    }

    #[test]
    fn openai_tells_both_limits_with_lengths_of_time() {
        let hint = hint(&[
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-reset-requests", "12ms"),
            ("x-ratelimit-remaining-tokens", "29990"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);

        assert_eq!(hint, RateHint { requests: allowance(499, 12), tokens: allowance(29_990, 360_000) });
    }

    #[test]
    fn anthropic_tells_moments_and_the_scarcest_tokens_count() {
        let hint = hint(&[
            ("anthropic-ratelimit-requests-remaining", "3"),
            ("anthropic-ratelimit-requests-reset", "2026-07-15T10:36:27Z"),
            ("anthropic-ratelimit-tokens-remaining", "90000"),
            ("anthropic-ratelimit-tokens-reset", "2026-07-15T10:37:17Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "80000"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-07-15T10:36:20Z"),
            ("anthropic-ratelimit-output-tokens-remaining", "1000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-07-15T10:36:18Z"),
        ]);

        assert_eq!(hint, RateHint { requests: allowance(3, 10_000), tokens: allowance(1_000, 1_000) });
    }

    #[test]
    fn openrouter_tells_milliseconds_since_1970() {
        let hint = hint(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1784111779500")]);

        assert_eq!(hint, RateHint { requests: allowance(0, 2_500), tokens: Allowance::default() });
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        assert_eq!(hint(&[]), RateHint::default());
        assert_eq!(hint(&[("x-ratelimit-remaining-tokens", "7")]).tokens, allowance(7, None));
        assert_eq!(hint(&[("x-ratelimit-reset-requests", "1s")]).requests, allowance(None, 1_000));
    }

    #[test]
    fn every_form_of_time_is_read() {
        let cases = [
            ("1s", 1_000),
            ("0s", 0),
            ("2", 2_000),
            ("1784111780", 3_000),
            ("2026-07-15T10:36:18.25Z", 1_250),
            ("Wed, 15 Jul 2026 10:36:22 GMT", 5_000),
        ];
        for (text, expected_ms) in cases {
            assert_eq!(hint(&[("ratelimit-reset", text)]).requests, allowance(None, expected_ms), "{text}");
        }
    }

    #[test]
    fn points_of_time_are_measured_against_the_answers_own_date() {
        let date = ("date", "Wed, 15 Jul 2026 11:36:17 GMT");

        assert_eq!(hint(&[("ratelimit-reset", "2026-07-15T11:36:18Z"), date]).requests, allowance(None, 1_000));
        assert_eq!(hint(&[("ratelimit-reset", "2026-07-15T10:36:18Z"), date]).requests, allowance(None, 0));
    }

    #[test]
    fn garbage_is_nothing_and_the_absurd_is_capped() {
        for garbage in ["", "-1", "NaN", "inf", "many", "0x10", "1,000", "\u{fffd}"] {
            let names = ["x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
            assert_eq!(hint(&names.map(|name| (name, garbage))), RateHint::default(), "{garbage:?}");
        }
        let absurd = hint(&[("ratelimit-remaining", "1e300"), ("ratelimit-reset", "9999-12-31T23:59:59Z")]);
        assert_eq!(absurd.requests, Allowance { remaining: Some(REMAINING_MAX), reset: Some(RESET_MAX) });
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reading(remaining in "\\PC{0,24}", reset in "[-+.:0-9a-zTZµ ]{0,24}") {
            let hint = hint(&[("ratelimit-remaining", &remaining), ("ratelimit-reset", &reset)]);

            prop_assert!(hint.requests.remaining.is_none_or(|left| left <= REMAINING_MAX));
            prop_assert!(hint.requests.reset.is_none_or(|reset| reset <= RESET_MAX));
        }
    }
}
