//! How an answer ends: its outcome, its last write, and the end of each request.

use std::sync::Arc;

use actix::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::estimate;
use super::joining::keep_request;
use super::{Member, NotJoined, Settled, State, Stream, TurnSettled, Waiting, broken, tell};
use crate::actors::coalescer;
use crate::actors::coalescer::tables::{Ending, TurnIds};
use crate::actors::subscriber::Ended;
use crate::chat::{MessageId, StreamId, ThreadId};
use crate::event::{Finish, FinishReason, Status};
use crate::failure::{Code, Failure};
use crate::fanout::{Facts, Kept, Outcome, StreamLog, Subscription, Transcript};
use crate::store::{Checkpoint, EndedRequest, OpenTurn, Settle, Store};

/// The outcome of an answer that its provider finished.
pub(super) fn finished(log: &StreamLog, finish: Finish) -> Outcome {
    let usage = log.with_transcript(estimate::of_answer);
    Outcome { status: Status::Complete, finish, failure: None, usage, partial: false, kept: Kept::Yes }
}

/// The outcome of an answer that failed on its way.
pub(super) fn failed(log: &StreamLog, failure: Failure) -> Outcome {
    let partial = log.with_transcript(Transcript::has_text);
    Outcome { usage: log.with_transcript(estimate::of_answer), ..Outcome::failed(failure, partial) }
}

/// The outcome of an answer that was stopped from this side.
pub(super) fn stopped(log: &StreamLog, status: Status) -> Outcome {
    let partial = log.with_transcript(Transcript::has_text);
    let (reason, failure) = match status {
        Status::Interrupted => {
            (FinishReason::Error, Some(Failure::new(Code::Interrupted, "the server stopped during the answer")))
        }
        _ => (FinishReason::Cancelled, None),
    };
    let finish = Finish { reason, native: None };
    let usage = log.with_transcript(estimate::of_stopped);
    Outcome { status, finish, failure, usage, partial, kept: Kept::Yes }
}

impl Stream {
    /// Saves the text so far. Nobody waits for it.
    pub(super) fn checkpoint(&self) {
        let (text, reasoning) =
            self.log.with_transcript(|transcript| (transcript.content().to_owned(), transcript.reasoning.clone()));
        let answers = self.interests.turns().map(|turn| turn.answer.clone()).collect();
        self.environment.store.checkpoint(Checkpoint { answers, stream: self.id.clone(), text, reasoning });
    }

    /// The answer is over: writes its end, then tells everybody.
    pub(super) fn settle(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        let at = Instant::now();
        let was_kept = self.state != State::Asking;
        self.state = State::Settling;
        self.charge(outcome.usage);
        self.interests.iter().for_each(|(_, member)| member.leave());
        if was_kept {
            let how = match outcome.status {
                Status::Complete | Status::Error => Ending::Answered,
                _ => Ending::Withdrawn,
            };
            self.tell_coalescer(coalescer::Ending { stream: self.id.clone(), thread: None, how });
            self.ending = Some((outcome, at));
            return self.settle_if_open(ctx);
        }
        // Nothing was written, nothing is to be.
        self.unopened.clear();
        let waiting = self.interests.take_waiting();
        self.tell_everybody(&Arc::new(Outcome { kept: Kept::NoTurn, ..outcome }), at, ctx);
        waiting.into_iter().for_each(|(_, waiting)| waiting.reply.joined());
    }

    /// Writes the end as soon as no turn is being opened. The task is spawned like those of the writes before it, so
    /// that the store gets them in this order.
    pub(super) fn settle_if_open(&mut self, ctx: &mut Context<Self>) {
        if self.opening > 0 || self.state != State::Settling {
            return;
        }
        let Some((outcome, at)) = self.ending.take() else { return };
        let answers: Vec<_> = self.interests.turns().map(|turn| turn.answer.clone()).collect();
        if answers.is_empty() {
            return self.tell_everybody(&Arc::new(outcome), at, ctx);
        }
        let write = self.write_end(answers, self.interests.iter().map(|(_, member)| member), &outcome, at);
        let (store, me, stream) = (self.environment.store.clone(), ctx.address(), self.id.clone());
        tokio::task::spawn_local(async move {
            let outcome = Arc::new(Outcome { kept: settle(&store, &stream, write).await, ..outcome });
            tell(&me, Settled { outcome, at });
        });
    }

