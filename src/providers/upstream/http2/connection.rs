//! Connection: one HTTP/2 connection, and the calls on it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::lost;
use super::driver::{Driver, Heard, Line, Pings};
use super::pool::Pool;
use crate::providers::upstream::TransportError;
use crate::providers::upstream::connections::{AGE_MAX, IDLE_MAX, Stream};
use crate::providers::upstream::http1::STALE_WITHIN;

/// More calls do not share a connection, whatever the server says: they would share its end.
const CALLS_MAX: usize = 1000;
/// How much of one answer may be under way and not yet taken.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// How much of all answers on a connection may be.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How large the head of an answer may be.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// h2 remembers so many cancelled streams, this long, to ignore what is still under way for them. What comes for one
/// that it has forgotten it answers with a reset, which is noise and no more.
const CANCELS_REMEMBERED: usize = 1024;
const CANCELS_REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// h2 ends a connection when small frames have used this up, 255 each at most. A frame gives it back when it is
/// taken, but not when it comes for a cancelled stream; hence this much, which bounds unread frames to half a million,
const SMALL_FRAMES_BUDGET: usize = 1 << 27;
/// and hence a connection gets no more calls when so many have been cancelled on it.
const CANCELS_MAX: u32 = 4096;
// Not to be set: h2 ends a connection at the hundred-and-first empty frame of data that is not the last of its answer.
// A server that sends such frames is called by HTTP/1.1.

/// One connection.
pub(super) struct Connection {
    sender: RefCell<SendRequest<Bytes>>,
    heard: Rc<Heard>,
    pings: Pings,
    made: Instant,
    /// Calls on it.
    running: Cell<usize>,
    idle_since: Cell<Instant>,
    cancels: Cell<u32>,
    /// It gets no more calls, and ends with those that run.
    retired: Cell<bool>,
    /// It gives no sign of life.
    suspect: Cell<bool>,
    suspected: Notify,
    /// A call has met a silence.
    probe: Cell<bool>,
    /// What was true when [`Connection::has_news`] was asked last: has the server spoken, does it take calls, how many.
    known: Cell<(bool, bool, usize)>,
}

