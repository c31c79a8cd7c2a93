//! The log: moves it into the database, on a thread and a connection of its own, so that writers do not wait.
//!
//! A passive checkpoint lets the writer go on, and so never sees the end of the log while writes keep coming: the
//! log grows. When it has grown too far, the last stretch is done with the writer held up (`RESTART`), which is
//! short, because the passive ones have done the rest, and because it gives up soon when somebody reads for long.
//! The next write then begins the log anew, and cuts off what is longer than the log should be. With constant writes
//! by 48 clients on two busy cores, such a stretch took 20 to 240 ms (60 in the median), once a second.

use std::sync::mpsc::{Receiver, SyncSender};

use rusqlite::{Connection, ErrorCode};

use super::watch::Watch;

/// The size of a page that SQLite chooses by itself.
pub(super) const PAGE_BYTES: i64 = 4096;
/// How many passive checkpoints try to leave little for the one that holds up the writer.
const PASSES_MAX: usize = 2;
/// From which multiple of its proper length on the log is worth a warning.
const WARN_FACTOR: i64 = 4;

/// What the log's length means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The length from which on the writer may be held up, in pages.
    pub(super) pages_max: i64,
}

impl Limits {
    /// The least growth that is worth a checkpoint, in pages.
    pub(super) fn worth(self) -> i64 {
        (self.pages_max / 4).max(1)
    }

    /// What may be left to do while the writer is held up, in pages.
    fn rest_max(self) -> i64 {
        self.pages_max / 32
    }
}

/// Calls the thread whenever the log has grown by as much as is worth it. The writer's end.
pub(super) struct Bell {
    rope: SyncSender<()>,
    limits: Limits,
    rung_at: i64,
}

impl Bell {
    pub(super) fn new(rope: SyncSender<()>, limits: Limits) -> Self {
        Self { rope, limits, rung_at: 0 }
    }

    /// Looks how long the log is. Costs some microseconds.
    pub(super) fn ring_if_worth(&mut self, db: &Connection) {
        // What is wrong with the log is for the thread to find.
        let pages = checkpoint(db, "NOOP").map_or(i64::MAX, |log| log.pages);
        if pages < self.rung_at {
            self.rung_at = 0;
        }
        if pages - self.rung_at >= self.limits.worth() {
            self.rung_at = pages;
            // A full channel means that the bell is ringing already.
            let _ = self.rope.try_send(());
        }
    }
}

/// The body of the thread: looks at the log whenever the bell rings, until its other end is dropped.
pub(super) fn run(db: &Connection, rings: &Receiver<()>, watch: &Watch, limits: Limits) {
    let mut mover = Mover::new(limits);
    while rings.recv().is_ok() {
        if watch.failure().is_some() {
            return;
        }
        if let Err(error) = mover.tidy(db) {
            note(&error, watch);
        }
    }
}

/// Keeps the log short.
pub(super) struct Mover {
    limits: Limits,
    /// The length from which on the writer is held up: further on when that was in vain, so that somebody who reads
    /// for long does not hold it up each time.
    restart_from: i64,
    warn_from: i64,
}

impl Mover {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, restart_from: limits.pages_max, warn_from: limits.pages_max * WARN_FACTOR }
    }

    /// Moves what is worth it; says how many pages the log had.
    pub(super) fn tidy(&mut self, db: &Connection) -> rusqlite::Result<i64> {
        let mut log = checkpoint(db, "NOOP")?;
        if log.pages < self.limits.pages_max {
            *self = Self::new(self.limits);
        }
        if log.rest() < self.limits.worth() {
            return Ok(log.pages);
        }
        log = checkpoint(db, "PASSIVE")?;
        if log.pages < self.restart_from {
            return Ok(log.pages);
        }
        for _ in 1..PASSES_MAX {
            if log.rest() > self.limits.rest_max() {
                log = checkpoint(db, "PASSIVE")?;
            }
        }
        log = checkpoint(db, "RESTART")?;
        if log.is_held {
            self.restart_from = log.pages + self.limits.pages_max;
            self.warn_about(log.pages);
        }
        Ok(log.pages)
    }

    fn warn_about(&mut self, pages: i64) {
        if pages >= self.warn_from {
            self.warn_from = pages * 2;
            let size_mib = pages * PAGE_BYTES / 1024 / 1024;
            log::warn!("the log has {size_mib} MiB and grows, because somebody reads the database for long");
        }
    }
}

/// Moves all of the log; says whether that was possible.
pub(super) fn save(db: &Connection) -> rusqlite::Result<bool> {
    let log = checkpoint(db, "FULL")?;
    Ok(log.rest() == 0)
}

/// Moves all of the log and empties it: the end of the store.
pub(super) fn finish(db: &Connection) -> rusqlite::Result<()> {
    checkpoint(db, "TRUNCATE")?;
    Ok(())
}

/// A checkpoint that fails for want of space or of a lock is tried again later. Any other failure may mean that the
/// database lacks pages that SQLite believes to be there: the log must not begin anew.
pub(super) fn note(error: &rusqlite::Error, watch: &Watch) {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
            log::warn!("the log could not be moved into the database yet: {error}");
        }
        _ => {
            watch.fail(format!("the log could not be moved into the database: {error}"));
        }
    }
}

/// How long the log is, and how much of it is in the database.
struct Log {
    /// Somebody reads or writes, so that not all was done.
    is_held: bool,
    pages: i64,
    moved: i64,
}

impl Log {
    fn rest(&self) -> i64 {
        self.pages - self.moved
    }
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<Log> {
    let mut checkpoint = db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    checkpoint.query_row([], |row| Ok(Log { is_held: row.get(0)?, pages: row.get(1)?, moved: row.get(2)? }))
}