    /// The last write of some of the answers.
    fn write_end<'a>(
        &self,
        answers: Vec<MessageId>,
        members: impl Iterator<Item = &'a Member>,
        outcome: &Outcome,
        at: Instant,
    ) -> Settle {
        let transcript = self.log.transcript();
        let text = transcript.content().to_owned();
        let Transcript { reasoning, citations, tool_calls, opaque, model, upstream_id, .. } = transcript;
        let error = outcome.failure.as_ref().map(|failure| failure.body(None));
        let meta = json!({
            "native_finish_reason": outcome.finish.native,
            "upstream_id": upstream_id,
            "upstream_model": model,
            "error": error,
            "fallback_from": self.log.fallback().map(|fallback| fallback.from),
        });
        Settle {
            answers,
            stream: self.id.clone(),
            status: outcome.status,
            finish_reason: outcome.finish.reason,
            text,
            reasoning,
            usage: outcome.usage,
            citations,
            tool_calls,
            opaque,
            meta,
            answered_by: answered_by(&self.log),
            requests: members.map(|member| ended_request(&member.subscription, outcome, at)).collect(),
        }
    }

    /// The store has the end: the coalescer first, so that the thread is free when its clients read `done`.
    fn tell_everybody(&mut self, outcome: &Arc<Outcome>, at: Instant, ctx: &mut Context<Self>) {
        let failure = outcome.failure.clone().filter(|_| outcome.status == Status::Error);
        self.over(failure, true, ctx);
        for (request, waiting) in self.interests.take_waiting() {
            if let Some(member) = self.interests.remove(&request) {
                self.end_latecomer(member, waiting, outcome.clone(), at);
            }
        }
        self.end_everybody(outcome, at);
        self.tell_drain();
    }

    /// A request joined while the end was being written: it is kept and ended by itself.
    fn end_latecomer(&self, member: Member, waiting: Waiting, outcome: Arc<Outcome>, at: Instant) {
        let last_seq = self.log.last_seq();
        let Waiting { reply, row } = waiting;
        let store = self.environment.store.clone();
        let ended = ended_request(&member.subscription, &outcome, at);
        tokio::task::spawn_local(async move {
            if let Some(row) = row {
                keep_request(&store, row).await;
                end_request(&store, ended).await;
            }
            reply.joined();
            end_subscriber(&member, Ended { outcome, last_seq, at });
        });
    }

    /// Nothing is left to do. Those who came too late may ask again now.
    pub(super) fn over(&mut self, failure: Option<Failure>, retain: bool, ctx: &mut Context<Self>) {
        self.state = State::Over;
        self.tell_coalescer(coalescer::Ended { stream: self.id.clone(), failure, retain });
        self.late.drain(..).for_each(|late| late.reply.refused(NotJoined::JustEnded));
        ctx.stop();
    }

    pub(super) fn end_everybody(&self, outcome: &Arc<Outcome>, at: Instant) {
        let last_seq = self.log.last_seq();
        for (_, member) in self.interests.iter() {
            end_subscriber(member, Ended { outcome: outcome.clone(), last_seq, at });
        }
    }

    pub(super) fn end_member(&self, member: &Member, outcome: Outcome) {
        let last_seq = self.log.last_seq();
        end_subscriber(member, Ended { outcome: Arc::new(outcome), last_seq, at: Instant::now() });
    }

    /// One request leaves, its thread's answer goes on.
    pub(super) fn end_one(&self, member: Member, status: Status) {
        member.leave();
        let outcome = stopped(&self.log, status);
        let facts = &member.subscription.facts;
        if facts.thread.is_none() {
            return self.end_member(&member, outcome);
        }
        self.tell_coalescer(coalescer::Left(facts.request.clone()));
        let (at, last_seq) = (Instant::now(), self.log.last_seq());
        member.subscription.cut_at(last_seq);
        let ended = ended_request(&member.subscription, &outcome, at);
        let store = self.environment.store.clone();
        tokio::task::spawn_local(async move {
            let kept = end_request(&store, ended).await;
            end_subscriber(&member, Ended { outcome: Arc::new(Outcome { kept, ..outcome }), last_seq, at });
        });
    }

    /// One thread's turn is over, or nobody without a thread is left; the answer goes on for others.
    pub(super) fn end_turn(
        &mut self,
        members: Vec<Member>,
        turn: Option<TurnIds>,
        status: Status,
        ctx: &Context<Self>,
    ) {
        members.iter().for_each(Member::leave);
        let outcome = stopped(&self.log, status);
        let Some(turn) = turn else {
            return members.iter().for_each(|member| self.end_member(member, outcome.clone()));
        };
        self.give_up(turn.thread.clone());
        self.settling.push(turn.answer.clone());
        let (at, last_seq) = (Instant::now(), self.log.last_seq());
        members.iter().for_each(|member| member.subscription.cut_at(last_seq));
        let write = self.write_end(vec![turn.answer.clone()], members.iter(), &outcome, at);
        let (store, me, stream) = (self.environment.store.clone(), ctx.address(), self.id.clone());
        let coalescer = self.environment.coalescer.clone();
        tokio::task::spawn_local(async move {
            let kept = settle(&store, &stream, write).await;
            if let Some(coalescer) = coalescer.get() {
                // Asked, not told, so that the thread is free before its clients read `done`.
                let _ = coalescer.send(coalescer::TurnEnded { stream, thread: turn.thread }).await;
            }
            tell(&me, TurnSettled { answer: turn.answer });
            let outcome = Arc::new(Outcome { kept, ..outcome });
            for member in &members {
                end_subscriber(member, Ended { outcome: outcome.clone(), last_seq, at });
            }
        });
    }

    /// Nobody of a thread wants its turn any more, which is about to end.
    pub(super) fn give_up(&self, thread: ThreadId) {
        let (stream, how) = (self.id.clone(), Ending::Withdrawn);
        self.tell_coalescer(coalescer::Ending { stream, thread: Some(thread), how });
    }

    /// The actor is going without having ended its answer.
    pub(super) fn abandon(&mut self) {
        let failure = broken();
        let outcome = failed(&self.log, failure.clone());
        if !self.is_ending() {
            self.charge(outcome.usage);
        }
        self.interests.iter().for_each(|(_, member)| member.leave());
        let at = Instant::now();
        let last_seq = self.log.last_seq();
        self.tell_coalescer(coalescer::Ended { stream: self.id.clone(), failure: Some(failure.clone()), retain: true });
        for (_, waiting) in self.interests.take_waiting() {
            waiting.reply.refused(NotJoined::Failed(failure.clone()));
        }
        let answers: Vec<_> = self.interests.turns().map(|turn| turn.answer.clone()).collect();
        let write = self.write_end(answers, self.interests.iter().map(|(_, member)| member), &outcome, at);
        let members: Vec<_> = self.interests.iter().map(|(_, member)| member.clone()).collect();
        let (store, stream) = (self.environment.store.clone(), self.id.clone());
        let end = async move {
            let kept = if write.answers.is_empty() { Kept::Yes } else { settle(&store, &stream, write).await };
            let outcome = Arc::new(Outcome { kept, ..outcome });
            for member in &members {
                end_subscriber(member, Ended { outcome: outcome.clone(), last_seq, at });
            }
        };
        // Without a runtime the process is ending, and the subscribers end by themselves.
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(end);
        }
    }
}

