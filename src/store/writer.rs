//! Writer: the one connection that writes, and the thread that drains the queue of writes into it, in groups.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::mpsc;

use super::files::{Claim, Files, Loss};
use super::jobs::{self, Job, Uncommitted};
use super::refusal::Refusal;
use super::requests::KeyAge;
use super::sync::Waiting;
use super::watch::Watch;
use super::{Clock, Recovered, StoreError, StoreOptions, UnixMs, recovery, requests, schema, wal};
use crate::config::Durability;

/// How often old rows are looked for.
const PURGE_EVERY_MS: UnixMs = 60_000;

/// What the thread is sent.
pub(super) enum Order {
    /// Carry this out.
    Write(Box<dyn Job>),
    /// Carry out what came before, then close everything: these threads' connections before the writer's.
    Close(Vec<JoinHandle<()>>),
}

/// The connection that writes.
pub(super) struct Writer {
    db: Connection,
    clock: Clock,
    keys: KeyAge,
    watch: Arc<Watch>,
    /// None of a database in memory.
    files: Option<Files>,
    purged_at: UnixMs,
    rows_before: u64,
}

impl Writer {
    /// Opens the database file, migrates it and ends what the last process left running. The log file exists and is
    /// durable afterwards.
    pub(super) fn open(options: &StoreOptions, watch: Arc<Watch>) -> Result<(Self, Recovered), Refusal> {
        let db = schema::open_writer(options)?;
        let (writer, recovered) = Self::start(db, options, watch)?;
        writer.db.pragma_update(None, "synchronous", "NORMAL")?;
        sync_directory(&options.path)?;
        Ok((writer, recovered))
    }

    /// A database in memory.
    pub(super) fn in_memory(options: &StoreOptions, watch: Arc<Watch>) -> Result<Self, StoreError> {
        let refuse = |refusal: Refusal| refusal.about(Path::new(":memory:"));
        let (writer, _) = Self::start(schema::open_in_memory().map_err(refuse)?, options, watch)?;
        Ok(writer)
    }

    fn start(db: Connection, options: &StoreOptions, watch: Arc<Watch>) -> rusqlite::Result<(Self, Recovered)> {
        let clock = options.clock.clone();
        let now = clock.now();
        let first = db.unchecked_transaction()?;
        first.execute("UPDATE store SET opened_at = ?1", [now])?;
        let recovered = recovery::run(&first, now)?;
        first.commit()?;
        let rows_before = db.total_changes();
        let keys = KeyAge::new(options.idempotency_ms);
        Ok((Self { db, clock, keys, watch, files: None, purged_at: UnixMs::MIN, rows_before }, recovered))
    }

    /// The files that [`look_after`](Self::look_after) looks for.
    pub(super) fn watch_over(&mut self, files: Files) {
        self.files = Some(files);
    }

    /// Declares the store failed when its files are not there any more: what is written now would be gone with the
    /// process. Whatever can still be saved, is.
    pub(super) fn look_after(&mut self) {
        let Some(files) = &self.files else { return };
        if self.watch.failure().is_some() {
            return;
        }
        match files.loss() {
            None => {}
            Some(Loss::Files(what)) => {
                self.watch.fail(format!("{what}; what is written from now on would be lost"));
            }
            Some(Loss::Log(what)) => {
                let saved = match wal::save(&self.db) {
                    Ok(true) => "all that it held is in the database".to_owned(),
                    Ok(false) => "not all that it held could be moved into the database: somebody reads".to_owned(),
                    Err(error) => format!("what it held could not be moved into the database: {error}"),
                };
                self.watch.fail(format!("{what}; {saved}"));
            }
        }
    }

    /// The connection, for reads of a store without threads.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Commits a group. When it is lost, commits its writes one by one, so that each fails for its own reasons only.
    pub(super) fn commit(&mut self, group: &mut [Box<dyn Job>]) {
        let failure = match self.try_commit(group) {
            Ok(()) => return,
            Err(Uncommitted::Lost(_)) if group.len() > 1 => self.commit_each(group),
            Err(Uncommitted::Lost(failure) | Uncommitted::NotBegun(failure)) => Some(fail(group, failure)),
        };
        if let Some(failure) = failure {
            log::error!("writes of a group of {} failed: {failure}", group.len());
        }
    }

    /// A transaction for each; the last failure.
    fn commit_each(&mut self, group: &mut [Box<dyn Job>]) -> Option<StoreError> {
        let mut last = None;
        for at in 0..group.len() {
            match self.try_commit(&mut group[at..=at]) {
                Ok(()) => {}
                Err(Uncommitted::Lost(failure)) => last = Some(fail(&mut group[at..=at], failure)),
                // Whoever holds the lock is not waited for again and again.
                Err(Uncommitted::NotBegun(failure)) => return Some(fail(&mut group[at..], failure)),
            }
        }
        last
    }

