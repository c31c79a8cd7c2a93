//! The pacer's decisions: who may go next, and when. Pure: time is an argument, waiters are any type.

use std::time::Duration;

use tokio::time::Instant;

use super::adapt::Adapt;
use super::headroom::Headroom;
use super::queue::Queue;
use super::tokens::{self, Tokens, Weight};
use crate::bucket::Bucket;
use crate::chat::Asker;
use crate::event::Usage;
use crate::fanout::QueuePlace;
use crate::providers::RateHint;

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
    /// Tokens a minute; 0: as many as one likes.
    pub tpm: u32,
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
pub struct Waiter<W> {
    /// Who it is.
    pub who: W,
    /// What its call is expected to cost.
    pub weight: Weight,
    /// When it came.
    pub since: Instant,
    /// When it will have waited too long.
    pub expires: Instant,
}

/// A caller that may go.
#[derive(Debug)]
pub struct Granted<W> {
    /// Who it is.
    pub who: W,
    /// The tokens that were taken for its call, where they are limited.
    pub charged: Option<f64>,
}

/// The rate, the tokens, the slots and the queue of one provider.
#[derive(Debug)]
pub struct Schedule<W> {
    limits: Limits,
    /// What the provider bears of them.
    adapt: Adapt,
    /// What is left of its own limits.
    headroom: Headroom,
    /// Since when these limits hold.
    limits_since: Instant,
    bucket: Bucket,
    tokens: Tokens,
    in_flight: usize,
    queue: Queue<Waiter<W>>,
    hold_mean: Duration,
}

impl<W> Schedule<W> {
    /// A full bucket, and `in_flight` calls that have been granted before.
    pub fn new(limits: Limits, in_flight: usize, now: Instant) -> Self {
        let bucket = Bucket::new(f64::from(limits.burst), now);
        Self {
            limits,
            adapt: Adapt::default(),
            headroom: Headroom::default(),
            limits_since: now,
            bucket,
            tokens: Tokens::new(limits.tpm, now),
            in_flight,
            queue: Queue::new(),
            hold_mean: HOLD_GUESS,
        }
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
        self.tokens.set_tpm(limits.tpm, now);
        self.fill(now);
    }

