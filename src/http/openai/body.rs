//! EventBody: the body of a stream that is told in other words than weir's own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::{HttpResponse, web::Bytes};
use bytes::BytesMut;
use tokio::time::Instant;

use super::heard::Said;
use super::listening::{Began, Found, Listening};
use crate::fanout::{End, Subscription};
use crate::http::sse::{KEEP_ALIVE, Pings, event_stream};

/// Writes an answer in the words of one API. Told apart from the body so that it needs no runtime.
pub(super) trait Words: Unpin + 'static {
    /// Writes what the answer says next; nothing where this API has no word for it.
    fn said(&mut self, subscription: &Subscription, said: Said<'_>, out: &mut BytesMut);

    /// Writes the end.
    fn ended(&mut self, subscription: &Subscription, end: &End, out: &mut BytesMut);
}

/// See the module.
pub(super) struct EventBody<W> {
    listening: Listening,
    words: W,
    pings: Pings,
    last_sent: Instant,
    /// The client has waited for a sign of life as long as it may.
    is_late: bool,
    is_over: bool,
}

impl<W: Words> EventBody<W> {
    /// A body that tells the whole answer.
    pub(super) fn new(listening: Listening, words: W, pings: Pings, began: Began) -> Self {
        let is_late = began == Began::NotYet;
        Self { listening, words, pings, last_sent: Instant::now(), is_late, is_over: false }
    }

    /// The response that streams this body.
    pub(super) fn into_response(self) -> HttpResponse {
        let stream = self.listening.subscription().facts.stream.to_string();
        let mut response = HttpResponse::Ok();
        event_stream(&mut response);
        response.insert_header(("x-stream-id", stream));
        response.body(self)
    }

    /// The next bytes to send; `None` when there is nothing yet.
    fn next(&mut self, cx: &Context<'_>) -> Option<Bytes> {
        if std::mem::take(&mut self.is_late) {
            return Some(KEEP_ALIVE);
        }
        let subscription = self.listening.subscription().clone();
        let mut out = BytesMut::new();
        loop {
            let words = &mut self.words;
            match self.listening.next(cx.waker(), &mut |said| words.said(&subscription, said, &mut out)) {
                // Not everything has a word here.
                Found::Something if out.is_empty() => {}
                Found::Something => return Some(out.freeze()),
                Found::Nothing => {
                    let has_content = self.listening.has_content();
                    return self.pings.sign_of_life(&subscription.log, self.last_sent, has_content);
                }
                Found::End => {
                    self.is_over = true;
                    let end = self.listening.end()?;
                    self.words.ended(&subscription, end, &mut out);
                    return Some(out.freeze());
                }
            }
        }
    }
}

impl<W: Words> MessageBody for EventBody<W> {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.next(cx) {
            Some(bytes) => {
                self.last_sent = Instant::now();
                Poll::Ready(Some(Ok(bytes)))
            }
            None if self.is_over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
