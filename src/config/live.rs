//! Live: the configuration in effect. Whoever acts on it takes it once and goes on with what it has taken; a reload puts
//! another one in its place.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::MutexGuard;

use super::origin::Origin;
use super::reload::Merged;
use super::{Config, ConfigError};

/// See the module. Clones are the same.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    current: RwLock<Arc<Config>>,
    origin: Mutex<Origin>,
    turn: tokio::sync::Mutex<()>,
}

/// What a reload has done.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// What was in effect.
    pub before: Arc<Config>,
    /// What is in effect.
    pub now: Arc<Config>,
    /// The keys that have another value now.
    pub changed: Vec<String>,
    /// The keys that have another value in the file, which the next start will bring.
    pub needs_restart: Vec<String>,
}

impl Live {
    /// Begins with `config`, which came from `origin`.
    pub fn new(config: Config, origin: Origin) -> Self {
        let current = RwLock::new(Arc::new(config));
        Self(Arc::new(Inner { current, origin: Mutex::new(origin), turn: tokio::sync::Mutex::new(()) }))
    }

    /// The configuration in effect.
    pub fn get(&self) -> Arc<Config> {
        self.0.current.read().clone()
    }

    /// Waits until no other reload is on its way, and keeps others waiting as long as it is held.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Reads the configuration again and puts what can change into effect; if anything is wrong with it, nothing.
    /// Reads a file: not for a thread that serves.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        let mut origin = self.0.origin.lock();
        let new = origin.load()?;
        let before = self.get();
        let Merged { config, changed, needs_restart } = before.merge(&new);
        let now = Arc::new(config);
        *self.0.current.write() = now.clone();
        Ok(Reloaded { before, now, changed, needs_restart })
    }
}
