//! Service: the threads of a store with a database file, and the queues to them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};

use super::files::{self, Claim};
use super::jobs::{Level, Write};
use super::near::{About, Near};
use super::readers::{Question, Questions, Reader};
use super::refusal::Refusal;
use super::sync::{self, OpenSync, SyncFn, Waiting};
use super::watch::Watch;
use super::writer::{self, Companions, Order, Writer};
use super::{Recovered, StoreError, StoreOptions, UnixMs, schema, wal};

/// The way to the threads. They end when this is dropped, after what is queued.
pub(super) struct Service {
    /// Unbounded, because every write needs a place.
    orders: mpsc::UnboundedSender<Order>,
    /// The places in the queue of writes. A write keeps its own until it is answered, so this bounds what waits for
    /// the disk, too.
    places: Arc<Semaphore>,
    places_max: usize,
    questions: Arc<Questions>,
    near: Near,
    watch: Arc<Watch>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    /// Its other end is dropped when nothing of the store is left.
    ended: tokio::sync::watch::Receiver<()>,
}

impl Service {
    /// Opens the database and starts the threads.
    pub(super) fn start(
        options: &StoreOptions,
        watch: &Arc<Watch>,
        open_sync: impl OpenSync,
    ) -> Result<(Self, Recovered), StoreError> {
        let claim = Claim::of(&options.path)?;
        let options = &StoreOptions { path: claim.path().to_owned(), ..options.clone() };
        let opened = Opened::new(options, watch, &claim, open_sync).map_err(|refusal| refusal.about(&options.path))?;
        let Opened { writer, recovered, sync, log: log_db, readers: reader_dbs, near } = opened;
        if recovered != Recovered::default() {
            let Recovered { messages, requests } = recovered;
            log::warn!("the last process left {messages} answers and {requests} requests running: interrupted now");
        }

        let waiting = Arc::new(Waiting::default());
        let sync_thread = spawn("weir-store-sync", {
            let (waiting, watch) = (Arc::clone(&waiting), Arc::clone(watch));
            move || sync::run(&waiting, sync, &watch)
        })?;
        let limits = wal::Limits { pages_max: options.log_pages_max.into() };
        let (log_rope, log_rings) = sync_channel(1);
        let log_thread = spawn("weir-store-log", {
            let watch = Arc::clone(watch);
            move || wal::run(&log_db, &log_rings, &watch, limits)
        })?;
        let questions = Arc::new(Questions::new(options.reads_max.max(1)));
        let readers = spawn_readers(reader_dbs, &questions)?;
        let (end, ended) = tokio::sync::watch::channel(());
        let companions = Companions {
            durability: options.durability,
            group_max: options.group_max.max(1),
            waiting,
            log_bell: wal::Bell::new(log_rope, limits),
            threads: vec![sync_thread, log_thread],
            claim,
            ended: end,
        };
        let (orders, receiver) = mpsc::unbounded_channel();
        spawn("weir-store-write", move || writer::run(writer, receiver, companions))?;
        let places_max = options.queue_max.clamp(1, Semaphore::MAX_PERMITS);
        let service = Self {
            orders,
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            questions,
            near: Near::new(near, options.recent_max),
            watch: Arc::clone(watch),
            readers: Mutex::new(readers),
            ended,
        };
        Ok((service, recovered))
    }

    /// Queues a write. [`Level::Last`] waits for a place: those who wait get the next ones, before any new write.
    pub(super) async fn write<T, F>(
        &self,
        level: Level,
        work: F,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection, UnixMs) -> Result<T, StoreError> + Send + 'static,
    {
        let places = Arc::clone(&self.places);
        let place = match level {
            Level::Last => places.acquire_owned().await.map_err(|_| StoreError::Stopped)?,
            Level::Written | Level::Durable => places.try_acquire_owned().map_err(|error| refusal(&error))?,
        };
        let (job, answer) = Write::queued(level, Some(place), work);
        self.orders.send(Order::Write(job)).map_err(|_| StoreError::Stopped)?;
        Ok(answer)
    }

