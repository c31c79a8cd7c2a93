//! How requests leave an answer, and how the answer is stopped.

use actix::prelude::*;

use super::interests::Withdrawn;
use super::{Cancelled, State, Stop, Stream, Withdraw, ending};
use crate::chat::{RequestId, ThreadId};
use crate::event::Status;

impl Handler<Withdraw> for Stream {
    type Result = ();

    fn handle(&mut self, withdraw: Withdraw, ctx: &mut Context<Self>) {
        let Withdraw { request, asked, reply } = withdraw;
        let cancelled = if matches!(self.state, State::Settling | State::Over) {
            Cancelled::AlreadyOver
        } else {
            self.withdraw(&request, ctx)
        };
        if cancelled != Cancelled::AlreadyOver {
            self.environment.metrics.cancelled(asked.elapsed());
        }
        if let Some(reply) = reply {
            let _ = reply.send(cancelled);
        }
    }
}

impl Stream {
    fn withdraw(&mut self, request: &RequestId, ctx: &mut Context<Self>) -> Cancelled {
        match self.interests.withdraw(request) {
            Withdrawn::Unknown => Cancelled::AlreadyOver,
            Withdrawn::Shared(member) => {
                self.end_one(member);
                Cancelled::Shared
            }
            Withdrawn::TurnOver(member, group) => {
                self.end_turn(vec![member], group, Status::Cancelled);
                Cancelled::Shared
            }
            Withdrawn::Last => self.stop_all(Status::Cancelled, ctx),
        }
    }

    /// Ends the answer for everybody, now.
    fn stop_all(&mut self, status: Status, ctx: &mut Context<Self>) -> Cancelled {
        let cancelled = self.abort_attempt();
        self.settle(ending::stopped(&self.log, status), ctx);
        cancelled
    }
}

impl Handler<Stop> for Stream {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Context<Self>) {
        let Stop { thread, status, reply } = stop;
        let cancelled = if matches!(self.state, State::Settling | State::Over) {
            Cancelled::AlreadyOver
        } else {
            self.stop(thread.as_ref(), status, ctx)
        };
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
        if self.interests.members(&answer).len() == self.interests.len() {
            return self.stop_all(status, ctx);
        }
        let (members, group) = self.interests.remove_turn(Some(&answer));
        if let Some(group) = group {
            self.end_turn(members.into_iter().map(|(_, member)| member).collect(), group, status);
        }
        Cancelled::Shared
    }
}
