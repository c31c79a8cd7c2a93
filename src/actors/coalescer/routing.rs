//! What the coalescer passes on: cancels and stops to streams, answers to those who come back, news from streams.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{
    Cancel, Cancellation, Coalescer, Connections, Ended, Ending, Find, FindTurn, Forget, Found, Join, Left, Load,
    NotTaken, Snapshot, Stop, StreamStatus, TurnEnded, Weigh, Whose,
};
use crate::actors::stream::{self, JoinReply, NotJoined, Stream};
use crate::actors::subscriber;
use crate::chat::{RequestId, StreamId, ThreadId, View};
use crate::event::{Finish, FinishReason, Status};
use crate::failure::Code;
use crate::fanout::{Attachment, Audience, Kept, LogStats, Outcome, StreamLog, Subscription, SubscriptionFacts};
use crate::store::CallRole;

#[expect(clippy::disallowed_methods, reason = "one message for each request; requests are bounded by requests_max")]
pub(super) fn join(stream: &Addr<Stream>, join: stream::Join) {
    stream.do_send(join);
}

#[expect(clippy::disallowed_methods, reason = "one message for each call of an operator or a client")]
pub(super) fn stop(
    stream: &Addr<Stream>,
    thread: Option<ThreadId>,
    status: Status,
    reply: Option<oneshot::Sender<stream::Cancelled>>,
) {
    stream.do_send(stream::Stop { thread, status, reply });
}

#[expect(clippy::disallowed_methods, reason = "one message for each call of a client")]
fn withdraw(stream: &Addr<Stream>, withdraw: stream::Withdraw) {
    stream.do_send(withdraw);
}

impl Coalescer {
    /// Wakes the listeners of streams that have been silent, so that they can say that they are alive.
    pub(super) fn nudge_silent(&self) {
        let now = Instant::now();
        self.streams.borrow().values().for_each(|stream| stream.log.nudge(now));
    }

    /// Answers a request whose cancel came before it: an end, and nothing else. It can be found as long as its cancel
    /// is remembered.
    pub(super) fn answer_withdrawn(&mut self, join: Join, stream: StreamId) {
        let facts = SubscriptionFacts {
            request: join.request,
            stream,
            role: CallRole::Leader,
            provider: join.chat.provider,
            model: join.chat.model,
            thread: join.turn.map(|turn| turn.thread),
            user_message: None,
            answer: None,
            arrived: join.arrived,
        };
        let log = Arc::new(StreamLog::new(StreamLog::FENCE, 0));
        let audience = Audience::new(self.settings.limits.listeners_max);
        let subscription = Arc::new(Subscription::new(facts, log, audience));
        let finish = Finish { reason: FinishReason::Cancelled, native: None };
        let status = Status::Cancelled;
        let outcome =
            Arc::new(Outcome { status, finish, failure: None, usage: None, partial: false, kept: Kept::NoTurn });
        let ended = subscriber::Ended { outcome, last_seq: 0, at: Instant::now() };
        subscriber::finish(&subscription, &ended, &self.environment.metrics);
        self.tables.attach(&subscription.facts.request, subscription.clone());
        let _ = join.reply.send(attached(Some(subscription)));
    }

    /// Whether a request is known to have ended without a whole answer.
    pub(super) fn has_failed(&self, request: &RequestId) -> bool {
        let end = self.tables.payload(request).and_then(|subscription| subscription.end());
        end.is_some_and(|end| end.outcome.status != Status::Complete && !end.outcome.asks_again())
    }

    fn found(&self, subscription: Option<&Arc<Subscription>>) -> Option<Found> {
        subscription.cloned().map(Found)
    }
}

/// Answers a repetition as its original is answered, as soon as that is decided.
pub(super) fn repeat(original: Option<Arc<Subscription>>, mut reply: JoinReply) {
    let original = match original {
        Some(original) if !original.has_joined() => original,
        known => return drop(reply.send(attached(known))),
    };
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = original.decided() => {}
            // Nobody waits for it any more.
            () = reply.closed() => return,
        }
        let end = original.end().filter(|_| !original.has_joined()).map(|end| &end.outcome);
        let refused = end.filter(|outcome| outcome.kept == Kept::NoTurn && !outcome.asks_again());
        let refusal = refused.and_then(|outcome| outcome.failure.clone()).map(NotJoined::Failed);
        let _ = reply.send(refusal.map_or_else(|| attached(Some(original)), Err));
    });
}

