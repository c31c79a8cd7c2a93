//! Breaker: leaves a provider alone that fails again and again, and tries from time to time whether it is back. Pure:
//! time and chance are arguments.
//!
//! ```text
//!          `failures` failures in a row                    the time is over, one caller asks
//! Closed ───────────────────────────────▶ Open ─────────────────────────────▶ HalfOpen (one probe is out)
//!    ▲                                     ▲ twice as long as before   it fails │ │ it gets an answer
//!    │                                     └───────────────────────────────────┘ │
//!    └────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A probe that comes to nothing, because its caller leaves, makes room for the next one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::config;

/// What callers are told while somebody else finds out whether the provider is back.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; 0: never.
    pub failures: u32,
    /// How long it stays open at first; it doubles with each probe that fails.
    pub open: Duration,
    /// The longest that it stays open.
    pub open_max: Duration,
}

impl BreakerSettings {
    /// As the provider is configured.
    pub fn of(provider: &config::Provider) -> Self {
        let config::Provider { breaker_failures, breaker_open_ms, breaker_open_max_ms, .. } = *provider;
        let open = Duration::from_millis(breaker_open_ms);
        Self { failures: breaker_failures, open, open_max: open.max(Duration::from_millis(breaker_open_max_ms)) }
    }
}

/// The state as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// One call finds out whether the provider is back, or may.
    HalfOpen,
}

/// Held by the call that finds out; there is at most one.
#[derive(Debug)]
pub(super) struct Probe {
    _held: Arc<()>,
}

