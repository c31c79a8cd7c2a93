//! How requests join an answer: the interest, the turn in the store, the reply.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::interests::Group;
use super::{Admitted, Identity, Join, Member, NotJoined, Opened, State, Stream, Waiting, tell};
use crate::actors::coalescer;
use crate::actors::coalescer::tables::TurnIds;
use crate::actors::subscriber::{OnDisconnect, Subscriber};
use crate::chat::{MessageId, RequestId};
use crate::failure::{Code, Failure};
use crate::fanout::{Attachment, Outcome, Subscription};
use crate::store::{NewRequest, OpenTurn, Store, StoreError};

impl Handler<Join> for Stream {
    type Result = ();

    fn handle(&mut self, join: Join, ctx: &mut Context<Self>) {
        let Join { subscription, turn, ids, identity, reply } = join;
        let known = self.interests.has_turn(ids.as_ref());
        if self.state == State::Over || (self.state == State::Settling && !known) {
            let _ = reply.send(Err(NotJoined::JustEnded));
            return;
        }
        let request = subscription.facts.request.clone();
        let member = Member { subscriber: self.subscribe(&subscription, ctx), subscription: subscription.clone() };
        let is_new = self.interests.add(request.clone(), ids.as_ref(), member);
        let mut row = ids.as_ref().map(|ids| new_request(&subscription, ids, &identity));
        if let (true, Some(turn), Some(row)) = (is_new, turn, row.take_if(|_| is_new)) {
            self.open_or_defer(turn.into_open(row), ctx);
        }
        let is_taken_in = self.state != State::Asking;
        let store = self.environment.store.clone();
        let Some(group) = self.interests.group_mut(ids.as_ref().map(|ids| &ids.answer)) else { return };
        group.open |= ids.is_none() && is_taken_in;
        let waiting = Waiting { reply, row };
        if group.open {
            answer(waiting, &subscription, &store);
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
        self.interests.groups_mut().filter(|group| group.turn.is_none()).for_each(|group| group.open = true);
        self.answer_groups();
    }
}

impl Handler<Opened> for Stream {
    type Result = ();

    fn handle(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        if let Err(error) = &opened.result {
            self.refuse_turn(&opened.answer, error, ctx);
            return;
        }
        if let Some(group) = self.interests.group_mut(Some(&opened.answer)) {
            group.open = true;
        }
        self.answer_groups();
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
        let (store, me, answer) = (self.environment.store.clone(), ctx.address(), turn.answer.clone());
        tokio::task::spawn_local(async move {
            let result = store.open_turn(turn).await;
            tell(&me, Opened { answer, result });
        });
    }

    /// Answers everybody whose turn is open.
    pub(super) fn answer_groups(&mut self) {
        let store = self.environment.store.clone();
        let mut ready = Vec::new();
        for group in self.interests.groups_mut().filter(|group| group.open) {
            ready.append(&mut group.waiting);
        }
        for (request, waiting) in ready {
            if let Some(member) = self.interests.get(&request) {
                answer(waiting, &member.subscription, &store);
            }
        }
    }

    /// A turn could not be opened: its requests are refused; the answer ends when nobody else wants it.
    fn refuse_turn(&mut self, answer: &MessageId, error: &StoreError, ctx: &mut Context<Self>) {
        let refusal = not_joined(error);
        let (members, group) = self.interests.remove_turn(Some(answer));
        if let Some(Group { turn, waiting, .. }) = group {
            waiting.into_iter().for_each(|(_, waiting)| drop(waiting.reply.send(Err(refusal.clone()))));
            if let Some(turn) = turn {
                self.tell_coalescer(coalescer::TurnEnded { stream: self.id.clone(), thread: turn.thread });
            }
        }
        for (_, member) in members {
            self.end_member(&member, &Outcome::refused(&refusal));
        }
        if self.interests.is_empty() && self.state == State::Running {
            self.abort_attempt();
            self.over(None, false, ctx);
        }
    }

    /// The rows that wait with their requests: the last write of the answer needs them before it.
    pub(super) fn take_waiting_rows(&mut self) -> Vec<NewRequest> {
        let waiting = self.interests.groups_mut().flat_map(|group| &mut group.waiting);
        waiting.filter_map(|(_, waiting)| waiting.row.take()).collect()
    }
}

/// Answers a request; its row is written without making it wait.
pub(super) fn answer(waiting: Waiting, subscription: &Arc<Subscription>, store: &Store) {
    if let Some(row) = waiting.row {
        let store = store.clone();
        tokio::task::spawn_local(async move { keep_request(&store, row).await });
    }
    let _ = waiting.reply.send(Ok(Attachment::new(subscription.clone())));
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
            log::error!(error:?; "a turn could not be kept");
            Failure::new(Code::Storage, "the message could not be stored")
        }
    };
    NotJoined::Failed(failure)
}