/// A listener of a request that is known, if it still is.
pub(super) fn attached(subscription: Option<Arc<Subscription>>) -> Result<Attachment, NotJoined> {
    // One that has to be asked again is about to be forgotten.
    let asks_again = |subscription: &Arc<Subscription>| subscription.end().is_some_and(|end| end.outcome.asks_again());
    let subscription = subscription.filter(|known| !asks_again(known)).ok_or(NotJoined::JustEnded)?;
    Attachment::new(subscription).map_err(|full| NotJoined::Failed(full.into()))
}

impl Handler<Cancel> for Coalescer {
    type Result = ();

    fn handle(&mut self, cancel: Cancel, ctx: &mut Context<Self>) {
        let Cancel { request, asked, reply } = cancel;
        let Some(subscription) = self.tables.payload(&request).cloned() else {
            self.tables.intend_cancel(request, asked);
            let _ = reply.send(Cancellation::Unknown);
            return;
        };
        if let Some(end) = subscription.end() {
            let _ = reply.send(Cancellation::Ended(end.outcome.status));
            return;
        }
        let (told, answer) = oneshot::channel();
        // A stream that is not listed has ended, and its requests are about to hear of it.
        if let Some(running) = self.streams.borrow().get(&subscription.facts.stream) {
            withdraw(&running.addr, stream::Withdraw { request: request.clone(), asked, reply: Some(told) });
        }
        let me = ctx.address();
        tokio::task::spawn_local(async move {
            match answer.await {
                Ok(stream::Cancelled::AlreadyOver) | Err(_) => {
                    let outcome = &subscription.ended().await.outcome;
                    if outcome.asks_again() {
                        return again(&me, Cancel { request, asked, reply });
                    }
                    let _ = reply.send(Cancellation::Ended(outcome.status));
                }
                Ok(cancelled) => drop(reply.send(Cancellation::Withdrawn(cancelled))),
            }
        });
    }
}

/// The request had not joined when its cancel came; it may be on its way once more.
#[expect(clippy::disallowed_methods, reason = "one message for each call of a client")]
fn again(coalescer: &Addr<Coalescer>, cancel: Cancel) {
    coalescer.do_send(cancel);
}

impl Handler<Stop> for Coalescer {
    type Result = ();

    fn handle(&mut self, order: Stop, _: &mut Context<Self>) {
        let Stop { whose, status, reply } = order;
        if whose == Whose::Everybody {
            self.is_ending = true;
            self.targets.values().for_each(|target| target.drains.end_all());
        }
        let streams = self.streams.borrow();
        let (thread, chosen): (Option<ThreadId>, Vec<_>) = match whose {
            Whose::Everybody => (None, streams.values().collect()),
            Whose::Stream(view, stream) => {
                (None, streams.get(&stream).filter(|running| view.shows(&running.org)).into_iter().collect())
            }
            Whose::Thread(thread) => {
                let chosen = self.tables.streams_of(&thread).filter_map(|stream| streams.get(stream)).collect();
                (Some(thread), chosen)
            }
        };
        let mut answers = Vec::with_capacity(chosen.len());
        for running in chosen {
            let (told, answer) = oneshot::channel();
            stop(&running.addr, thread.clone(), status, Some(told));
            answers.push(answer);
        }
        tokio::task::spawn_local(async move {
            let mut stopped = 0;
            for answer in answers {
                stopped += usize::from(answer.await.is_ok_and(|cancelled| cancelled != stream::Cancelled::AlreadyOver));
            }
            let _ = reply.send(stopped);
        });
    }
}

impl Handler<Find> for Coalescer {
    type Result = Option<Found>;

    fn handle(&mut self, Find(request): Find, _: &mut Context<Self>) -> Option<Found> {
        self.found(self.tables.payload(&request))
    }
}

impl Handler<FindTurn> for Coalescer {
    type Result = Option<Found>;

    fn handle(&mut self, find: FindTurn, _: &mut Context<Self>) -> Option<Found> {
        let (_, request) = self.tables.turn_of(&find.thread)?;
        self.found((request.org() == &find.org).then(|| self.tables.payload(request))?)
    }
}

