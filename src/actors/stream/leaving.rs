//! How requests leave an answer, and how the answer is stopped.

use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use super::interests::Withdrawn;
use super::{Cancelled, Late, State, Stop, Stream, Withdraw, ending};
use crate::actors::subscriber::{self, Ended};
use crate::chat::{RequestId, ThreadId};
use crate::event::Status;
use crate::fanout::{Kept, Outcome};

impl Handler<Withdraw> for Stream {
    type Result = ();

    fn handle(&mut self, withdraw: Withdraw, ctx: &mut Context<Self>) {
        let Withdraw { request, asked, reply } = withdraw;
        let cancelled = match self.withdraw_late(&request) {
            Some(cancelled) => cancelled,
            None if self.is_ending() => Cancelled::AlreadyOver,
            None => self.withdraw(&request, Status::Cancelled, ctx),
        };
        let Some(reply) = reply else { return };
        if cancelled != Cancelled::AlreadyOver {
            self.environment.metrics.cancelled(&self.asker.org, asked.elapsed());
        }
        let _ = reply.send(cancelled);
    }
}

impl Stream {
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, State::Settling | State::Over)
    }

    pub(super) fn withdraw(&mut self, request: &RequestId, status: Status, ctx: &mut Context<Self>) -> Cancelled {
        match self.interests.withdraw(request, status) {
            Withdrawn::Unknown => Cancelled::AlreadyOver,
            Withdrawn::Later => {
                if let Some(thread) = self.interests.given_up(request).map(|turn| turn.thread.clone()) {
                    self.give_up(thread);
                }
                Cancelled::Shared
            }
            Withdrawn::Shared(member) => {
                self.end_one(member, status);
                Cancelled::Shared
            }
            Withdrawn::TurnOver(member, group) => {
                self.end_turn(vec![member], group.turn, status, ctx);
                Cancelled::Shared
            }
            Withdrawn::Last => match &mut self.ending {
                // Its turn was opened only after the answer had ended, and nobody else is left.
                Some((outcome, _)) => {
                    let usage = outcome.usage;
                    *outcome = Outcome { usage, ..ending::stopped(&self.log, status) };
                    Cancelled::AlreadyOver
                }
                None => self.stop_all(status, ctx),
            },
        }
    }

    /// A request that would have been asked again is cancelled instead.
    fn withdraw_late(&mut self, request: &RequestId) -> Option<Cancelled> {
        let is_it = |late: &mut Late| late.reply.subscription().facts.request == *request;
        let Late { reply, .. } = self.late.extract_if(.., is_it).next()?;
        let outcome = Outcome { kept: Kept::NoTurn, ..ending::stopped(&self.log, Status::Cancelled) };
        let ended = Ended { outcome: Arc::new(outcome), last_seq: 0, at: Instant::now() };
        subscriber::finish(reply.subscription(), &ended, &self.environment.metrics);
        reply.joined();
        Some(Cancelled::NotStarted)
    }

    /// Ends the answer for everybody, now.
    pub(super) fn stop_all(&mut self, status: Status, ctx: &mut Context<Self>) -> Cancelled {
        let cancelled = if status == Status::Cancelled { self.cancel_attempt() } else { self.abort_attempt() };
        self.settle(ending::stopped(&self.log, status), ctx);
        cancelled
    }
}

impl Handler<Stop> for Stream {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Context<Self>) {
        let Stop { thread, status, reply } = stop;
        let cancelled = if self.is_ending() { Cancelled::AlreadyOver } else { self.stop(thread.as_ref(), status, ctx) };
        if let Some(reply) = reply {
            let _ = reply.send(cancelled);
        }
    }
}

impl Stream {
    fn stop(&mut self, thread: Option<&ThreadId>, status: Status, ctx: &mut Context<Self>) -> Cancelled {
        let Some(thread) = thread else { return self.stop_all(status, ctx) };
        let Some(answer) = self.interests.turn_of(thread).map(|turn| turn.answer.clone()) else {
            return Cancelled::AlreadyOver;
        };
        if self.interests.staying_of(&answer) == self.interests.staying() {
            return self.stop_all(status, ctx);
        }
        if self.interests.group_mut(Some(&answer)).is_some_and(|group| !group.open) {
            for request in self.interests.members(&answer) {
                self.withdraw(&request, status, ctx);
            }
            return Cancelled::Shared;
        }
        let (members, group) = self.interests.remove_turn(Some(&answer));
        if let Some(group) = group {
            let members = members.into_iter().map(|(_, member)| member).collect();
            self.end_turn(members, group.turn, status, ctx);
        }
        Cancelled::Shared
    }
}
