//! The pacer's decisions: who may go next, and when. Pure: time is an argument, waiters are any type.

use std::time::Duration;

use tokio::time::Instant;

use super::adapt::Adapt;
use super::bucket::Bucket;
use super::queue::Queue;
use crate::chat::Asker;
use crate::fanout::QueuePlace;

/// How long a call holds its permit when none has been seen yet, for the first estimates.
const HOLD_GUESS: Duration = Duration::from_secs(2);
/// How much the newest hold time counts in the running mean.
const HOLD_WEIGHT: f64 = 0.2;

/// What a provider allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Calls per second, in the long run; above 0.
    pub rps: f64,
    /// Calls at the same time; at least 1.
    pub concurrency: usize,
    /// Calls that may start at once after a quiet time; at least 1.
    pub burst: u32,
    /// Callers that may wait.
    pub queue_max: usize,
}

/// Why a caller cannot even wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    /// When a place is likely to be free.
    pub retry_after: Duration,
}

/// One waiting caller.
#[derive(Debug)]
struct Waiter<W> {
    who: W,
    since: Instant,
    expires: Instant,
}

/// The tokens, the slots and the queue of one provider.
#[derive(Debug)]
pub struct Schedule<W> {
    limits: Limits,
    /// What the provider bears of them.
    adapt: Adapt,
    /// Since when these limits hold.
    limits_since: Instant,
    bucket: Bucket,
    in_flight: usize,
    queue: Queue<Waiter<W>>,
    hold_mean: Duration,
}

impl<W> Schedule<W> {
    /// A full bucket, and `in_flight` calls that have been granted before.
    pub fn new(limits: Limits, in_flight: usize, now: Instant) -> Self {
        let bucket = Bucket::new(f64::from(limits.burst), now);
        let (adapt, queue) = (Adapt::default(), Queue::new());
        Self { limits, adapt, limits_since: now, bucket, in_flight, queue, hold_mean: HOLD_GUESS }
    }

    /// The present limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Changes the limits. Calls in flight stay; fewer slots take effect as they return.
    pub fn set_limits(&mut self, limits: Limits, now: Instant) {
        self.fill(now);
        self.limits = limits;
        self.limits_since = now;
        self.fill(now);
    }

    /// The limits as they are applied: a provider that has refused calls for their number is called more slowly, and
    /// evenly.
    pub fn applied(&self) -> Limits {
        let burst = if self.adapt.is_reduced() { 1 } else { self.limits.burst };
        Limits { rps: self.adapt.rate(self.limits.rps), burst, ..self.limits }
    }

    /// The provider has refused the call that was granted at `granted`, because there were too many; nobody is served
    /// until it wants calls again.
    pub fn throttled(&mut self, granted: Instant, retry_after: Option<Duration>, now: Instant) {
        self.fill(now);
        self.adapt.throttled(granted, retry_after, self.limits.rps, now);
        self.bucket.empty();
    }

