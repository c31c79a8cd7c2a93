//! Clock: one that all processes of a machine agree on, so that what one has written another can tell the age of.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment before the machine's start.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default() * 1_000_000_000 + nanoseconds.unwrap_or_default()
}

/// The mark in a text after which such a time stands, in decimal digits.
pub const STAMP: char = '@';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let first = now_ns();
        assert!(first > 0 && now_ns() >= first);
    }
}
