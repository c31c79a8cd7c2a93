//! Rate: the limit that the mock enforces like a provider, to catch a caller that is too fast.

use std::time::Duration;

use tokio::time::Instant;

/// Calls may arrive this much early: a caller that keeps the rate cannot be blamed for the jitter of its timers.
const SLACK: Duration = Duration::from_millis(10);

/// How fast the mock may be called.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Calls a second.
    pub rps: f64,
    /// Calls that may come at once after a pause.
    pub burst: u32,
}

/// Decides call by call.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// When the calls so far would have been made at an even rate.
    even: Option<Instant>,
}

impl Meter {
    /// Whether a call may be made now; if not, how long it should wait.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let gap = Duration::from_secs_f64(1.0 / rate.rps);
        let even = self.even.map_or(now, |even| even.max(now));
        let ahead = even - now;
        let allowed = gap * rate.burst.saturating_sub(1) + SLACK;
        if ahead > allowed {
            return Err(ahead - allowed);
        }
        self.even = Some(even + gap);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let (rate, start) = (Rate { rps: 10.0, burst: 3 }, Instant::now());
        let mut meter = Meter::default();
        let mut passes = |at_ms| meter.take(rate, start + Duration::from_millis(at_ms)).is_ok();

        assert_eq!([0, 0, 0, 0].map(&mut passes), [true, true, true, false]);
        assert_eq!([80, 95, 95, 190].map(&mut passes), [false, true, false, true]);
        assert_eq!([1000, 1000, 1000, 1000].map(&mut passes), [true, true, true, false]);
    }

    #[test]
    fn who_is_refused_learns_when_to_come_back() {
        let (rate, start) = (Rate { rps: 1.0, burst: 1 }, Instant::now());
        let mut meter = Meter::default();
        meter.take(rate, start).unwrap();

        let wait = meter.take(rate, start).unwrap_err();

        assert!(meter.take(rate, start + wait).is_ok());
    }
}
