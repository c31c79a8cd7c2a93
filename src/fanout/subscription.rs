//! Subscription: one request's view of an answer, shared between its actor and the bodies that send it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;

use super::{Audience, Full, Seat, Spans, StreamLog};
use crate::chat::{MessageId, ProviderName, RequestId, StreamId, ThreadId};
use crate::event::{Finish, Status, Usage};
use crate::failure::Failure;
use crate::store::CallRole;

/// No first piece yet.
const NO_TTFT: u32 = u32::MAX;

/// What is known about a request when it is accepted.
#[derive(Debug, Clone)]
pub struct SubscriptionFacts {
    /// Its id.
    pub request: RequestId,
    /// The generation that it listens to.
    pub stream: StreamId,
    /// Whether it started the upstream call.
    pub role: CallRole,
    /// Who was asked to answer.
    pub provider: ProviderName,
    /// What was asked for.
    pub model: Arc<str>,
    /// The thread, unless the request is stateless.
    pub thread: Option<ThreadId>,
    /// The user message of its turn.
    pub user_message: Option<MessageId>,
    /// The answer of its turn.
    pub answer: Option<MessageId>,
    /// When the request came in.
    pub arrived: Instant,
}

/// How an answer ended, the same for everybody who heard it to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Why it ended.
    pub finish: Finish,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// What it cost.
    pub usage: Option<Usage>,
    /// Whether there is text although the answer is not complete.
    pub partial: bool,
    /// Whether the store has it.
    pub kept: Kept,
}

/// Whether the store has an answer that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It has, or the request is of the kind that is never kept.
    Yes,
    /// It could not be written.
    Failed,
    /// The turn came to nothing before it was opened: its messages do not exist.
    NoTurn,
}

impl Kept {
    /// By what came of the last write.
    pub fn after<T, E>(write: &Result<T, E>) -> Self {
        if write.is_ok() { Kept::Yes } else { Kept::Failed }
    }
}

/// How an answer ended for one request.
#[derive(Debug)]
pub struct End {
    /// The `done` frame.
    pub frame: Bytes,
    /// The last event that this request may see.
    pub last_seq: u64,
    /// The facts behind the frame.
    pub outcome: Outcome,
    /// From the request's arrival to its end.
    pub latency_ms: u32,
    /// How long it took to get where it had got by then.
    pub spans: Spans,
}

/// The shared part of one request.
#[derive(Debug)]
pub struct Subscription {
    /// What was known from the beginning.
    pub facts: SubscriptionFacts,
    /// The frames.
    pub log: Arc<StreamLog>,
    audience: Arc<Audience>,
    end: OnceLock<End>,
    joined: AtomicBool,
    ttft_ms: AtomicU32,
    cut: AtomicU64,
    bodies: AtomicUsize,
    was_attended: AtomicBool,
    waiting: Mutex<Waiting>,
    unattended: OnceLock<Hook>,
}

/// Whom to wake.
#[derive(Debug, Default)]
struct Waiting {
    /// The listeners, those that wait with their wakers.
    listeners: Slab<Option<Waker>>,
    /// Others: a few at most.
    others: Vec<Waker>,
}

