//! Loan: a connection in the hands of awc, for the time from a call to the head of its answer.
//!
//! awc is to write a call and to read a head, and nothing else: for a body it would hold two buffers as long as an
//! answer runs, it takes a body that lasts until the connection ends for an empty one, and it keeps its own pool, which
//! tells neither which connection carries a call nor how many wait. So it never has a connection, only a [`Lent`] one,
//! which leads nowhere any more as soon as the call is over. Whether awc then drops it, keeps it for later or wants to
//! shut it down makes no difference.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use actix_rt::net::{ActixStream, Ready};
use bytes::Bytes;
use memchr::memchr_iter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connections::{Connection, Stream};

tokio::task_local! {
    static CALL: Rc<Slot>;
}

/// The connection of a call, once it has one.
type Slot = RefCell<Option<Loan>>;

/// A connection that carries a call.
pub(super) struct Loan {
    /// The connection.
    pub(super) connection: Connection,
    /// Since when.
    pub(super) since: Instant,
    /// What has come: the head, which awc bounds, and what one read may bring beyond it.
    heard: Vec<u8>,
}

impl Loan {
    /// Runs a call, and takes back the connection that it was lent. A call that is dropped closes it.
    pub(super) async fn during<T>(call: impl Future<Output = T>) -> (T, Option<Loan>) {
        let slot = Rc::<Slot>::default();
        let answer = CALL.scope(Rc::clone(&slot), call).await;
        (answer, slot.take())
    }

    /// Lends a connection to the call that runs.
    pub(super) fn to_call(connection: Connection) -> Lent {
        let loan = Loan { connection, since: Instant::now(), heard: Vec::new() };
        let lent = CALL.try_with(|slot| {
            slot.replace(Some(loan));
            Rc::downgrade(slot)
        });
        Lent(lent.unwrap_or_default())
    }

    /// Whether a byte of an answer has come.
    pub(super) fn is_answered(&self) -> bool {
        !self.heard.is_empty()
    }

    /// The connection, and what has come of a body together with its head.
    pub(super) fn after_head(mut self) -> (Connection, Bytes) {
        let head_len = head_len(&self.heard).unwrap_or(self.heard.len());
        (self.connection, Bytes::from(self.heard.split_off(head_len)))
    }
}

/// How long the head is that an answer begins with, as awc's parser finds it: lines may end in LF alone, and line ends
/// before the first line are skipped.
fn head_len(answer: &[u8]) -> Option<usize> {
    let start = answer.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    memchr_iter(b'\n', &answer[start..]).find_map(|at| {
        let rest = &answer[start + at + 1..];
        let blank_len = [&b"\n"[..], b"\r\n"].into_iter().find(|blank| rest.starts_with(blank))?.len();
        Some(start + at + 1 + blank_len)
    })
}

/// What awc has of a connection.
pub(super) struct Lent(Weak<Slot>);

impl Lent {
    fn with<T>(&self, poll: impl FnOnce(&mut Loan) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.0.upgrade().as_ref().map(|slot| slot.borrow_mut()).as_deref_mut() {
            Some(Some(loan)) => poll(loan),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn with_stream<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.with(|loan| poll(Pin::new(&mut loan.connection.stream)))
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|loan| {
            let before = buf.filled().len();
            ready!(Pin::new(&mut loan.connection.stream).poll_read(cx, buf))?;
            loan.heard.extend_from_slice(&buf.filled()[before..]);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with_stream(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_shutdown(cx))
    }
}

impl ActixStream for Lent {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.with_stream(|stream| stream.socket().poll_read_ready(cx).map_ok(|()| Ready::READABLE))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.with_stream(|stream| stream.socket().poll_write_ready(cx).map_ok(|()| Ready::WRITABLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_first_blank_line() {
        let cases = [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\r\n\r\n", "body\r\n\r\n"),
            ("HTTP/1.1 200 OK\na: b\n\n\nbody", "\nbody"),
            ("\r\n\nHTTP/1.1 200 OK\r\n\r\n", ""),
        ];
        for (answer, body) in cases {
            assert_eq!(head_len(answer.as_bytes()), Some(answer.len() - body.len()), "{answer:?}");
        }
        assert_eq!(head_len(b"HTTP/1.1 200 OK\r\na: b\r\n"), None);
        assert_eq!(head_len(b""), None);
    }
}