/// The answer to a caller.
#[derive(Debug)]
pub(super) enum Pass {
    /// Like any other time.
    Free,
    /// As the one that finds out.
    Probing(Probe),
    /// Come back later.
    Refused(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed {
        /// Failures in a row.
        failures: u32,
        /// Calls from before this say nothing: they are from before the provider came back.
        since: Option<Instant>,
    },
    Open {
        until: Instant,
        /// How long it is open this time, without chance.
        length: Duration,
        probe: Weak<()>,
    },
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed { failures: 0, since: None } }
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until, .. } if now < until => BreakerState::Open,
            State::Open { .. } => BreakerState::HalfOpen,
        }
    }

    /// For how long it is open still.
    pub(super) fn open_for(&self, now: Instant) -> Duration {
        match self.state {
            State::Closed { .. } => Duration::ZERO,
            State::Open { until, .. } => until.saturating_duration_since(now),
        }
    }

    /// Lets a caller through, or not.
    pub(super) fn pass(&mut self, now: Instant) -> Pass {
        match &mut self.state {
            State::Closed { .. } => Pass::Free,
            State::Open { until, .. } if now < *until => Pass::Refused(*until - now),
            State::Open { probe, .. } if probe.strong_count() > 0 => Pass::Refused(PROBE_WAIT),
            State::Open { probe, .. } => {
                let held = Arc::new(());
                *probe = Arc::downgrade(&held);
                Pass::Probing(Probe { _held: held })
            }
        }
    }

    /// A call has failed through the provider's fault. Says whether this has opened the breaker. `chance`, 0 to 1, makes
    /// the time up to a quarter longer, so that many servers do not come back at once.
    pub(super) fn failed(&mut self, granted: Instant, probe: Option<&Probe>, now: Instant, chance: f64) -> bool {
        let length = match &mut self.state {
            State::Closed { failures, since } if since.is_none_or(|since| granted >= since) => {
                *failures = failures.saturating_add(1);
                if self.settings.failures == 0 || *failures < self.settings.failures {
                    return false;
                }
                self.settings.open
            }
            State::Open { length, .. } if probe.is_some() => length.saturating_mul(2).min(self.settings.open_max),
            State::Closed { .. } | State::Open { .. } => return false,
        };
        let until = now + length + length.mul_f64(0.25 * chance.clamp(0.0, 1.0));
        self.state = State::Open { until, length, probe: Weak::new() };
        true
    }

    /// A call has got its answer.
    pub(super) fn succeeded(&mut self, probe: Option<&Probe>, now: Instant) {
        match &mut self.state {
            State::Closed { failures, .. } => *failures = 0,
            State::Open { .. } => self.answered(probe, now),
        }
    }

    /// The provider has answered a call, be it with a refusal: it is there.
    pub(super) fn answered(&mut self, probe: Option<&Probe>, now: Instant) {
        if let (State::Open { .. }, Some(_)) = (&self.state, probe) {
            self.state = State::Closed { failures: 0, since: Some(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, open: Duration::from_secs(5), open_max: Duration::from_secs(15) };

    fn fail(breaker: &mut Breaker, times: u32, now: Instant) -> bool {
        (0..times).map(|_| breaker.failed(now, None, now, 0.0)).last().unwrap()
    }

    fn probe(breaker: &mut Breaker, now: Instant) -> Probe {
        match breaker.pass(now) {
            Pass::Probing(probe) => probe,
            other => panic!("no probe: {other:?}"),
        }
    }

    fn refused(breaker: &mut Breaker, now: Instant) -> Duration {
        match breaker.pass(now) {
            Pass::Refused(wait) => wait,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let (mut breaker, now) = (Breaker::new(SETTINGS), Instant::now());
        assert!(!fail(&mut breaker, 2, now));
        breaker.succeeded(None, now);
        assert!(!fail(&mut breaker, 2, now));
        assert!(matches!(breaker.pass(now), Pass::Free));

        assert!(fail(&mut breaker, 1, now));

        assert_eq!((breaker.state(now), refused(&mut breaker, now + SECOND)), (BreakerState::Open, 4 * SECOND));
    }

    #[test]
    fn one_probe_is_let_through_and_its_success_closes_it() {
        let (mut breaker, start) = (Breaker::new(SETTINGS), Instant::now());
        fail(&mut breaker, 3, start);
        let later = start + 5 * SECOND;
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        let probe = probe(&mut breaker, later);
        assert_eq!(refused(&mut breaker, later), PROBE_WAIT);

        breaker.succeeded(None, later);
        assert_eq!(breaker.state(later), BreakerState::HalfOpen, "an older call says nothing");
        breaker.answered(Some(&probe), later);

        assert_eq!(breaker.state(later), BreakerState::Closed);
        assert!((0..9).all(|_| !breaker.failed(start, None, later, 0.0)), "nor do failures from before");
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_its_limit() {
        let (mut breaker, mut now) = (Breaker::new(SETTINGS), Instant::now());
        fail(&mut breaker, 3, now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let wait = refused(&mut breaker, now);
            waits.push(wait.as_secs());
            now += wait;
            let probe = probe(&mut breaker, now);
            assert!(breaker.failed(now, Some(&probe), now, 0.0));
        }
        assert_eq!(waits, [5, 10, 15, 15]);
    }

    #[test]
    fn a_probe_that_comes_to_nothing_makes_room_for_the_next() {
        let (mut breaker, start) = (Breaker::new(SETTINGS), Instant::now());
        fail(&mut breaker, 3, start);
        let later = start + 5 * SECOND;

        drop(probe(&mut breaker, later));

        let _next = probe(&mut breaker, later);
    }

    #[test]
    fn chance_makes_the_time_longer_by_a_quarter_at_most() {
        for (chance, expected) in [(0.0, 5.0), (0.5, 5.625), (1.0, 6.25), (7.0, 6.25)] {
            let (mut breaker, now) = (Breaker::new(SETTINGS), Instant::now());
            assert!((0..3).any(|_| breaker.failed(now, None, now, chance)));
            assert_eq!(refused(&mut breaker, now).as_secs_f64(), expected);
        }
    }

    #[test]
    fn without_a_number_of_failures_it_never_opens() {
        let (mut breaker, now) = (Breaker::new(BreakerSettings { failures: 0, ..SETTINGS }), Instant::now());

        assert!(!fail(&mut breaker, 1_000, now));

        assert!(matches!(breaker.pass(now), Pass::Free));
    }
}
