//! How requests join an answer: the interest, the turn in the store, the reply.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::timeout;

use super::interests::Group;
use super::{Admitted, Identity, Join, Late, Member, NotJoined, Opened, State, Stream, Waiting, ending, tell};
use crate::actors::coalescer;
use crate::actors::coalescer::tables::TurnIds;
use crate::actors::subscriber::{OnDisconnect, Subscriber};
use crate::chat::{MessageId, RequestId};
use crate::event::Status;
use crate::failure::{Code, Failure};
use crate::fanout::{Kept, Outcome, Subscription};
use crate::store::{NewRequest, OpenTurn, Store, StoreError};

impl Handler<Join> for Stream {
    type Result = ();

    fn handle(&mut self, join: Join, ctx: &mut Context<Self>) {
        let Join { subscription, turn, ids, identity, ticket, reply } = join;
        if self.state == State::Over {
            return reply.refused(NotJoined::JustEnded);
        }
        let known = self.interests.has_turn(ids.as_ref());
        if !known && self.state == State::Settling {
            return self.late.push(Late { answer: None, reply });
        }
        if !known && turn.is_none() && ids.is_some() {
            // The turn that it was to join has ended. Its thread is free once that is written.
            let settling = ids.map(|ids| ids.answer).filter(|answer| self.settling.contains(answer));
            return match settling {
                Some(answer) => self.late.push(Late { answer: Some(answer), reply }),
                None => reply.refused(NotJoined::JustEnded),
            };
        }
        let request = subscription.facts.request.clone();
        let ticket = Rc::new(RefCell::new(Some(ticket)));
        let subscriber = self.subscribe(&subscription, ctx);
        let member = Member { subscriber, subscription: subscription.clone(), ticket };
        let is_new = self.interests.add(request.clone(), ids.as_ref(), member);
        let mut row = ids.as_ref().map(|ids| new_request(&subscription, ids, &identity));
        if let (true, Some(turn), Some(row)) = (is_new, turn, row.take_if(|_| is_new)) {
            self.open_or_defer(turn.into_open(row), ctx);
        }
        let state = self.state;
        let store = self.environment.store.clone();
        let Some(group) = self.interests.group_mut(ids.as_ref().map(|ids| &ids.answer)) else { return };
        group.open |= ids.is_none() && state != State::Asking;
        let waiting = Waiting { reply, row };
        // What joins while the end is being written is not part of that write: it is answered after it.
        if group.open && state != State::Settling {
            answer(waiting, &store);
        } else {
            group.waiting.push((request, waiting));
        }
    }
}

impl Handler<Admitted> for Stream {
    type Result = ();

    fn handle(&mut self, _: Admitted, ctx: &mut Context<Self>) {
        if self.state != State::Asking {
            return;
        }
        self.state = State::Running;
        for turn in std::mem::take(&mut self.unopened) {
            self.open_or_defer(turn, ctx);
        }
        self.opened(None, ctx);
    }
}

impl Handler<Opened> for Stream {
    type Result = ();

    fn handle(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        let Opened { answer, result } = opened;
        self.opening -= 1;
        // Whoever has been stopped is told so; being told to ask again would begin it anew.
        let stopped = self.ending.as_ref().map(|(outcome, _)| outcome.clone());
        let stopped = stopped.filter(|outcome| matches!(outcome.status, Status::Cancelled | Status::Interrupted));
        match (result, stopped) {
            (Ok(()), _) => self.opened(Some(&answer), ctx),
            (Err(_), Some(outcome)) => self.end_unopened(&answer, outcome),
            (Err(error), None) => self.refuse_turn(&answer, &error, ctx),
        }
        self.settle_if_open(ctx);
    }
}

impl Stream {
    fn subscribe(&self, subscription: &Arc<Subscription>, ctx: &Context<Self>) -> Addr<Subscriber> {
        let on_disconnect = match subscription.facts.thread {
            Some(_) => self.environment.on_disconnect,
            None => OnDisconnect::CancelAfter(Duration::ZERO),
        };
        let metrics = self.environment.metrics.clone();
        Subscriber::new(subscription.clone(), ctx.address().recipient(), on_disconnect, metrics).start()
    }

    /// Opens a turn in the store, unless the pacer may still refuse the request.
    fn open_or_defer(&mut self, turn: OpenTurn, ctx: &Context<Self>) {
        if self.state == State::Asking {
            self.unopened.push(turn);
            return;
        }
        self.opening += 1;
        let (store, me, answer) = (self.environment.store.clone(), ctx.address(), turn.answer.clone());
        let limit = self.environment.write_wait_max;
        tokio::task::spawn_local(async move {
            let unwanted = ending::unwanted(&turn);
            let mut write = pin!(store.open_turn(turn));
            let Ok(result) = timeout(limit, &mut write).await else {
                let message = format!("no answer within {} ms (store.write_wait_max_ms)", limit.as_millis());
                tell(&me, Opened { answer, result: Err(StoreError::Failed(message)) });
                // It may still be written, and nobody would ever end it.
                if write.await.is_ok() {
                    ending::settle(&store, &unwanted.stream.clone(), unwanted).await;
                }
                return;
            };
            tell(&me, Opened { answer, result });
        });
    }

