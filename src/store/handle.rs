//! Store: the handle that everybody else calls. Cheap to clone, usable from any thread.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::history::Bounds;
use super::jobs::{Level, Write};
use super::near::{self, About};
use super::readers;
use super::repairs::{End, Repairs, Round};
use super::requests::KeyAge;
use super::service::Service;
use super::watch::Watch;
use super::writer::Writer;
use super::{
    Bill, Checkpoint, Clock, Cursor, EndedRequest, Health, History, Message, NewRequest, NewThread, OpenTurn,
    Recovered, Settle, Settled, Stats, StoreError, StoreOptions, StoredRequest, Thread, UnixMs, history, requests,
    sync, threads, turns,
};
use crate::chat::{Content, MessageId, OrgId, RequestId, ThreadId};

/// Threads, messages and requests. See the module for what *written* and *durable* mean.
///
/// A future that is dropped once its write is queued does not take the write back; only those that wait for room in
/// the queue do. Queueing is part of a future's first poll.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    watch: Arc<Watch>,
    recovered: Recovered,
    keys: KeyAge,
    clock: Clock,
    repairs: Repairs,
}

/// A store that may be gone.
pub(super) struct WeakStore {
    inner: Weak<Inner>,
}

impl WeakStore {
    pub(super) fn upgrade(&self) -> Option<Store> {
        self.inner.upgrade().map(|inner| Store { inner })
    }
}

enum Engine {
    /// A database file and the threads around it.
    Service(Box<Service>),
    /// A database in memory, worked on by whoever calls.
    Inline(Box<Mutex<Writer>>),
}

