//! Connection: the bytes of one client's connection on their way to the framework's parser, and the clocks that run
//! while no request is being answered.
//!
//! The framework has one clock for the first head of a connection, and one for silence between requests. Whatever else
//! a client sends outside of a request keeps the connection open for as long as it likes. Therefore the parser gets
//! its bytes from here: one head at a time, then as much as belongs to the request's body, then nothing until the
//! answer has ended. What comes early waits here, and is bounded. Outside of a request there is always a deadline.
//!
//! ```text
//!  Head ── its last byte ──▶ Given ── the request begins ──▶ Running ── the answer ends ──▶ Head
//!   │ its time is over         │ it cannot be parsed                        │ its body was not read
//!   └────────▶ Over ◀──────────┴──────────── time or bytes are over ─── Draining
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `heads.rs` | finds where a head ends |
//! | `follow.rs` | the middleware that says when a request begins and ends |
//! | `farewell.rs` | what a client is told when its request never gets to a route |
//! | `places.rs` | how many connections there may be |

mod farewell;
pub(super) mod follow;
mod heads;
pub(super) mod places;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

pub(super) use self::farewell::say;
use self::heads::HeadEnd;
use crate::failure::{Code, Failure};

/// What one read takes in while the parser may not have it yet.
const READ_BYTES: usize = 4 * 1024;
/// What a client may send ahead of the end of an answer; more stays in the system's buffers.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// What is read of a body that nobody wants, so that its sender gets to read the answer.
const DRAINED_BYTES_MAX: u64 = 1024 * 1024;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a head to its last; for the first head of a connection, from its beginning. Also for what
    /// is left of a body after its answer.
    pub(super) head: Duration,
    /// From the end of an answer to the first byte of the next head.
    pub(super) idle: Duration,
}

/// What the bytes of a connection belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A head, or the silence before it.
    Head,
    /// The parser has a whole head, but the request has not begun.
    Given,
    /// A request is being answered.
    Running(Body),
    /// A request was answered before its body came; that many bytes of it may still come.
    Draining(u64),
    /// Nothing more is read.
    Over,
}

/// What is still to come of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// That many bytes.
    Length(u64),
    /// The parser knows when it ends.
    Chunked,
    /// The same, but nobody reads it; that many bytes may still come while the request is answered.
    Unread(u64),
}

impl Body {
    const NONE: Self = Body::Length(0);

    /// How many bytes the parser may have now.
    fn bytes_max(self) -> u64 {
        match self {
            Body::Length(left) | Body::Unread(left) => left,
            Body::Chunked => u64::MAX,
        }
    }

    fn less(self, read: u64) -> Self {
        match self {
            Body::Length(left) => Body::Length(left.saturating_sub(read)),
            Body::Unread(left) => Body::Unread(left.saturating_sub(read)),
            Body::Chunked => Body::Chunked,
        }
    }
}

/// What a connection and the requests on it tell each other.
#[derive(Debug)]
pub(super) struct Line {
    phase: Cell<Phase>,
    /// When the phase began, for those with a deadline.
    since: Cell<Instant>,
    /// Whether bytes wait for the parser.
    has_held: Cell<bool>,
    /// Polls the connection.
    waker: RefCell<Option<Waker>>,
    /// What the client is told when the parser is done with the connection.
    farewell: RefCell<Option<Failure>>,
    /// Whether only health checks are answered.
    is_extra: bool,
}

impl Line {
    /// A new connection's.
    pub(super) fn new(is_extra: bool) -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Head),
            since: Cell::new(Instant::now()),
            has_held: Cell::new(false),
            waker: RefCell::new(None),
            farewell: RefCell::new(None),
            is_extra,
        })
    }

    /// Whether the connection is one too many, so that only health checks are answered.
    pub(super) fn is_extra(&self) -> bool {
        self.is_extra
    }

    /// What is to be said before the connection is closed.
    pub(super) fn take_farewell(&self) -> Option<Failure> {
        self.farewell.take()
    }

    fn begin(&self, body: Body) {
        self.phase.set(Phase::Running(body));
        if self.has_held.get() && body.bytes_max() > 0 {
            self.wake();
        }
    }

    fn end(&self) {
        let Phase::Running(body) = self.phase.get() else { return };
        let is_read = body == Body::NONE;
        self.phase.set(if is_read { Phase::Head } else { Phase::Draining(DRAINED_BYTES_MAX) });
        self.since.set(Instant::now());
        // The framework polls a connection between requests only when something comes: not for a deadline of ours.
        if !is_read || self.has_held.get() {
            self.wake();
        }
    }

    fn set_body(&self, body: Body) {
        if self.phase.get() == Phase::Running(Body::Chunked) {
            self.phase.set(Phase::Running(body));
        }
    }

    /// Whether some of the running request's body has not been read.
    fn has_body_left(&self) -> bool {
        matches!(self.phase.get(), Phase::Running(body) if body != Body::NONE)
    }

    fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// See the module.
pub(super) struct Connection<T> {
    /// There until it is dropped.
    io: Option<T>,
    /// Where it goes then, if there is something left to say.
    left: Rc<RefCell<Option<T>>>,
    line: Rc<Line>,
    patience: Patience,
    is_first: bool,
    head_end: HeadEnd,
    /// When the head that is being read began.
    head_began: Option<Instant>,
    /// What has come too early for the parser.
    held: BytesMut,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Wraps `io`. When it is dropped with a farewell to say, `io` goes to `left`.
    pub(super) fn new(io: T, left: Rc<RefCell<Option<T>>>, line: Rc<Line>, patience: Patience) -> Self {
        Self {
            io: Some(io),
            left,
            line,
            patience,
            is_first: true,
            head_end: HeadEnd::default(),
            head_began: None,
            held: BytesMut::new(),
            timer: None,
        }
    }

