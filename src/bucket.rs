//! Bucket: what may be spent at once, and what flows in meanwhile. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    level: f64,
    filled: Instant,
}

impl Bucket {
    /// A bucket with `level` in it.
    pub fn new(level: f64, now: Instant) -> Self {
        Self { level, filled: now }
    }

    /// What is in it; below zero, what is owed.
    pub fn level(&self) -> f64 {
        self.level
    }

    /// Lets `rate` a second flow in up to now; more than `max` flows over.
    pub fn fill(&mut self, rate: f64, max: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + elapsed * rate).min(max);
        self.filled = self.filled.max(now);
    }

    /// Takes `amount` out, or puts it back when it is below zero; more than `max` flows over.
    pub fn take(&mut self, amount: f64, max: f64) {
        self.level = (self.level - amount).min(max);
    }

    /// Nothing is left; what is owed stays owed.
    pub fn empty(&mut self) {
        self.level = self.level.min(0.0);
    }

    /// Until `amount` is there. Rounded up, so that it is there by then.
    pub fn wait_for(&self, amount: f64, rate: f64) -> Duration {
        let missing = amount - self.level;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        let rounded = Duration::try_from_secs_f64(missing / rate).unwrap_or(Duration::MAX);
        rounded.saturating_add(Duration::from_nanos(1))
    }
}
