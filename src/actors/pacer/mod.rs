//! Pacer: decides when ONE provider may be called again.
//!
//! Owns the token bucket, the calls in flight and the queue of waiting callers ([`schedule`] and [`queue`] have the
//! decisions), and learns from what becomes of the calls ([`adapt`], [`headroom`], [`tokens`], [`breaker`]). Answers
//! callers; sends nothing to other actors; does no I/O.

mod adapt;
pub mod breaker;
mod headroom;
mod permit;
mod queue;
pub mod schedule;
#[cfg(test)]
mod tests;
mod tokens;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use actix::prelude::*;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use utoipa::ToSchema;

use self::breaker::{Breaker, BreakerSettings, BreakerState, Pass, Probe};
use self::permit::{Accepted, Heard, Outcome, Released};
pub use self::permit::{InFlight, Permit};
use self::schedule::{Granted, Limits, QueueFull, Schedule, Waiter};
pub use self::tokens::Weight;
use super::guardian::Link;
use crate::chat::{Asker, ProviderName};
use crate::fanout::QueuePlace;

/// How often waiting callers hear of their place, at most.
const PLACE_INTERVAL: Duration = Duration::from_millis(500);

// --- Protocol ---------------------------------------------------------------

/// Asks for permission to call the provider. Answered at once with the permit or a place in the queue.
///
/// The message carries the reply channels of those who wait, so the pacer sees that a caller has left.
#[derive(Debug, Message)]
#[rtype(result = "Result<Admitted, NotGranted>")]
pub struct Acquire {
    /// Whose turn it takes.
    pub asker: Asker,
    /// What its call is expected to cost.
    pub weight: Weight,
    /// How long the caller is willing to wait.
    pub wait_max: Duration,
    /// Where in its organisation's line it waits.
    pub line: Line,
    /// Gets the permit, when there is a wait.
    pub reply: oneshot::Sender<Result<Permit, NotGranted>>,
    /// Gets the place in the queue, at most twice a second.
    pub place: watch::Sender<Option<QueuePlace>>,
}

/// Where in its organisation's line a caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Behind those who have come before.
    Back,
    /// Before everybody: it has been served already, and the provider refused its call for the rate.
    Front,
}

/// The first answer to [`Acquire`].
#[derive(Debug)]
pub enum Admitted {
    /// Go.
    Granted(Permit),
    /// Wait for the reply.
    Queued,
}

/// Why a caller may not call the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotGranted {
    /// It cannot even wait.
    QueueFull {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// It waited as long as it may.
    QueueTimeout {
        /// When it would be its turn if it came again now.
        retry_after: Duration,
    },
    /// The provider fails so often that it is left alone.
    BreakerOpen {
        /// When somebody may try it again.
        retry_after: Duration,
    },
}

impl From<QueueFull> for NotGranted {
    fn from(QueueFull { retry_after }: QueueFull) -> Self {
        NotGranted::QueueFull { retry_after }
    }
}

/// Changes the limits; what is `None`, or no limit at all (0, say), stays. Answers with the new status.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "Status")]
pub struct Change {
    /// Calls per second.
    pub rps: Option<f64>,
    /// Calls at the same time.
    pub concurrency: Option<usize>,
    /// Calls at once after a quiet time.
    pub burst: Option<u32>,
    /// Tokens a minute; 0: as many as one likes.
    pub tpm: Option<u32>,
    /// Callers that may wait. Those who wait already stay.
    pub queue_max: Option<usize>,
}

/// Asks how the pacer stands.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Status")]
pub struct Snapshot;

/// How a pacer stands.
#[derive(Debug, Clone, PartialEq, Serialize, MessageResponse, ToSchema)]
#[schema(as = Pacer)]
pub struct Status {
    /// Whose pacer it is.
    pub provider: ProviderName,
    /// The configured rate, calls per second.
    pub rps: f64,
    /// The rate that is applied.
    pub effective_rps: f64,
    /// Calls at the same time.
    pub concurrency: usize,
    /// Calls at once after a quiet time.
    pub burst: u32,
    /// Tokens a minute; 0: as many as one likes.
    pub tpm: u32,
    /// How many of them may be spent at once; below zero, what is owed; `None` when they are not limited.
    #[schema(required)]
    pub tpm_available: Option<i64>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Callers that wait.
    pub queued: usize,
    /// How long the one who came first has waited.
    pub oldest_wait_ms: u64,
    /// For how long nobody is served because the provider wants a pause.
    pub paused_ms: u64,
    /// Whether the provider is left alone because it fails.
    pub breaker: BreakerState,
}

/// Private: somebody may be served now, or has to be told a place.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Advance;

// --- Actor ------------------------------------------------------------------

/// See the module.
pub struct Pacer {
    provider: ProviderName,
    schedule: Schedule<Caller>,
    breaker: Breaker,
    count: InFlight,
    timer: Option<(Instant, SpawnHandle)>,
    /// Whether [`Advance`] is on its way.
    will_advance: bool,
    /// Whether somebody waits who has not been told a place.
    has_newcomers: bool,
    places_told: Option<Instant>,
    _link: Link,
}

