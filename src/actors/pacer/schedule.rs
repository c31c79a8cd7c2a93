//! The pacer's decisions: who may go next, and when. Pure: time is an argument, waiters are any type.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::adapt::Adapt;
use crate::chat::OrgId;
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

/// A token bucket: `rps` tokens a second, at most `burst` of them.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, limits: &Limits, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * limits.rps).min(f64::from(limits.burst));
        self.filled = now;
    }

    /// Until `count` tokens are there. Rounded up, so that they are there by then.
    fn wait_for(&self, count: f64, limits: &Limits) -> Duration {
        let missing = count - self.tokens;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        let rounded = Duration::try_from_secs_f64(missing / limits.rps).unwrap_or(Duration::MAX);
        rounded.saturating_add(Duration::from_nanos(1))
    }
}

/// One waiting caller.
#[derive(Debug)]
struct Waiter<W> {
    who: W,
    expires: Instant,
}

/// The waiting callers of one organisation, in order of arrival.
#[derive(Debug)]
struct Line<W> {
    org: OrgId,
    waiters: VecDeque<Waiter<W>>,
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
    /// The organisations that wait; the front one is next, and goes to the back when it has been served.
    ring: VecDeque<Line<W>>,
    hold_mean: Duration,
}

impl<W> Schedule<W> {
    /// A full bucket, and `in_flight` calls that have been granted before.
    pub fn new(limits: Limits, in_flight: usize, now: Instant) -> Self {
        let bucket = Bucket { tokens: f64::from(limits.burst), filled: now };
        let (adapt, ring) = (Adapt::default(), VecDeque::new());
        Self { limits, adapt, limits_since: now, bucket, in_flight, ring, hold_mean: HOLD_GUESS }
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
        self.bucket.tokens = self.bucket.tokens.min(0.0);
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
        self.ring.iter().map(|line| line.waiters.len()).sum()
    }

    /// Puts a caller at the end of its organisation's line.
    pub fn enqueue(&mut self, org: &OrgId, who: W, expires: Instant, now: Instant) -> Result<(), QueueFull> {
        let queued = self.queued();
        if queued >= self.limits.queue_max && !(queued == 0 && self.could_grant(now)) {
            return Err(QueueFull { retry_after: self.eta(1, now) });
        }
        self.line(org).push_back(Waiter { who, expires });
        Ok(())
    }

    /// Puts a caller whose call was refused for the rate back in front of its organisation's line. There is always
    /// room: it had been taken in before, and there are no more of these than calls at once.
    pub fn put_back(&mut self, org: &OrgId, who: W, expires: Instant) {
        self.line(org).push_front(Waiter { who, expires });
    }

    fn line(&mut self, org: &OrgId) -> &mut VecDeque<Waiter<W>> {
        let at = self.ring.iter().position(|line| line.org == *org).unwrap_or_else(|| {
            self.ring.push_back(Line { org: org.clone(), waiters: VecDeque::new() });
            self.ring.len() - 1
        });
        &mut self.ring[at].waiters
    }

    /// Takes the next caller whose turn it is, with its slot and its token.
    pub fn grant(&mut self, now: Instant) -> Option<W> {
        if self.ring.is_empty() || !self.could_grant(now) {
            return None;
        }
        let mut line = self.ring.pop_front()?;
        let waiter = line.waiters.pop_front();
        if !line.waiters.is_empty() {
            self.ring.push_back(line);
        }
        let waiter = waiter?;
        self.bucket.tokens -= 1.0;
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
        self.bucket.tokens = (self.bucket.tokens + token).min(f64::from(self.applied().burst));
    }

    /// A call has held its permit for `held`; estimates follow.
    pub fn learn_hold(&mut self, held: Duration) {
        self.hold_mean = self.hold_mean.mul_f64(1.0 - HOLD_WEIGHT) + held.mul_f64(HOLD_WEIGHT);
    }

    /// Takes out everybody for whom `gone` holds or whose time is over at `now`; returns the latter.
    pub fn expire(&mut self, now: Instant, mut gone: impl FnMut(&W) -> bool) -> Vec<W> {
        let mut expired = Vec::new();
        for line in &mut self.ring {
            let waiters = std::mem::take(&mut line.waiters);
            for waiter in waiters {
                if gone(&waiter.who) {
                    continue;
                }
                if waiter.expires <= now {
                    expired.push(waiter.who);
                } else {
                    line.waiters.push_back(waiter);
                }
            }
        }
        self.ring.retain(|line| !line.waiters.is_empty());
        expired
    }

    /// Takes out everybody.
    pub fn drain(&mut self) -> Vec<W> {
        let waiters = self.ring.drain(..).flat_map(|line| line.waiters);
        waiters.map(|waiter| waiter.who).collect()
    }

    /// When there is something to do again, if nothing happens before.
    pub fn wake_at(&mut self, now: Instant) -> Option<Instant> {
        let expiry = self.ring.iter().flat_map(|line| &line.waiters).map(|waiter| waiter.expires).min()?;
        if self.in_flight >= self.limits.concurrency {
            return Some(expiry);
        }
        self.fill(now);
        let token = now.checked_add(self.bucket.wait_for(1.0, &self.applied())).unwrap_or(expiry);
        Some(expiry.min(token.max(self.adapt.paused_until(now).unwrap_or(token))))
    }

    /// The waiting callers in the order in which they will be served, with their places.
    pub fn places(&mut self, now: Instant) -> Vec<(&W, QueuePlace)> {
        self.fill(now);
        let mut lines: Vec<_> = self.ring.iter().map(|line| line.waiters.iter()).collect();
        let mut order = Vec::with_capacity(self.queued());
        while !lines.is_empty() {
            lines.retain_mut(|line| {
                let next = line.next();
                order.extend(next);
                next.is_some()
            });
        }
        let places = order.into_iter().zip(1_u32..).map(|(waiter, position)| {
            let eta_ms = u64::try_from(self.eta_filled(position, now).as_millis()).unwrap_or(u64::MAX);
            (&waiter.who, QueuePlace { position, eta_ms })
        });
        places.collect()
    }

    fn could_grant(&mut self, now: Instant) -> bool {
        self.fill(now);
        // A token is there when rounding alone says that it is not.
        let is_free = self.in_flight < self.limits.concurrency && self.bucket.tokens >= 1.0 - 1e-9;
        is_free && self.adapt.paused_until(now).is_none()
    }

    fn fill(&mut self, now: Instant) {
        let applied = self.applied();
        self.bucket.fill(&applied, now);
    }

    fn eta(&mut self, position: u32, now: Instant) -> Duration {
        self.fill(now);
        self.eta_filled(position, now)
    }

    /// Until the caller at `position` gets its permit: the slowest one of tokens, slots and the provider's pause.
    fn eta_filled(&self, position: u32, now: Instant) -> Duration {
        let tokens = self.bucket.wait_for(f64::from(position), &self.applied());
        let pause = self.adapt.paused_until(now).map_or(Duration::ZERO, |until| until - now);
        let returns = (self.in_flight + position as usize).saturating_sub(self.limits.concurrency);
        let slots = self.hold_mean.mul_f64(returns as f64 / self.limits.concurrency as f64);
        tokens.max(slots).max(pause)
    }
}
