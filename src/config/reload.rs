//! Reload: what of a new configuration takes effect while weir runs, and what waits for the next start.

use toml::{Table, Value};

use super::report::joined;
use super::{Auth, Coalesce, Config, Metrics, Provider, Server, Stream};

/// What becomes of a configuration when it is read again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Merged {
    /// What is in effect from now on.
    pub(super) config: Config,
    /// The keys that have another value now.
    pub(super) changed: Vec<String>,
    /// The keys that have another value in the file, but not here.
    pub(super) needs_restart: Vec<String>,
}

impl Config {
    /// Takes from `new` what can change while weir runs.
    pub(super) fn merge(&self, new: &Config) -> Merged {
        let config = self.with_live_keys_of(new);
        let changed = differences(self, &config);
        let needs_restart = differences(&config, new);
        Merged { config, changed, needs_restart }
    }

    /// Whatever is not named here stays: what nobody has thought of is told as what needs a restart.
    fn with_live_keys_of(&self, new: &Config) -> Config {
        let default_is_known = new.default_provider.as_ref().is_none_or(|name| self.providers.contains_key(name));
        let default_provider = if default_is_known { &new.default_provider } else { &self.default_provider };
        let providers = self.providers.iter().map(|(name, running)| {
            let provider =
                new.providers.get(name).map_or_else(|| running.clone(), |new| running.with_live_keys_of(new));
            (name.clone(), provider)
        });
        Config {
            default_provider: default_provider.clone(),
            history_messages_max: new.history_messages_max,
            system_prompt: new.system_prompt.clone(),
            server: self.server.with_live_keys_of(&new.server),
            store: self.store.clone(),
            coalesce: Coalesce { error_ttl_ms: self.coalesce.error_ttl_ms, ..new.coalesce.clone() },
            stream: Stream {
                fanout_enabled: new.stream.fanout_enabled,
                turn_wait_max_ms: new.stream.turn_wait_max_ms,
                ..self.stream.clone()
            },
            auth: self.auth.replaced_by(&new.auth),
            metrics: Metrics { alerts: new.metrics.alerts.clone(), ..self.metrics.clone() },
            limits: new.limits.clone(),
            providers: providers.collect(),
            profiles: new.profiles.clone(),
        }
    }
}

impl Server {
    fn with_live_keys_of(&self, new: &Self) -> Self {
        Self {
            openai_hold_ms: new.openai_hold_ms,
            body_timeout_ms: new.body_timeout_ms,
            body_bytes_max: new.body_bytes_max,
            head_bytes_max: new.head_bytes_max,
            uri_bytes_max: new.uri_bytes_max,
            drain_timeout_ms: new.drain_timeout_ms,
            allowed_hosts: new.allowed_hosts.clone(),
            cors_origins: new.cors_origins.clone(),
            ..self.clone()
        }
    }
}

impl Auth {
    /// A server that has keys does not become open while it runs: a file that is half written looks like that, too.
    fn replaced_by(&self, new: &Self) -> Self {
        if new.keys.is_empty() { self.clone() } else { new.clone() }
    }
}

impl Provider {
    /// Models are those of a server: a list for another one waits until that one is called.
    fn with_live_keys_of(&self, new: &Self) -> Self {
        let is_same_server = (self.dialect, &self.base_url) == (new.dialect, &new.base_url);
        let lists = if is_same_server { new } else { self };
        Self {
            models: lists.models.clone(),
            default_model: lists.default_model.clone(),
            any_model: lists.any_model,
            pace: new.pace,
            queue_max: new.queue_max,
            ..self.clone()
        }
    }
}

/// The keys at which two configurations differ, as they are printed: never what stands there.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let printed = |config: &Config| -> Table {
        toml::from_str(&config.to_toml()).expect("what is printed is a file that can be loaded")
    };
    let mut found = Vec::new();
    compare(&printed(old), &printed(new), "", &mut found);
    found
}

fn compare(old: &Table, new: &Table, path: &str, found: &mut Vec<String>) {
    let none = Table::new();
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let here = joined(path, key);
        // What has a name of its own is told by it when it comes or goes.
        let is_named = matches!(path, "providers" | "profiles");
        match (old.get(key), new.get(key)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(old, new, &here, found),
            (Some(Value::Table(old)), None) if !is_named => compare(old, &none, &here, found),
            (None, Some(Value::Table(new))) if !is_named => compare(&none, new, &here, found),
            (old, new) if old != new => found.push(here),
            _ => {}
        }
    }
}
