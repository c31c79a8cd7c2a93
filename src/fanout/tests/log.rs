//! The shared log: one writer, readers that come, lag, leave and come back.

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::Instant;

use super::*;
use crate::chat::ProviderName;
use crate::event::ReasoningKind;

const FENCE: u32 = 1;
const TEXTS: &[&str] = &["", "a", "ß\n", "\"quoted\" ", "a longer piece of text, longer than most "];

#[derive(Debug, Clone)]
enum Op {
    Append(Piece),
    /// A reader comes that has seen so many hundredths of what there is.
    Join(u64),
    Read(usize),
    Leave(usize),
    Snapshot(usize),
    Queue(u32),
    FallBack,
    Nudge,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Reasoning(String),
    Other,
}

impl Piece {
    fn event(&self) -> Event<'_> {
        match self {
            Piece::Text(text) => delta(text),
            Piece::Reasoning(text) => Event::Reasoning { delta: text.into(), kind: ReasoningKind::Text },
            Piece::Other => Event::Ext { name: "x.y".into(), data: Value::Null },
        }
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        12 => prop::sample::select(TEXTS).prop_map(|text| Piece::Text(text.to_owned())),
        1 => Just(Piece::Text("x".repeat(17_000))),
        4 => prop::sample::select(TEXTS).prop_map(|text| Piece::Reasoning(text.to_owned())),
        4 => Just(Piece::Other),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => piece().prop_map(Op::Append),
        2 => (0_u64..=100).prop_map(Op::Join),
        8 => (0_usize..8).prop_map(Op::Read),
        1 => (0_usize..8).prop_map(Op::Leave),
        1 => (0_usize..8).prop_map(Op::Snapshot),
        1 => (1_u32..5).prop_map(Op::Queue),
        1 => Just(Op::FallBack),
        1 => Just(Op::Nudge),
    ]
}

/// One reader and what it has been told.
struct Listener {
    cursor: Cursor,
    bell: Arc<Bell>,
    waker: Waker,
    /// The bytes of all events up to `seen`, as this reader knows them.
    heard: Vec<u8>,
    /// How often its bell had rung when it found nothing.
    waits_since: Option<usize>,
    timings: usize,
    resumed_after_content: bool,
}

/// A log, what it ought to contain, and its readers.
struct World {
    log: Arc<StreamLog>,
    pieces: Vec<Piece>,
    /// The frame of each piece.
    encoded: Vec<BytesMut>,
    bytes_max: usize,
    readers: Vec<Listener>,
}

impl World {
    fn new(bytes_max: usize) -> Self {
        let log = Arc::new(StreamLog::new(FENCE, bytes_max));
        Self { log, pieces: Vec::new(), encoded: Vec::new(), bytes_max, readers: Vec::new() }
    }

    fn frames(&self, from: u64, to: u64) -> Vec<u8> {
        self.encoded[from as usize - 1..to as usize].concat()
    }

