//! Counts: what one account has used. Pure: time is an argument.

use tokio::time::Instant;

use super::Limit;
use crate::bucket::Bucket;
use crate::config::Allowance;

const DAY_MS: u64 = 86_400_000;
/// When it is worth while to ask for a place again: nobody knows when one comes back.
const PLACE_WAIT_MS: u64 = 1_000;

/// A moment, by both clocks: what is allowed in a minute flows by the one, days pass by the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the clock that only moves forward.
    pub(super) instant: Instant,
    /// Milliseconds since 1970.
    pub(super) unix_ms: u64,
}

/// See the module. The default is an account that has used nothing.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests whose answer runs.
    pub streams: u32,
    /// What the answers that have ended today have cost, in tokens.
    pub tokens_today: u64,
    /// Requests that were refused since the account began, in the order of [`Limit::ALL`].
    pub refused: [u64; Limit::ALL.len()],
    /// The requests that are left of this minute's; `None`: there was no limit so far.
    requests: Option<Bucket>,
    /// The day of `tokens_today`, counted from 1970, in UTC.
    day: u64,
}

impl Counts {
    /// Takes one of the requests that `per_min` allows, 0: any. Or says how many milliseconds it is until there is one.
    pub(super) fn take_request(&mut self, per_min: u32, moment: Moment) -> Result<(), u64> {
        if per_min == 0 {
            // Should there be a limit later, it begins with a whole minute's requests.
            self.requests = None;
            return Ok(());
        }
        let (max, per_s) = (f64::from(per_min), f64::from(per_min) / 60.0);
        let bucket = self.requests.get_or_insert_with(|| Bucket::new(max, moment.instant));
        bucket.fill(per_s, max, moment.instant);
        // Rounding alone refuses nobody: for the nanosecond that a wait is rounded up by, nobody has to wait.
        if bucket.level() + 1e-9 * max < 1.0 {
            let wait_ns = bucket.wait_for(1.0, per_s).as_nanos().saturating_sub(1);
            return Err(u64::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(u64::MAX));
        }
        bucket.take(1.0, max);
        Ok(())
    }

    /// Takes a place for a request. Or says what is used up, and how many milliseconds it is until it is worth while to
    /// ask again.
    pub(super) fn take_stream(&mut self, allowance: Allowance, moment: Moment) -> Result<(), (Limit, u64)> {
        self.turn_to(moment);
        let is_used_up = |used: u64, max: u64| max > 0 && used >= max;
        if is_used_up(self.tokens_today, allowance.tokens_per_day) {
            return Err((Limit::Tokens, DAY_MS - moment.unix_ms % DAY_MS));
        }
        if is_used_up(self.streams.into(), allowance.streams_max.into()) {
            return Err((Limit::Streams, PLACE_WAIT_MS));
        }
        self.streams += 1;
        Ok(())
    }

    /// A place comes back.
    pub(super) fn give_stream_back(&mut self) {
        debug_assert!(self.streams > 0, "only places that were taken come back");
        self.streams = self.streams.saturating_sub(1);
    }

    /// An answer that was said to cost `before` tokens has cost `tokens`. What is known today counts today.
    pub(super) fn charge(&mut self, before: u64, tokens: u64, moment: Moment) {
        self.turn_to(moment);
        let (more, less) = (tokens.saturating_sub(before), before.saturating_sub(tokens));
        self.tokens_today = self.tokens_today.saturating_add(more).saturating_sub(less);
    }

    pub(super) fn count_refusal(&mut self, limit: Limit) {
        let at = Limit::ALL.iter().position(|known| *known == limit);
        if let Some(count) = at.and_then(|at| self.refused.get_mut(at)) {
            *count += 1;
        }
    }

    /// How it stands at this moment.
    pub(super) fn at(&mut self, moment: Moment) -> Self {
        self.turn_to(moment);
        let Self { streams, tokens_today, refused, day, .. } = *self;
        Self { streams, tokens_today, refused, day, requests: None }
    }

