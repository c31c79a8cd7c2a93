//! Audience: the places of those who listen to one answer at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::failure::{Code, Failure};

/// When somebody who found no place is to try again.
const RETRY_AFTER_MS: u64 = 1_000;

/// See the module.
#[derive(Debug)]
pub struct Audience {
    seats_max: usize,
    taken: AtomicUsize,
}

/// As many listen as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl From<Full> for Failure {
    fn from(_: Full) -> Self {
        let message = "as many listen to this answer as may at once (stream.listeners_max)";
        Failure::new(Code::Overloaded, message).retry_after_ms(RETRY_AFTER_MS)
    }
}

impl Audience {
    /// Nobody listens yet.
    pub fn new(seats_max: usize) -> Arc<Self> {
        Arc::new(Self { seats_max, taken: AtomicUsize::new(0) })
    }

    /// Takes a place, if there is one.
    pub fn take(self: &Arc<Self>) -> Result<Seat, Full> {
        let one_more = |taken| (taken < self.seats_max).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Seat(self.clone())),
            Err(_) => Err(Full),
        }
    }
}

/// One listener's place. Dropping it gives it back.
#[derive(Debug)]
pub struct Seat(Arc<Audience>);

impl Seat {
    /// Where it is.
    pub fn audience(&self) -> &Arc<Audience> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_there_may_be_and_each_one_comes_back() {
        let audience = Audience::new(2);
        let (first, second) = (audience.take().unwrap(), audience.take().unwrap());
        assert_eq!(audience.take().err(), Some(Full));

        drop(first);

        let third = audience.take().unwrap();
        assert_eq!(audience.take().err(), Some(Full));
        drop((second, third));
        assert_eq!(audience.taken.load(Ordering::Relaxed), 0);
    }
}
