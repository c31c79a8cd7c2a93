//! Reply: where the answer to a join goes. Every join gets one, whatever happens to its stream.

use std::sync::Arc;

use super::{JoinReply, NotJoined};
use crate::actors::coalescer::{Coalescer, NotTaken};
use crate::actors::guardian::Address;
use crate::actors::subscriber;
use crate::fanout::{Attachment, Seat, Subscription};

/// See the module. Dropped without an answer, it says that the stream has just ended.
#[derive(Debug)]
pub struct Reply {
    to: Option<(JoinReply, Seat)>,
    subscription: Arc<Subscription>,
    coalescer: Address<Coalescer>,
}

impl Reply {
    /// A reply to the request of `subscription`, with the place that its listener will have.
    pub fn new(to: JoinReply, subscription: Arc<Subscription>, seat: Seat, coalescer: Address<Coalescer>) -> Self {
        Self { to: Some((to, seat)), subscription, coalescer }
    }

    /// What is joined.
    pub(super) fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// The request has joined.
    pub(super) fn joined(mut self) {
        if let Some((to, seat)) = self.to.take() {
            self.subscription.joined();
            let _ = to.send(Ok(Attachment::seated(self.subscription.clone(), seat)));
        }
    }

    /// It has not.
    pub(super) fn refused(mut self, why: NotJoined) {
        self.refuse(why);
    }

    /// The coalescer hears of it first: whoever is told to ask again may do so at once.
    fn refuse(&mut self, why: NotJoined) {
        let Some((to, seat)) = self.to.take() else { return };
        // Who asks again needs a place as well.
        drop(seat);
        if let Some(coalescer) = self.coalescer.get() {
            let facts = &self.subscription.facts;
            forget(&coalescer, NotTaken { stream: facts.stream.clone(), request: facts.request.clone() });
        }
        if !matches!(why, NotJoined::Failed(_)) {
            // Whoever has found the request meanwhile must not wait for an end that never comes.
            subscriber::dismiss(&self.subscription, &why);
        }
        let _ = to.send(Err(why));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.refuse(NotJoined::JustEnded);
    }
}

#[expect(clippy::disallowed_methods, reason = "one message in the life of a request; requests are bounded")]
fn forget(coalescer: &actix::Addr<Coalescer>, news: NotTaken) {
    coalescer.do_send(news);
}
