//! Headroom: makes what is left of a provider's limit last until the limit is restored. Pure: time is an argument.
//!
//! Providers tell with their answers how many calls and tokens are left, and in how long all of them will be there
//! again. That is no concern while the configured rate would not use the rest up within [`NEAR`]. Then the rest is
//! spread over the time that it has to last, so that the limit is met by a rate and not by refusals. The newest answer
//! counts: whatever the provider makes of its limit, the next answer says how it went.

use std::time::Duration;

use tokio::time::Instant;

use super::adapt::FLOOR;
use crate::providers::{Allowance, RateHint};

/// What lasts this long at the configured rate is not scarce.
const NEAR: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    spread: Option<Spread>,
}

/// A rest and how long it has to last, as a rate.
#[derive(Debug, Clone, Copy)]
struct Spread {
    rps: f64,
    until: Instant,
}

impl Headroom {
    /// The most that `rate` may be.
    pub(super) fn cap(&self, rate: f64, configured: f64) -> f64 {
        self.spread.map_or(rate, |spread| rate.min(spread.rps.max(configured * FLOOR)))
    }

    /// When the limit will be restored; `None`: nothing is scarce.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.spread.map(|spread| spread.until)
    }

    /// The limit is restored.
    pub(super) fn clear(&mut self) {
        self.spread = None;
    }

    /// The provider has told what is left. A call costs `cost_mean` tokens, as far as is known.
    pub(super) fn told(&mut self, hint: &RateHint, cost_mean: Option<f64>, configured: f64, now: Instant) {
        if hint.requests.remaining.is_none() && hint.tokens.remaining.is_none() {
            return;
        }
        let calls = spread(hint.requests, 1.0, configured, now);
        let tokens = cost_mean.and_then(|cost| spread(hint.tokens, cost.max(1.0), configured, now));
        self.spread = calls.into_iter().chain(tokens).min_by(|a, b| a.rps.total_cmp(&b.rps));
    }
}

/// The rate at which what is left lasts, when a call takes `cost` of it; `None` when it is not scarce.
fn spread(left: Allowance, cost: f64, configured: f64, now: Instant) -> Option<Spread> {
    let (calls, reset) = (left.remaining? as f64 / cost, left.reset?);
    let is_scarce = calls < configured * NEAR.as_secs_f64() && calls < configured * reset.as_secs_f64();
    is_scarce.then(|| Spread { rps: calls / reset.as_secs_f64(), until: now + reset })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn left(remaining: u64, reset: Duration) -> Allowance {
        Allowance { remaining: Some(remaining), reset: Some(reset) }
    }

    /// The rate after an answer that says this, at 8 calls a second of 100 tokens each.
    fn rate(requests: Allowance, tokens: Allowance) -> f64 {
        let mut headroom = Headroom::default();
        headroom.told(&RateHint { requests, tokens }, Some(100.0), 8.0, Instant::now());
        headroom.cap(8.0, 8.0)
    }

    #[test]
    fn what_is_scarce_is_spread_over_the_time_that_it_has_to_last() {
        let plenty = Allowance::default();
        assert_eq!(rate(left(120, 60 * SECOND), plenty), 2.0);
        assert_eq!(rate(plenty, left(12_000, 60 * SECOND)), 2.0, "120 calls");
        assert_eq!(rate(left(120, 60 * SECOND), left(6_000, 60 * SECOND)), 1.0, "the scarcer one counts");
        assert_eq!(rate(left(0, 60 * SECOND), plenty), 0.5, "never below the floor");
    }

    #[test]
    fn what_lasts_changes_nothing() {
        let plenty = Allowance::default();
        assert_eq!(rate(left(240, 60 * SECOND), plenty), 8.0, "half a minute at this rate");
        assert_eq!(rate(left(100, 10 * SECOND), plenty), 8.0, "more than can be used until then");
        assert_eq!(rate(left(0, Duration::ZERO), plenty), 8.0, "it is restored already");
        assert_eq!(rate(plenty, plenty), 8.0);
        assert_eq!(rate(Allowance { remaining: Some(0), reset: None }, plenty), 8.0);
        assert_eq!(rate(Allowance { remaining: None, reset: Some(SECOND) }, plenty), 8.0);
    }

    #[test]
    fn the_newest_answer_that_says_something_counts() {
        let (mut headroom, now) = (Headroom::default(), Instant::now());
        let scarce = RateHint { requests: left(60, 60 * SECOND), ..RateHint::default() };
        headroom.told(&scarce, None, 8.0, now);
        headroom.told(&RateHint::default(), None, 8.0, now);
        assert_eq!((headroom.cap(8.0, 8.0), headroom.ends()), (1.0, Some(now + 60 * SECOND)));
        assert_eq!(headroom.cap(0.6, 8.0), 0.6, "a rate that is slower anyway stays");

        let restored = RateHint { requests: left(500, 60 * SECOND), ..RateHint::default() };
        headroom.told(&restored, None, 8.0, now);

        assert_eq!((headroom.cap(8.0, 8.0), headroom.ends()), (8.0, None));
    }

    #[test]
    fn tokens_say_nothing_as_long_as_nobody_knows_what_a_call_costs() {
        let (mut headroom, now) = (Headroom::default(), Instant::now());

        headroom.told(&RateHint { tokens: left(1, 60 * SECOND), ..RateHint::default() }, None, 8.0, now);

        assert_eq!(headroom.cap(8.0, 8.0), 8.0);
    }
}