    /// Queues a write that nobody waits for, if there is room for others beside it: half of the queue is theirs.
    pub(super) fn write_if_room<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnMut(&Connection, UnixMs) -> Result<(), StoreError> + Send + 'static,
    {
        if self.places.available_permits() <= self.places_max / 2 {
            return Err(StoreError::Busy);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|error| refusal(&error))?;
        let (job, _) = Write::queued(Level::Written, Some(place), work);
        self.orders.send(Order::Write(job)).map_err(|_| StoreError::Stopped)
    }

    /// Queues a question.
    pub(super) fn ask(&self, question: Question) -> Result<(), StoreError> {
        self.watch.reads.fetch_add(1, Relaxed);
        self.questions.ask(question)
    }

    /// The answer, at once and on this thread, if that takes no waiting; see `near.rs`.
    pub(super) fn ask_near<T>(
        &self,
        about: About<'_>,
        work: impl FnOnce(&Connection) -> Result<Option<T>, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        let answer = self.near.ask(about, work)?;
        self.watch.reads_near.fetch_add(1, Relaxed);
        Some(answer)
    }

    /// What is asked about this next is in memory.
    pub(super) fn touch(&self, about: About<'_>) {
        self.near.touch(about);
    }

    /// Keeps the connection for questions on the asker's thread in use until it is dropped.
    #[cfg(test)]
    pub(super) fn hold_near(&self) -> impl Drop + '_ {
        self.near.hold()
    }

    /// How many writes are under way.
    pub(super) fn queued(&self) -> u64 {
        self.places_max.saturating_sub(self.places.available_permits()) as u64
    }

    /// Whether the writer's thread is gone, or all of the readers'.
    pub(super) fn has_ended(&self) -> bool {
        self.orders.is_closed() || self.questions.is_closed()
    }

    /// Ends everything, after what is queued. Whoever calls waits for the end, also when somebody else called first.
    pub(super) async fn close(&self) {
        self.places.close();
        self.questions.close();
        self.near.close();
        {
            // Under one lock, so that the first order to close is the one that brings the readers.
            let mut readers = self.readers.lock();
            // An error means that the writer's thread is gone already.
            let _ = self.orders.send(Order::Close(std::mem::take(&mut *readers)));
        }
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.questions.close();
        // Before the writer learns that there is nobody left, and closes its own.
        self.near.close();
    }
}

/// Everything that is open of a database, before the threads.
struct Opened {
    writer: Writer,
    recovered: Recovered,
    sync: SyncFn,
    log: Connection,
    readers: Vec<Connection>,
    near: Connection,
}

impl Opened {
    fn new(
        options: &StoreOptions,
        watch: &Arc<Watch>,
        claim: &Claim,
        open_sync: impl OpenSync,
    ) -> Result<Self, Refusal> {
        let (mut writer, recovered) = Writer::open(options, Arc::clone(watch))?;
        let sync = open_sync(&files::log_of(&options.path))?;
        let log = schema::open_for_log(options)?;
        let readers = (0..options.readers.max(1)).map(|_| schema::open_reader(options)).collect::<Result<_, _>>()?;
        let near = schema::open_near(options)?;
        writer.watch_over(claim.files()?);
        Ok(Self { writer, recovered, sync, log, readers, near })
    }
}

fn refusal(error: &TryAcquireError) -> StoreError {
    match error {
        TryAcquireError::NoPermits => StoreError::Busy,
        TryAcquireError::Closed => StoreError::Stopped,
    }
}

fn spawn_readers(dbs: Vec<Connection>, questions: &Arc<Questions>) -> Result<Vec<JoinHandle<()>>, StoreError> {
    let spawn_one = |db: Connection| {
        let reader = Reader::of(questions);
        spawn("weir-store-read", move || reader.run(&db))
    };
    dbs.into_iter().map(spawn_one).collect()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.into()).spawn(body).map_err(|error| StoreError::Failed(error.to_string()))
}
