//! Connections: every connection to one provider, and what becomes of it.
//!
//! awc keeps the pool, but tells neither which connection carries a call, nor how long it took to make, nor how many
//! wait. So each connection is registered here, and notes from below what awc does with it: the call that runs names
//! itself in a [`Trace`], and the first bytes that are written under this name tell which connection carries it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_rt::net::{ActixStream, Ready};
use bytes::Bytes;
use memchr::memchr_iter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

/// A connection that has waited this long is not used again. Most servers keep it for 60 s or more.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(90);
/// A connection is not used beyond this age, so that calls move with the name's addresses.
pub(super) const AGE_MAX: Duration = Duration::from_secs(3600);

tokio::task_local! {
    static CALL: Rc<Trace>;
}

/// All connections to one provider.
#[derive(Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
    opened: Cell<u64>,
}

impl Connections {
    /// Registers a new connection.
    pub(super) fn add(&self, stream: Stream) -> Io {
        let connection = Rc::new(Connection {
            stream: RefCell::new(Some(stream)),
            calls: Cell::new(0),
            running: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            dropped: Cell::new(false),
        });
        let mut open = self.open.borrow_mut();
        open.retain(|connection| connection.is_open());
        open.push(Rc::clone(&connection));
        self.opened.set(self.opened.get() + 1);
        Io(connection)
    }

    /// How many have ever been made.
    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How many wait for a call and have done so for less than `younger_than`. Closes those that the provider has
    /// closed, and those that have waited too long, which awc would only do when it next looks for a connection.
    pub(super) fn idle(&self, younger_than: Duration) -> usize {
        let mut count = 0;
        self.open.borrow_mut().retain(|connection| {
            let waited = connection.idle_since.get().elapsed();
            if connection.is_idle() && (waited >= IDLE_MAX || !connection.is_silent()) {
                connection.close();
            }
            count += usize::from(connection.is_idle() && waited < younger_than);
            connection.is_open()
        });
        count
    }

    /// Closes all that wait for a call.
    pub(super) fn close_idle(&self) {
        self.open.borrow().iter().filter(|connection| connection.is_idle()).for_each(|connection| connection.close());
    }
}

/// One connection.
pub(super) struct Connection {
    /// `None` once it is closed.
    stream: RefCell<Option<Stream>>,
    /// Calls that it has begun to carry, ever.
    calls: Cell<u64>,
    /// Calls that it carries: one, or for an instant two, when the next begins before the last one's body is dropped.
    running: Cell<u32>,
    idle_since: Cell<Instant>,
    /// awc wants no more of it.
    dropped: Cell<bool>,
}

impl Connection {
    /// Closes it at once, wherever awc keeps it: there it looks as if the provider had done it.
    pub(super) fn close(&self) {
        drop(self.take());
    }

    /// Takes it away from awc, to which it looks closed from then on.
    pub(super) fn take(&self) -> Option<Stream> {
        self.stream.borrow_mut().take()
    }

    fn close_if_unused(&self) {
        if self.dropped.get() && self.running.get() == 0 {
            self.close();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.borrow().is_some()
    }

    fn is_idle(&self) -> bool {
        self.is_open() && self.running.get() == 0 && self.calls.get() > 0
    }

    /// Whether the provider has neither closed an idle connection nor sent anything unasked.
    fn is_silent(&self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        self.poll(|stream| stream.poll_read(&mut context, &mut ReadBuf::new(&mut byte))).is_pending()
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// A call's hold on its connection: while it lasts, the connection is not idle.
pub(super) struct Hold {
    connection: Rc<Connection>,
    since: Instant,
    reused: bool,
}

impl Hold {
    fn new(connection: &Rc<Connection>) -> Self {
        let reused = connection.calls.get() > 0;
        connection.calls.set(connection.calls.get() + 1);
        connection.running.set(connection.running.get() + 1);
        Self { connection: Rc::clone(connection), since: Instant::now(), reused }
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Whether the connection has carried a call before this one.
    pub(super) fn reused(&self) -> bool {
        self.reused
    }

    /// How long ago the first bytes of the call were written.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.connection.running.set(self.connection.running.get() - 1);
        self.connection.idle_since.set(Instant::now());
        self.connection.close_if_unused();
    }
}

/// What a call does to connections until the head of its answer is there.
#[derive(Default)]
pub(super) struct Trace {
    hold: RefCell<Option<Hold>>,
    connect: Cell<Duration>,
    /// What has come: the head, which awc bounds, and what one read may bring beyond it.
    heard: RefCell<Vec<u8>>,
}

impl Trace {
    /// Runs a call and takes the notes.
    pub(super) async fn of<T>(call: impl Future<Output = T>) -> (T, Rc<Trace>) {
        let trace = Rc::new(Trace::default());
        (CALL.scope(Rc::clone(&trace), call).await, trace)
    }

    /// Notes for the running call that its connection was made in this time.
    pub(super) fn connected_in(time: Duration) {
        let _ = CALL.try_with(|trace| trace.connect.set(time));
    }

    /// The call's hold on its connection; `None` if it never got one, or if it was taken.
    pub(super) fn take_hold(&self) -> Option<Hold> {
        self.hold.borrow_mut().take()
    }

    /// How long making a connection took; zero if none was made.
    pub(super) fn connect(&self) -> Duration {
        self.connect.get()
    }

    /// Whether a byte of an answer has come.
    pub(super) fn answered(&self) -> bool {
        !self.heard.borrow().is_empty()
    }

    /// What came together with the end of the answer's head.
    pub(super) fn beyond_head(&self) -> Bytes {
        let mut heard = self.heard.take();
        let head_len = head_len(&heard).unwrap_or(heard.len());
        Bytes::from(heard.split_off(head_len))
    }

    fn wrote(connection: &Rc<Connection>) {
        let _ = CALL.try_with(|trace| trace.hold.borrow_mut().get_or_insert_with(|| Hold::new(connection)).since);
    }

    fn read(bytes: &[u8]) {
        let _ = CALL.try_with(|trace| {
            // What awc reads before it writes is a look at a waiting connection, no answer.
            if trace.hold.borrow().is_some() {
                trace.heard.borrow_mut().extend_from_slice(bytes);
            }
        });
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

/// What awc holds of a connection. Dropping it closes the connection, as soon as no call holds it either.
pub(super) struct Io(Rc<Connection>);

impl Drop for Io {
    fn drop(&mut self) {
        self.0.dropped.set(true);
        self.0.close_if_unused();
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Io")
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.0.poll(|stream| stream.poll_read(cx, buf)))?;
        if buf.filled().len() > before {
            Trace::read(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Trace::wrote(&self.0);
        self.0.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(|stream| stream.poll_shutdown(cx))
    }
}

impl ActixStream for Io {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.0.poll(|stream| stream.socket().poll_read_ready(cx).map_ok(|()| Ready::READABLE))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.0.poll(|stream| stream.socket().poll_write_ready(cx).map_ok(|()| Ready::WRITABLE))
    }
}

/// The bytes of a connection.
pub(super) enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket under it.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The protocol that the server has chosen in the handshake, if it has.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
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
