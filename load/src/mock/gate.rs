//! Gate: where answers wait until a test lets them go on, so that no test has to be faster than an answer.

use tokio::sync::Semaphore;

use super::counters::Counters;

/// Counts how often it was opened: each time lets one answer pass.
#[derive(Debug)]
pub(super) struct Gate(Semaphore);

impl Gate {
    /// A gate that has not been opened yet.
    pub(super) fn new() -> Self {
        Self(Semaphore::new(0))
    }

    /// Lets so many answers pass: those that have waited longest, or the next ones that come.
    pub(super) fn open(&self, count: usize) {
        self.0.add_permits(count.min(Semaphore::MAX_PERMITS - self.0.available_permits()));
    }

    /// Forgets how often it was opened for answers that have not come.
    pub(super) fn reset(&self) {
        self.0.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Waits until it is opened. Whoever waits is counted.
    pub(super) async fn pass(&self, counters: &Counters) {
        let _held = Held::count(counters);
        let permit = self.0.acquire().await.expect("the semaphore is never closed");
        permit.forget();
    }
}

/// An answer at the gate.
struct Held<'c>(&'c Counters);

impl<'c> Held<'c> {
    fn count(counters: &'c Counters) -> Self {
        counters.count(|counts| counts.answers_held += 1);
        Self(counters)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.count(|counts| counts.answers_held -= 1);
    }
}