    /// A turn is open, or there is none to open: its requests are answered, and those who wanted to leave may go.
    fn opened(&mut self, answer_id: Option<&MessageId>, ctx: &mut Context<Self>) {
        let store = self.environment.store.clone();
        let Some(group) = self.interests.group_mut(answer_id) else { return };
        group.open = true;
        for (_, waiting) in std::mem::take(&mut group.waiting) {
            answer(waiting, &store);
        }
        // Also when the answer has ended meanwhile: they were told that they are withdrawn, and its end is not theirs.
        for (request, status) in self.interests.take_leaving(answer_id) {
            self.withdraw(&request, status, ctx);
        }
    }

    /// A turn that was stopped and then could not be opened came to nothing: there are no messages.
    fn end_unopened(&mut self, answer: &MessageId, outcome: Outcome) {
        let (members, group) = self.interests.remove_turn(Some(answer));
        let Some(Group { turn, waiting, .. }) = group else { return };
        if let Some(turn) = turn {
            self.tell_coalescer(coalescer::TurnEnded { stream: self.id.clone(), thread: turn.thread });
        }
        let outcome = Outcome { kept: Kept::NoTurn, ..outcome };
        members.iter().for_each(|(_, member)| self.end_member(member, outcome.clone()));
        waiting.into_iter().for_each(|(_, waiting)| waiting.reply.joined());
    }

    /// A turn could not be opened: its requests are refused; the answer ends when nobody else wants it.
    fn refuse_turn(&mut self, answer: &MessageId, error: &StoreError, ctx: &mut Context<Self>) {
        let refusal = not_joined(error);
        let leaving = self.interests.take_leaving(Some(answer));
        let (members, group) = self.interests.remove_turn(Some(answer));
        let Some(Group { turn, waiting, .. }) = group else { return };
        if let Some(turn) = turn {
            self.tell_coalescer(coalescer::TurnEnded { stream: self.id.clone(), thread: turn.thread });
        }
        for (request, member) in members {
            // Those who have been cancelled stay so: being told to ask again would begin them anew.
            let outcome = match leaving.iter().find(|(left, _)| *left == request) {
                Some((_, status)) => Outcome { kept: Kept::NoTurn, ..ending::stopped(&self.log, *status) },
                None => Outcome::refused(&refusal),
            };
            self.end_member(&member, outcome);
        }
        let is_over = self.interests.is_empty() && self.state == State::Running;
        if is_over {
            self.charge(ending::stopped(&self.log, Status::Cancelled).usage);
            self.abort_attempt();
            self.over(None, false, ctx);
        } else if self.interests.staying() == 0 && self.state == State::Running {
            self.stop_all(Status::Cancelled, ctx);
        }
        for (request, waiting) in waiting {
            match leaving.iter().any(|(left, _)| *left == request) {
                true => waiting.reply.joined(),
                false => waiting.reply.refused(refusal.clone()),
            }
        }
    }
}

/// Answers a request; its row is written without making it wait.
pub(super) fn answer(waiting: Waiting, store: &Store) {
    if let Some(row) = waiting.row {
        let store = store.clone();
        tokio::task::spawn_local(async move { keep_request(&store, row).await });
    }
    waiting.reply.joined();
}

/// Writes the row of a request that has joined a turn.
pub(super) async fn keep_request(store: &Store, row: NewRequest) {
    let request: RequestId = row.id.clone();
    if let Err(error) = store.add_request(row).await {
        log::warn!(request_id = request.as_str(), error:?; "a request could not be kept");
    }
}

fn new_request(subscription: &Subscription, ids: &TurnIds, identity: &Identity) -> NewRequest {
    let facts = &subscription.facts;
    NewRequest {
        id: facts.request.clone(),
        idempotency_key: identity.idempotency_key.clone(),
        body_digest: identity.body_digest,
        role: facts.role,
        turn: Some((ids.thread.clone(), ids.user_message.clone(), ids.answer.clone())),
        stream: facts.stream.clone(),
        provider: facts.provider.to_string(),
        model: facts.model.to_string(),
    }
}

fn not_joined(error: &StoreError) -> NotJoined {
    let failure = match error {
        StoreError::SequenceMoved => return NotJoined::SequenceMoved,
        StoreError::ThreadNotFound => Failure::new(Code::ThreadNotFound, "no such thread"),
        StoreError::RequestIdInUse => {
            Failure::new(Code::RequestIdInUse, "another request has this id").param("request_id")
        }
        StoreError::IdempotencyKeyInUse => {
            let message = "the same idempotency key came with another request";
            Failure::new(Code::IdempotencyConflict, message).param("Idempotency-Key")
        }
        error => {
            log::warn!(error:?; "a turn could not be kept");
            Failure::new(Code::Storage, "the message could not be stored")
        }
    };
    NotJoined::Failed(failure)
}