    /// What it shares with its requests.
    pub(super) fn line(&self) -> Rc<Line> {
        self.line.clone()
    }

    fn io(&mut self) -> Pin<&mut T> {
        Pin::new(self.io.as_mut().expect("taken only when it is dropped"))
    }

    /// Reads some bytes that are not for the parser yet; 0: the client sends no more.
    fn poll_hold_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(self.io().poll_read(cx, &mut read))?;
        self.held.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Gives the parser up to `bytes_max` of what waits for it. Returns how many.
    fn give(&mut self, buf: &mut ReadBuf<'_>, bytes_max: u64) -> usize {
        let length = self.held.len().min(buf.remaining());
        let length = usize::try_from(bytes_max).map_or(length, |most| length.min(most));
        buf.put_slice(&self.held[..length]);
        self.held.advance(length);
        if self.held.is_empty() {
            // Idle connections hold no memory.
            self.held = BytesMut::new();
        }
        self.line.has_held.set(!self.held.is_empty());
        length
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.head_began.is_none() {
                let blank = self.held.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                self.held.advance(blank);
                self.head_began = (!self.held.is_empty()).then(Instant::now);
            }
            if Instant::now() >= self.head_deadline() {
                return self.give_up();
            }
            if !self.held.is_empty() {
                let most = self.held.len().min(buf.remaining());
                let end = self.head_end.find(&self.held[..most]);
                self.give(buf, end.unwrap_or(most) as u64);
                if end.is_some() {
                    (self.is_first, self.head_began, self.timer) = (false, None, None);
                    self.line.phase.set(Phase::Given);
                }
                return Poll::Ready(Ok(()));
            }
            match self.poll_hold_more(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                Poll::Pending => ready!(self.poll_timer(cx, self.head_deadline())),
            }
        }
    }

    fn head_deadline(&self) -> Instant {
        match self.head_began {
            _ if self.is_first => self.line.since.get() + self.patience.head,
            Some(began) => began + self.patience.head,
            None => self.line.since.get() + self.patience.idle,
        }
    }

    /// Gives the parser at most `bytes_max` bytes of a body.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, bytes_max: u64) -> Poll<io::Result<u64>> {
        if !self.held.is_empty() {
            return Poll::Ready(Ok(self.give(buf, bytes_max) as u64));
        }
        let before = buf.filled().len();
        ready!(self.io().poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let fit = usize::try_from(bytes_max).map_or(read, |most| read.min(most));
        self.held.extend_from_slice(&buf.filled()[before + fit..]);
        self.line.has_held.set(!self.held.is_empty());
        buf.set_filled(before + fit);
        Poll::Ready(Ok(fit as u64))
    }

    /// Reads ahead while the parser may have nothing, so that a client that leaves is noticed.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < HELD_BYTES_MAX {
            if ready!(self.poll_hold_more(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
            self.line.has_held.set(true);
        }
        Poll::Pending
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, left: u64) -> Poll<io::Result<()>> {
        let deadline = self.line.since.get() + self.patience.head;
        if left == 0 || Instant::now() >= deadline {
            return self.give_up();
        }
        match self.poll_body(cx, buf, left)? {
            Poll::Ready(read) => {
                self.line.phase.set(Phase::Draining(left.saturating_sub(read)));
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                ready!(self.poll_timer(cx, deadline));
                self.give_up()
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    /// Lets the parser believe that the client sends no more: then it closes the connection.
    fn give_up(&mut self) -> Poll<io::Result<()>> {
        self.line.phase.set(Phase::Over);
        if self.head_began.is_some() {
            let failure = Failure::new(Code::RequestTimeout, "the head of the request did not arrive in time");
            self.line.farewell.replace(Some(failure));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.line.remember(cx.waker());
        match this.line.phase.get() {
            Phase::Head => this.poll_head(cx, buf),
            Phase::Running(body) if body.bytes_max() > 0 => {
                let read = ready!(this.poll_body(cx, buf, body.bytes_max()))?;
                this.line.phase.set(Phase::Running(body.less(read)));
                Poll::Ready(Ok(()))
            }
            Phase::Given | Phase::Running(_) => this.poll_ahead(cx),
            Phase::Draining(left) => this.poll_drain(cx, buf, left),
            Phase::Over => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let phase = this.line.phase.get();
        if matches!(phase, Phase::Running(_)) {
            return this.io().poll_write(cx, bytes);
        }
        let Some((at, failure)) = farewell::of_parser(bytes) else { return this.io().poll_write(cx, bytes) };
        if at > 0 {
            return this.io().poll_write(cx, &bytes[..at]);
        }
        // The parser's own answer has neither a name nor a body. It closes the connection after it.
        if phase == Phase::Given || this.head_began.is_some() {
            this.line.farewell.replace(Some(failure));
        }
        this.line.phase.set(Phase::Over);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.line.farewell.borrow().is_some() {
            return Poll::Ready(Ok(()));
        }
        this.io().poll_shutdown(cx)
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        if self.line.farewell.borrow().is_some() {
            self.left.replace(self.io.take());
        }
    }
}
