//! A write that waits for its turn, and a group of them in one transaction.

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{StoreError, UnixMs};

/// When a write is answered, and what may keep it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// When it is committed: it survives the end of the process. Refused when the queue is full.
    Written,
    /// When the disk has it: it survives the end of the machine. Refused when the queue is full.
    Durable,
    /// As durable; waits for room in the queue, and is carried out on a disk that has failed: the last word about
    /// something that runs.
    Last,
}

/// A write in the queue, whatever it is.
pub(super) trait Job: Send {
    /// Whether the disk is waited for before the answer.
    fn is_durable(&self) -> bool;

    /// Does the work, inside of a transaction. False when it failed: the caller rolls it back.
    fn apply(&mut self, db: &Connection, now: UnixMs) -> bool;

    /// Answers whoever asked: with `failure`, else with what the work resulted in.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

/// A write in the queue.
pub(super) struct Write<T, F> {
    level: Level,
    /// What is to be done; gone once it has been done.
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    /// The place in the queue, given back with the answer. A simulation has no queue.
    _place: Option<OwnedSemaphorePermit>,
}

impl<T, F> Write<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
{
    /// The write, and where its answer comes.
    pub(super) fn queued(
        level: Level,
        place: Option<OwnedSemaphorePermit>,
        work: F,
    ) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { level, work: Some(work), result: None, reply, _place: place }), answer)
    }
}

impl<T, F> Job for Write<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
{
    fn is_durable(&self) -> bool {
        // A refusal has nothing to wait for.
        self.level != Level::Written && matches!(self.result, Some(Ok(_)))
    }

    fn apply(&mut self, db: &Connection, now: UnixMs) -> bool {
        let work = self.work.take().expect("a write is applied once");
        let result = work(db, now);
        let is_ok = result.is_ok();
        self.result = Some(result);
        is_ok
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        let result = match failure {
            Some(failure) => Err(failure),
            None => self.result.unwrap_or(Err(StoreError::Stopped)),
        };
        // Whoever asked may have left; the write stands all the same.
        let _ = self.reply.send(result);
    }
}

/// Applies all of `jobs` in one transaction. A job that fails is undone alone. When this fails, nothing was written.
pub(super) fn commit(db: &Connection, jobs: &mut [Box<dyn Job>], now: UnixMs) -> Result<(), StoreError> {
    let committed = try_commit(db, jobs, now);
    if committed.is_err() && !db.is_autocommit() {
        // Cannot fail in a way that matters: a transaction that is not committed is never seen.
        let _ = db.execute_batch("ROLLBACK");
    }
    committed
}

fn try_commit(db: &Connection, jobs: &mut [Box<dyn Job>], now: UnixMs) -> Result<(), StoreError> {
    run(db, "BEGIN IMMEDIATE")?;
    for job in jobs {
        run(db, "SAVEPOINT job")?;
        if !job.apply(db, now) {
            // SQLite itself rolls the whole transaction back on some errors of the disk.
            if db.is_autocommit() {
                return Err(StoreError::Failed("SQLite gave the transaction up".into()));
            }
            run(db, "ROLLBACK TO job")?;
        }
        run(db, "RELEASE job")?;
    }
    run(db, "COMMIT")
}

fn run(db: &Connection, sql: &str) -> Result<(), StoreError> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}