    fn texts(&self, to: u64) -> (String, String) {
        let (mut text, mut reasoning) = (String::new(), String::new());
        for piece in &self.pieces[..to as usize] {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::Reasoning(piece) => reasoning += piece,
                Piece::Other => {}
            }
        }
        (text, reasoning)
    }

    fn first_content(&self) -> Option<u64> {
        let first = self.pieces.iter().position(|piece| !matches!(piece, Piece::Other))?;
        Some(first as u64 + 1)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(piece) => {
                self.pieces.push(piece.clone());
                let mut frame = BytesMut::new();
                piece.event().write_frame(FENCE, self.pieces.len() as u64, &mut frame);
                self.encoded.push(frame);
                self.log.append(&piece.event());
                self.check_all_woken();
            }
            Op::Join(percent) => self.join(self.log.last_seq() * percent / 100),
            Op::Read(which) => self.with(*which, |world, reader| world.read(reader, u64::MAX)),
            Op::Leave(which) => {
                if *which < self.readers.len() {
                    self.readers.swap_remove(*which);
                }
            }
            Op::Snapshot(which) => self.with(*which, |world, reader| {
                let next = reader.cursor.snapshot(u64::MAX);
                world.check_gap(reader, next);
                let has_content = world.first_content().is_some_and(|first| first <= reader.cursor.seen());
                reader.resumed_after_content |= has_content && reader.timings == 0;
            }),
            Op::Queue(position) => self.log.queue(QueuePlace { position: *position, eta_ms: 1 }),
            Op::FallBack => {
                let (provider, from) = (ProviderName::new("b"), ProviderName::new("a"));
                self.log.fall_back(Some(Fallback { provider, model: "m".into(), from }));
                self.check_all_woken();
            }
            Op::Nudge => {
                let now = Instant::now();
                self.log.nudge_at(now);
                self.log.nudge(now);
                self.check_all_woken();
            }
        }
        let stats = self.log.stats();
        assert_eq!(stats.listeners, self.readers.len());
        assert_eq!(stats.events, self.pieces.len() as u64);
        let held = self.log.weight() - self.log.with_transcript(Transcript::bytes);
        let newest = self.encoded.last().map_or(0, BytesMut::len);
        assert!(held <= self.bytes_max || held == newest, "{held} bytes are held");
    }

    fn with(&mut self, which: usize, act: impl FnOnce(&Self, &mut Listener)) {
        if which < self.readers.len() {
            let mut reader = self.readers.swap_remove(which);
            act(self, &mut reader);
            self.readers.push(reader);
        }
    }

    fn join(&mut self, seen: u64) {
        let (bell, waker) = Bell::new();
        let cursor = Cursor::new(self.log.clone(), seen);
        let heard = self.frames(1, seen);
        let resumed_after_content = self.first_content().is_some_and(|first| first <= seen);
        self.readers.push(Listener {
            cursor,
            bell,
            waker,
            heard,
            waits_since: None,
            timings: 0,
            resumed_after_content,
        });
    }

    /// Everybody who found nothing has been woken by what came since.
    fn check_all_woken(&mut self) {
        for reader in &mut self.readers {
            if let Some(before) = reader.waits_since.take() {
                assert_eq!(reader.bell.rung(), before + 1, "woken once by what comes next");
            }
        }
    }

    fn read(&self, reader: &mut Listener, limit: u64) {
        let seen = reader.cursor.seen();
        match reader.cursor.next(limit, &reader.waker) {
            Next::Frames { frames, last } => {
                assert!(last <= limit && last > seen && last == reader.cursor.seen());
                assert_eq!(frames, self.frames(seen + 1, last));
                assert!(frames.len() <= 16 * 1024 || last == seen + 1, "{} bytes at once", frames.len());
                reader.heard.extend_from_slice(&frames);
                if self.first_content().is_some_and(|first| first <= last) {
                    assert!(reader.timings == 1 || reader.resumed_after_content, "content before its timings");
                }
            }
            Next::FirstContent(timings) => {
                assert!(timings.first_content.is_some());
                assert!(!reader.resumed_after_content);
                reader.timings += 1;
                assert_eq!(reader.timings, 1, "the timings are said once");
                assert_eq!(reader.cursor.seen(), seen);
            }
            gap @ Next::Gap { .. } => {
                self.check_gap(reader, gap);
                if self.first_content().is_some_and(|first| first <= reader.cursor.seen()) {
                    assert!(reader.timings == 1 || reader.resumed_after_content, "a snapshot before its timings");
                }
            }
            Next::Queue(_) => assert_eq!(seen, self.log.last_seq().min(limit)),
            Next::Fallback(_) => assert_eq!(reader.cursor.seen(), seen),
            Next::Nothing => {
                assert!(reader.cursor.seen() >= self.log.last_seq().min(limit));
                reader.waits_since = Some(reader.bell.rung());
            }
        }
    }

    fn check_gap(&self, reader: &mut Listener, gap: Next) {
        let Next::Gap { text, reasoning, seq } = gap else { panic!("{gap:?} is no snapshot") };
        assert_eq!((text, reasoning), self.texts(seq));
        assert_eq!(reader.cursor.seen(), seq);
        reader.heard = self.frames(1, seq);
    }

    /// Everybody reads to the end and has heard the same.
    fn finish(&mut self) {
        self.join(0);
        for which in 0..self.readers.len() {
            let mut reads = 0;
            while self.readers[which].waits_since.is_none() {
                let mut reader = self.readers.swap_remove(which);
                self.read(&mut reader, u64::MAX);
                self.readers.insert(which, reader);
                reads += 1;
                assert!(reads <= 2 * self.pieces.len() + 4, "a reader gets nowhere");
            }
            assert_eq!(self.readers[which].heard, self.frames(1, self.pieces.len() as u64));
        }
    }
}

