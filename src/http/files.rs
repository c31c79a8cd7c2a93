//! Files: how many the process may have open, and how many connections that is enough for.
//!
//! Every connection is an open file. Without a file left, new connections wait without a word, health checks among
//! them: so there must be enough for all places, and for what else needs some.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::places::BEYOND_MAX;
use super::server;
use crate::config::Config;

/// The database, the log, and what a library opens for a moment.
const OTHER_FILES: usize = 256;
/// A serving thread's event queue and what wakes it; beside it has each listening socket.
const THREAD_FILES: usize = 4;

/// Raises the process's limit to what `config` needs, as far as it may; says so when that is not enough.
pub fn raise_limit(config: &Config) {
    let needed = needed(config);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(needed as u64, |maximum| maximum.min(needed as u64));
    if current.is_some_and(|current| current < wanted) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        if let Err(error) = raised {
            log::warn!(error:%; "the limit of open files could not be raised to {wanted}");
        }
    }
    if let Some(limit) = limit().filter(|limit| *limit < needed) {
        log::warn!(
            "server.connections_max = {} needs {needed} open files, but the process may have {limit} (ulimit -n): it \
             serves {} connections at once",
            config.server.connections_max,
            connections_max(config)
        );
    }
}

/// What a configuration needs of open files, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// So many are needed for all connections and calls.
    pub needed: usize,
    /// So many may be open; `None`: as many as it wants.
    pub limit: Option<usize>,
    /// So many connections each address can then have.
    pub connections: usize,
}

/// What `config` needs, and what a process that starts here could have; or one that runs with this limit.
pub fn look(config: &Config, running: Option<usize>) -> Files {
    let may_have = || getrlimit(Resource::Nofile).maximum.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = running.or_else(may_have);
    let connections = limit.map_or(config.server.connections_max, |limit| fit(config, limit));
    Files { needed: needed(config), limit, connections }
}

/// How many connections each address may have, by the configuration and by the process's limit.
pub(super) fn connections_max(config: &Config) -> usize {
    limit().map_or(config.server.connections_max, |limit| fit(config, limit))
}

/// How many each address lets in beyond those.
pub(super) fn beyond_max(config: &Config) -> usize {
    limit().map_or(BEYOND_MAX, |limit| beyond(config, limit))
}

/// Where files are scarce, what is only refused must not take those of the calls to the providers.
fn beyond(config: &Config, limit: usize) -> usize {
    (limit / 8 / addresses(config)).clamp(2, BEYOND_MAX)
}

fn fit(config: &Config, limit: usize) -> usize {
    let spare = limit.saturating_sub(needed_beside(config));
    // Some must be served even where that leaves too little for the rest.
    let least = (limit / 4).max(1);
    (spare.max(least) / addresses(config)).clamp(1, config.server.connections_max)
}

fn needed(config: &Config) -> usize {
    config.server.connections_max.saturating_mul(addresses(config)).saturating_add(needed_beside(config))
}

/// What is needed beside the connections that have a place.
fn needed_beside(config: &Config) -> usize {
    let providers = config.providers.values().filter(|provider| provider.available().is_ok());
    let calls = providers.map(|provider| provider.pace.concurrency.max(provider.warm_connections));
    let threads = server::threads(config) * (THREAD_FILES + addresses(config));
    calls.fold(OTHER_FILES + threads + BEYOND_MAX * addresses(config), usize::saturating_add)
}

fn addresses(config: &Config) -> usize {
    1 + usize::from(config.server.admin_bind.is_some())
}

/// `None`: as many as it wants.
fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_connections_than_files_for_them_and_never_none() {
        let mut config = Config::default();
        config.server.connections_max = 10_000;
        let beside = needed_beside(&config);

        assert_eq!(fit(&config, needed(&config)), 10_000);
        assert_eq!(fit(&config, usize::MAX), 10_000);
        assert_eq!(fit(&config, beside + 5_000), 5_000);
        assert_eq!(fit(&config, 256), 64);
        assert_eq!(fit(&config, 1), 1);
        assert_eq!([80, 1_023, 1_024, 100_000].map(|limit| beyond(&config, limit)), [10, 127, 128, 128]);
        config.server.admin_bind = Some(config.server.bind);
        assert_eq!(needed(&config), 20_000 + beside + BEYOND_MAX + server::threads(&config));
    }
}
