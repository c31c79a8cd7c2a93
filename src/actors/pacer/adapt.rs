//! The rate that a provider bears, as far as it has shown. Pure: time is an argument.
//!
//! A refusal for the rate (429) halves the rate at once. What follows has the shape of TCP's CUBIC: the rate comes back
//! quickly to just below where it was refused, stays about there, and goes beyond it in steps that grow as long as the
//! provider accepts them, up to the configured rate. So a limit that is really there costs a refusal about twice a
//! minute, and one that has gone is forgotten within minutes.
//!
//! ```text
//! rate  ─┐ 429                                      .·  to the configured rate
//!        │              plateau  _____________....··
//!        │         .··¯¯
//!        └──pause─·  half, or the floor
//! ```
//! Only calls that are accepted move the rate on: a provider that is not called has shown nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The part of the configured rate below which nothing takes it.
pub(super) const FLOOR: f64 = 1.0 / 16.0;
/// Where the rate stays for a while, as a part of what was refused.
const PLATEAU: f64 = 0.95;
/// Until the plateau, counted in time with accepted calls.
const RETURN: Duration = Duration::from_secs(4);
/// This long after the plateau has been reached, the rate has gone 5 % beyond it.
const PROBE: Duration = Duration::from_secs(30);
/// See [`PROBE`].
const PROBE_STEP: f64 = 0.05;
/// What one accepted call moves the rate on, at most.
const STEP_MAX: Duration = Duration::from_secs(5);
/// The pause after a refusal that asks for none; it doubles as long as nothing is accepted.
const PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer than this, whatever a provider asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Adapt {
    cut: Option<Cut>,
    /// Refusals since a call was last accepted.
    streak: u32,
    paused_until: Option<Instant>,
}

/// The last time that the rate was halved, and what has happened since.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: Instant,
    /// The rate right after it.
    low: f64,
    /// The rate to come back to.
    plateau: f64,
    /// How long calls have been accepted since.
    regained: Duration,
    /// Up to when that has been counted.
    counted: Instant,
}

impl Cut {
    fn rate(&self) -> f64 {
        let regained = self.regained.as_secs_f64();
        let from_plateau = regained - RETURN.as_secs_f64();
        if from_plateau < 0.0 {
            let missing = -from_plateau / RETURN.as_secs_f64();
            return self.plateau - (self.plateau - self.low) * missing.powi(3);
        }
        self.plateau * (1.0 + PROBE_STEP * (from_plateau / PROBE.as_secs_f64()).powi(3))
    }
}

impl Adapt {
    /// The rate to apply, calls per second.
    pub(super) fn rate(&self, configured: f64) -> f64 {
        self.cut.map_or(configured, |cut| cut.rate().clamp(configured * FLOOR, configured))
    }

    /// Whether the rate is below the configured one.
    pub(super) fn is_reduced(&self) -> bool {
        self.cut.is_some()
    }

    /// No call may start before this.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// The provider has refused a call, granted at `granted`, because there were too many. Calls that were under way
    /// when the rate was cut say nothing new about it.
    pub(super) fn throttled(&mut self, granted: Instant, retry_after: Option<Duration>, configured: f64, now: Instant) {
        let is_echo = self.cut.is_some_and(|cut| granted < cut.at);
        let pause = retry_after.unwrap_or_else(|| PAUSE.saturating_mul(2_u32.saturating_pow(self.streak)));
        let until = now + pause.min(PAUSE_MAX);
        self.paused_until = self.paused_until.max(Some(until));
        if is_echo {
            return;
        }
        self.streak += 1;
        let rate = self.rate(configured);
        let low = (rate / 2.0).max(configured * FLOOR);
        let plateau = (rate * PLATEAU).max(low);
        self.cut = Some(Cut { at: now, low, plateau, regained: Duration::ZERO, counted: until });
    }

    /// The provider has accepted a call that was granted at `granted`.
    pub(super) fn accepted(&mut self, granted: Instant, configured: f64, now: Instant) {
        let Some(cut) = self.cut.as_mut().filter(|cut| granted >= cut.at) else { return };
        self.streak = 0;
        cut.regained += now.saturating_duration_since(cut.counted).min(STEP_MAX);
        cut.counted = cut.counted.max(now);
        if cut.rate() >= configured {
            self.cut = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Accepts a call every second.
    fn accept(adapt: &mut Adapt, configured: f64, seconds: u32, now: &mut Instant) {
        for _ in 0..seconds {
            *now += SECOND;
            adapt.accepted(*now, configured, *now);
        }
    }

    #[test]
    fn a_refusal_halves_the_rate_at_once_and_never_below_the_floor() {
        let (mut adapt, mut now) = (Adapt::default(), Instant::now());
        let mut rates = Vec::new();
        for _ in 0..6 {
            adapt.throttled(now, Some(SECOND), 16.0, now);
            rates.push(adapt.rate(16.0));
            now += SECOND;
        }
        assert_eq!(rates, [8.0, 4.0, 2.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn refusals_of_calls_that_were_under_way_count_once() {
        let (mut adapt, granted) = (Adapt::default(), Instant::now());
        let now = granted + SECOND;

        (0..10).for_each(|_| adapt.throttled(granted, Some(SECOND), 16.0, now));

        assert_eq!(adapt.rate(16.0), 8.0);
        adapt.throttled(granted, Some(3 * SECOND), 16.0, now);
        assert_eq!(adapt.paused_until(now), Some(now + 3 * SECOND), "but the longest pause holds");
    }

    #[test]
    fn accepted_calls_bring_the_rate_back_step_by_step() {
        let (mut adapt, mut now) = (Adapt::default(), Instant::now());
        adapt.throttled(now, None, 10.0, now);
        let mut last = adapt.rate(10.0);

        accept(&mut adapt, 10.0, 5, &mut now);
        assert!((9.4..9.6).contains(&adapt.rate(10.0)), "{}", adapt.rate(10.0));
        for _ in 0..60 {
            accept(&mut adapt, 10.0, 1, &mut now);
            assert!(adapt.rate(10.0) >= last, "it never falls by itself");
            last = adapt.rate(10.0);
        }
        assert_eq!((last, adapt.is_reduced()), (10.0, false));
    }

    #[test]
    fn neither_time_alone_nor_a_call_from_before_moves_the_rate() {
        let (mut adapt, start) = (Adapt::default(), Instant::now());
        adapt.throttled(start, None, 10.0, start);

        let later = start + 3_600 * SECOND;
        adapt.accepted(start - SECOND, 10.0, later);

        assert_eq!(adapt.rate(10.0), 5.0);
        adapt.accepted(later, 10.0, later);
        assert!(adapt.rate(10.0) < 10.0, "one call is no proof");
    }

    #[test]
    fn a_refusal_that_names_no_pause_has_a_growing_one_and_none_is_endless() {
        let (mut adapt, mut now) = (Adapt::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            adapt.throttled(now, None, 1.0, now);
            let until = adapt.paused_until(now).unwrap();
            pauses.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        adapt.throttled(now, Some(Duration::from_secs(86_400)), 1.0, now);
        assert_eq!(adapt.paused_until(now), Some(now + 60 * SECOND));
    }
}
