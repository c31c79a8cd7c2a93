//! Rest: the body of an answer over HTTP/1.1, read from the connection on which awc has read the head, and what becomes
//! of that connection.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use awc::ClientResponse;
use awc::http::{StatusCode, Version, header};
use bytes::Bytes;
use futures_util::Stream;

use super::TransportError;
use super::chunks::{Chunks, Malformed};
use super::connections::{Connection, Connections};

/// What follows a head. Dropped before its end it closes the connection; at its end the connection is free for another
/// call, unless the answer says otherwise. One that was cut is lost, as it is over HTTP/2; where only the end of the
/// connection tells the body's, the answer's decoder says whether it was whole.
pub(super) struct Rest {
    /// `None` once the body has ended.
    connection: Option<Connection>,
    until: Until,
    /// What has come but was not given yet.
    unread: Bytes,
    /// Where the connection goes at the end, if another call may follow on it.
    home: Option<Rc<Connections>>,
    freed: bool,
}

/// How the end of a body shows (RFC 9112, section 6.3).
enum Until {
    /// After so many more bytes.
    Length(u64),
    Chunks(Chunks),
    /// By the end of the connection, as small servers and proxies send it.
    Close,
}

impl Rest {
    /// What follows the head of `response` on this connection; `beginning` has come together with the head.
    pub(super) fn of(
        response: &ClientResponse,
        connection: Connection,
        beginning: Bytes,
        home: &Rc<Connections>,
    ) -> Self {
        let home = is_kept(response).then(|| Rc::clone(home));
        let until = Until::of(response);
        let mut rest = Self { connection: Some(connection), until, unread: beginning, home, freed: false };
        if rest.until.is_reached() {
            // Not everybody looks for a body where none is.
            rest.end();
        }
        rest
    }

    /// Whether the connection is free for another call.
    pub(super) fn has_freed_its_connection(&self) -> bool {
        self.freed
    }

    /// The body is read. What has come beyond it belongs to no call.
    fn end(&mut self) {
        let connection = self.connection.take().filter(|_| self.unread.is_empty());
        if let Some((connection, home)) = connection.zip(self.home.take()) {
            home.give_back(connection);
            self.freed = true;
        }
    }

    fn fail(&mut self, error: TransportError) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.connection = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Rest {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while let Some(connection) = &mut this.connection {
            match this.until.cut(&mut this.unread) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if this.until.is_reached() => this.end(),
                Ok(None) => {
                    // Lets go of the buffer before it waits.
                    this.unread = Bytes::new();
                    match ready!(connection.poll_bytes(cx)) {
                        Ok(bytes) if bytes.is_empty() && matches!(this.until, Until::Close) => this.connection = None,
                        Ok(bytes) if bytes.is_empty() => return this.fail(TransportError::Lost),
                        Ok(bytes) => this.unread = bytes,
                        Err(_) => return this.fail(TransportError::Lost),
                    }
                }
                Err(Malformed) => return this.fail(TransportError::Protocol),
            }
        }
        Poll::Ready(None)
    }
}

impl Until {
    /// awc refuses an answer with a length that is none, with two lengths, or with a coding beside `chunked`.
    fn of(response: &ClientResponse) -> Self {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let is_chunked = text(header::TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            Until::Length(0)
        } else if is_chunked && response.version() == Version::HTTP_11 {
            Until::Chunks(Chunks::new())
        } else {
            let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            length.map_or(Until::Close, Until::Length)
        }
    }

    /// The next piece of the body in `bytes`, if there is one.
    fn cut(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
        let piece = match self {
            Until::Chunks(chunks) => return chunks.cut(bytes),
            Until::Length(left) => {
                let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                bytes.split_to(count)
            }
            Until::Close => std::mem::take(bytes),
        };
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    fn is_reached(&self) -> bool {
        match self {
            Until::Length(left) => *left == 0,
            Until::Chunks(chunks) => chunks.have_ended(),
            Until::Close => false,
        }
    }
}

/// Whether another call may follow on the connection. Not if the answer has two lengths: who sends that may not know
/// where it ends (RFC 9112, section 6.3).
fn is_kept(response: &ClientResponse) -> bool {
    let headers = response.headers();
    let options = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok());
    let closes =
        options.flat_map(|options| options.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"));
    let is_ambiguous = headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
    response.version() == Version::HTTP_11 && !closes && !is_ambiguous
}
