//! Drain: a cancelled answer is read on, unheard, only to learn what it costs.
//!
//! Its listeners have their end already. A drain keeps its call's permit, so there are never more of them than calls,
//! and at most half as many as the provider takes. It stands in nobody's way: whoever has to wait for the provider ends
//! the oldest one, and none begins meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::{Cancelled, Stream};
use crate::chat::{MessageId, RequestId, StreamId};
use crate::config::OnCancel;
use crate::event::Usage;
use crate::failure::Phase;
use crate::metrics::Metrics;
use crate::store::{Bill, CallRole, Store};

/// The drains of one provider. See the module.
#[derive(Debug, Default)]
pub struct Drains {
    /// The oldest first; some may have ended.
    running: RefCell<VecDeque<AbortHandle>>,
    /// Requests that wait for a permit.
    waiting: Cell<usize>,
}

/// Somebody waits for a permit, as long as this exists.
pub(super) struct Waiting<'a>(&'a Drains);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Drains {
    /// Ends them all: the server stops.
    pub fn end_all(&self) {
        self.running.take().iter().for_each(AbortHandle::abort);
    }

    /// Somebody waits for a permit.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.set(self.waiting.get() + 1);
        self.make_way();
        Waiting(self)
    }

    /// Ends the oldest one.
    pub(super) fn make_way(&self) {
        let mut running = self.running.borrow_mut();
        running.retain(|drain| !drain.is_finished());
        if let Some(oldest) = running.pop_front() {
            oldest.abort();
        }
    }

    /// Whether this call may be read on.
    fn begin(&self, call: &AbortHandle, drains_max: usize) -> bool {
        let mut running = self.running.borrow_mut();
        running.retain(|drain| !drain.is_finished());
        let may = self.waiting.get() == 0 && running.len() < drains_max && !call.is_finished();
        if may {
            running.push_back(call.clone());
        }
        may
    }
}

/// Whom a drain concerns. Known when all of that is settled.
#[derive(Debug)]
pub(super) struct Concerned {
    pub(super) answers: Vec<MessageId>,
    pub(super) requests: Vec<RequestId>,
}

impl Stream {
    /// Nobody is interested any more: closes the call, or lets it be read on where the configuration says so. There is
    /// nothing to read before the provider has begun.
    pub(super) fn cancel_attempt(&mut self) -> Cancelled {
        let target = self.standing.target();
        let has_begun = matches!(self.standing.phase.get(), Phase::PreToken | Phase::MidStream);
        let drains_max = (target.provider.pace.concurrency / 2).max(1);
        let drains = |call: &mut AbortHandle| {
            let is_wanted = target.provider.on_cancel == OnCancel::Drain && has_begun;
            is_wanted && target.drains.begin(call, drains_max)
        };
        if self.abort.take_if(drains).is_none() {
            return self.abort_attempt();
        }
        let (tell, concerned) = oneshot::channel();
        self.drained = Some(tell);
        self.standing.drain(concerned);
        Cancelled::Drained
    }

    /// The answer is over and has cost this, as far as is known. What is drained is counted when the drain has ended.
    pub(super) fn charge(&self, usage: Option<Usage>) {
        self.bill.charge(usage);
        let Some(usage) = usage else { return };
        if self.drained.is_some() {
            return self.standing.estimated.set(Some(usage));
        }
        let metrics = &self.environment.metrics;
        metrics.spent(self.standing.target().provider.name.as_str(), usage);
        let mut members = self.interests.iter().map(|(_, member)| member);
        if !members.any(|member| member.subscription.facts.role == CallRole::Leader) {
            // Whoever has begun it left when it had cost less.
            metrics.billed(self.id.as_str(), usage);
        }
    }

    /// Everything that a drain concerns is settled.
    pub(super) fn tell_drain(&mut self) {
        let Some(drained) = self.drained.take() else { return };
        let answers = self.interests.turns().map(|turn| turn.answer.clone()).collect();
        let requests = self.interests.iter().map(|(request, _)| request.clone()).collect();
        // It may have been ended in the meantime.
        let _ = drained.send(Concerned { answers, requests });
    }
}

/// A drain is over: what it has learned takes the place of what was estimated.
pub(super) async fn correct(
    stream: StreamId,
    usage: Usage,
    concerned: oneshot::Receiver<Concerned>,
    store: Store,
    metrics: Arc<Metrics>,
) {
    // A stream that broke has settled its answers by itself.
    let Ok(Concerned { answers, requests }) = concerned.await else { return };
    let stream_id = stream.clone();
    if let Err(error) = store.correct_usage(Bill { stream, answers, requests, usage }).await {
        log::warn!(stream_id = stream_id.as_str(), error:?; "what a cancelled answer costs could not be kept");
    }
    metrics.billed(stream_id.as_str(), usage);
}