impl Store {
    /// Opens or makes the database, migrates it, ends what the last process left running, and starts the threads.
    /// A database that cannot be used is left as it is.
    pub fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_with(options, sync::of_file)
    }

    /// As [`open`](Self::open), with another way to wait for the disk.
    pub(super) fn open_with(options: &StoreOptions, sync: impl sync::OpenSync) -> Result<Self, StoreError> {
        let watch = Arc::new(Watch::default());
        let (service, recovered) = Service::start(options, &watch, sync)?;
        Ok(Self::of(Engine::Service(Box::new(service)), watch, recovered, options))
    }

    /// A store in memory that works on the caller's thread and answers at once: for simulations.
    pub fn inline(options: &StoreOptions) -> Result<Self, StoreError> {
        let watch = Arc::new(Watch::default());
        let writer = Writer::in_memory(options, Arc::clone(&watch))?;
        Ok(Self::of(Engine::Inline(Box::new(Mutex::new(writer))), watch, Recovered::default(), options))
    }

    fn of(engine: Engine, watch: Arc<Watch>, recovered: Recovered, options: &StoreOptions) -> Self {
        let (keys, clock) = (KeyAge::new(options.idempotency_ms), options.clock.clone());
        let repairs = Repairs::default();
        Self { inner: Arc::new(Inner { engine, watch, recovered, keys, clock, repairs }) }
    }

    // --- Threads -----------------------------------------------------------------

    /// Makes a thread. Durable.
    pub async fn create_thread(&self, new: NewThread) -> Result<Thread, StoreError> {
        let id = ThreadId::generate();
        let made = self.write(Level::Durable, move |db, now| threads::create(db, &id, &new, now)).await?;
        self.touch(About::Thread(&made.org_id, &made.id));
        Ok(made)
    }

    /// An organisation's threads, most recently updated first, and where the next page begins.
    pub async fn list_threads(
        &self,
        org: &OrgId,
        limit: usize,
        before: Option<Cursor>,
    ) -> Result<(Vec<Thread>, Option<Cursor>), StoreError> {
        let org = org.clone();
        self.read(move |db| threads::list(db, &org, limit, before.as_ref())).await
    }

    /// A thread with its newest messages, oldest of them first; with `before_sequence`, of those before it.
    pub async fn thread(
        &self,
        org: &OrgId,
        id: &ThreadId,
        messages_max: usize,
        before_sequence: Option<i64>,
    ) -> Result<Option<(Thread, Vec<Message>)>, StoreError> {
        let about = About::Thread(org, id);
        let (org, id) = (org.clone(), id.clone());
        let thread = self.read(move |db| threads::read(db, &org, &id, messages_max, before_sequence)).await?;
        if thread.is_some() && before_sequence.is_none() {
            self.touch(about);
        }
        Ok(thread)
    }

    /// One message.
    pub async fn message(&self, org: &OrgId, thread: &ThreadId, id: &MessageId) -> Result<Option<Message>, StoreError> {
        let (org, thread, id) = (org.clone(), thread.clone(), id.clone());
        self.read(move |db| threads::message(db, &org, &thread, &id)).await
    }

    /// Changes what is given. Durable.
    pub async fn patch_thread(
        &self,
        org: &OrgId,
        id: &ThreadId,
        title: Option<String>,
        pinned: Option<bool>,
    ) -> Result<Thread, StoreError> {
        let (org, id) = (org.clone(), id.clone());
        self.write(Level::Durable, move |db, _| threads::patch(db, &org, &id, title.as_deref(), pinned)).await
    }

    /// Deletes a thread with its messages and requests. Durable.
    pub async fn delete_thread(&self, org: &OrgId, id: &ThreadId) -> Result<(), StoreError> {
        let (org, id) = (org.clone(), id.clone());
        self.write(Level::Durable, move |db, _| threads::delete(db, &org, &id)).await
    }

    // --- Turns -------------------------------------------------------------------

    /// What the next turn of a thread needs to know. `next` is the message that comes: turns that said the same before
    /// it and failed are left out.
    pub async fn history(
        &self,
        org: &OrgId,
        thread: &ThreadId,
        messages_max: usize,
        next: Option<&Content>,
    ) -> Result<History, StoreError> {
        let about = About::Thread(org, thread);
        let bounds = Bounds { rows: near::ROWS_MAX, bytes: near::BYTES_MAX };
        let read = |db: &Connection| history::read_within(db, org, thread, messages_max, next.cloned(), bounds);
        if let Some(answer) = self.ask_near(about, read) {
            return answer;
        }
        let (org, thread, next) = (org.clone(), thread.clone(), next.cloned());
        let history = self.read(move |db| history::read(db, &org, &thread, messages_max, next)).await?;
        self.touch(about);
        Ok(history)
    }

    /// Opens a turn. Written.
    pub async fn open_turn(&self, turn: OpenTurn) -> Result<(), StoreError> {
        let keys = self.inner.keys;
        let (org, thread) = (turn.request.id.org().clone(), turn.thread.clone());
        self.write(Level::Written, move |db, now| turns::open(db, &turn, keys, now)).await?;
        self.touch(About::Thread(&org, &thread));
        Ok(())
    }

    /// Keeps the text of a running answer so far. Not answered, and dropped when the queue is full: the next one
    /// carries more.
    pub fn checkpoint(&self, so_far: Checkpoint) {
        let work = move |db: &Connection, _| turns::checkpoint(db, &so_far);
        match &self.inner.engine {
            Engine::Service(service) => {
                if service.write_if_room(work).is_err() {
                    self.inner.watch.checkpoints_dropped.fetch_add(1, Relaxed);
                }
            }
            Engine::Inline(writer) => drop(self.write_now(writer, Level::Written, work)),
        }
    }

    /// Settles answers and ends their requests. Durable; waits for room in the queue rather than being refused.
    ///
    /// On [`StoreError::Failed`] or [`StoreError::Stopped`] nothing tells whether it was written. The store itself
    /// tries again what has failed, for as long as it is open (see `repairs.rs`).
    pub async fn settle(&self, last: Settle) -> Result<Settled, StoreError> {
        let last = Arc::new(last);
        let settled = self.write_settle(Arc::clone(&last)).await;
        self.repair_unless_written(settled, End::Answers(last))
    }

    async fn write_settle(&self, last: Arc<Settle>) -> Result<Settled, StoreError> {
        self.write(Level::Last, move |db, now| turns::settle(db, &last, now)).await
    }

    /// Corrects what settled answers and their requests cost. Written.
    pub async fn correct_usage(&self, bill: Bill) -> Result<(), StoreError> {
        self.write(Level::Written, move |db, _| turns::correct_usage(db, &bill)).await
    }

    // --- Requests ----------------------------------------------------------------

    /// Adds a request that joins a turn, or one without a thread. Written.
    pub async fn add_request(&self, new: NewRequest) -> Result<(), StoreError> {
        let keys = self.inner.keys;
        self.write(Level::Written, move |db, now| requests::add(db, &new, keys, now)).await
    }

    /// Ends requests whose turn goes on, or that have none; says how many still ran. Durable; waits for room, and is
    /// tried again, as [`settle`](Self::settle) is.
    pub async fn end_requests(&self, ended: Vec<EndedRequest>) -> Result<usize, StoreError> {
        let ended: Arc<[_]> = ended.into();
        let count = self.write_ended(Arc::clone(&ended)).await;
        self.repair_unless_written(count, End::Requests(ended))
    }

    async fn write_ended(&self, ended: Arc<[EndedRequest]>) -> Result<usize, StoreError> {
        self.write(Level::Last, move |db, now| requests::end(db, &ended, now)).await
    }

    /// One request.
    pub async fn request(&self, id: &RequestId) -> Result<Option<StoredRequest>, StoreError> {
        if let Some(answer) = self.ask_near(About::Anything, |db| requests::find(db, id).map(Some)) {
            return answer;
        }
        let id = id.clone();
        self.read(move |db| requests::find(db, &id)).await
    }

    /// The request that an organisation made with this idempotency key, unless that is too long ago.
    pub async fn request_by_idempotency_key(
        &self,
        org: &OrgId,
        key: &str,
    ) -> Result<Option<StoredRequest>, StoreError> {
        let (keys, now) = (self.inner.keys, self.inner.clock.now());
        let find = |db: &Connection| requests::find_by_key(db, org, key, keys, now).map(Some);
        if let Some(answer) = self.ask_near(About::Anything, find) {
            return answer;
        }
        let (org, key) = (org.clone(), key.to_owned());
        self.read(move |db| requests::find_by_key(db, &org, &key, keys, now)).await
    }

    // --- Repairs -----------------------------------------------------------------

    /// Sees to it that an end is written later, where that can help: not on a store that has failed for good.
    fn repair_unless_written<T>(&self, written: Result<T, StoreError>, end: End) -> Result<T, StoreError> {
        if matches!(written, Err(StoreError::Failed(_))) && self.inner.watch.failure().is_none() {
            self.inner.repairs.keep(end, || WeakStore { inner: Arc::downgrade(&self.inner) });
        }
        written
    }

    /// Writes what waits, up to the first that fails.
    pub(super) async fn repair(&self) -> Round {
        let mut round = Round::None;
        while let Some(end) = self.inner.repairs.next() {
            let written = match end.clone() {
                End::Answers(last) => self.write_settle(last).await.map(drop),
                End::Requests(ended) => self.write_ended(ended).await.map(drop),
            };
            if written.is_err() {
                self.inner.repairs.push(end);
            }
            self.inner.repairs.put_down();
            if written.is_ok() {
                round = Round::Some;
                continue;
            }
            let is_over = self.inner.watch.failure().is_some() || written == Err(StoreError::Stopped);
            if is_over {
                self.inner.repairs.leave();
                return Round::Over;
            }
            return round;
        }
        Round::Over
    }

    // --- The store itself --------------------------------------------------------

    /// Goes through the queue and writes a row: answered when the store can be written to. The caller sets the
    /// deadline.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let probe = |db: &Connection, now: UnixMs| {
            db.prepare_cached("UPDATE store SET probed_at = ?1")?.execute([now])?;
            Ok(())
        };
        self.write(Level::Written, probe).await
    }

    /// Whether the store can be relied on, as far as it knows without asking the disk.
    pub fn health(&self) -> Health {
        match (self.inner.watch.health(), &self.inner.engine) {
            (Health::Ok, Engine::Service(service)) if service.has_ended() => Health::Stopped,
            (health, _) => health,
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let queued = match &self.inner.engine {
            Engine::Service(service) => service.queued(),
            Engine::Inline(_) => 0,
        };
        let unsettled = self.inner.repairs.len();
        Stats { queued, unsettled, recovered: self.inner.recovered, ..self.inner.watch.stats() }
    }

    /// Writes once more what could not be written, carries out what is queued, moves the log into the database and ends
    /// the threads. Everything after it is answered with [`StoreError::Stopped`].
    pub async fn close(&self) {
        if self.inner.repairs.len() > 0 {
            self.repair().await;
            self.inner.repairs.leave();
        }
        match &self.inner.engine {
            Engine::Service(service) => service.close().await,
            Engine::Inline(_) => self.inner.watch.stopped.store(true, Relaxed),
        }
    }

    pub(super) async fn write<T, F>(&self, level: Level, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
    {
        if level != Level::Last
            && let Some(failure) = self.inner.watch.failure()
        {
            return Err(failure);
        }
        let answer = match &self.inner.engine {
            Engine::Service(service) => service.write(level, work).await?,
            Engine::Inline(writer) => self.write_now(writer, level, work),
        };
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// A group of one, on this thread. The answer is there when this returns.
    fn write_now<T, F>(&self, writer: &Mutex<Writer>, level: Level, work: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, answer) = Write::queued(level, None, work);
        if self.inner.watch.stopped.load(Relaxed) {
            return answer; // The job is dropped, so that the answer is "stopped".
        }
        let mut group = vec![job];
        let mut writer = writer.lock();
        writer.commit(&mut group);
        writer.purge();
        drop(writer);
        for job in group {
            job.answer(None);
        }
        answer
    }

    /// Asks without a change of thread, where that takes no waiting.
    fn ask_near<T>(
        &self,
        about: About<'_>,
        work: impl FnOnce(&Connection) -> Result<Option<T>, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        match &self.inner.engine {
            Engine::Service(service) => service.ask_near(about, work),
            Engine::Inline(_) => None,
        }
    }

    fn touch(&self, about: About<'_>) {
        if let Engine::Service(service) = &self.inner.engine {
            service.touch(about);
        }
    }

    /// Keeps the connection for questions on the asker's thread in use until it is dropped.
    #[cfg(test)]
    pub(super) fn hold_near(&self) -> impl Drop + '_ {
        match &self.inner.engine {
            Engine::Service(service) => service.hold_near(),
            Engine::Inline(_) => panic!("a store in memory has no such connection"),
        }
    }

    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (question, answer) = readers::question(work);
        match &self.inner.engine {
            Engine::Service(service) => service.ask(question)?,
            Engine::Inline(_) if self.inner.watch.stopped.load(Relaxed) => return Err(StoreError::Stopped),
            Engine::Inline(writer) => question(writer.lock().db()),
        }
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}
