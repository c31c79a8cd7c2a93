//! Sync: waits for the disk on behalf of all writes that asked for it, so that the writer never has to.
//!
//! SQLite's WAL mode with `synchronous = NORMAL` appends a commit to the `-wal` file without waiting for the disk.
//! That takes tens of microseconds and survives the end of the process, because the file's pages belong to the
//! operating system by then: the write is *written*. To make it *durable*, this thread calls `fdatasync` on a handle
//! of its own of the same file, once for all writes that were committed before the call. Why that is enough:
//!
//! - Everything that a commit needs is in the `-wal` file: SQLite finds the newest valid commit record when it opens
//!   the file. `fdatasync` writes back all pages of the file, whoever wrote them, and its size.
//! - The `-wal` file stays the same file while the store lives: SQLite removes it only when the last connection
//!   closes, and the writer's stays open longer than this thread. When somebody else removes it, `files.rs` notices
//!   with the next group, and nothing is acknowledged any more. Its directory entry is made durable at the start:
//!   the first transaction runs with `synchronous = FULL`, and `Writer::open` syncs the directory.
//! - A checkpoint may move a commit into the database before this thread gets to it. SQLite syncs the `-wal` file
//!   before it copies a page, and the database before it allows the `-wal` file to begin anew (`NORMAL` leaves
//!   out the sync per commit, not these). So at any time what was committed is in a synced database, or in the part
//!   of the `-wal` file that the next `fdatasync` covers. The head of a log that begins anew is synced by SQLite
//!   before the first frame under it.
//! - SQLite takes no locks on the `-wal` file, so a handle of our own does no harm. Opening and closing the database
//!   or the `-shm` file would: POSIX drops all locks of a process with any of its handles.
//!
//! A sync that fails is not repeated: Linux may have dropped the pages that it could not write, and the second call
//! would say that all is well. The store counts as failed from then on, stops to move the log into the database
//! (the log may be what is broken) and says so to every durable write.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Condvar, Mutex};

use super::jobs::Job;
use super::watch::Watch;

/// Waits for the disk. A test brings one that fails.
pub(super) type SyncFn = Box<dyn FnMut() -> io::Result<()> + Send>;

/// Makes a [`SyncFn`] for a `-wal` file.
pub(super) trait OpenSync: FnOnce(&Path) -> io::Result<SyncFn> {}

impl<F: FnOnce(&Path) -> io::Result<SyncFn>> OpenSync for F {}

/// The sync of the real `-wal` file.
pub(super) fn of_file(wal: &Path) -> io::Result<SyncFn> {
    let file: File = OpenOptions::new().read(true).write(true).open(wal)?;
    Ok(Box::new(move || file.sync_data()))
}

/// The writes that are committed and wait for the disk. Bounded by the places of the write queue, which they keep.
#[derive(Default)]
pub(super) struct Waiting {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Box<dyn Job>>,
    is_closed: bool,
}

impl Waiting {
    /// Adds writes.
    pub(super) fn push(&self, jobs: impl Iterator<Item = Box<dyn Job>>) {
        self.state.lock().jobs.extend(jobs);
        self.bell.notify_one();
    }

    /// Lets the thread end when all that wait are answered.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.bell.notify_one();
    }

    /// All that wait now; waits until there are some. Empty when closed.
    fn take(&self) -> Vec<Box<dyn Job>> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() && !state.is_closed {
            self.bell.wait(&mut state);
        }
        std::mem::take(&mut state.jobs)
    }
}

/// The body of the thread.
pub(super) fn run(waiting: &Waiting, mut sync: SyncFn, watch: &Watch) {
    loop {
        let jobs = waiting.take();
        if jobs.is_empty() {
            return;
        }
        let failure = watch.failure().or_else(|| {
            watch.fsyncs.fetch_add(1, Relaxed);
            sync().err().map(|error| watch.fail(format!("the log could not be synced: {error}")))
        });
        watch.sync_waiting.fetch_sub(jobs.len() as u64, Relaxed);
        for job in jobs {
            job.answer(failure.clone());
        }
    }
}
