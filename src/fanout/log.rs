//! StreamLog: the frames of one answer, encoded once, read by every listener at its own offset.
//!
//! There is one writer (the stream) and any number of readers on any thread. A reader that is behind costs the others
//! nothing: it finds its frames here whenever its socket takes them. Beyond the byte cap the oldest frames go; a reader
//! that still needed them is told so and continues from a snapshot. Wakers are called outside the lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Transcript;
use super::progress::{Fallback, LogStats, QueuePlace, Timings};
use super::wakers::Wakers;
use crate::event::Event;

/// Frames that wait for one reader are joined up to this size, so that catching up takes few writes.
const BATCH_BYTES_MAX: usize = 16 * 1024;
/// Frames are cut from blocks of memory that grow with the answer, up to this size.
const BLOCK_BYTES_MAX: usize = 16 * 1024;
/// The first block: a short answer should not cost more.
const BLOCK_BYTES_MIN: usize = 512;

/// The readers need not be woken without news.
const NEVER: u64 = u64::MAX;

/// The shared log of one answer.
#[derive(Debug)]
pub struct StreamLog {
    fence: u32,
    bytes_max: usize,
    inner: Mutex<Inner>,
    began: Instant,
    /// When the readers are to be woken without news, in nanoseconds since `began`.
    due_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Held>,
    /// How many frames have been dropped from the front; the first one held has the seq `dropped + 1`.
    dropped: u64,
    /// How much text the dropped frames had brought.
    dropped_lens: Lens,
    bytes: usize,
    bytes_total: u64,
    block: BytesMut,
    block_bytes: usize,
    transcript: Transcript,
    first_content_seq: Option<u64>,
    timings: Timings,
    queue: Option<QueuePlace>,
    queue_version: u32,
    fallback: Option<Fallback>,
    fallback_version: u32,
    /// The readers, by their slots.
    readers: Vec<Reader>,
    free_slots: Vec<usize>,
    /// The slots of readers that found nothing, each once.
    waiting: Vec<usize>,
}

/// A frame that is held, with the length of the texts up to its end.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    lens: Lens,
}

/// How long the texts of an answer are at some event, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Lens {
    text: u32,
    reasoning: u32,
}

/// A place for one reader.
#[derive(Debug, Default)]
struct Reader {
    /// The last seq that was read; `None` while the place is free.
    seen: Option<u64>,
    /// Called when there is something new.
    waker: Option<Waker>,
    /// Whether the place stands in `waiting`.
    is_listed: bool,
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
    /// Another provider makes the answer.
    Fallback(Fallback),
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
    fallback_version: u32,
}

impl StreamLog {
    /// Numbers the owners of a stream; there is one as long as there is one node.
    pub const FENCE: u32 = 1;

    /// An empty log. `fence` numbers the stream's owners, `bytes_max` caps the frames held.
    pub fn new(fence: u32, bytes_max: usize) -> Self {
        Self {
            fence,
            bytes_max,
            inner: Mutex::new(Inner { block_bytes: BLOCK_BYTES_MIN, ..Inner::default() }),
            began: Instant::now(),
            due_ns: AtomicU64::new(NEVER),
        }
    }

    /// The number in front of every event id.
    pub fn fence(&self) -> u32 {
        self.fence
    }

    /// Appends one event and wakes the readers that wait. Returns what the answer weighs so far, in bytes.
    pub fn append(&self, event: &Event<'_>) -> usize {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let seq = inner.last_seq() + 1;
        inner.transcript.apply(event);
        if event.is_content() && inner.first_content_seq.is_none() {
            inner.first_content_seq = Some(seq);
            inner.timings.first_content = Some(now);
        }
        let bytes = inner.encode(event, self.fence, seq);
        inner.bytes += bytes.len();
        inner.bytes_total += bytes.len() as u64;
        let lens = Lens::of(&inner.transcript);
        inner.frames.push_back(Held { bytes, lens });
        inner.trim(self.bytes_max);
        let answer_bytes = inner.transcript.bytes();
        let wakers = inner.take_wakers();
        drop(inner);
        wakers.wake();
        answer_bytes
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
        let wakers = inner.take_wakers();
        drop(inner);
        wakers.wake();
    }

    /// Tells the readers that another provider makes the answer. `None`: none does after all, and nobody is told.
    pub fn fall_back(&self, to: Option<Fallback>) {
        let mut inner = self.inner.lock();
        inner.fallback = to;
        inner.fallback_version += 1;
        inner.queue = None;
        let wakers = inner.take_wakers();
        drop(inner);
        wakers.wake();
    }

