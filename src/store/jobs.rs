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

    /// Does the work, inside of a transaction; again, when the former transaction was lost. The caller rolls back what
    /// has failed.
    fn apply(&mut self, db: &Connection, now: UnixMs) -> Result<(), StoreError>;

    /// The work could not be committed.
    fn fail(&mut self, failure: StoreError);

    /// Answers whoever asked: with `failure`, else with what the work resulted in.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

/// A write in the queue.
pub(super) struct Write<T, F> {
    level: Level,
    work: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    /// The place in the queue, given back with the answer. A simulation has no queue.
    place: Option<OwnedSemaphorePermit>,
}

impl<T, F> Write<T, F>
where
    T: Send + 'static,
    F: FnMut(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
{
    /// The write, and where its answer comes.
    pub(super) fn queued(
        level: Level,
        place: Option<OwnedSemaphorePermit>,
        work: F,
    ) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { level, work, result: None, reply, place }), answer)
    }
}

impl<T, F> Job for Write<T, F>
where
    T: Send + 'static,
    F: FnMut(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
{
    fn is_durable(&self) -> bool {
        // A refusal has nothing to wait for.
        self.level != Level::Written && matches!(self.result, Some(Ok(_)))
    }

    fn apply(&mut self, db: &Connection, now: UnixMs) -> Result<(), StoreError> {
        let result = (self.work)(db, now);
        let applied = result.as_ref().map(drop).map_err(Clone::clone);
        self.result = Some(result);
        applied
    }

    fn fail(&mut self, failure: StoreError) {
        self.result = Some(Err(failure));
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        let result = match failure {
            Some(failure) => Err(failure),
            None => self.result.unwrap_or(Err(StoreError::Stopped)),
        };
        // First the place, so that whoever hears the answer finds it free.
        drop(self.place);
        // Whoever asked may have left; the write stands all the same.
        let _ = self.reply.send(result);
    }
}

/// Why nothing of a group was written.
#[derive(Debug)]
pub(super) enum Uncommitted {
    /// The transaction could not even begin.
    NotBegun(StoreError),
    /// The transaction was lost on its way, perhaps through one of the writes alone.
    Lost(StoreError),
}

/// Applies all of `jobs` in one transaction. A job that fails is undone alone, where SQLite allows that. When this
/// fails, nothing was written.
pub(super) fn commit(db: &Connection, jobs: &mut [Box<dyn Job>], now: UnixMs) -> Result<(), Uncommitted> {
    run(db, "BEGIN IMMEDIATE").map_err(Uncommitted::NotBegun)?;
    let committed = match jobs {
        [job] => apply_alone(db, &mut **job, now),
        jobs => apply_all(db, jobs, now).and_then(|()| run(db, "COMMIT")),
    };
    if committed.is_err() && !db.is_autocommit() {
        // Cannot fail in a way that matters: a transaction that is not committed is never seen.
        let _ = db.execute_batch("ROLLBACK");
    }
    committed.map_err(Uncommitted::Lost)
}

/// One job needs no savepoint, which costs a copy of every page that it changes: the transaction is its own.
fn apply_alone(db: &Connection, job: &mut dyn Job, now: UnixMs) -> Result<(), StoreError> {
    match job.apply(db, now) {
        Ok(()) => run(db, "COMMIT"),
        Err(failure) if db.is_autocommit() => Err(failure),
        Err(_) => run(db, "ROLLBACK"),
    }
}

fn apply_all(db: &Connection, jobs: &mut [Box<dyn Job>], now: UnixMs) -> Result<(), StoreError> {
    for job in jobs {
        run(db, "SAVEPOINT job")?;
        if let Err(failure) = job.apply(db, now) {
            // SQLite itself rolls the whole transaction back on some errors, a full disk among them.
            if db.is_autocommit() {
                return Err(failure);
            }
            run(db, "ROLLBACK TO job")?;
        }
        run(db, "RELEASE job")?;
    }
    Ok(())
}

fn run(db: &Connection, sql: &str) -> Result<(), StoreError> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}
