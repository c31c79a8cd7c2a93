//! Subscriber: one request's interest in an answer.
//!
//! Owns the request's grace after its last listener has gone, and writes its end: its own `done`, its line in the
//! log, its place in the metrics. Tells its stream when the interest is withdrawn. Never touches the bytes.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::stream;
use crate::fanout::{Done, End, Outcome, Subscription};
use crate::metrics::{Finished, Metrics};

// --- Protocol ---------------------------------------------------------------

/// The answer has ended for this request. The last message that a subscriber gets.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ended {
    /// How.
    pub outcome: Arc<Outcome>,
    /// The last event that the request may see.
    pub last_seq: u64,
    /// When.
    pub at: Instant,
}

/// News: nobody listens to the request any more.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Unattended;

/// What becomes of a request that nobody listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The answer goes on.
    Continue,
    /// It is cancelled when nobody comes back within this time.
    CancelAfter(Duration),
}

// --- Actor ------------------------------------------------------------------

/// See the module.
pub struct Subscriber {
    subscription: Arc<Subscription>,
    stream: Recipient<stream::Withdraw>,
    on_disconnect: OnDisconnect,
    metrics: Arc<Metrics>,
    grace: Option<SpawnHandle>,
}

impl Subscriber {
    /// A subscriber of `subscription`, whose answer is made by `stream`.
    pub fn new(
        subscription: Arc<Subscription>,
        stream: Recipient<stream::Withdraw>,
        on_disconnect: OnDisconnect,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { subscription, stream, on_disconnect, metrics, grace: None }
    }

    #[expect(clippy::disallowed_methods, reason = "at most one for each listener that leaves; a lost one would leak")]
    fn withdraw(&self) {
        let request = self.subscription.facts.request.clone();
        self.stream.do_send(stream::Withdraw { request, asked: Instant::now(), reply: None });
    }
}

impl Actor for Subscriber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let me = ctx.address();
        self.subscription.on_unattended(move || tell_unattended(&me));
        // The listener may have come and gone already. One that has not come yet is no reason to do anything.
        if self.subscription.was_attended() && self.subscription.bodies() == 0 {
            ctx.notify(Unattended);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "one message for each listener that leaves; listeners are bounded")]
fn tell_unattended(subscriber: &Addr<Subscriber>) {
    subscriber.do_send(Unattended);
}

impl Handler<Unattended> for Subscriber {
    type Result = ();

    fn handle(&mut self, _: Unattended, ctx: &mut Context<Self>) {
        let OnDisconnect::CancelAfter(grace) = self.on_disconnect else { return };
        if self.subscription.bodies() > 0 {
            return;
        }
        if let Some(timer) = self.grace.take() {
            // Somebody came back and left again: the time begins anew.
            ctx.cancel_future(timer);
        }
        if grace.is_zero() {
            self.withdraw();
            return;
        }
        let timer = ctx.run_later(grace, |subscriber, _| {
            subscriber.grace = None;
            if subscriber.subscription.bodies() == 0 {
                subscriber.withdraw();
            }
        });
        self.grace = Some(timer);
    }
}

impl Handler<Ended> for Subscriber {
    type Result = ();

    fn handle(&mut self, ended: Ended, ctx: &mut Context<Self>) {
        finish(&self.subscription, &ended, &self.metrics);
        ctx.stop();
    }
}

/// Whatever happens, nobody waits for an end that never comes.
impl Drop for Subscriber {
    fn drop(&mut self) {
        if self.subscription.end().is_none() {
            let outcome = Arc::new(Outcome::failed(stream::broken(), false));
            let last_seq = self.subscription.log.last_seq();
            finish(&self.subscription, &Ended { outcome, last_seq, at: Instant::now() }, &self.metrics);
        }
    }
}

// --- The end of a request -----------------------------------------------------

/// Ends a subscription, once: metrics first, so that they include the request when its client reads `done`.
pub fn finish(subscription: &Subscription, ended: &Ended, metrics: &Metrics) {
    if subscription.end().is_some() {
        return;
    }
    let latency_ms = subscription.since_arrival_ms(Some(ended.at)).unwrap_or(0);
    if !ended.outcome.asks_again() {
        let finished = Finished::new(subscription, &ended.outcome, latency_ms);
        log_line(subscription, &finished);
        metrics.finished(subscription.answered_by().0.as_str(), finished);
    }
    close(subscription, ended, latency_ms);
}

/// Ends a subscription that has not joined and is to be asked again: it does not count as a request.
pub(super) fn dismiss(subscription: &Subscription, why: &stream::NotJoined) {
    let outcome = Arc::new(Outcome::refused(why));
    close(subscription, &Ended { outcome, last_seq: 0, at: Instant::now() }, 0);
}

fn close(subscription: &Subscription, ended: &Ended, latency_ms: u32) {
    let frame = done_frame(subscription, ended, latency_ms);
    let (outcome, spans) = ((*ended.outcome).clone(), subscription.spans(ended.at));
    subscription.finish(End { frame, last_seq: ended.last_seq, outcome, latency_ms, spans });
}

/// The last event of one request.
fn done_frame(subscription: &Subscription, ended: &Ended, latency_ms: u32) -> bytes::Bytes {
    let facts = &subscription.facts;
    let messages = (facts.answer.as_ref(), facts.user_message.as_ref());
    let done = Done::new(&facts.request, messages, &ended.outcome, latency_ms);
    done.frame(subscription.log.fence(), ended.last_seq)
}

/// One line for each request, with the keys of the metrics.
fn log_line(subscription: &Subscription, finished: &Finished) {
    let facts = &subscription.facts;
    let (provider, model) = subscription.answered_by();
    log::info!(
        target: "weir::request",
        request_id = facts.request.as_str(),
        org = facts.request.org().as_str(),
        stream_id = facts.stream.as_str(),
        role = facts.role.as_str(),
        provider = provider.as_str(),
        model = &*model,
        fallback = finished.is_fallback,
        outcome = finished.status.as_str(),
        error = finished.error.map_or("", |code| code.as_str()),
        queue_wait_ms = finished.queue_wait_ms.unwrap_or(0),
        ttfb_ms = finished.ttfb_ms.unwrap_or(0),
        ttft_ms = finished.ttft_ms.unwrap_or(0),
        latency_ms = finished.latency_ms,
        input = finished.usage.map_or(0, |usage| usage.input),
        output = finished.usage.map_or(0, |usage| usage.output);
        "done"
    );
}