    /// Who makes the answer, when that is not who was asked.
    pub fn fallback(&self) -> Option<Fallback> {
        self.inner.lock().fallback.clone()
    }

    /// Asks for a nudge at `due`, for a reader that has found nothing and waits. All are nudged at the earliest moment
    /// that one has asked for, and ask anew; so the readers of an answer that goes on seldom change anything here.
    pub fn nudge_at(&self, due: Instant) {
        let due_ns = self.nanos(due);
        if due_ns < self.due_ns.load(Ordering::Relaxed) {
            self.due_ns.fetch_min(due_ns, Ordering::Relaxed);
        }
    }

    /// Wakes the readers that wait, so that they can say that they are alive, if one of them has asked for it by `now`.
    pub fn nudge(&self, now: Instant) {
        if self.nanos(now) < self.due_ns.load(Ordering::Relaxed) {
            return;
        }
        // Before the wakers are taken: whoever begins to wait after that finds nothing asked for, and asks anew.
        self.due_ns.store(NEVER, Ordering::Relaxed);
        let wakers = self.inner.lock().take_wakers();
        wakers.wake();
    }

    fn nanos(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.began).as_nanos()).unwrap_or(NEVER - 1)
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

    /// What it holds in memory, in bytes: the frames and the answer.
    pub fn weight(&self) -> usize {
        let inner = self.inner.lock();
        inner.bytes + inner.transcript.bytes()
    }

    /// The same with what it costs to hold each frame.
    pub fn footprint(&self) -> usize {
        let frames = self.inner.lock().frames.capacity();
        self.weight() + frames * size_of::<Held>()
    }

    /// What operators see.
    pub fn stats(&self) -> LogStats {
        let inner = self.inner.lock();
        let last = inner.last_seq();
        let seen = || inner.readers.iter().filter_map(|reader| reader.seen);
        let lags = seen().map(|seen| last.saturating_sub(seen));
        LogStats {
            listeners: seen().count(),
            events: last,
            bytes: inner.bytes_total,
            slowest_lag: lags.max().unwrap_or(0),
            timings: inner.timings,
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
            self.bytes -= frame.bytes.len();
            self.dropped += 1;
            self.dropped_lens = frame.lens;
        }
    }

    /// Notes that a reader waits. Takes the same time however many do.
    fn wait(&mut self, slot: usize, waker: &Waker) {
        let reader = &mut self.readers[slot];
        match &mut reader.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        if !std::mem::replace(&mut reader.is_listed, true) {
            self.waiting.push(slot);
        }
    }

    fn take_wakers(&mut self) -> Wakers {
        let Self { waiting, readers, .. } = self;
        let mut wakers = Wakers::default();
        for slot in waiting.drain(..) {
            let reader = &mut readers[slot];
            reader.is_listed = false;
            if let Some(waker) = reader.waker.take() {
                wakers.push(waker);
            }
        }
        wakers
    }

    /// The texts as they were after the event `seq`; empty when that is not known any more.
    fn texts_at(&self, seq: u64) -> (String, String) {
        let lens = match seq.checked_sub(self.dropped) {
            Some(0) => Some(self.dropped_lens),
            Some(held) => usize::try_from(held - 1).ok().and_then(|index| self.frames.get(index)).map(|held| held.lens),
            None => None,
        };
        let Lens { text, reasoning } = lens.unwrap_or_default();
        let cut = |whole: &str, len: u32| whole.get(..len as usize).unwrap_or_default().to_owned();
        (cut(self.transcript.content(), text), cut(&self.transcript.reasoning, reasoning))
    }

    /// The frames after `seen`, up to `limit` and to what makes a good write, and the seq of the last of them.
    fn frames_after(&self, seen: u64, limit: u64) -> Option<(Run, u64)> {
        let start = usize::try_from(seen - self.dropped).ok()?;
        let count = usize::try_from(limit.min(self.last_seq()).checked_sub(seen)?).ok()?;
        let first = &self.frames.get(start).filter(|_| count > 0)?.bytes;
        let mut bytes = first.len();
        let fitting = self.frames.range(start + 1..start + count).take_while(|frame| {
            bytes += frame.bytes.len();
            bytes <= BATCH_BYTES_MAX
        });
        let rest: Vec<Bytes> = fitting.map(|frame| frame.bytes.clone()).collect();
        let last = seen + 1 + rest.len() as u64;
        Some((Run { first: first.clone(), rest }, last))
    }
}

