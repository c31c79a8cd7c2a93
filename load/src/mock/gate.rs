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

    /// Lets the answer pass that has waited longest, or the next one that comes.
    pub(super) fn open(&self) {
        self.0.add_permits(1);
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