proptest! {
    #[test]
    fn every_reader_hears_the_same_whenever_it_comes_and_however_it_reads(
        bytes_max in prop_oneof![Just(1_usize), 200_usize..4_000, Just(1 << 20)],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(bytes_max);
        for op in &ops {
            world.apply(op);
        }
        world.finish();
    }

    #[test]
    fn a_reader_sees_nothing_beyond_its_limit(
        bytes_max in prop_oneof![Just(1_usize), 200_usize..4_000, Just(1 << 20)],
        pieces in prop::collection::vec(piece(), 1..60),
        limit_percent in 0_u64..=100,
        seen_percent in 0_u64..=100,
    ) {
        let mut world = World::new(bytes_max);
        for piece in pieces {
            world.apply(&Op::Append(piece));
        }
        let limit = world.log.last_seq() * limit_percent / 100;
        world.join(limit * seen_percent / 100);
        let mut reader = world.readers.pop().unwrap();
        while reader.waits_since.is_none() {
            world.read(&mut reader, limit);
            prop_assert!(reader.cursor.seen() <= limit);
        }
        prop_assert_eq!(reader.cursor.seen(), limit);
    }
}

#[test]
fn the_timings_come_before_content_that_is_only_in_a_snapshot() {
    let log = Arc::new(StreamLog::new(FENCE, 1));
    let mut reader = Cursor::new(log.clone(), 0);
    for text in ["a", "b", "c"] {
        log.append(&delta(text));
    }

    assert!(matches!(reader.next(u64::MAX, Waker::noop()), Next::FirstContent(_)));
    let gap = reader.next(u64::MAX, Waker::noop());

    assert_eq!(gap, Next::Gap { text: "abc".into(), reasoning: String::new(), seq: 3 });
}

#[test]
fn a_gap_before_the_first_content_does_not_swallow_its_timings() {
    let log = Arc::new(StreamLog::new(FENCE, 1));
    let mut reader = Cursor::new(log.clone(), 0);
    for _ in 0..3 {
        log.append(&Piece::Other.event());
    }
    assert!(matches!(reader.next(u64::MAX, Waker::noop()), Next::Gap { seq: 3, .. }));

    log.append(&delta("a"));

    assert!(matches!(reader.next(u64::MAX, Waker::noop()), Next::FirstContent(_)));
    assert!(matches!(reader.next(u64::MAX, Waker::noop()), Next::Frames { last: 4, .. }));
}

#[test]
fn what_a_cancelled_request_may_see_ends_at_its_cut_even_in_a_snapshot() {
    let log = Arc::new(StreamLog::new(FENCE, 130));
    let mut behind = Cursor::new(log.clone(), 0);
    let mut far_behind = Cursor::new(log.clone(), 0);
    for text in ["eins ", "zwei ", "drei ", "vier "] {
        log.append(&delta(text));
    }
    assert!(matches!(behind.next(3, Waker::noop()), Next::FirstContent(_)));

    let gap = behind.next(3, Waker::noop());
    let nothing = far_behind.next(1, Waker::noop());

    assert_eq!(gap, Next::Gap { text: "eins zwei drei ".into(), reasoning: String::new(), seq: 3 });
    assert_eq!(nothing, Next::Nothing);
    assert_eq!(far_behind.seen(), 1);
}

#[test]
fn a_reader_that_has_gone_is_not_woken_and_leaves_no_waker_behind() {
    let log = Arc::new(StreamLog::new(FENCE, 1 << 20));
    let (bell, waker) = Bell::new();
    for _ in 0..1_000 {
        let mut reader = Cursor::new(log.clone(), 0);
        assert_eq!(reader.next(u64::MAX, &waker), Next::Nothing);
    }
    drop(waker);

    assert_eq!(Arc::strong_count(&bell), 1);
    log.append(&delta("a"));
    assert_eq!(bell.rung(), 0);
    assert_eq!(log.stats().listeners, 0);
}

