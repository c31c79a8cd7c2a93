//! What the store is told when it opens.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::UnixMs;
use crate::config::{self, Durability};

/// What the store is told when it opens.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The database file. It is made when it does not exist; its directory is not.
    pub path: PathBuf,
    /// What a durable acknowledgement waits for.
    pub durability: Durability,
    /// The most writes that may be under way, from being asked for to being answered.
    pub queue_max: usize,
    /// The most writes in one transaction.
    pub group_max: usize,
    /// The length of SQLite's log from which on the writer may be held up, so that the log can begin anew; in pages of
    /// 4 KiB. Its file has hardly more, unless somebody reads for long.
    pub log_pages_max: u32,
    /// How many threads read.
    pub readers: usize,
    /// The most reads that may wait.
    pub reads_max: usize,
    /// How many threads count as recent: what is asked about them is in memory, and answered on the asker's thread.
    pub recent_max: usize,
    /// How long a connection waits for another one's lock.
    pub busy_timeout_ms: u64,
    /// How long an idempotency key is remembered.
    pub idempotency_ms: u64,
    /// Tells the time for the stamps in rows.
    pub clock: Clock,
}

impl StoreOptions {
    /// What the configuration says; the rest as in a usual store.
    pub fn new(config: &config::Store) -> Self {
        Self {
            path: config.path.clone(),
            durability: config.durability,
            queue_max: config.queue_max,
            group_max: 256,
            log_pages_max: 8_000,
            readers: config.readers,
            reads_max: 4096,
            recent_max: 4096,
            busy_timeout_ms: 5000,
            idempotency_ms: config.idempotency_ms,
            clock: Clock::default(),
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new(&config::Store::default())
    }
}

/// Tells the wall-clock time. A simulation brings its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMs + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> UnixMs + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> UnixMs {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixMs::try_from(since_epoch.as_millis()).unwrap_or(UnixMs::MAX)
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
