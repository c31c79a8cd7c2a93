//! Places: how many connections there may be at once. Beyond them a few more are let in, so that health checks are
//! answered and others are told to come back, instead of waiting without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All that are let in beyond the last place, at most. On the first half of them health checks are answered, the others
/// are refused at once. Whoever comes then waits until the system's queue moves on.
pub(in crate::http) const BEYOND_MAX: usize = 128;

/// The places of one address, over all threads.
#[derive(Debug)]
pub(in crate::http) struct Places {
    taken: AtomicUsize,
    max: usize,
    extra_max: usize,
}

/// What a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Kind {
    /// What it asks for.
    Regular,
    /// The answer to a health check, or else a refusal.
    Extra,
    /// A refusal.
    Refused,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(in crate::http) struct Place {
    pub(in crate::http) kind: Kind,
    places: Arc<Places>,
}

impl Places {
    /// `max` places, and `beyond` for those who come afterwards.
    pub(in crate::http) fn new(max: usize, beyond: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max, extra_max: beyond.div_ceil(2) })
    }

    /// Takes one, whatever its kind: how many connections are accepted at all is bounded elsewhere.
    pub(in crate::http) fn take(self: &Arc<Self>) -> Place {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let kind = match before.checked_sub(self.max) {
            None => Kind::Regular,
            Some(beyond) if beyond < self.extra_max => Kind::Extra,
            Some(_) => Kind::Refused,
        };
        Place { kind, places: self.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_the_last_place_is_told_so_until_one_is_given_back() {
        let places = Places::new(2, 9);
        let mut taken: Vec<_> = (0..2 + 9).map(|_| places.take()).collect();

        let count = |kind| taken.iter().filter(|place| place.kind == kind).count();
        assert_eq!((count(Kind::Regular), count(Kind::Extra), count(Kind::Refused)), (2, 5, 4));
        taken.truncate(1);
        assert_eq!(places.take().kind, Kind::Regular);
    }
}