/// A caller that waits.
#[derive(Debug)]
struct Caller {
    reply: oneshot::Sender<Result<Permit, NotGranted>>,
    place: watch::Sender<Option<QueuePlace>>,
    probe: Option<Probe>,
}

impl Pacer {
    /// A pacer with a full bucket. `count` says how many permits are out already.
    pub fn new(provider: ProviderName, limits: Limits, breaker: BreakerSettings, count: InFlight, link: Link) -> Self {
        let schedule = Schedule::new(limits, count.get(), Instant::now());
        let breaker = Breaker::new(breaker);
        Self {
            provider,
            schedule,
            breaker,
            count,
            timer: None,
            will_advance: false,
            has_newcomers: false,
            places_told: None,
            _link: link,
        }
    }

    fn permit(&self, charged: Option<f64>, probe: Option<Probe>, ctx: &Context<Self>) -> Permit {
        Permit::new(ctx.address(), self.count.clone(), charged, probe)
    }

    /// Looks at those who wait after what is in the mailbox now. Once for all of it: a look takes time for each of them.
    fn advance_soon(&mut self, ctx: &mut Context<Self>) {
        if self.schedule.queued() > 0 && !std::mem::replace(&mut self.will_advance, true) {
            ctx.notify(Advance);
        }
    }

