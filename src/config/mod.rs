//! Config: everything that can be set, from the defaults, the file and the environment, checked before it is used.
//!
//! | file | what it does |
//! |---|---|
//! | `tables.rs`, `provider.rs`, `pace.rs`, `auth.rs` | what there is to set, with defaults and ranges |
//! | `dialect.rs` | what is known of each kind of server |
//! | `locate.rs` | finds and reads the file |
//! | `load.rs`, `section.rs`, `env.rs` | file and environment to [`Config`] |
//! | `check.rs`, `address.rs`, `authorities.rs` | what must hold beyond the type and the range of a key |
//! | `fresh_key.rs` | draws a client's key, with its table |
//! | `report.rs` | what is wrong, with file, line and key |
//! | `print.rs` | [`Config`] to a file |
//! | `origin.rs`, `reload.rs`, `live.rs` | reads it again, and changes what can change while weir runs |
//! | `lookup.rs` | which provider and model a request means |

mod address;
mod auth;
mod authorities;
mod check;
mod dialect;
mod env;
mod fresh_key;
mod live;
mod load;
mod locate;
mod lookup;
mod origin;
mod pace;
mod print;
mod provider;
mod reload;
mod report;
mod secret;
mod section;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use auth::{Auth, AuthKey, OpenToAll, Role, is_name};
pub use authorities::authorities;
pub use dialect::{Dialect, UnknownDialect};
pub use fresh_key::{FreshKey, NoKey};
pub use live::{Live, Reloaded};
pub use locate::{Source, locate};
pub use origin::{Examined, Origin};
pub use pace::Pace;
pub use provider::{Http, Key, OnCancel, Provider, Route};
pub use report::ConfigError;
pub use secret::Secret;
pub use tables::{
    Alerts, Coalesce, Durability, Limits, Metrics, OnDisconnect, OpenaiSharing, Server, ShareScope, Store, Stream,
};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The provider of requests that name none, if one is set; see [`Config::default_provider`].
    pub default_provider: Option<String>,
    /// Messages of a thread that go upstream with a new one, newest first; 0: only the new one.
    pub history_messages_max: usize,
    /// What the conversation of every thread begins with.
    pub system_prompt: Option<String>,
    /// `[server]`.
    pub server: Server,
    /// `[store]`.
    pub store: Store,
    /// `[coalesce]`.
    pub coalesce: Coalesce,
    /// `[stream]`.
    pub stream: Stream,
    /// `[auth]`.
    pub auth: Auth,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[limits]`.
    pub limits: Limits,
    /// Every provider by name, the built-in ones included.
    pub providers: BTreeMap<String, Provider>,
    /// `[profiles]`: other paces by profile and provider; see [`Config::profile`].
    pub profiles: BTreeMap<String, BTreeMap<String, Pace>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_provider: None,
            history_messages_max: 50,
            system_prompt: None,
            server: Server::default(),
            store: Store::default(),
            coalesce: Coalesce::default(),
            stream: Stream::default(),
            auth: Auth::default(),
            metrics: Metrics::default(),
            limits: Limits::default(),
            providers: provider::built_in(),
            profiles: BTreeMap::new(),
        }
    }
}