/// Frames that follow each other, on their way to one reader.
struct Run {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Run {
    /// All of them in one piece. Copies when there are several, so not under the log's lock.
    fn join(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let len = self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>();
        let mut joined = BytesMut::with_capacity(len);
        joined.extend_from_slice(&self.first);
        self.rest.iter().for_each(|frame| joined.extend_from_slice(frame));
        joined.freeze()
    }
}

impl Lens {
    fn of(transcript: &Transcript) -> Self {
        let len = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        Self { text: len(transcript.content()), reasoning: len(&transcript.reasoning) }
    }
}

impl Cursor {
    /// A reader that has seen everything up to and including `seen`. One that resumes was told the timings before.
    pub fn new(log: std::sync::Arc<StreamLog>, seen: u64) -> Self {
        let mut inner = log.inner.lock();
        let seen = seen.min(inner.last_seq());
        let slot = inner.free_slots.pop().unwrap_or_else(|| {
            inner.readers.push(Reader::default());
            inner.readers.len() - 1
        });
        inner.readers[slot].seen = Some(seen);
        let said_timings = inner.first_content_seq.is_some_and(|first| first <= seen);
        drop(inner);
        Self { log, slot, seen, said_timings, queue_version: 0, fallback_version: 0 }
    }

    /// The log that it reads.
    pub fn log(&self) -> &StreamLog {
        &self.log
    }

    /// The last seq that was read.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether the first piece of content lies behind it.
    pub fn is_past_first_content(&self) -> bool {
        self.said_timings
    }

    /// What follows, up to `limit`; registers `waker` when that is nothing.
    pub fn next(&mut self, limit: u64, waker: &Waker) -> Next {
        self.next_within(|| limit, waker)
    }

    /// The same with a limit that may be set meanwhile: it is asked for while nothing can be appended.
    pub fn next_within(&mut self, limit: impl FnOnce() -> u64, waker: &Waker) -> Next {
        let mut inner = self.log.inner.lock();
        let end = limit().min(inner.last_seq());
        let fallback_version = std::mem::replace(&mut self.fallback_version, inner.fallback_version);
        if fallback_version != inner.fallback_version
            && let Some(fallback) = &inner.fallback
        {
            return Next::Fallback(fallback.clone());
        }
        let has_gone = self.seen < inner.dropped;
        if has_gone && end < inner.dropped {
            // What this reader may see has gone, what follows is not for it.
            self.seen = self.seen.max(end);
        }
        if self.seen >= end {
            inner.readers[self.slot].seen = Some(self.seen);
            if let Some(place) = inner.queue
                && self.queue_version != inner.queue_version
            {
                self.queue_version = inner.queue_version;
                return Next::Queue(place);
            }
            inner.wait(self.slot, waker);
            return Next::Nothing;
        }
        let mut frames_end = end;
        if let Some(first) = inner.first_content_seq.filter(|first| !self.said_timings && *first <= end) {
            if has_gone || self.seen + 1 == first {
                self.said_timings = true;
                return Next::FirstContent(inner.timings);
            }
            frames_end = first - 1;
        }
        if has_gone {
            self.seen = end;
            inner.readers[self.slot].seen = Some(end);
            let (text, reasoning) = inner.texts_at(end);
            return Next::Gap { text, reasoning, seq: end };
        }
        let Some((run, last)) = inner.frames_after(self.seen, frames_end) else {
            inner.wait(self.slot, waker);
            return Next::Nothing;
        };
        self.seen = last;
        inner.readers[self.slot].seen = Some(last);
        drop(inner);
        Next::Frames { frames: run.join(), last }
    }

    /// All that has come so far, up to `limit`, as a [`Next::Gap`]: for a reader that has seen nothing. It goes on there.
    pub fn snapshot(&mut self, limit: u64) -> Next {
        let mut inner = self.log.inner.lock();
        let seq = limit.min(inner.last_seq());
        self.seen = seq;
        self.said_timings |= inner.first_content_seq.is_some_and(|first| first <= seq);
        inner.readers[self.slot].seen = Some(seq);
        let (text, reasoning) = inner.texts_at(seq);
        Next::Gap { text, reasoning, seq }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let mut inner = self.log.inner.lock();
        // The place may stay in the list of those who wait: whoever gets it next finds itself there.
        let Reader { seen, waker, .. } = &mut inner.readers[self.slot];
        *seen = None;
        let waker = waker.take();
        inner.free_slots.push(self.slot);
        drop(inner);
        drop(waker);
    }
}
