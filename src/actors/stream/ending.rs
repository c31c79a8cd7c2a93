//! How an answer ends: its outcome, its last write, and the end of each request.

use std::sync::Arc;

use actix::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::interests::Group;
use super::joining::{answer, keep_request};
use super::{Member, State, Stream, Waiting};
use crate::actors::coalescer;
use crate::actors::subscriber::Ended;
use crate::chat::MessageId;
use crate::event::{Finish, FinishReason, Status, Usage};
use crate::failure::{Code, Failure};
use crate::fanout::{Outcome, StreamLog, Subscription, Transcript};
use crate::store::{Checkpoint, EndedRequest, Settle};

/// How many characters of English make a token, roughly; for estimates of answers that were cut.
const CHARS_PER_TOKEN: usize = 4;

/// The outcome of an answer that its provider finished.
pub(super) fn finished(log: &StreamLog, finish: Finish) -> Outcome {
    let usage = log.with_transcript(|transcript| transcript.usage);
    Outcome { status: Status::Complete, finish, failure: None, usage, partial: false, saved: true }
}

/// The outcome of an answer that failed on its way.
pub(super) fn failed(log: &StreamLog, failure: Failure) -> Outcome {
    let partial = log.with_transcript(|transcript| transcript.bytes() > 0);
    Outcome { usage: usage(log), ..Outcome::failed(failure, partial) }
}

/// The outcome of an answer that was stopped from this side.
pub(super) fn stopped(log: &StreamLog, status: Status) -> Outcome {
    let partial = log.with_transcript(|transcript| transcript.bytes() > 0);
    let (reason, failure) = match status {
        Status::Interrupted => {
            (FinishReason::Error, Some(Failure::new(Code::Interrupted, "the server stopped during the answer")))
        }
        _ => (FinishReason::Cancelled, None),
    };
    let finish = Finish { reason, native: None };
    Outcome { status, finish, failure, usage: usage(log), partial, saved: true }
}

