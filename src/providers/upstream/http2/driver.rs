//! Driver: the task under an HTTP/2 connection. It moves the frames, and asks a silent server for signs of life.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection::Connection;
use super::pool::Pool;
use crate::providers::upstream::connections::Stream;

/// How long a connection that nobody needs any more may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// When a silent server is asked for a sign of life, and what follows if it gives none. Every byte is one.
#[derive(Debug, Clone, Copy)]
pub(in crate::providers::upstream) struct Pings {
    /// After this silence it is asked.
    pub(in crate::providers::upstream) interval: Duration,
    /// A call that meets a longer silence has it asked at once.
    pub(in crate::providers::upstream) probe_after: Duration,
    /// Without a sign of life for so long after the question, the connection gets no calls, and those that wait for
    /// their answer to begin look for another one.
    pub(in crate::providers::upstream) suspect_after: Duration,
    /// Then it is given up, and with it the answers that have begun: those are not lost lightly.
    pub(in crate::providers::upstream) dead_after: Duration,
}

impl Pings {
    /// What suits servers on the internet: seldom enough for those that count pings, quick where a call waits.
    pub(in crate::providers::upstream) const USUAL: Self = Self {
        interval: Duration::from_secs(15),
        probe_after: Duration::from_secs(1),
        suspect_after: Duration::from_secs(2),
        dead_after: Duration::from_secs(15),
    };
}

/// What has been heard from a server.
pub(super) struct Heard {
    last: Cell<Instant>,
    reads: Cell<u64>,
}

impl Heard {
    pub(super) fn nothing() -> Rc<Self> {
        Rc::new(Self { last: Cell::new(Instant::now()), reads: Cell::new(0) })
    }

    /// When something was heard last; at first, when the connection was made.
    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }

    /// Grows with everything that is heard.
    pub(super) fn reads(&self) -> u64 {
        self.reads.get()
    }
}

/// A connection's bytes; notes what is heard.
pub(super) struct Line {
    stream: Stream,
    heard: Rc<Heard>,
}

impl Line {
    pub(super) fn new(stream: Stream, heard: &Rc<Heard>) -> Self {
        Self { stream, heard: Rc::clone(heard) }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard.last.set(Instant::now());
            self.heard.reads.set(self.heard.reads.get() + 1);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The future that does it. Ends with the connection, and ends the connection when it is dropped.
///
/// It does not keep the connection: when neither the pool nor an answer needs it, h2 closes it.
pub(super) struct Driver {
    frames: h2::client::Connection<Line, Bytes>,
    pulse: Option<Pulse>,
    connection: Weak<Connection>,
    pool: Weak<Pool>,
    goodbye: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    pub(super) fn new(
        mut frames: h2::client::Connection<Line, Bytes>,
        connection: &Rc<Connection>,
        pool: &Weak<Pool>,
        pings: Pings,
    ) -> Self {
        let pulse = frames.ping_pong().map(|questions| Pulse::new(questions, pings));
        Self { frames, pulse, connection: Rc::downgrade(connection), pool: pool.clone(), goodbye: None }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // First what has arrived: an answer that came while this thread was busy must not look like silence.
        let ended = Pin::new(&mut this.frames).poll(cx);
        let Some(connection) = this.connection.upgrade() else {
            let goodbye = this.goodbye.get_or_insert_with(|| Box::pin(sleep(GOODBYE_MAX)));
            return if ended.is_ready() { Poll::Ready(()) } else { goodbye.as_mut().poll(cx) };
        };
        let beat = match &ended {
            Poll::Ready(result) => {
                log::debug!(error:? = result.as_ref().err(); "an HTTP/2 connection has ended");
                Beat::Dead
            }
            Poll::Pending => this.pulse.as_mut().map_or(Beat::Steady, |pulse| pulse.poll(cx, &connection)),
        };
        if beat == Beat::Dead {
            connection.retire();
        }
        let news = connection.has_news() || beat != Beat::Steady;
        if let Some(pool) = this.pool.upgrade().filter(|_| news) {
            pool.changed();
        }
        if beat == Beat::Dead { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    /// Nothing has happened.
    Steady,
    /// Time has passed that others may count.
    Timed,
    /// The server is gone.
    Dead,
}

/// The questions and the clock. See [`Pings`].
struct Pulse {
    questions: PingPong,
    pings: Pings,
    /// When the question was put that has no answer yet.
    asked: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Pulse {
    fn new(questions: PingPong, pings: Pings) -> Self {
        let sleep = Box::pin(sleep_until(Instant::now() + pings.interval));
        Self { questions, pings, asked: None, sleep }
    }

    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Beat {
        self.excuse_lateness();
        let mut beat = Beat::Steady;
        loop {
            let Some(due) = self.step(cx, connection) else { return Beat::Dead };
            // The timer is only moved when it must be: what is heard puts the question off, many times a second.
            if due < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(due);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return beat;
            }
            beat = Beat::Timed;
        }
    }

    /// If the timer rings late, it was this thread that did not listen: the server gets its time anew.
    fn excuse_lateness(&mut self) {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.sleep.deadline());
        if let Some(asked) = &mut self.asked
            && late > self.pings.suspect_after / 4
        {
            *asked = now;
        }
    }

    /// Does what is due, and tells when the next thing is; `None` if the connection is to be given up.
    fn step(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Option<Instant> {
        let now = Instant::now();
        let Pings { interval, suspect_after, dead_after, .. } = self.pings;
        if self.asked.is_some() && self.questions.poll_pong(cx).is_ready() {
            self.asked = None;
        }
        let Some(asked) = self.asked else {
            connection.trust();
            let due = if connection.take_probe() { now } else { connection.heard().last() + interval };
            if now < due {
                return Some(due);
            }
            // It fails only if the connection has ended, which the frames will tell.
            if self.questions.send_ping(Ping::opaque()).is_ok() {
                self.asked = Some(now);
            }
            return Some(now + suspect_after);
        };
        let silent_since = asked.max(connection.heard().last());
        let (suspicious, dead) = (silent_since + suspect_after, silent_since + dead_after);
        if now < suspicious {
            connection.trust();
            return Some(suspicious);
        }
        if now >= dead || connection.running() == 0 {
            return None;
        }
        connection.suspect();
        Some(dead)
    }
}
