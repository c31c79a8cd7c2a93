//! StreamLog: the frames of one answer, encoded once, read by every listener at its own offset.
//!
//! There is one writer (the stream) and any number of readers on any thread. A reader that is behind costs the others
//! nothing: it finds its frames here whenever its socket takes them. Beyond the byte cap the oldest frames go; a reader
//! that still needed them is told so and continues from a snapshot. Wakers are called outside the lock.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Transcript;
use crate::event::Event;

/// Frames that wait for one reader are joined up to this size, so that catching up takes few writes.
const BATCH_BYTES_MAX: usize = 16 * 1024;
/// Frames are cut from blocks of memory that grow with the answer, up to this size.
const BLOCK_BYTES_MAX: usize = 16 * 1024;
/// The first block: a short answer should not cost more.
const BLOCK_BYTES_MIN: usize = 512;

/// The shared log of one answer.
#[derive(Debug)]
pub struct StreamLog {
    fence: u32,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Bytes>,
    /// How many frames have been dropped from the front; the first one held has the seq `dropped + 1`.
    dropped: u64,
    bytes: usize,
    bytes_total: u64,
    block: BytesMut,
    block_bytes: usize,
    transcript: Transcript,
    first_content_seq: Option<u64>,
    timings: Timings,
    queue: Option<QueuePlace>,
    queue_version: u32,
    /// What each reader has seen, by its slot.
    readers: Vec<Option<u64>>,
    free_slots: Vec<usize>,
    /// Readers that found nothing, with the epoch in which they said so.
    waiting: Vec<(usize, Waker)>,
    epoch: u64,
    last_append: Option<Instant>,
}

/// When the phases of an answer were reached. Each listener counts from its own arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// The pacer gave its permit.
    pub granted: Option<Instant>,
    /// The provider's first byte came.
    pub first_byte: Option<Instant>,
    /// The first piece of content came.
    pub first_content: Option<Instant>,
    /// Time to connect, in milliseconds; 0 on a connection that was open.
    pub connect_ms: u32,
}

/// Where an answer stands in its pacer's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct QueuePlace {
    /// 1 is next.
    pub position: u32,
    /// Until its permit, by the present rate.
    pub eta_ms: u64,
}

/// What the log looks like from outside, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Readers at present.
    pub listeners: usize,
    /// Events appended.
    pub events: u64,
    /// Bytes appended.
    pub bytes: u64,
    /// How many events the slowest reader is behind.
    pub slowest_lag: u64,
    /// When the last event was appended.
    pub last_append: Option<Instant>,
    /// When the phases were reached.
    pub timings: Timings,
    /// The place in the queue, while there is one.
    pub queue: Option<QueuePlace>,
}

/// What a reader finds.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The frames that follow, up to and including seq `last`.
    Frames {
        /// One or more whole frames.
        frames: Bytes,
        /// The seq of the last of them.
        last: u64,
    },
    /// The frame that follows is the first piece of content: say the timings first, then ask again.
    FirstContent(Timings),
    /// Frames have gone that this reader has not seen. It continues after `seq`.
    Gap {
        /// The text up to and including `seq`.
        text: String,
        /// The reasoning up to and including `seq`.
        reasoning: String,
        /// The last seq that the texts contain.
        seq: u64,
    },
    /// The place in the queue has changed.
    Queue(QueuePlace),
    /// Nothing yet; the waker will be called.
    Nothing,
}

/// One reader's place in a log. Dropping it takes the reader off the log.
#[derive(Debug)]
pub struct Cursor {
    log: std::sync::Arc<StreamLog>,
    slot: usize,
    /// The last seq that was read.
    seen: u64,
    said_timings: bool,
    queue_version: u32,
    waiting_since: Option<u64>,
}

impl StreamLog {
    /// An empty log. `fence` numbers the stream's owners, `bytes_max` caps the frames held.
    pub fn new(fence: u32, bytes_max: usize) -> Self {
        Self { fence, bytes_max, inner: Mutex::new(Inner { block_bytes: BLOCK_BYTES_MIN, ..Inner::default() }) }
    }

    /// The number in front of every event id.
    pub fn fence(&self) -> u32 {
        self.fence
    }