impl Handler<Ending> for Coalescer {
    type Result = ();

    fn handle(&mut self, news: Ending, _: &mut Context<Self>) {
        self.tables.ending(&news.stream, news.thread.as_ref(), news.how);
    }
}

impl Handler<Forget> for Coalescer {
    type Result = ();

    fn handle(&mut self, Forget { thread }: Forget, _: &mut Context<Self>) {
        for running in self.tables.streams_of(&thread) {
            if let Some(running) = self.streams.borrow().get(running) {
                // It has begun while the thread was being deleted.
                stop(&running.addr, Some(thread.clone()), Status::Cancelled, None);
            }
        }
        self.tables.forget_thread(&thread);
    }
}

impl Handler<TurnEnded> for Coalescer {
    type Result = ();

    fn handle(&mut self, news: TurnEnded, _: &mut Context<Self>) {
        self.tables.turn_ended(&news.stream, &news.thread);
    }
}

impl Handler<Left> for Coalescer {
    type Result = ();

    fn handle(&mut self, Left(request): Left, _: &mut Context<Self>) {
        self.tables.left(&request);
    }
}

impl Handler<NotTaken> for Coalescer {
    type Result = ();

    fn handle(&mut self, news: NotTaken, _: &mut Context<Self>) {
        self.tables.not_taken(&news.stream, &news.request);
    }
}

impl Handler<Ended> for Coalescer {
    type Result = ();

    fn handle(&mut self, news: Ended, _: &mut Context<Self>) {
        let running = self.streams.borrow_mut().remove(&news.stream);
        let weight = running.map_or(0, |running| running.log.footprint());
        // A shed request says nothing about the next identical one.
        let shed = [
            Code::ProviderBusy,
            Code::QueueTimeout,
            Code::BreakerOpen,
            Code::Interrupted,
            Code::Internal,
            Code::Storage,
        ];
        let failure = news.failure.filter(|failure| !shed.contains(&failure.code));
        self.tables.ended(&news.stream, failure, news.retain.then_some(weight), Instant::now());
    }
}

impl Handler<Snapshot> for Coalescer {
    type Result = MessageResult<Snapshot>;

    fn handle(&mut self, Snapshot(view): Snapshot, _: &mut Context<Self>) -> Self::Result {
        let (now, sees_all) = (Instant::now(), view == View::Everything);
        let streams = self.streams.borrow();
        let mut rows: Vec<_> = streams
            .iter()
            .filter(|(_, stream)| view.shows(&stream.org))
            .map(|(id, stream)| StreamStatus {
                org_id: sees_all.then(|| stream.org.clone()),
                ..status(id, stream, now)
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.age_ms));
        MessageResult(rows)
    }
}

fn status(id: &StreamId, stream: &super::RunningStream, now: Instant) -> StreamStatus {
    let LogStats { listeners, events, bytes, slowest_lag, timings } = stream.log.stats();
    let phase = match (timings.granted, timings.first_content) {
        (_, Some(_)) => "streaming",
        (Some(_), None) => "upstream",
        (None, None) => "queue",
    };
    let asked = || (stream.provider.clone(), stream.model.clone());
    let (provider, model) = stream.log.fallback().map_or_else(asked, |fallback| (fallback.provider, fallback.model));
    StreamStatus {
        stream_id: id.clone(),
        org_id: None,
        provider,
        model,
        age_ms: u64::try_from(now.saturating_duration_since(stream.began).as_millis()).unwrap_or(u64::MAX),
        phase,
        listeners,
        events,
        bytes,
        slowest_lag,
    }
}

impl Handler<Connections> for Coalescer {
    type Result = MessageResult<Connections>;

    fn handle(&mut self, _: Connections, _: &mut Context<Self>) -> Self::Result {
        let statuses = self.targets.iter().map(|(name, target)| (name.clone(), target.transport.status()));
        MessageResult(statuses.collect())
    }
}

impl Handler<Weigh> for Coalescer {
    type Result = Load;

    fn handle(&mut self, _: Weigh, _: &mut Context<Self>) -> Load {
        Load { running: self.tables.running(), retained: self.tables.retained(), requests: self.tables.requests() }
    }
}
