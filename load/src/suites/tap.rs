//! Tap: counts what many connections bring, by the bytes alone. Whoever measures shares the machine with what is
//! measured, so nothing is decoded, copied or kept.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

use crate::client::Events;
use crate::clock::{STAMP, now_ns};
use crate::samples::Samples;

/// How the data of an event begins, in any framing: there is a line end before it, its own or that of a chunk's size.
const MARK: &[u8] = b"\ndata: ";
const READ_LEN: usize = 16 * 1024;
/// A longer number is no stamp.
const STAMP_DIGITS_MAX: u32 = 19;

/// Finds events and stamps in the bytes of a connection, however they were cut.
#[derive(Debug, Default)]
struct Scan {
    matched: usize,
    /// The digits so far of a stamp, and how many they are.
    stamp: Option<(u64, u32)>,
}

impl Scan {
    /// Takes the next bytes. Returns how many events begin in them, and hands on each stamp that ends in them.
    fn take(&mut self, bytes: &[u8], mut stamped: impl FnMut(u64)) -> u64 {
        let mut found = 0;
        for byte in bytes {
            // The mark's first byte occurs nowhere else in it, so this is all that is left of a match that fails.
            self.matched = match self.matched {
                matched if *byte == MARK[matched] => matched + 1,
                _ => usize::from(*byte == MARK[0]),
            };
            if self.matched == MARK.len() {
                (self.matched, found) = (0, found + 1);
            }
            self.stamp = match (self.stamp, *byte) {
                (Some((number, digits @ 0..STAMP_DIGITS_MAX)), b'0'..=b'9') => {
                    Some((number * 10 + u64::from(byte - b'0'), digits + 1))
                }
                (Some((number, 1..)), _) => {
                    stamped(number);
                    None
                }
                (_, byte) => (char::from(byte) == STAMP).then_some((0, 0)),
            };
        }
        found
    }
}

/// What many connections have brought.
#[derive(Debug, Clone)]
pub(super) struct Tally(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// Events, by connection.
    events: Box<[AtomicU64]>,
    bytes: AtomicU64,
    /// How old stamps were when they were read; only noted while somebody wants to know.
    ages: Mutex<Option<Samples>>,
}

impl Tally {
    /// For so many connections.
    pub(super) fn new(connections: usize) -> Self {
        let events = (0..connections).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Counts { events, bytes: AtomicU64::new(0), ages: Mutex::new(None) }))
    }

    /// All events.
    pub(super) fn total(&self) -> u64 {
        self.each().iter().sum()
    }

    /// The events of each connection.
    pub(super) fn each(&self) -> Vec<u64> {
        self.0.events.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Begins to note how old stamps are; forgets what was noted before.
    pub(super) fn watch_ages(&self) {
        *self.0.ages.lock() = Some(Samples::default());
    }

    /// The ages of the stamps since then.
    pub(super) fn take_ages(&self) -> Samples {
        self.0.ages.lock().take().unwrap_or_default()
    }

    /// Counts what a stream brings from now on as those of connection `n`, until it ends.
    pub(super) async fn count(self, n: usize, events: Events) {
        let mut stream = events.into_connection().into_stream();
        let mut scan = Scan::default();
        let mut read = |cx: &mut Context<'_>| {
            // On the stack only between two waits: a waiting connection holds no buffer.
            let mut bytes = [MaybeUninit::uninit(); READ_LEN];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer))?;
            self.take(n, &mut scan, buffer.filled());
            Poll::Ready(io::Result::Ok(buffer.filled().len()))
        };
        while poll_fn(&mut read).await.is_ok_and(|length| length > 0) {}
    }

    fn take(&self, n: usize, scan: &mut Scan, bytes: &[u8]) {
        let now = now_ns();
        let found = scan.take(bytes, |stamp| {
            if let Some(ages) = &mut *self.0.ages.lock() {
                ages.add(Duration::from_nanos(now.saturating_sub(stamp)));
            }
        });
        self.0.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(count) = self.0.events.get(n) {
            count.fetch_add(found, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_counted_once_however_its_bytes_are_cut() {
        let stream = b"1f\r\ndata: {\"a\":\"0:data: x\"}\n\n\r\n2a\r\nid: 1-2\nevent: delta\ndata: {\"b\":\"\\ndata: \"}\n\n\r\n\
                       7\r\n: ping\n\r\n12\r\n\ndata: 4\n\n\ndata:5\n\n\r\n";
        for step in 1..=stream.len() {
            let mut scan = Scan::default();
            let found: u64 = stream.chunks(step).map(|bytes| scan.take(bytes, |_| ())).sum();

            assert_eq!(found, 3, "in reads of {step}");
        }
    }

    #[test]
    fn a_stamp_is_a_number_behind_its_mark_however_its_bytes_are_cut() {
        let stream = b"stamped@gap_ms=1 @12345...\" a@ 7 @x9 @4294967296\"@12345678901234567890.";
        for step in 1..=stream.len() {
            let (mut scan, mut stamps) = (Scan::default(), Vec::new());
            stream.chunks(step).for_each(|bytes| {
                scan.take(bytes, |stamp| stamps.push(stamp));
            });

            assert_eq!(stamps, [12_345, 4_294_967_296, 1_234_567_890_123_456_789], "in reads of {step}");
        }
    }

    #[test]
    fn ages_are_noted_only_while_somebody_wants_to_know() {
        let tally = Tally::new(2);
        let event = format!("\ndata: {STAMP}{}\n", now_ns() - 5_000_000);
        let take = || tally.take(1, &mut Scan::default(), event.as_bytes());

        take();
        tally.watch_ages();
        take();
        take();
        let ages = tally.take_ages();
        take();

        assert_eq!(ages.count(), 2);
        assert!(ages.percentile_ms(50.0).unwrap() >= 5.0);
        assert_eq!((tally.each(), tally.take_ages().count()), (vec![0, 4], 0));
        assert_eq!(tally.bytes(), 4 * event.len() as u64);
    }
}