    /// Appends one event and wakes the readers that wait. Returns the bytes of text held so far.
    pub fn append(&self, event: &Event<'_>) -> usize {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let seq = inner.last_seq() + 1;
        inner.transcript.apply(event);
        if event.is_content() && inner.first_content_seq.is_none() {
            inner.first_content_seq = Some(seq);
            inner.timings.first_content = Some(now);
        }
        inner.last_append = Some(now);
        let frame = inner.encode(event, self.fence, seq);
        inner.bytes += frame.len();
        inner.bytes_total += frame.len() as u64;
        inner.frames.push_back(frame);
        inner.trim(self.bytes_max);
        let text_bytes = inner.transcript.bytes();
        let waiting = inner.take_waiting();
        drop(inner);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
        text_bytes
    }

    /// Changes what is not an event: the model, ids, signatures.
    pub fn note(&self, change: impl FnOnce(&mut Transcript)) {
        change(&mut self.inner.lock().transcript);
    }

    /// Notes that a phase was reached.
    pub fn reach(&self, change: impl FnOnce(&mut Timings)) {
        let mut inner = self.inner.lock();
        change(&mut inner.timings);
        inner.queue = None;
    }

    /// Tells the readers the place in the queue.
    pub fn queue(&self, place: QueuePlace) {
        let mut inner = self.inner.lock();
        if inner.queue == Some(place) {
            return;
        }
        inner.queue = Some(place);
        inner.queue_version += 1;
        let waiting = inner.take_waiting();
        drop(inner);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes the readers that wait, so that they can say that they are alive.
    pub fn nudge(&self) {
        let waiting = self.inner.lock().take_waiting();
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The seq of the last event, 0 when there is none.
    pub fn last_seq(&self) -> u64 {
        self.inner.lock().last_seq()
    }

    /// The answer so far.
    pub fn transcript(&self) -> Transcript {
        self.inner.lock().transcript.clone()
    }

    /// Looks at the answer so far without copying it.
    pub fn with_transcript<T>(&self, look: impl FnOnce(&Transcript) -> T) -> T {
        look(&self.inner.lock().transcript)
    }

    /// When the phases were reached.
    pub fn timings(&self) -> Timings {
        self.inner.lock().timings
    }

    /// What operators see.
    pub fn stats(&self) -> LogStats {
        let inner = self.inner.lock();
        let last = inner.last_seq();
        let lags = inner.readers.iter().flatten().map(|seen| last.saturating_sub(*seen));
        LogStats {
            listeners: inner.readers.iter().flatten().count(),
            events: last,
            bytes: inner.bytes_total,
            slowest_lag: lags.max().unwrap_or(0),
            last_append: inner.last_append,
            timings: inner.timings,
            queue: inner.queue,
        }
    }
}

impl Inner {
    fn last_seq(&self) -> u64 {
        self.dropped + self.frames.len() as u64
    }

    /// Encodes into the current block; the frame shares the block's memory.
    fn encode(&mut self, event: &Event<'_>, fence: u32, seq: u64) -> Bytes {
        if self.block.capacity() < 128 {
            self.block = BytesMut::with_capacity(self.block_bytes);
            self.block_bytes = (self.block_bytes * 2).min(BLOCK_BYTES_MAX);
        }
        event.write_frame(fence, seq, &mut self.block);
        self.block.split().freeze()
    }

    fn trim(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.frames.len() > 1 {
            let Some(frame) = self.frames.pop_front() else { return };
            self.bytes -= frame.len();
            self.dropped += 1;
        }
    }

    fn take_waiting(&mut self) -> Vec<(usize, Waker)> {
        self.epoch += 1;
        let capacity = self.waiting.len();
        std::mem::replace(&mut self.waiting, Vec::with_capacity(capacity))
    }

    /// The frames after `seen`, up to `limit`, joined when there are several.
    fn frames_after(&self, seen: u64, limit: u64) -> Option<(Bytes, u64)> {
        let start = usize::try_from(seen - self.dropped).ok()?;
        let count = usize::try_from(limit.min(self.last_seq()).checked_sub(seen)?).ok()?;
        let first = self.frames.get(start).filter(|_| count > 0)?;
        let (mut bytes, mut frames) = (first.len(), 1);
        for frame in self.frames.range(start + 1..start + count) {
            if bytes + frame.len() > BATCH_BYTES_MAX {
                break;
            }
            bytes += frame.len();
            frames += 1;
        }
        if frames == 1 {
            return Some((first.clone(), seen + 1));
        }
        let mut joined = BytesMut::with_capacity(bytes);
        self.frames.range(start..start + frames).for_each(|frame| joined.extend_from_slice(frame));
        Some((joined.freeze(), seen + frames as u64))
    }
}

impl Cursor {
    /// A reader that has seen everything up to and including `seen`. One that resumes was told the timings before.
    pub fn new(log: std::sync::Arc<StreamLog>, seen: u64) -> Self {
        let mut inner = log.inner.lock();
        let seen = seen.min(inner.last_seq());
        let slot = inner.free_slots.pop().unwrap_or_else(|| {
            inner.readers.push(None);
            inner.readers.len() - 1
        });
        inner.readers[slot] = Some(seen);
        let said_timings = inner.first_content_seq.is_some_and(|first| first <= seen);
        drop(inner);
        Self { log, slot, seen, said_timings, queue_version: 0, waiting_since: None }
    }

    /// A reader that begins with what has been said so far, in one piece, and goes on from there.
    pub fn with_snapshot(log: std::sync::Arc<StreamLog>) -> (Self, Next) {
        let mut cursor = Self::new(log, u64::MAX);
        let log = cursor.log.clone();
        let inner = log.inner.lock();
        // What was appended in between is part of the snapshot.
        let gap = cursor.skip(inner);
        (cursor, gap)
    }

    /// Continues after the last event; what was skipped is told in one piece.
    fn skip(&mut self, mut inner: parking_lot::MutexGuard<'_, Inner>) -> Next {
        let seq = inner.last_seq();
        self.seen = seq;
        self.said_timings = inner.first_content_seq.is_some();
        inner.readers[self.slot] = Some(seq);
        let Transcript { text, reasoning, .. } = &inner.transcript;
        Next::Gap { text: text.clone(), reasoning: reasoning.clone(), seq }
    }

    /// The log that it reads.
    pub fn log(&self) -> &StreamLog {
        &self.log
    }

    /// The last seq that was read.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What follows, up to `limit`; registers `waker` when that is nothing.
    pub fn next(&mut self, limit: u64, waker: &Waker) -> Next {
        let mut inner = self.log.inner.lock();
        if self.seen >= limit.min(inner.last_seq()) {
            if let Some(place) = inner.queue
                && self.queue_version != inner.queue_version
            {
                self.queue_version = inner.queue_version;
                return Next::Queue(place);
            }
            Self::wait(&mut inner, self.slot, &mut self.waiting_since, waker);
            return Next::Nothing;
        }
        if self.seen < inner.dropped {
            drop(inner);
            let log = self.log.clone();
            return self.skip(log.inner.lock());
        }
        let mut limit = limit;
        if !self.said_timings
            && let Some(first) = inner.first_content_seq
        {
            if self.seen + 1 == first {
                self.said_timings = true;
                return Next::FirstContent(inner.timings);
            }
            limit = limit.min(first - 1);
        }
        match inner.frames_after(self.seen, limit) {
            Some((frames, last)) => {
                self.seen = last;
                inner.readers[self.slot] = Some(last);
                Next::Frames { frames, last }
            }
            None => {
                Self::wait(&mut inner, self.slot, &mut self.waiting_since, waker);
                Next::Nothing
            }
        }
    }

    fn wait(inner: &mut Inner, slot: usize, waiting_since: &mut Option<u64>, waker: &Waker) {
        if *waiting_since == Some(inner.epoch)
            && let Some((_, known)) = inner.waiting.iter_mut().find(|(waiting, _)| *waiting == slot)
        {
            known.clone_from(waker);
            return;
        }
        *waiting_since = Some(inner.epoch);
        inner.waiting.push((slot, waker.clone()));
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let mut inner = self.log.inner.lock();
        inner.readers[self.slot] = None;
        inner.free_slots.push(self.slot);
        if self.waiting_since == Some(inner.epoch) {
            inner.waiting.retain(|(waiting, _)| *waiting != self.slot);
        }
    }
}