impl Handler<Settled> for Stream {
    type Result = ();

    fn handle(&mut self, settled: Settled, ctx: &mut Context<Self>) {
        self.tell_everybody(&settled.outcome, settled.at, ctx);
    }
}

impl Handler<TurnSettled> for Stream {
    type Result = ();

    fn handle(&mut self, TurnSettled { answer }: TurnSettled, _: &mut Context<Self>) {
        self.settling.retain(|settling| *settling != answer);
        let of_turn = self.late.extract_if(.., |late| late.answer.as_ref() == Some(&answer));
        of_turn.for_each(|late| late.reply.refused(NotJoined::JustEnded));
    }
}

/// Ends the row of a request whose turn goes on, or is over; says whether it is kept.
async fn end_request(store: &Store, ended: EndedRequest) -> Kept {
    let written = store.end_requests(vec![ended]).await;
    Kept::after(&written.inspect_err(|error| log::warn!(error:?; "the end of a request could not be kept")))
}

#[expect(clippy::disallowed_methods, reason = "one message in the life of a request; requests are bounded")]
fn end_subscriber(member: &Member, ended: Ended) {
    member.leave();
    member.subscriber.do_send(ended);
}

/// Writes the end of answers. When that fails, their clients hear of it now, and the store goes on trying.
pub(super) async fn settle(store: &Store, stream: &StreamId, write: Settle) -> Kept {
    let settled = store.settle(write).await;
    if let Err(error) = &settled {
        log::warn!(stream_id = stream.as_str(), error:?; "the end of an answer could not be kept");
    }
    Kept::after(&settled)
}

/// The end of a turn whose opening took too long, should it be kept after all: its client was told that it is not.
pub(super) fn unwanted(turn: &OpenTurn) -> Settle {
    let (status, finish_reason) = (Status::Error, FinishReason::Error);
    let failure = Failure::new(Code::Storage, "the message was not stored in time");
    let facts = json!({ "error": failure.body(Some(turn.request.id.as_str())) });
    Settle {
        answers: vec![turn.answer.clone()],
        stream: turn.stream.clone(),
        status,
        finish_reason,
        text: String::new(),
        reasoning: String::new(),
        usage: None,
        citations: Vec::new(),
        tool_calls: Vec::new(),
        opaque: Vec::new(),
        meta: json!({ "error": failure.body(None) }),
        answered_by: None,
        requests: vec![EndedRequest { id: turn.request.id.clone(), status, finish_reason, facts, answered_by: None }],
    }
}

/// What the store keeps of a request that has ended.
fn ended_request(subscription: &Subscription, outcome: &Outcome, at: Instant) -> EndedRequest {
    EndedRequest {
        id: subscription.facts.request.clone(),
        status: outcome.status,
        finish_reason: outcome.finish.reason,
        facts: json!(Facts::at_end(subscription, outcome, at)),
        answered_by: answered_by(&subscription.log),
    }
}

/// Provider and model of the answer, when they are not those that were asked.
fn answered_by(log: &StreamLog) -> Option<(String, String)> {
    log.fallback().map(|fallback| (fallback.provider.to_string(), fallback.model.to_string()))
}
