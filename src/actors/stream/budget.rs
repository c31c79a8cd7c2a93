//! The budget of retries of one provider: a provider that fails everybody is not called three times by everybody.
//! Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Calls and retries are counted over this time.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries within a window that are free, so that a quiet provider's failures are repeated.
const FREE: u32 = 10;
/// For so many calls there is one retry more.
const CALLS_PER_RETRY: u32 = 5;

/// See the module.
#[derive(Debug)]
pub struct RetryBudget {
    since: Instant,
    calls: u32,
    retries: u32,
    /// Calls of the window before, so that a new one does not begin with nothing.
    calls_before: u32,
}

impl RetryBudget {
    /// Nothing has been called yet.
    pub fn new(now: Instant) -> Self {
        Self { since: now, calls: 0, retries: 0, calls_before: 0 }
    }

    /// Counts a call that is no retry.
    pub fn called(&mut self, now: Instant) {
        self.turn(now);
        self.calls = self.calls.saturating_add(1);
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.turn(now);
        let is_left = self.retries < FREE + self.calls.max(self.calls_before) / CALLS_PER_RETRY;
        self.retries += u32::from(is_left);
        is_left
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let calls_before = if passed < 2 * WINDOW { self.calls } else { 0 };
            *self = Self { calls_before, ..Self::new(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..1_000).filter(|_| budget.take(now)).count()
    }

    #[test]
    fn there_is_one_retry_for_five_calls_and_a_few_for_free() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (0..100).for_each(|_| budget.called(now));

        assert_eq!(retries(&mut budget, now), 30);
    }

    #[test]
    fn a_new_window_knows_the_calls_of_the_one_before_and_of_no_older_one() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        (0..100).for_each(|_| budget.called(start));
        assert_eq!(retries(&mut budget, start), 30);

        assert_eq!(retries(&mut budget, start + WINDOW), 30);
        assert_eq!(retries(&mut budget, start + 3 * WINDOW), 10);
    }
}
