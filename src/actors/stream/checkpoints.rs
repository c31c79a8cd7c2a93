//! Checkpoints: when a growing answer is saved. Those of all answers fall together, a few times in each interval, so that
//! the store writes many in one commit.

use std::time::Duration;

use tokio::time::Instant;

/// A checkpoint writes the whole text, so it waits one interval longer for each such part: what is written in a second
/// has a bound, however long the answer grows.
const BYTES: usize = 64 * 1024;
/// So many times in each interval answers are saved.
const BEATS: u32 = 4;

/// When answers are saved.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoints {
    interval: Duration,
    /// The times are counted from here.
    since: Instant,
}

impl Checkpoints {
    /// An answer is saved at the latest this long after it has grown.
    pub fn every(interval: Duration) -> Self {
        Self { interval, since: Instant::now() }
    }

    /// When an answer of `bytes` is to be saved that has grown at `grown`: the last beat of its interval.
    pub(super) fn due(&self, grown: Instant, bytes: usize) -> Instant {
        let intervals = u32::try_from(bytes / BYTES).unwrap_or(u32::MAX).saturating_add(1);
        let latest = grown + self.interval.saturating_mul(intervals);
        let beat = self.interval / BEATS;
        let past_beat = latest.saturating_duration_since(self.since).as_nanos() % beat.as_nanos().max(1);
        latest - Duration::from_nanos(u64::try_from(past_beat).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn answers_that_grow_at_different_times_are_saved_together_and_none_later_than_promised() {
        let checkpoints = Checkpoints::every(1_000 * MS);
        let due = |grown_ms| checkpoints.due(checkpoints.since + grown_ms * MS, 0) - checkpoints.since;

        assert_eq!([0, 1, 249].map(due), [1_000 * MS; 3]);
        assert_eq!([250, 499].map(due), [1_250 * MS; 2]);
    }

    #[test]
    fn a_long_answer_is_saved_less_often() {
        let checkpoints = Checkpoints::every(1_000 * MS);
        let due = |bytes| checkpoints.due(checkpoints.since, bytes) - checkpoints.since;

        assert_eq!([BYTES - 1, BYTES, 9 * BYTES].map(due), [1_000 * MS, 2_000 * MS, 10_000 * MS]);
    }

    #[test]
    fn the_shortest_interval_is_kept_too() {
        let checkpoints = Checkpoints::every(Duration::from_nanos(1));
        assert_eq!(checkpoints.due(checkpoints.since, 0), checkpoints.since + Duration::from_nanos(1));
    }
}