impl Connection {
    /// Greets the server. Until it has told how many calls it takes at once, `calls_max` are sent to it.
    pub(super) async fn begin(
        stream: Stream,
        calls_max: usize,
        pings: Pings,
        pool: &Weak<Pool>,
    ) -> Result<Rc<Self>, TransportError> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(calls_max)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_reset_streams(CANCELS_REMEMBERED)
            .reset_stream_duration(CANCELS_REMEMBERED_FOR)
            .max_local_error_reset_streams(None)
            .data_frame_budget(SMALL_FRAMES_BUDGET);
        let heard = Heard::nothing();
        let begun = builder.handshake(Line::new(stream, &heard)).await;
        let (sender, frames) = begun.map_err(|_| TransportError::Connect)?;
        let connection = Rc::new(Self {
            sender: RefCell::new(sender),
            heard,
            pings,
            made: Instant::now(),
            running: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            cancels: Cell::new(0),
            retired: Cell::new(false),
            suspect: Cell::new(false),
            suspected: Notify::new(),
            probe: Cell::new(false),
            known: Cell::new((false, true, calls_max)),
        });
        actix_rt::spawn(Driver::new(frames, &connection, pool, pings));
        Ok(connection)
    }

    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    pub(super) fn running(&self) -> usize {
        self.running.get()
    }

    /// Calls that it could take now.
    pub(super) fn room(&self) -> usize {
        if self.takes_calls() { self.calls_max().saturating_sub(self.running.get()) } else { 0 }
    }

    /// Whether the server has not yet told how many calls it takes: its settings are the first thing that comes.
    pub(super) fn is_unsettled(&self) -> bool {
        self.heard.reads() == 0
    }

    /// How many calls it takes at once.
    pub(super) fn calls_max(&self) -> usize {
        self.sender.borrow().current_max_send_streams().min(CALLS_MAX)
    }

    /// Takes it out of use: what runs on it runs on.
    pub(super) fn retire(&self) {
        self.retired.set(true);
    }

    /// Takes it out of use if it is too old, or too many calls were cancelled on it, or if it is idle for too long
    /// and not `wanted`.
    pub(super) fn retire_if_spent(&self, wanted: bool) {
        let idle = self.running.get() == 0 && self.idle_since.get().elapsed() >= IDLE_MAX;
        if self.made.elapsed() >= AGE_MAX || self.cancels.get() >= CANCELS_MAX || (idle && !wanted) {
            self.retire();
        }
    }

    /// Whether it will never take a call again: it was retired here, or the server has said goodbye, or is gone.
    pub(super) fn is_leaving(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.retired.get() || matches!(self.sender.borrow_mut().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    fn takes_calls(&self) -> bool {
        !self.suspect.get() && !self.is_leaving()
    }

    /// Whether something has changed that decides who may use it.
    pub(super) fn has_news(&self) -> bool {
        let now = (!self.is_unsettled(), self.takes_calls(), self.calls_max());
        self.known.replace(now) != now
    }

    /// It has given a sign of life.
    pub(super) fn trust(&self) {
        self.suspect.set(false);
    }

    /// It has not given one in time.
    pub(super) fn suspect(&self) {
        if !self.suspect.replace(true) {
            self.suspected.notify_waiters();
        }
    }

    /// Whether a call has met a silence since this was asked last.
    pub(super) fn take_probe(&self) -> bool {
        self.probe.replace(false)
    }

    /// Waits until it is suspected, with nothing heard since `reads`.
    async fn silent_since(&self, reads: u64) {
        loop {
            self.suspected.notified().await;
            if self.heard.reads() == reads {
                return;
            }
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// As it says.
    Failed(TransportError),
    /// The server has certainly not worked on the call, and says so, or never got it.
    Refused,
    /// The connection had been idle, and was lost as the call was sent.
    Stale,
    /// The server wants the call by HTTP/1.1.
    Http1,
}

/// A call's place on a connection, from before it is sent until its answer has ended.
pub(super) struct Slot {
    connection: Rc<Connection>,
    pool: Weak<Pool>,
    /// A call was sent, and its answer has not ended.
    open: Cell<bool>,
}

impl Slot {
    pub(super) fn new(connection: Rc<Connection>, pool: Weak<Pool>) -> Self {
        connection.running.set(connection.running.get() + 1);
        Self { connection, pool, open: Cell::new(false) }
    }

    /// Sends a call, and waits for the head of its answer. Dropping the future cancels the call.
    ///
    /// A call is refused if the server has said so, with the number of the last call that it cares for, or for this
    /// call alone; then it has certainly not begun to work on it. It is stale if the server had spoken before, and
    /// either the connection carried nothing else and broke right after the call was written: then its end was under
    /// way. Or the server gave no sign of life any more, not even to the question that followed the call.
    pub(super) async fn send(&self, request: Request<()>, body: Bytes) -> Result<Response<RecvStream>, Unanswered> {
        let connection = &*self.connection;
        let (reads, began) = (connection.heard.reads(), Instant::now());
        let known = !connection.is_unsettled();
        if connection.heard.last().elapsed() >= connection.pings.probe_after {
            connection.probe.set(true);
        }
        let mut sender = connection.sender.borrow().clone();
        let sent = sender.send_request(request, body.is_empty());
        drop(sender);
        let (answer, mut upload) = sent.map_err(|error| unsent(&error))?;
        self.open.set(true);
        if !body.is_empty() {
            // If it fails, the stream has ended, and the answer tells how.
            let _ = upload.send_data(body, true);
        }
        drop(upload);
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = connection.silent_since(reads), if known => return Err(Unanswered::Stale),
        };
        answer.map_err(|error| {
            self.ended();
            let alone = known && connection.running.get() == 1;
            if error.is_io() && alone && began.elapsed() < STALE_WITHIN {
                return Unanswered::Stale;
            }
            unanswered(&error)
        })
    }

    /// The answer has ended, for good or ill.
    pub(super) fn ended(&self) {
        self.open.set(false);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.running.set(connection.running.get() - 1);
        connection.idle_since.set(Instant::now());
        if self.open.get() {
            connection.cancels.set(connection.cancels.get() + 1);
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.changed();
        }
    }
}

/// Why a call was not sent: the connection has ended, or it is none that can be.
fn unsent(error: &h2::Error) -> Unanswered {
    let ended = error.is_io() || error.is_go_away();
    if ended { Unanswered::Refused } else { Unanswered::Failed(TransportError::Unsendable) }
}

/// Why a call that was sent has no answer. A goodbye reaches only the calls that came too late for it.
fn unanswered(error: &h2::Error) -> Unanswered {
    match error.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) if error.is_remote() => Unanswered::Http1,
        Some(Reason::REFUSED_STREAM) if error.is_remote() => Unanswered::Refused,
        Some(_) if error.is_remote() && error.is_go_away() => Unanswered::Refused,
        _ => Unanswered::Failed(lost(error)),
    }
}
