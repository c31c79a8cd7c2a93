//! What the store tells about itself: counters, and whether its disk can still be trusted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::StoreError;

/// Counters of a store, since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Writes under way: asked for and not answered yet.
    pub queued: u64,
    /// Of these, the ones that are written and wait for the disk.
    pub sync_waiting: u64,
    /// Rows inserted, changed or deleted.
    pub rows_written: u64,
    /// Writes applied.
    pub jobs: u64,
    /// Transactions committed.
    pub groups: u64,
    /// Writes in the last transaction.
    pub last_group_len: u64,
    /// Transactions that failed as a whole.
    pub groups_failed: u64,
    /// Times that the disk was waited for.
    pub fsyncs: u64,
    /// Checkpoints of answers that were dropped because the queue was full.
    pub checkpoints_dropped: u64,
    /// Ends of answers and requests that could not be written, and are tried again.
    pub unsettled: u64,
    /// Questions that went to the threads that read.
    pub reads: u64,
    /// Questions that were answered on the thread of whoever asked.
    pub reads_near: u64,
    /// What the last end of the process had left running.
    pub recovered: Recovered,
}

/// What the last end of the process had left running: all of it is `interrupted` now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Answers.
    pub messages: u64,
    /// Requests.
    pub requests: u64,
}

/// Whether the store can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ok,
    /// The disk did not keep what it was given, for the reason in the text. Only a restart helps.
    Failed(String),
    /// It has been closed, or its threads have died.
    Stopped,
}

/// What the store's threads share with its handle.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) sync_waiting: AtomicU64,
    pub(super) rows_written: AtomicU64,
    pub(super) jobs: AtomicU64,
    pub(super) groups: AtomicU64,
    pub(super) last_group_len: AtomicU64,
    pub(super) groups_failed: AtomicU64,
    pub(super) fsyncs: AtomicU64,
    pub(super) checkpoints_dropped: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) reads_near: AtomicU64,
    pub(super) stopped: AtomicBool,
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Watch {
    /// Declares the disk unreliable, for good. The first reason stays, and is the one that is told.
    pub(super) fn fail(&self, text: String) -> StoreError {
        let mut failure = self.failure.lock();
        let text = failure.get_or_insert_with(|| {
            log::error!("the store has failed and must be restarted: {text}");
            text
        });
        self.has_failed.store(true, Relaxed);
        StoreError::Failed(text.clone())
    }

    /// Why the disk cannot be relied on any more.
    pub(super) fn failure(&self) -> Option<StoreError> {
        if !self.has_failed.load(Relaxed) {
            return None;
        }
        self.failure.lock().clone().map(StoreError::Failed)
    }

    pub(super) fn health(&self) -> Health {
        match self.failure() {
            Some(StoreError::Failed(text)) => Health::Failed(text),
            _ if self.stopped.load(Relaxed) => Health::Stopped,
            _ => Health::Ok,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            queued: 0,
            sync_waiting: self.sync_waiting.load(Relaxed),
            rows_written: self.rows_written.load(Relaxed),
            jobs: self.jobs.load(Relaxed),
            groups: self.groups.load(Relaxed),
            last_group_len: self.last_group_len.load(Relaxed),
            groups_failed: self.groups_failed.load(Relaxed),
            fsyncs: self.fsyncs.load(Relaxed),
            checkpoints_dropped: self.checkpoints_dropped.load(Relaxed),
            unsettled: 0,
            reads: self.reads.load(Relaxed),
            reads_near: self.reads_near.load(Relaxed),
            recovered: Recovered::default(),
        }
    }
}
