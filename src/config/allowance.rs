//! Allowance: how much one client may ask for.

use std::ops::RangeInclusive;

use serde::Serialize;
use utoipa::ToSchema;

use super::tables::check_range;

const REQUESTS_PER_MIN: RangeInclusive<u32> = 0..=1_000_000;
const STREAMS_MAX: RangeInclusive<u32> = 0..=1_000_000;
const TOKENS_PER_DAY: RangeInclusive<u64> = 0..=1_000_000_000_000;

/// How much one client may ask for. 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Allowance {
    /// Requests for an answer, a minute; after a pause as many at once.
    pub requests_per_min: u32,
    /// Requests whose answer runs at once.
    pub streams_max: u32,
    /// Tokens of questions and answers, from midnight to midnight in UTC.
    pub tokens_per_day: u64,
}

/// What the table of one key says of its allowance. What it leaves out is as in `[auth]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnAllowance {
    /// See [`Allowance::requests_per_min`].
    pub requests_per_min: Option<u32>,
    /// See [`Allowance::streams_max`].
    pub streams_max: Option<u32>,
    /// See [`Allowance::tokens_per_day`].
    pub tokens_per_day: Option<u64>,
}

impl OwnAllowance {
    /// This one in the place of `usual`.
    pub(super) fn over(self, usual: Allowance) -> Allowance {
        Allowance {
            requests_per_min: self.requests_per_min.unwrap_or(usual.requests_per_min),
            streams_max: self.streams_max.unwrap_or(usual.streams_max),
            tokens_per_day: self.tokens_per_day.unwrap_or(usual.tokens_per_day),
        }
    }

    /// Tells `wrong` what is out of its range.
    pub(super) fn check(self, wrong: &mut dyn FnMut(&'static str, String)) {
        check_range("requests_per_min", &REQUESTS_PER_MIN, self.requests_per_min, wrong);
        check_range("streams_max", &STREAMS_MAX, self.streams_max, wrong);
        check_range("tokens_per_day", &TOKENS_PER_DAY, self.tokens_per_day, wrong);
    }
}

impl Allowance {
    /// The keys in which it is another one than `other`.
    pub(super) fn differences(self, other: Self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("requests_per_min", self.requests_per_min != other.requests_per_min),
            ("streams_max", self.streams_max != other.streams_max),
            ("tokens_per_day", self.tokens_per_day != other.tokens_per_day),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key)
    }
}
