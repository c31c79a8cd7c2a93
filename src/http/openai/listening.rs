//! Listening: one listener's place in an answer, for answers that are told in other words than weir's own.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::timeout;

use super::failure_of;
use super::heard::{Heard, Said};
use crate::fanout::{Attachment, Cursor, End, Next, Subscription};
use crate::http::error::ApiResult;

/// See the module. Dropping it says that the client has gone.
pub(super) struct Listening {
    attachment: Attachment,
    cursor: Cursor,
    heard: Heard,
    has_content: bool,
}

/// What a listener finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Something that was handed to it.
    Something,
    /// Nothing yet; the waker will be called.
    Nothing,
    /// The answer has ended, and all of it was heard.
    End,
}

/// Whether an answer has begun before its status was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    /// It has.
    Yes,
    /// Its client has waited long enough.
    NotYet,
}

impl Listening {
    /// From the answer's beginning.
    pub(super) fn new(attachment: Attachment) -> Self {
        let cursor = Cursor::new(attachment.subscription().log.clone(), 0);
        Self { attachment, cursor, heard: Heard::default(), has_content: false }
    }

    /// What is listened to.
    pub(super) fn subscription(&self) -> &Arc<Subscription> {
        self.attachment.subscription()
    }

    /// Whether a piece of content was heard.
    pub(super) fn has_content(&self) -> bool {
        self.has_content
    }

    /// How the answer ended for this listener, when it has.
    pub(super) fn end(&self) -> Option<&End> {
        self.subscription().end()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> &End {
        self.attachment.ended().await
    }

    /// Waits until the provider says something, at most for `hold`. Until then a failure can have a status of its own,
    /// which is what clients of this API look at to try again.
    pub(super) async fn begin(&mut self, hold: Duration) -> ApiResult<Began> {
        let subscription = self.attachment.subscription();
        let something = poll_fn(|cx| {
            // First the wakers, then the look: what comes in between is not missed.
            while !matches!(self.cursor.next(0, cx.waker()), Next::Nothing) {}
            self.attachment.wake_at_end(cx.waker());
            let is_there = subscription.log.last_seq() > 0 || subscription.end().is_some();
            if is_there { Poll::Ready(()) } else { Poll::Pending }
        });
        let began = timeout(hold, something).await;
        let failure = subscription.end().and_then(|end| failure_of(&end.outcome));
        match failure.filter(|_| subscription.log.timings().first_content.is_none()) {
            Some(failure) => Err(failure.into()),
            None if began.is_ok() => Ok(Began::Yes),
            None => Ok(Began::NotYet),
        }
    }

    /// Hands on what follows.
    pub(super) fn next(&mut self, waker: &Waker, say: &mut dyn FnMut(Said<'_>)) -> Found {
        let subscription = self.attachment.subscription();
        let mut has_ended = subscription.end().is_some();
        loop {
            match self.cursor.next_within(|| subscription.limit(), waker) {
                Next::Frames { frames, .. } => {
                    self.heard.frames(&frames, say);
                    return Found::Something;
                }
                Next::Gap { text, reasoning, .. } => {
                    let answer = subscription.log.transcript();
                    self.heard.gap(&text, &reasoning, &answer, say);
                    return Found::Something;
                }
                Next::FirstContent(_) => {
                    subscription.first_piece();
                    self.has_content = true;
                }
                Next::Queue(_) | Next::Fallback(_) => {}
                Next::Nothing if has_ended => return Found::End,
                Next::Nothing => {
                    self.attachment.wake_at_end(waker);
                    has_ended = subscription.end().is_some();
                    // When it came just now, what it lets this listener hear may have come before it.
                    if !has_ended {
                        return Found::Nothing;
                    }
                }
            }
        }
    }
}