    /// The limits as they are applied: a provider that has refused calls for their number, or has few left, is called
    /// more slowly, and evenly.
    pub fn applied(&self) -> Limits {
        let is_reduced = self.adapt.is_reduced() || self.headroom.ends().is_some();
        let burst = if is_reduced { 1 } else { self.limits.burst };
        let rps = self.headroom.cap(self.adapt.rate(self.limits.rps), self.limits.rps);
        Limits { rps, burst, ..self.limits }
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

    /// The provider has told what is left of its limits.
    pub fn told(&mut self, hint: &RateHint, now: Instant) {
        self.fill(now);
        self.headroom.told(hint, self.tokens.cost_mean(), self.limits.rps, now);
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Callers that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether as many wait as may.
    pub fn is_full(&self) -> bool {
        self.queued() >= self.limits.queue_max
    }

    /// How long the one who came first has waited.
    pub fn oldest_wait(&self, now: Instant) -> Duration {
        let oldest = self.queue.iter().map(|waiter| waiter.since).min();
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The tokens that may be spent at once; below zero, what is owed; `None` when they are not limited.
    pub fn tokens(&self) -> Option<f64> {
        self.tokens.available()
    }

    /// For how long nobody is served because the provider wants a pause.
    pub fn pause(&self, now: Instant) -> Duration {
        self.adapt.paused_until(now).map_or(Duration::ZERO, |until| until - now)
    }

    /// Puts a caller at the end of its line. When as many wait as may, it takes the place of another one, who is
    /// returned, if that one's organisation or principal has more than its share, or if that one's answer is waited for
    /// by nobody.
    pub fn enqueue(&mut self, asker: &Asker, waiter: Waiter<W>, now: Instant) -> Result<Option<W>, QueueFull> {
        let mut displaced = None;
        if self.is_full() && !(self.queued() == 0 && self.could_grant(waiter.weight, now)) {
            displaced = self.queue.make_room(asker).map(|waiter| waiter.who);
            if displaced.is_none() {
                return Err(QueueFull { retry_after: self.first_turn(waiter.weight, now) });
            }
        }
        self.queue.push_back(asker, waiter);
        Ok(displaced)
    }

    /// Puts a caller whose call was refused for the rate back in front of its organisation's line. There is always
    /// room: it had been taken in before, and there are no more of these than calls at once.
    pub fn put_back(&mut self, asker: &Asker, waiter: Waiter<W>) {
        self.queue.push_front(asker, waiter);
    }

    /// Takes the next caller whose turn it is, with its slot and its tokens.
    pub fn grant(&mut self, now: Instant) -> Option<Granted<W>> {
        let weight = self.queue.next()?.weight;
        if !self.could_grant(weight, now) {
            return None;
        }
        let waiter = self.queue.pop()?;
        self.bucket.take(1.0, f64::from(self.limits.burst));
        self.in_flight += 1;
        Some(Granted { who: waiter.who, charged: self.tokens.take(weight) })
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

    /// A call for which `charged` tokens were taken has cost what `usage` says; without it, nothing.
    pub fn settle(&mut self, charged: f64, usage: Option<&Usage>, now: Instant) {
        self.fill(now);
        self.tokens.settle(charged, usage.map_or(0.0, tokens::cost));
    }

    /// A call has cost this; estimates follow.
    pub fn learn_usage(&mut self, usage: &Usage) {
        self.tokens.learn(usage);
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
        let next = self.queue.next()?.weight;
        self.fill(now);
        let wait = self.wait_for(1.0, now).max(self.tokens.wait_for(self.tokens.needed(next))).max(self.pause(now));
        Some(now.checked_add(wait).map_or(expiry, |turn| expiry.min(turn)))
    }

    /// The waiting callers in the order in which they will be served, with their places.
    pub fn places(&mut self, now: Instant) -> Vec<(&W, QueuePlace)> {
        self.fill(now);
        let mut needed = 0.0;
        let places = self.queue.in_order().zip(1_u32..).map(|(waiter, position)| {
            needed += self.tokens.needed(waiter.weight);
            let eta_ms = u64::try_from(self.eta(position, needed, now).as_millis()).unwrap_or(u64::MAX);
            (&waiter.who, QueuePlace { position, eta_ms })
        });
        places.collect()
    }

    /// Until a newcomer of no weight would get its permit, behind all who wait.
    pub fn last_turn(&mut self, now: Instant) -> Duration {
        self.fill(now);
        let ahead: f64 = self.queue.iter().map(|waiter| self.tokens.needed(waiter.weight)).sum();
        let position = u32::try_from(self.queued()).unwrap_or(u32::MAX).saturating_add(1);
        self.eta(position, ahead + self.tokens.needed(Weight::default()), now)
    }

    fn could_grant(&mut self, weight: Weight, now: Instant) -> bool {
        self.fill(now);
        // A token is there when rounding alone says that it is not.
        let is_free = self.in_flight < self.limits.concurrency && self.bucket.level() >= 1.0 - 1e-9;
        is_free && self.tokens.has(self.tokens.needed(weight)) && self.adapt.paused_until(now).is_none()
    }

    /// Brings what flows in with time up to now.
    pub fn fill(&mut self, now: Instant) {
        if let Some(end) = self.headroom.ends().filter(|end| *end <= now) {
            let spread = self.applied();
            self.bucket.fill(spread.rps, f64::from(spread.burst), end);
            self.headroom.clear();
        }
        let applied = self.applied();
        self.bucket.fill(applied.rps, f64::from(applied.burst), now);
        self.tokens.fill(now);
    }

    /// Until the rate allows so many calls. What is scarce is so until the provider's limit is restored.
    fn wait_for(&self, calls: f64, now: Instant) -> Duration {
        let rps = self.applied().rps;
        let wait = self.bucket.wait_for(calls, rps);
        let scarce = self.headroom.ends().map_or(Duration::MAX, |end| end.saturating_duration_since(now));
        if wait <= scarce {
            return wait;
        }
        let until_then = scarce.as_secs_f64() * rps;
        scarce + self.bucket.wait_for(calls - until_then, self.adapt.rate(self.limits.rps))
    }

    /// Until whoever is first gets its permit; a newcomer of this weight, when nobody waits.
    fn first_turn(&mut self, newcomer: Weight, now: Instant) -> Duration {
        self.fill(now);
        let weight = self.queue.next().map_or(newcomer, |first| first.weight);
        self.eta(1, self.tokens.needed(weight), now)
    }

    /// Until the caller at `position` gets its permit, when those up to it need `tokens` together: the slowest one of
    /// rate, tokens, slots and the provider's pause.
    fn eta(&self, position: u32, tokens: f64, now: Instant) -> Duration {
        let rate = self.wait_for(f64::from(position), now);
        let returns = (self.in_flight + position as usize).saturating_sub(self.limits.concurrency);
        let slots = self.hold_mean.mul_f64(returns as f64 / self.limits.concurrency as f64);
        rate.max(self.tokens.wait_for(tokens)).max(slots).max(self.pause(now))
    }
}