    /// Begins a new day if it is another one. A clock that was set back begins one too: it would be wrong for longer.
    fn turn_to(&mut self, moment: Moment) {
        let today = moment.unix_ms / DAY_MS;
        if today != self.day {
            (self.day, self.tokens_today) = (today, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A clock that both go by: noon of some day, and milliseconds after it.
    struct Clock(Instant);

    const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

    impl Clock {
        fn start() -> Self {
            Self(Instant::now())
        }

        fn after(&self, ms: u64) -> Moment {
            Moment { instant: self.0 + Duration::from_millis(ms), unix_ms: NOON + ms }
        }
    }

    fn tokens(tokens_per_day: u64) -> Allowance {
        Allowance { tokens_per_day, ..Allowance::default() }
    }

    #[test]
    fn a_minutes_requests_may_come_at_once_and_then_one_after_the_other() {
        for per_min in [1, 7, 60, 6_000, 1_000_000] {
            let (clock, mut counts) = (Clock::start(), Counts::default());
            let at_once = (0..per_min).filter(|_| counts.take_request(per_min, clock.after(0)).is_ok()).count();
            assert_eq!(at_once, usize::try_from(per_min).unwrap());

            let mut passed_ms = 0;
            for _ in 0..20 {
                let wait_ms = counts.take_request(per_min, clock.after(passed_ms)).unwrap_err();
                assert!(wait_ms <= 1 + 60_000_u64.div_ceil(per_min.into()), "{per_min}: {wait_ms}");
                if let Some(before) = (wait_ms > 1).then(|| passed_ms + wait_ms - 1) {
                    assert!(counts.take_request(per_min, clock.after(before)).is_err(), "{per_min}: not before");
                }
                passed_ms += wait_ms;
                let mut taken = 0;
                while counts.take_request(per_min, clock.after(passed_ms)).is_ok() {
                    taken += 1;
                }
                assert!(taken > 0, "{per_min}: the wait that was told is true");
            }
            let expected_ms = 20 * 60_000 / u64::from(per_min);
            assert!((expected_ms..=expected_ms + 40).contains(&passed_ms), "{per_min}: {passed_ms}");
        }
    }

    #[test]
    fn another_limit_keeps_what_was_used() {
        let (clock, mut counts) = (Clock::start(), Counts::default());
        for _ in 0..9 {
            counts.take_request(10, clock.after(0)).unwrap();
        }

        assert_eq!(counts.take_request(60, clock.after(0)), Ok(()));
        assert_eq!(counts.take_request(60, clock.after(0)), Err(1_000), "one a second from now on");
        assert_eq!(counts.take_request(0, clock.after(0)), Ok(()), "no limit");
        assert_eq!((0..9).filter(|_| counts.take_request(2, clock.after(0)).is_ok()).count(), 2, "a new one");
    }

    #[test]
    fn the_days_tokens_come_back_at_midnight() {
        let (clock, mut counts) = (Clock::start(), Counts::default());
        let half_a_day = DAY_MS / 2;
        assert_eq!(counts.take_stream(tokens(100), clock.after(0)), Ok(()));
        counts.charge(0, 99, clock.after(1));
        assert_eq!(counts.take_stream(tokens(100), clock.after(1)), Ok(()), "one is left");
        counts.charge(0, 50, clock.after(2));

        assert_eq!(counts.take_stream(tokens(100), clock.after(2)), Err((Limit::Tokens, half_a_day - 2)));
        assert_eq!(counts.take_stream(tokens(100), clock.after(half_a_day - 1)), Err((Limit::Tokens, 1)));
        assert_eq!(counts.at(clock.after(half_a_day - 1)).tokens_today, 149);
        assert_eq!(counts.at(clock.after(half_a_day)).tokens_today, 0);
        assert_eq!(counts.take_stream(tokens(100), clock.after(half_a_day)), Ok(()));
        assert_eq!(counts.take_stream(tokens(0), clock.after(half_a_day)), Ok(()), "without a limit");
        assert_eq!(counts.streams, 4, "a new day ends nothing");
    }

    #[test]
    fn a_correction_after_midnight_takes_nothing_from_the_new_day() {
        let (clock, mut counts) = (Clock::start(), Counts::default());
        counts.charge(0, 100, clock.after(0));

        counts.charge(100, 40, clock.after(DAY_MS));
        assert_eq!(counts.at(clock.after(DAY_MS)).tokens_today, 0);
        counts.charge(40, 90, clock.after(DAY_MS));
        assert_eq!(counts.at(clock.after(DAY_MS)).tokens_today, 50);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_day() {
        let (clock, mut counts) = (Clock::start(), Counts::default());
        counts.charge(0, 5, clock.after(10 * DAY_MS));

        assert_eq!(counts.at(clock.after(0)).tokens_today, 0);
    }

    #[test]
    fn places_are_counted() {
        let (clock, mut counts) = (Clock::start(), Counts::default());
        let two = Allowance { streams_max: 2, ..Allowance::default() };
        let take = |counts: &mut Counts| counts.take_stream(two, clock.after(0));
        assert_eq!((take(&mut counts), take(&mut counts)), (Ok(()), Ok(())));

        assert_eq!(take(&mut counts), Err((Limit::Streams, PLACE_WAIT_MS)));
        counts.give_stream_back();
        assert_eq!(take(&mut counts), Ok(()));
    }
}