    fn try_commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), Uncommitted> {
        let committed = jobs::commit(&self.db, group, self.clock.now());
        let rows = self.db.total_changes();
        if committed.is_ok() {
            self.watch.groups.fetch_add(1, Relaxed);
            self.watch.last_group_len.store(group.len() as u64, Relaxed);
            self.watch.jobs.fetch_add(group.len() as u64, Relaxed);
            self.watch.rows_written.fetch_add(rows - self.rows_before, Relaxed);
        } else {
            self.watch.groups_failed.fetch_add(1, Relaxed);
        }
        self.rows_before = rows;
        committed
    }

    /// Forgets what is old, now and then.
    pub(super) fn purge(&mut self) {
        let now = self.clock.now();
        // A clock that was set back must not end the purges.
        if (self.purged_at..self.purged_at.saturating_add(PURGE_EVERY_MS)).contains(&now) {
            return;
        }
        match requests::purge(&self.db, self.keys, now) {
            // The rest is for the next call, so that old rows never come faster than they go.
            Ok(true) => {}
            Ok(false) => self.purged_at = now,
            Err(error) => {
                self.purged_at = now;
                log::warn!("old requests could not be purged: {error}");
            }
        }
    }
}

fn fail(jobs: &mut [Box<dyn Job>], failure: StoreError) -> StoreError {
    jobs.iter_mut().for_each(|job| job.fail(failure.clone()));
    failure
}

/// What the thread works with beside its queue.
pub(super) struct Companions {
    pub(super) durability: Durability,
    pub(super) group_max: usize,
    pub(super) waiting: Arc<Waiting>,
    pub(super) log_bell: wal::Bell,
    /// The threads that this one ends: sync and log.
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Keeps other processes away from the database until it is closed.
    pub(super) claim: Claim,
    /// Dropped when nothing of the store is left.
    pub(super) ended: tokio::sync::watch::Sender<()>,
}

/// The body of the thread.
pub(super) fn run(mut writer: Writer, mut orders: mpsc::UnboundedReceiver<Order>, mut companions: Companions) {
    let mut received = Vec::new();
    let mut readers = Vec::new();
    let mut is_closing = false;
    while !is_closing && orders.blocking_recv_many(&mut received, companions.group_max) > 0 {
        let mut group = Vec::with_capacity(received.len());
        for order in received.drain(..) {
            match order {
                Order::Write(job) => group.push(job),
                Order::Close(threads) => {
                    is_closing = true;
                    // Only the first of several closes brings them.
                    readers.extend(threads);
                }
            }
        }
        if !group.is_empty() {
            writer.commit(&mut group);
            writer.look_after();
            answer(group, &companions, &writer.watch);
            writer.purge();
            companions.log_bell.ring_if_worth(&writer.db);
        }
    }
    // What is still queued is dropped with the queue, and whoever asked is told that the store has stopped.
    drop(orders);
    companions.waiting.close();
    drop(companions.log_bell);
    for thread in companions.threads.drain(..).chain(readers) {
        let _ = thread.join();
    }
    writer.look_after();
    close(writer);
    drop(companions.claim);
    drop(companions.ended);
}

/// Answers what is written, and hands over what waits for the disk. Once the store has failed, nothing is certain.
fn answer(group: Vec<Box<dyn Job>>, companions: &Companions, watch: &Watch) {
    if let Some(failure) = watch.failure() {
        return group.into_iter().for_each(|job| job.answer(Some(failure.clone())));
    }
    let for_disk = companions.durability == Durability::Full;
    let (durable, written): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| for_disk && job.is_durable());
    if !durable.is_empty() {
        watch.sync_waiting.fetch_add(durable.len() as u64, Relaxed);
        companions.waiting.push(durable.into_iter());
    }
    for job in written {
        job.answer(None);
    }
}

/// Moves the log into the database and closes it, unless the disk has failed: then the log stays as it is.
fn close(writer: Writer) {
    let finished = match writer.watch.failure() {
        None => wal::finish(&writer.db),
        Some(_) => writer.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop),
    };
    if let Err(error) = finished {
        log::warn!("the log could not be moved into the database at the end: {error}");
    }
    writer.watch.stopped.store(true, Relaxed);
    if let Err((_, error)) = writer.db.close() {
        log::warn!("the database could not be closed: {error}");
    }
}

/// Makes the directory entries of the database and its log durable.
fn sync_directory(database: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(directory) = database.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