/// What the provider said of the cost, else an estimate of what has come.
fn usage(log: &StreamLog) -> Option<Usage> {
    log.with_transcript(|transcript| {
        transcript.usage.or_else(|| {
            let chars = transcript.text.chars().count() + transcript.reasoning.chars().count();
            let output = chars.div_ceil(CHARS_PER_TOKEN) as u64;
            (output > 0).then(|| Usage { output, total: output, estimated: true, ..Usage::default() })
        })
    })
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
        let answers: Vec<_> = self.interests.turns().map(|turn| turn.answer.clone()).collect();
        if answers.is_empty() || !was_kept {
            // Nothing was written, nothing is to be.
            self.take_waiting_rows();
            self.interests.groups_mut().for_each(|group| group.open = true);
            self.answer_groups();
            self.tell_everybody(Arc::new(outcome), at, ctx);
            return;
        }
        let write = self.write_end(answers, self.interests.iter().map(|(_, member)| member), &outcome, at);
        let rows = self.take_waiting_rows();
        let store = self.environment.store.clone();
        let written = async move {
            for row in rows {
                keep_request(&store, row).await;
            }
            store.settle(write).await
        };
        let told = written.into_actor(self).map(move |written, stream, ctx| {
            let saved = written.inspect_err(|error| {
                log::error!(stream_id = stream.id.as_str(), error:?; "the end of an answer could not be kept");
            });
            stream.tell_everybody(Arc::new(Outcome { saved: saved.is_ok(), ..outcome }), at, ctx);
        });
        ctx.spawn(told);
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
            answered_by: None,
            requests: members.map(|member| ended_request(&member.subscription, outcome, at)).collect(),
        }
    }

    /// The store has the end: the coalescer first, so that the thread is free when its clients read `done`.
    fn tell_everybody(&mut self, outcome: Arc<Outcome>, at: Instant, ctx: &mut Context<Self>) {
        let failure = outcome.failure.clone().filter(|_| outcome.status == Status::Error);
        self.over(failure, true, ctx);
        self.end_everybody(&outcome, at);
    }

    /// Nothing is left to do.
    pub(super) fn over(&mut self, failure: Option<Failure>, retain: bool, ctx: &mut Context<Self>) {
        self.state = State::Over;
        self.tell_coalescer(coalescer::Ended { stream: self.id.clone(), failure, retain });
        ctx.stop();
    }

    pub(super) fn end_everybody(&self, outcome: &Arc<Outcome>, at: Instant) {
        let last_seq = self.log.last_seq();
        for (_, member) in self.interests.iter() {
            end_subscriber(member, Ended { outcome: outcome.clone(), last_seq, at });
        }
    }

    pub(super) fn end_member(&self, member: &Member, outcome: &Outcome) {
        let last_seq = self.log.last_seq();
        end_subscriber(member, Ended { outcome: Arc::new(outcome.clone()), last_seq, at: Instant::now() });
    }

    /// One request of a thread leaves, the thread's answer goes on.
    pub(super) fn end_one(&self, member: Member) {
        let outcome = Arc::new(stopped(&self.log, Status::Cancelled));
        let (at, last_seq) = (Instant::now(), self.log.last_seq());
        let row = ended_request(&member.subscription, &outcome, at);
        let store = self.environment.store.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = store.end_requests(vec![row]).await {
                log::error!(error:?; "the end of a request could not be kept");
            }
            end_subscriber(&member, Ended { outcome, last_seq, at });
        });
    }

    /// One thread's turn is over, the answer goes on for others.
    pub(super) fn end_turn(&self, members: Vec<Member>, group: Group<Waiting>, status: Status) {
        let store = self.environment.store.clone();
        for (request, waiting) in group.waiting {
            if let Some(member) = members.iter().find(|member| member.subscription.facts.request == request) {
                answer(waiting, &member.subscription, &store);
            }
        }
        let outcome = Arc::new(stopped(&self.log, status));
        let (at, last_seq) = (Instant::now(), self.log.last_seq());
        let answers = group.turn.iter().map(|turn| turn.answer.clone()).collect();
        let write = self.write_end(answers, members.iter(), &outcome, at);
        let (turn, coalescer, stream) = (group.turn, self.environment.coalescer.clone(), self.id.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = store.settle(write).await {
                log::error!(error:?; "the end of a turn could not be kept");
            }
            if let (Some(turn), Some(coalescer)) = (turn, coalescer.get()) {
                // Asked, not told, so that the thread is free before its clients read `done`.
                let _ = coalescer.send(coalescer::TurnEnded { stream, thread: turn.thread }).await;
            }
            for member in &members {
                end_subscriber(member, Ended { outcome: outcome.clone(), last_seq, at });
            }
        });
    }

    /// The actor is going without having ended its answer.
    pub(super) fn abandon(&mut self, failure: Failure) {
        let outcome = failed(&self.log, failure.clone());
        let at = Instant::now();
        let answers: Vec<_> = self.interests.turns().map(|turn| turn.answer.clone()).collect();
        let write = self.write_end(answers, self.interests.iter().map(|(_, member)| member), &outcome, at);
        let store = self.environment.store.clone();
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(async move { store.settle(write).await });
        }
        self.tell_coalescer(coalescer::Ended { stream: self.id.clone(), failure: Some(failure), retain: true });
        self.end_everybody(&Arc::new(outcome), at);
    }
}

#[expect(clippy::disallowed_methods, reason = "one message in the life of a request; requests are bounded")]
fn end_subscriber(member: &Member, ended: Ended) {
    member.subscriber.do_send(ended);
}

/// What the store keeps of a request that has ended.
fn ended_request(subscription: &Subscription, outcome: &Outcome, at: Instant) -> EndedRequest {
    let timings = subscription.log.timings();
    let request_id = subscription.facts.request.as_str();
    let facts = json!({
        "ttft_ms": subscription.ttft_ms(),
        "ttfb_ms": subscription.since_arrival_ms(timings.first_byte),
        "queue_wait_ms": subscription.since_arrival_ms(timings.granted),
        "connect_ms": timings.connect_ms,
        "latency_ms": subscription.since_arrival_ms(Some(at)),
        "usage": outcome.usage,
        "native_finish_reason": outcome.finish.native,
        "error": outcome.failure.as_ref().map(|failure| failure.body(Some(request_id))),
    });
    EndedRequest {
        id: subscription.facts.request.clone(),
        status: outcome.status,
        finish_reason: outcome.finish.reason,
        facts,
    }
}
