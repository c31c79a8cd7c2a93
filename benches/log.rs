//! Log: an event on its way from the one who writes to those who read.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::Waker;

use weir::event::Event;
use weir::fanout::{Cursor, Next, StreamLog};

use crate::Case;

const EVENTS: usize = 1_000;
/// More than all events of a run take.
const BYTES_MAX: usize = 1024 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    vec![append(), read(1), read(100), catch_up()]
}

fn event() -> Event<'static> {
    Event::Delta { delta: Cow::Borrowed("twelve bytes") }
}

fn append() -> Case {
    Case::new("log/append", EVENTS, || {
        let log = StreamLog::new(StreamLog::FENCE, BYTES_MAX);
        for _ in 0..EVENTS {
            log.append(&event());
        }
        assert_eq!(log.last_seq(), EVENTS as u64);
    })
}

/// Each event is read by so many who wait for it.
fn read(cursors: usize) -> Case {
    let rounds = EVENTS.div_ceil(cursors);
    Case::new(format!("log/append_and_read_by_{cursors}"), rounds * cursors, move || {
        let log = Arc::new(StreamLog::new(StreamLog::FENCE, BYTES_MAX));
        let mut readers: Vec<_> = (0..cursors).map(|_| Cursor::new(Arc::clone(&log), 0)).collect();
        for _ in 0..rounds {
            log.append(&event());
            for reader in &mut readers {
                while reader.next(u64::MAX, Waker::noop()) != Next::Nothing {}
            }
        }
        assert!(readers.iter().all(|reader| reader.seen() == rounds as u64));
    })
}

/// Everything is there already.
fn catch_up() -> Case {
    let log = Arc::new(StreamLog::new(StreamLog::FENCE, BYTES_MAX));
    for _ in 0..EVENTS {
        log.append(&event());
    }
    Case::new("log/catch_up", EVENTS, move || {
        let mut reader = Cursor::new(Arc::clone(&log), 0);
        while reader.next(u64::MAX, Waker::noop()) != Next::Nothing {}
        assert_eq!(reader.seen(), EVENTS as u64);
    })
}
