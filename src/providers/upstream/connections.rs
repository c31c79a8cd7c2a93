//! Connections: the open connections to one provider that carry no call, and what a connection is.
//!
//! Each has one owner at a time: this pool while it waits, a [`Loan`](super::loan::Loan) until the head of an answer is
//! there, a [`Rest`](super::rest::Rest) while the body is read, and the pool again after its end. Wherever it is dropped,
//! it is closed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

/// A connection that has waited this long is not used again. Most servers keep it for 60 s or more.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(90);
/// A connection is not used beyond this age, so that calls move with the name's addresses.
pub(super) const AGE_MAX: Duration = Duration::from_secs(3600);
/// One that has never carried a call is not used beyond this age: servers are less patient with those.
const UNUSED_MAX: Duration = Duration::from_secs(5);
/// More do not wait; beyond, the one that has waited longest is closed.
const WAITING_MAX: usize = 1024;
/// How much one read may bring.
const READ_BYTES_MAX: usize = 16 * 1024;
/// With less room than this a read begins at the front of a buffer again.
const READ_BYTES_MIN: usize = 4 * 1024;

thread_local! {
    /// Where this thread reads to. The bytes of one read are a part of it; it is used again when they are gone. So a
    /// connection on which nothing comes has no buffer.
    static READ: RefCell<BytesMut> = RefCell::default();
}

/// Those connections to one provider that wait for a call, in the order in which they began to.
#[derive(Default)]
pub(super) struct Connections {
    waiting: RefCell<VecDeque<Waiting>>,
    opened: Cell<u64>,
}

struct Waiting {
    connection: Connection,
    since: Instant,
}

impl Connections {
    /// Counts a new connection.
    pub(super) fn count(&self) {
        self.opened.set(self.opened.get() + 1);
    }

    /// How many have ever been made.
    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Takes over a new connection.
    pub(super) fn adopt(&self, connection: Connection) {
        self.count();
        self.wait(connection);
    }

    /// Takes a connection back whose call is over, with nothing left to read.
    pub(super) fn give_back(&self, connection: Connection) {
        self.wait(Connection { connect: Duration::ZERO, used: true, ..connection });
    }

    fn wait(&self, connection: Connection) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() == WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(Waiting { connection, since: Instant::now() });
    }

    /// The one that has waited longest, of those that can carry a call.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(mut next) = waiting.pop_front() {
            if next.can_carry_a_call() {
                return Some(next.connection);
            }
        }
        None
    }

    /// How many wait that have carried a call, and have done so for less than `younger_than`. Closes those that cannot
    /// carry another.
    pub(super) fn idle(&self, younger_than: Duration) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain_mut(Waiting::can_carry_a_call);
        let idle = waiting.iter().filter(|waiting| waiting.connection.used);
        idle.filter(|waiting| waiting.since.elapsed() < younger_than).count()
    }

    /// Closes all.
    pub(super) fn close_idle(&self) {
        self.waiting.take();
    }
}

impl Waiting {
    /// Whether it is neither too old, nor has the provider closed it or sent anything unasked.
    fn can_carry_a_call(&mut self) -> bool {
        let age_max = if self.connection.used { AGE_MAX } else { UNUSED_MAX };
        let is_young = self.since.elapsed() < IDLE_MAX && self.connection.made.elapsed() < age_max;
        is_young && self.connection.is_silent()
    }
}

/// One connection. Dropping it closes it.
pub(super) struct Connection {
    /// What goes over it.
    pub(super) stream: Stream,
    made: Instant,
    connect: Duration,
    used: bool,
}

impl Connection {
    /// One that has just been made, in so much time.
    pub(super) fn new(stream: Stream, connect: Duration) -> Self {
        Self { stream, made: Instant::now(), connect, used: false }
    }

    /// How long its first call had to wait for it; zero for those after.
    pub(super) fn connect(&self) -> Duration {
        self.connect
    }

    /// Whether it has carried a call before the one that it carries.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let look = poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // Whatever else its task has done in this turn: to be told to wait would look like silence.
        let mut look = pin!(unconstrained(look));
        look.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// What has come; nothing if the connection has ended.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        READ.with_borrow_mut(|buffer| {
            if buffer.capacity() < READ_BYTES_MIN {
                buffer.reserve(READ_BYTES_MAX);
            }
            match ready!(pin!(self.stream.read_buf(buffer)).poll(cx)) {
                // Many servers end an encrypted connection without the goodbye of TLS.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(buffer.split().freeze())),
            }
        })
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
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection, and the other end of it.
    async fn connection(listener: &TcpListener) -> (Connection, TcpStream) {
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Connection::new(Stream::Plain(near.unwrap()), Duration::from_millis(1)), far.unwrap().0)
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn read(connection: &mut Connection) -> Bytes {
        poll_fn(|cx| connection.poll_bytes(cx)).await.unwrap()
    }

    #[actix_rt::test]
    async fn all_connections_of_a_thread_read_to_one_buffer_which_what_is_kept_of_it_survives() {
        let listener = listener().await;
        let (mut connections, mut starts) = (Vec::new(), Vec::new());
        let kept = {
            let (mut near, mut far) = connection(&listener).await;
            far.write_all(b"kept").await.unwrap();
            read(&mut near).await
        };
        for _ in 0..20 {
            connections.push(connection(&listener).await);
        }
        for round in 0..100 {
            for (near, far) in &mut connections {
                let sent = [round; 1000];
                far.write_all(&sent).await.unwrap();
                let bytes = read(near).await;
                assert_eq!(bytes, &sent[..]);
                starts.push(bytes.as_ptr() as usize);
            }
        }

        assert_eq!(kept, &b"kept"[..]);
        starts.drain(..READ_BYTES_MAX / 1000);
        let span = starts.iter().max().unwrap() - starts.iter().min().unwrap();
        assert!(span < READ_BYTES_MAX, "{span}");
    }

    #[actix_rt::test]
    async fn only_so_many_wait_and_those_that_have_waited_longest_go_first() {
        let (listener, waiting) = (listener().await, Connections::default());
        let mut others = Vec::new();
        for _ in 0..WAITING_MAX + 2 {
            let (near, far) = connection(&listener).await;
            waiting.give_back(near);
            others.push(far);
        }

        assert_eq!(waiting.idle(IDLE_MAX), WAITING_MAX);
        let next = waiting.take().unwrap();
        assert_eq!(next.stream.socket().local_addr().unwrap(), others[2].peer_addr().unwrap());
    }

    #[actix_rt::test]
    async fn one_that_has_carried_no_call_does_not_count_and_is_not_used_for_long() {
        let (listener, waiting) = (listener().await, Connections::default());
        let (near, _far) = connection(&listener).await;
        waiting.adopt(near);
        assert_eq!((waiting.opened(), waiting.idle(IDLE_MAX)), (1, 0));
        let unused = waiting.take().unwrap();
        assert!(!unused.is_used() && !unused.connect().is_zero());

        waiting.wait(unused);
        tokio::time::pause();
        tokio::time::advance(UNUSED_MAX).await;

        assert!(waiting.take().is_none());
    }
}
