//! Tap: counts what many connections bring, by the bytes alone. Whoever measures shares the machine with what is
//! measured, so nothing is decoded, copied or kept.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;

use crate::client::Events;

/// How the data of an event begins, in any framing: there is a line end before it, its own or that of a chunk's size.
const MARK: &[u8] = b"\ndata: ";
const READ_LEN: usize = 16 * 1024;

/// Finds events in the bytes of a connection, however they were cut.
#[derive(Debug, Default)]
struct Scan {
    matched: usize,
}

impl Scan {
    /// Takes the next bytes. Returns how many events begin in them.
    fn take(&mut self, bytes: &[u8]) -> u64 {
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
        }
        found
    }
}

/// How many events each of many connections has brought.
#[derive(Debug, Clone)]
pub(super) struct Tally(Arc<[AtomicU64]>);

impl Tally {
    /// For so many connections.
    pub(super) fn new(connections: usize) -> Self {
        Self((0..connections).map(|_| AtomicU64::new(0)).collect())
    }

    /// All events.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Counts what a stream brings from now on as those of connection `n`, until it ends.
    pub(super) async fn count(self, n: usize, events: Events<TcpStream>) {
        let stream = events.into_connection().into_stream();
        let mut scan = Scan::default();
        while stream.readable().await.is_ok() {
            // On the stack only between two waits: a waiting connection holds no buffer.
            let mut bytes = [0; READ_LEN];
            match stream.try_read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => {
                    let found = scan.take(&bytes[..length]);
                    if let Some(count) = self.0.get(n) {
                        count.fetch_add(found, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
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
            let found: u64 = stream.chunks(step).map(|bytes| scan.take(bytes)).sum();

            assert_eq!(found, 3, "in reads of {step}");
        }
    }
}
