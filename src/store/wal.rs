//! The log: moves it into the database, on a thread and a connection of its own, so that writers do not wait.
//!
//! A passive checkpoint lets the writer go on, and so never sees the end of the log while writes keep coming: the
//! log grows. When it has grown too far, the last stretch is done with the writer held up (`RESTART`), which is
//! short, because the passive ones have done the rest, and because it gives up soon when somebody reads for long.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use rusqlite::{Connection, ErrorCode};

use super::watch::Watch;

/// The least number of pages that are worth a checkpoint (4 KiB each).
const WORTH_PAGES: i64 = 2_000;
/// The most pages that the log may have before the writer is held up.
const LOG_PAGES_MAX: i64 = 32_000;

/// Where SQLite keeps the log of a database.
pub(super) fn path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// The body of the thread: looks at the log whenever `bell` rings, until the other end is dropped.
pub(super) fn run(db: &Connection, bell: &Receiver<()>, watch: &Watch) {
    while bell.recv().is_ok() {
        if watch.failure().is_some() {
            return;
        }
        if let Err(error) = tidy(db, WORTH_PAGES, LOG_PAGES_MAX) {
            note(&error, watch);
        }
    }
}

/// Moves what is worth it; says how many pages the log has afterwards.
pub(super) fn tidy(db: &Connection, worth_pages: i64, log_pages_max: i64) -> rusqlite::Result<i64> {
    let log = checkpoint(db, "NOOP")?;
    if log.pages - log.moved < worth_pages {
        return Ok(log.pages);
    }
    let log = checkpoint(db, "PASSIVE")?;
    if log.pages < log_pages_max {
        return Ok(log.pages);
    }
    Ok(checkpoint(db, "RESTART")?.pages)
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
    pages: i64,
    moved: i64,
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<Log> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    db.query_row(&sql, [], |row| Ok(Log { pages: row.get(1)?, moved: row.get(2)? }))
}