    /// Serves whoever may go, dismisses whoever waited too long, and sets the clock for the next time.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.schedule.fill(now);
        self.schedule.set_in_flight(self.count.get());
        let expired = self.schedule.expire(now, |caller| caller.reply.is_closed());
        if !expired.is_empty() {
            let retry_after = self.schedule.last_turn(now);
            for caller in expired {
                let _ = caller.reply.send(Err(NotGranted::QueueTimeout { retry_after }));
            }
        }
        while let Some(Granted { who, charged }) = self.schedule.grant(now) {
            let permit = self.permit(charged, who.probe, ctx);
            // A caller that leaves at this very moment drops the permit, which comes back by itself.
            let _ = who.reply.send(Ok(permit));
        }
        self.tell_places(now);
        self.set_timer(now, ctx);
    }

    /// Tells newcomers their place at once, the others when it is time again.
    fn tell_places(&mut self, now: Instant) {
        if self.schedule.queued() == 0 {
            return;
        }
        let everybody = self.places_told.is_none_or(|told| now >= told + PLACE_INTERVAL);
        if !std::mem::take(&mut self.has_newcomers) && !everybody {
            return;
        }
        if everybody {
            self.places_told = Some(now);
        }
        for (caller, place) in self.schedule.places(now) {
            if everybody || caller.place.borrow().is_none() {
                caller.place.send_if_modified(|known| known.replace(place) != Some(place));
            }
        }
    }

    fn set_timer(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let places = (self.schedule.queued() > 0).then(|| now + PLACE_INTERVAL);
        let wake_at = [self.schedule.wake_at(now), places].into_iter().flatten().min();
        if self.timer.as_ref().map(|(at, _)| *at) == wake_at {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = wake_at.map(|at| {
            let timer = ctx.run_later(at.saturating_duration_since(now), |pacer, ctx| {
                pacer.timer = None;
                pacer.advance(ctx);
            });
            (at, timer)
        });
    }

    /// What a call that was made says about the provider.
    fn learn(&mut self, released: &Released, now: Instant) {
        let Released { granted, outcome, probe, .. } = released;
        let was = self.breaker.state(now);
        match outcome {
            Outcome::Throttled(retry_after) => self.schedule.throttled(*granted, *retry_after, now),
            _ => self.schedule.learn_hold(now.saturating_duration_since(*granted)),
        }
        match outcome {
            Outcome::Unknown => {}
            Outcome::Throttled(_) | Outcome::Answered => self.breaker.answered(probe.as_ref(), now),
            Outcome::Succeeded => self.breaker.succeeded(probe.as_ref(), now),
            Outcome::Failed => {
                let chance = (RandomState::new().hash_one(0) % 1024) as f64 / 1024.0;
                if self.breaker.failed(*granted, probe.as_ref(), now, chance) {
                    self.dismiss_all(now);
                }
            }
        }
        self.tell_operator(was, now);
    }

    /// Corrects what was taken for a call. One that was accepted and has not said what it cost costs what was taken.
    fn settle(&mut self, released: &Released, now: Instant) {
        let usage = released.usage.as_ref();
        if let Some(usage) = usage {
            self.schedule.learn_usage(usage);
        }
        if let Some(charged) = released.charged.filter(|_| usage.is_some() || !released.accepted) {
            self.schedule.settle(charged, usage, now);
        }
    }

    /// The breaker has opened: nobody who waits would be served well.
    fn dismiss_all(&mut self, now: Instant) {
        let retry_after = self.breaker.open_for(now);
        for caller in self.schedule.drain() {
            let _ = caller.reply.send(Err(NotGranted::BreakerOpen { retry_after }));
        }
    }

    fn tell_operator(&self, was: BreakerState, now: Instant) {
        let (provider, is) = (self.provider.as_str(), self.breaker.state(now));
        match is {
            BreakerState::Open if was != is => {
                let open_ms = millis(self.breaker.open_for(now));
                log::warn!(provider, open_ms; "the provider fails again and again; it is left alone");
            }
            BreakerState::Closed if was != is => log::info!(provider; "the provider is back"),
            _ => {}
        }
    }

    fn status(&self) -> Status {
        let (limits, now) = (self.schedule.limits(), Instant::now());
        Status {
            provider: self.provider.clone(),
            rps: limits.rps,
            effective_rps: self.schedule.applied().rps,
            concurrency: limits.concurrency,
            burst: limits.burst,
            tpm: limits.tpm,
            tpm_available: self.schedule.tokens().map(|tokens| tokens.floor() as i64),
            in_flight: self.schedule.in_flight(),
            queued: self.schedule.queued(),
            oldest_wait_ms: millis(self.schedule.oldest_wait(now)),
            paused_ms: millis(self.schedule.pause(now)),
            breaker: self.breaker.state(now),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Actor for Pacer {
    type Context = Context<Self>;
}

impl Handler<Acquire> for Pacer {
    type Result = Result<Admitted, NotGranted>;

    fn handle(&mut self, ask: Acquire, ctx: &mut Context<Self>) -> Self::Result {
        let Acquire { asker, weight, wait_max, line, reply, place } = ask;
        let now = Instant::now();
        if self.schedule.is_full() {
            // Some may have gone.
            self.advance(ctx);
        }
        let probe = match self.breaker.pass(now) {
            Pass::Free => None,
            Pass::Probing(probe) => Some(probe),
            Pass::Refused(retry_after) => return Err(NotGranted::BreakerOpen { retry_after }),
        };
        let who = Caller { reply, place, probe };
        let waiter = Waiter { who, weight, since: now, expires: now + wait_max };
        match line {
            Line::Back => {
                if let Some(displaced) = self.schedule.enqueue(&asker, waiter, now)? {
                    let retry_after = self.schedule.last_turn(now);
                    let _ = displaced.reply.send(Err(NotGranted::QueueFull { retry_after }));
                }
            }
            Line::Front => self.schedule.put_back(&asker, waiter),
        }
        self.schedule.set_in_flight(self.count.get());
        if self.schedule.queued() == 1
            && let Some(Granted { who, charged }) = self.schedule.grant(now)
        {
            return Ok(Admitted::Granted(self.permit(charged, who.probe, ctx)));
        }
        self.has_newcomers = true;
        self.advance_soon(ctx);
        Ok(Admitted::Queued)
    }
}

impl Handler<Released> for Pacer {
    type Result = ();

    fn handle(&mut self, released: Released, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if released.used {
            self.learn(&released, now);
        } else {
            self.schedule.refund(released.granted, now);
        }
        self.settle(&released, now);
        // Only now may the next caller probe.
        drop(released);
        self.advance_soon(ctx);
    }
}

impl Handler<Advance> for Pacer {
    type Result = ();

    fn handle(&mut self, _: Advance, ctx: &mut Context<Self>) {
        self.will_advance = false;
        self.advance(ctx);
    }
}

impl Handler<Heard> for Pacer {
    type Result = ();

    fn handle(&mut self, Heard(probe): Heard, _: &mut Context<Self>) {
        let now = Instant::now();
        let was = self.breaker.state(now);
        self.breaker.answered(Some(&probe), now);
        self.tell_operator(was, now);
    }
}

impl Handler<Accepted> for Pacer {
    type Result = ();

    fn handle(&mut self, accepted: Accepted, ctx: &mut Context<Self>) {
        let (Accepted { granted, hint }, now) = (accepted, Instant::now());
        self.schedule.accepted(granted, now);
        self.schedule.told(&hint, now);
        self.advance_soon(ctx);
    }
}

impl Handler<Change> for Pacer {
    type Result = Status;

    fn handle(&mut self, change: Change, ctx: &mut Context<Self>) -> Status {
        let old = self.schedule.limits();
        let limits = Limits {
            rps: change.rps.filter(|rps| rps.is_finite() && *rps > 0.0).unwrap_or(old.rps),
            concurrency: change.concurrency.filter(|concurrency| *concurrency > 0).unwrap_or(old.concurrency),
            burst: change.burst.filter(|burst| *burst > 0).unwrap_or(old.burst),
            tpm: change.tpm.unwrap_or(old.tpm),
            queue_max: change.queue_max.unwrap_or(old.queue_max),
        };
        self.schedule.set_limits(limits, Instant::now());
        self.advance(ctx);
        self.status()
    }
}

impl Handler<Snapshot> for Pacer {
    type Result = Status;

    fn handle(&mut self, _: Snapshot, ctx: &mut Context<Self>) -> Status {
        self.advance(ctx);
        self.status()
    }
}
