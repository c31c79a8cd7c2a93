//! Body: what follows the head of an HTTP/2 answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use h2::RecvStream;

use super::connection::Slot;
use crate::providers::upstream::TransportError;

/// Brings the bytes of an answer, and gives room for more as they are taken. Dropped before its end, it cancels the
/// answer: the server is told at once, and the connection goes on.
pub(super) struct AnswerBody(Option<Running>);

struct Running {
    // Dropped first: the stream is reset before its place is given away.
    stream: RecvStream,
    slot: Slot,
}

impl AnswerBody {
    pub(super) fn new(stream: RecvStream, slot: Slot) -> Self {
        Self(Some(Running { stream, slot }))
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.0 else { return Poll::Ready(None) };
        let last = loop {
            match ready!(running.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // It fails only for more than has come.
                    let _ = running.stream.flow_control().release_capacity(bytes.len());
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Some(Err(error)) => break Some(Err(lost(&error))),
                // Trailers may follow; they say nothing about an answer.
                None => break None,
            }
        };
        running.slot.ended();
        self.0 = None;
        Poll::Ready(last)
    }
}

/// What an error of h2 means for an answer. What the server did wrong h2 finds out itself; everything else is a stream
/// that the server, or the network, has cut.
pub(super) fn lost(error: &h2::Error) -> TransportError {
    if error.is_library() { TransportError::Protocol } else { TransportError::Lost }
}