    /// The provider has accepted the call that was granted at `granted`.
    pub fn accepted(&mut self, granted: Instant, now: Instant) {
        self.fill(now);
        self.adapt.accepted(granted, self.limits.rps, now);
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Callers that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How long the one who came first has waited.
    pub fn oldest_wait(&self, now: Instant) -> Duration {
        let oldest = self.queue.iter().map(|waiter| waiter.since).min();
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Puts a caller at the end of its line.
    pub fn enqueue(&mut self, asker: &Asker, who: W, expires: Instant, now: Instant) -> Result<(), QueueFull> {
        let queued = self.queued();
        if queued >= self.limits.queue_max && !(queued == 0 && self.could_grant(now)) {
            return Err(QueueFull { retry_after: self.eta(1, now) });
        }
        self.queue.push_back(asker, Waiter { who, since: now, expires });
        Ok(())
    }

    /// Puts a caller whose call was refused for the rate back in front of its organisation's line. There is always
    /// room: it had been taken in before, and there are no more of these than calls at once.
    pub fn put_back(&mut self, asker: &Asker, who: W, expires: Instant, now: Instant) {
        self.queue.push_front(asker, Waiter { who, since: now, expires });
    }

    /// Takes the next caller whose turn it is, with its slot and its token.
    pub fn grant(&mut self, now: Instant) -> Option<W> {
        if self.queued() == 0 || !self.could_grant(now) {
            return None;
        }
        let waiter = self.queue.pop()?;
        self.bucket.take(1.0, f64::from(self.limits.burst));
        self.in_flight += 1;
        Some(waiter.who)
    }

    /// Sets the calls in flight to what the permits themselves count.
    pub fn set_in_flight(&mut self, in_flight: usize) {
        self.in_flight = in_flight;
    }

    /// A caller that was granted its permit at `granted` left before anything was sent: its token comes back, less what
    /// has flowed in since, at the configured rate at most. A bucket that had been full without that grant would have
    /// had no room for it.
    pub fn refund(&mut self, granted: Instant, now: Instant) {
        if granted < self.limits_since {
            return;
        }
        self.fill(now);
        let flowed_in = now.saturating_duration_since(granted).as_secs_f64() * self.limits.rps;
        let token = (1.0 - flowed_in).max(0.0);
        self.bucket.take(-token, f64::from(self.applied().burst));
    }

    /// A call has held its permit for `held`; estimates follow.
    pub fn learn_hold(&mut self, held: Duration) {
        self.hold_mean = self.hold_mean.mul_f64(1.0 - HOLD_WEIGHT) + held.mul_f64(HOLD_WEIGHT);
    }

    /// Takes out everybody for whom `gone` holds or whose time is over at `now`; returns the latter.
    pub fn expire(&mut self, now: Instant, mut gone: impl FnMut(&W) -> bool) -> Vec<W> {
        let removed = self.queue.remove(|waiter| waiter.expires <= now || gone(&waiter.who));
        removed.into_iter().map(|waiter| waiter.who).filter(|who| !gone(who)).collect()
    }

    /// Takes out everybody.
    pub fn drain(&mut self) -> Vec<W> {
        self.queue.remove(|_| true).into_iter().map(|waiter| waiter.who).collect()
    }

    /// When there is something to do again, if nothing happens before.
    pub fn wake_at(&mut self, now: Instant) -> Option<Instant> {
        let expiry = self.queue.iter().map(|waiter| waiter.expires).min()?;
        if self.in_flight >= self.limits.concurrency {
            return Some(expiry);
        }
        self.fill(now);
        let token = now.checked_add(self.bucket.wait_for(1.0, self.applied().rps)).unwrap_or(expiry);
        Some(expiry.min(token.max(self.adapt.paused_until(now).unwrap_or(token))))
    }

    /// The waiting callers in the order in which they will be served, with their places.
    pub fn places(&mut self, now: Instant) -> Vec<(&W, QueuePlace)> {
        self.fill(now);
        let places = self.queue.in_order().zip(1_u32..).map(|(waiter, position)| {
            let eta_ms = u64::try_from(self.eta_filled(position, now).as_millis()).unwrap_or(u64::MAX);
            (&waiter.who, QueuePlace { position, eta_ms })
        });
        places.collect()
    }

    fn could_grant(&mut self, now: Instant) -> bool {
        self.fill(now);
        // A token is there when rounding alone says that it is not.
        let is_free = self.in_flight < self.limits.concurrency && self.bucket.level() >= 1.0 - 1e-9;
        is_free && self.adapt.paused_until(now).is_none()
    }

    fn fill(&mut self, now: Instant) {
        let applied = self.applied();
        self.bucket.fill(applied.rps, f64::from(applied.burst), now);
    }

    fn eta(&mut self, position: u32, now: Instant) -> Duration {
        self.fill(now);
        self.eta_filled(position, now)
    }

    /// Until the caller at `position` gets its permit: the slowest one of tokens, slots and the provider's pause.
    fn eta_filled(&self, position: u32, now: Instant) -> Duration {
        let tokens = self.bucket.wait_for(f64::from(position), self.applied().rps);
        let pause = self.adapt.paused_until(now).map_or(Duration::ZERO, |until| until - now);
        let returns = (self.in_flight + position as usize).saturating_sub(self.limits.concurrency);
        let slots = self.hold_mean.mul_f64(returns as f64 / self.limits.concurrency as f64);
        tokens.max(slots).max(pause)
    }
}