/// Called when the last listener has gone.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Subscription {
    /// A subscription that nobody listens to yet.
    pub fn new(facts: SubscriptionFacts, log: Arc<StreamLog>, audience: Arc<Audience>) -> Self {
        Self {
            facts,
            log,
            audience,
            end: OnceLock::new(),
            joined: AtomicBool::new(false),
            ttft_ms: AtomicU32::new(NO_TTFT),
            cut: AtomicU64::new(u64::MAX),
            bodies: AtomicUsize::new(0),
            was_attended: AtomicBool::new(false),
            waiting: Mutex::default(),
            unattended: OnceLock::new(),
        }
    }

    /// Says whom to tell when the last listener has gone; the first call counts.
    pub fn on_unattended(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.unattended.set(Hook(Box::new(tell)));
    }

    /// The request has been taken in, and its turn is kept.
    pub fn joined(&self) {
        self.joined.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut self.waiting.lock().others);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until it is certain whether the request is taken in: it has joined, or it has ended.
    pub async fn decided(&self) {
        std::future::poll_fn(|cx| {
            self.wake_at_end(cx.waker());
            if self.is_decided() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Whether the request has been taken in.
    pub fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    fn is_decided(&self) -> bool {
        self.end().is_some() || self.has_joined()
    }

    /// Ends it, once; later calls change nothing. Wakes whoever waits.
    pub fn finish(&self, end: End) {
        if self.end.set(end).is_err() {
            return;
        }
        let waiting: Vec<_> = {
            let Waiting { listeners, others } = &mut *self.waiting.lock();
            listeners.iter_mut().filter_map(|(_, waker)| waker.take()).chain(others.drain(..)).collect()
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// It is withdrawn while the answer goes on: its listeners hear nothing after the event `last_seq`, although its
    /// end is still being written.
    pub fn cut_at(&self, last_seq: u64) {
        self.cut.store(last_seq, Ordering::Release);
    }

    /// The last event that its listeners may hear, as far as it is known.
    pub fn limit(&self) -> u64 {
        self.end().map_or_else(|| self.cut.load(Ordering::Acquire), |end| end.last_seq)
    }

    /// How it ended, when it has.
    pub fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Calls `waker` at the end. Ask for [`Subscription::end`] after this, never before. Listeners have
    /// [`Attachment::wake_at_end`].
    pub fn wake_at_end(&self, waker: &Waker) {
        let Waiting { others, .. } = &mut *self.waiting.lock();
        // A waker that is kept after the end would keep its client's connection in memory.
        if self.end().is_none() && !others.iter().any(|known| known.will_wake(waker)) {
            others.push(waker.clone());
        }
    }

    /// Waits for the end, without listening.
    pub async fn ended(&self) -> &End {
        std::future::poll_fn(|cx| {
            self.wake_at_end(cx.waker());
            self.end().map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Waits for the end, however it is.
    pub async fn until_over(&self) {
        self.ended().await;
    }

    /// Notes that the first piece of content is handed to the client now; the first call counts.
    pub fn first_piece(&self) -> u32 {
        let ttft_ms = millis_between(self.facts.arrived, Instant::now());
        let known = self.ttft_ms.compare_exchange(NO_TTFT, ttft_ms, Ordering::Relaxed, Ordering::Relaxed);
        known.err().unwrap_or(ttft_ms)
    }

    /// Time to the first piece. When nobody listened, the time at which it could have been handed over.
    pub fn ttft_ms(&self) -> Option<u32> {
        match self.ttft_ms.load(Ordering::Relaxed) {
            NO_TTFT => self.since_arrival_ms(self.log.timings().first_content),
            ttft_ms => Some(ttft_ms),
        }
    }

    /// How long it has taken to get where it had got at `moment`.
    pub fn spans(&self, moment: Instant) -> Spans {
        let timings = self.log.timings();
        let since_arrival = |reached: Option<Instant>| self.since_arrival_ms(reached.filter(|at| *at <= moment));
        let handed = self.ttft_ms.load(Ordering::Relaxed);
        let was_handed = handed != NO_TTFT && handed <= millis_between(self.facts.arrived, moment);
        Spans {
            ttft_ms: if was_handed { Some(handed) } else { since_arrival(timings.first_content) },
            ttfb_ms: since_arrival(timings.first_byte),
            queue_wait_ms: since_arrival(timings.granted),
            connect_ms: timings.connect_ms,
        }
    }

    /// Milliseconds from this request's arrival to `moment`; 0 when it was over before.
    pub fn since_arrival_ms(&self, moment: Option<Instant>) -> Option<u32> {
        moment.map(|moment| millis_between(self.facts.arrived, moment))
    }

    /// Who answers, as far as it is known: whoever was asked, unless somebody else had to.
    pub fn answered_by(&self) -> (ProviderName, Arc<str>) {
        let asked = || (self.facts.provider.clone(), self.facts.model.clone());
        self.log.fallback().map_or_else(asked, |fallback| (fallback.provider, fallback.model))
    }

    /// Whether anybody has ever listened.
    pub fn was_attended(&self) -> bool {
        self.was_attended.load(Ordering::Acquire)
    }

    /// How many bodies send it at present.
    pub fn bodies(&self) -> usize {
        self.bodies.load(Ordering::Relaxed)
    }
}

/// Whole milliseconds from `start` to `end`, 0 when `end` is earlier.
fn millis_between(start: Instant, end: Instant) -> u32 {
    u32::try_from(end.saturating_duration_since(start).as_millis()).unwrap_or(NO_TTFT - 1)
}

/// Somebody listens to a subscription. Dropping it says that they have gone, and gives their place back.
#[derive(Debug)]
pub struct Attachment {
    subscription: Arc<Subscription>,
    /// Its place among those who wait.
    slot: usize,
    _seat: Seat,
}

impl Attachment {
    /// Counts a listener, if there is a place for another one.
    pub fn new(subscription: Arc<Subscription>) -> Result<Self, Full> {
        let seat = subscription.audience.take()?;
        Ok(Self::seated(subscription, seat))
    }

    /// Counts a listener whose place was taken when the request was let in.
    pub fn seated(subscription: Arc<Subscription>, seat: Seat) -> Self {
        debug_assert!(Arc::ptr_eq(seat.audience(), &subscription.audience), "the place is one of this answer's");
        subscription.bodies.fetch_add(1, Ordering::Relaxed);
        subscription.was_attended.store(true, Ordering::Release);
        let slot = subscription.waiting.lock().listeners.insert(None);
        Self { subscription, slot, _seat: seat }
    }

    /// What is listened to.
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Calls `waker` at the end. Ask for [`Subscription::end`] after this, never before. Takes the same time however
    /// many listen.
    pub fn wake_at_end(&self, waker: &Waker) {
        let mut waiting = self.subscription.waiting.lock();
        if self.subscription.end().is_some() {
            return;
        }
        match &mut waiting.listeners[self.slot] {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Waits for the end.
    pub async fn ended(&self) -> &End {
        std::future::poll_fn(|cx| {
            self.wake_at_end(cx.waker());
            self.subscription.end().map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let waker = self.subscription.waiting.lock().listeners.remove(self.slot);
        // Not while the lock is held: it may be the last of its task.
        drop(waker);
        let last = self.subscription.bodies.fetch_sub(1, Ordering::AcqRel) == 1;
        if last
            && self.subscription.end().is_none()
            && let Some(hook) = self.subscription.unattended.get()
        {
            hook.0();
        }
    }
}