#[test]
fn a_reader_that_asks_again_is_woken_once_by_its_newest_waker() {
    let log = Arc::new(StreamLog::new(FENCE, 1 << 20));
    let mut reader = Cursor::new(log.clone(), 0);
    let (old, old_waker) = Bell::new();
    let (new, new_waker) = Bell::new();
    for _ in 0..10 {
        reader.next(u64::MAX, &old_waker);
    }
    reader.next(u64::MAX, &new_waker);

    log.append(&delta("a"));

    assert_eq!((old.rung(), new.rung()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn readers_are_nudged_when_the_first_of_them_is_due_and_not_before_somebody_asks_again() {
    let log = Arc::new(StreamLog::new(FENCE, 1 << 20));
    let mut reader = Cursor::new(log.clone(), 0);
    let (bell, waker) = Bell::new();
    let began = Instant::now();
    let mut rung_at = |asked: &[u64], now_ms: u64| {
        assert_eq!(reader.next(u64::MAX, &waker), Next::Nothing);
        let at = |ms: u64| began + Duration::from_millis(ms);
        asked.iter().for_each(|ms| log.nudge_at(at(*ms)));
        log.nudge(at(now_ms));
        bell.rung()
    };

    assert_eq!(rung_at(&[], 10_000), 0, "nobody has asked");
    assert_eq!(rung_at(&[300, 200, 400], 199), 0);
    assert_eq!(rung_at(&[], 200), 1);
    assert_eq!(rung_at(&[], 400), 1, "the others have been woken, too");
    assert_eq!(rung_at(&[400], 10_000), 2);
}

#[test]
fn a_place_in_the_queue_is_told_when_it_changes_and_forgotten_when_it_is_over() {
    let log = Arc::new(StreamLog::new(FENCE, 1 << 20));
    let mut reader = Cursor::new(log.clone(), 0);
    let (bell, waker) = Bell::new();
    assert_eq!(reader.next(u64::MAX, &waker), Next::Nothing);
    let third = QueuePlace { position: 3, eta_ms: 900 };

    log.queue(third);
    log.queue(third);

    assert_eq!(bell.rung(), 1);
    assert_eq!(reader.next(u64::MAX, &waker), Next::Queue(third));
    assert_eq!(reader.next(u64::MAX, &waker), Next::Nothing);
    let mut late = Cursor::new(log.clone(), 0);
    assert_eq!(late.next(u64::MAX, &waker), Next::Queue(third));
    log.reach(|timings| timings.connect_ms = Some(1));
    let mut later = Cursor::new(log, 0);
    assert_eq!(later.next(u64::MAX, &waker), Next::Nothing);
}

#[test]
fn who_answers_instead_is_told_once_to_everybody_before_what_it_says() {
    let log = Arc::new(StreamLog::new(FENCE, 1 << 20));
    let mut reader = Cursor::new(log.clone(), 0);
    let (bell, waker) = Bell::new();
    assert_eq!(reader.next(u64::MAX, &waker), Next::Nothing);
    let fallback = Fallback { provider: ProviderName::new("b"), model: "m".into(), from: ProviderName::new("a") };
    log.queue(QueuePlace { position: 3, eta_ms: 900 });

    log.fall_back(Some(fallback.clone()));
    log.append(&delta("hi"));

    assert_eq!(bell.rung(), 1);
    for mut reader in [reader, Cursor::new(log.clone(), 0), Cursor::new(log.clone(), 1)] {
        assert_eq!(reader.next(u64::MAX, &waker), Next::Fallback(fallback.clone()));
        assert_ne!(reader.next(u64::MAX, &waker), Next::Fallback(fallback.clone()));
    }
    log.fall_back(None);
    assert!(!matches!(Cursor::new(log.clone(), 0).next(u64::MAX, &waker), Next::Fallback(_)));
    assert_eq!(log.fallback(), None);
}

#[test]
fn a_short_answer_costs_little_memory() {
    let log = StreamLog::new(FENCE, 1 << 20);

    log.append(&delta("hi"));

    assert!(log.weight() < 128, "{}", log.weight());
}

#[test]
fn ten_thousand_readers_that_wait_are_woken_in_no_time() {
    let log = Arc::new(StreamLog::new(FENCE, 1 << 20));
    let (bell, waker) = Bell::new();
    let mut readers: Vec<_> = (0..10_000).map(|_| Cursor::new(log.clone(), 0)).collect();
    // Each asks twice: a search for itself among the others would take 10^8 steps a round.
    for round in 1..=20 {
        for reader in &mut readers {
            while reader.next(u64::MAX, &waker) != Next::Nothing {}
            assert_eq!(reader.next(u64::MAX, &waker), Next::Nothing);
        }
        log.append(&delta("a"));
        assert_eq!(bell.rung(), round * readers.len());
    }
}
