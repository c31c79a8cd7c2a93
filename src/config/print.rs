//! Print: the configuration in effect, as a file that would configure the same.

use serde::{Serialize, Serializer};

use super::Config;
use super::auth::{AuthKeyTable, AuthTable};
use super::provider::{Provider, ProviderTable};

impl Config {
    /// The configuration in effect as TOML, without any provider's key. Loaded again in the same environment, it is the
    /// same configuration. Comments say which providers can be called.
    pub fn to_toml(&self) -> String {
        let top = Top {
            default_provider: self.default_provider.as_deref().unwrap_or_default(),
            history_messages_max: self.history_messages_max,
            system_prompt: self.system_prompt.as_deref().unwrap_or_default(),
        };
        let default = &self.default_provider().name;
        let mut text = format!("# Requests that name no provider go to {default}.\n{}", section(&[], &top));
        let mut sections = vec![
            section(&["server"], &self.server),
            section(&["store"], &self.store),
            section(&["coalesce"], &self.coalesce),
            section(&["stream"], &self.stream),
            section(&["metrics"], &self.metrics),
            section(&["limits"], &self.limits),
            section(&["auth"], &AuthTable::from(&self.auth)),
        ];
        if !self.auth.keys.is_empty() {
            let keys: Vec<_> = self.auth.keys.iter().map(AuthKeyTable::from).collect();
            sections.push(section(&["auth", "keys"], &keys));
        }
        for (name, provider) in &self.providers {
            let table = section(&["providers", name], &ProviderTable::from(provider));
            sections.push(format!("{}{table}", note(provider)));
        }
        for (name, paces) in &self.profiles {
            sections.push(section(&["profiles", name, "providers"], paces));
        }
        for section in sections {
            text.push('\n');
            text.push_str(&section);
        }
        text
    }
}

/// The keys above all tables.
#[derive(Serialize)]
struct Top<'a> {
    default_provider: &'a str,
    history_messages_max: usize,
    system_prompt: &'a str,
}

fn note(provider: &Provider) -> String {
    match provider.available() {
        Ok(()) => "# Available.\n".to_owned(),
        Err(why) => format!("# Not available: {why}.\n"),
    }
}

/// The text of the table at a path of keys.
fn section(path: &[&str], table: &impl Serialize) -> String {
    // What comes from a file can be written to one; what was put together by a program need not.
    toml::to_string(&At(path, table)).unwrap_or_else(|error| format!("# A table that TOML cannot express: {error}\n"))
}

/// Serializes as tables within tables, with the value in the innermost one.
struct At<'a, T>(&'a [&'a str], &'a T);

impl<T: Serialize> Serialize for At<'_, T> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [] => self.1.serialize(out),
            [key, below @ ..] => out.collect_map([(key, At(below, self.1))]),
        }
    }
}

impl From<&Provider> for ProviderTable {
    fn from(provider: &Provider) -> Self {
        Self {
            dialect: Some(provider.dialect),
            base_url: Some(provider.base_url.clone()),
            api_key_env: Some(provider.api_key_env.clone()),
            models: Some(provider.models.iter().map(|model| model.to_string()).collect()),
            default_model: provider.default_model.as_ref().map(|model| model.to_string()),
            any_model: Some(provider.any_model),
            rps: Some(provider.pace.rps),
            concurrency: Some(provider.pace.concurrency),
            burst: Some(provider.pace.burst),
            tpm: Some(provider.pace.tpm),
            queue_max: Some(provider.queue_max),
            queue_wait_max_ms: Some(provider.queue_wait_max_ms),
            http: Some(provider.http),
            connect_timeout_ms: Some(provider.connect_timeout_ms),
            headers_timeout_ms: Some(provider.headers_timeout_ms),
            ttft_timeout_ms: Some(provider.ttft_timeout_ms),
            idle_timeout_ms: Some(provider.idle_timeout_ms),
            total_timeout_ms: Some(provider.total_timeout_ms),
            on_cancel: Some(provider.on_cancel),
            drain_max_ms: Some(provider.drain_max_ms),
            drain_bytes_max: Some(provider.drain_bytes_max),
            warm_connections: Some(provider.warm_connections),
            ca_file: Some(provider.ca_file.clone().unwrap_or_default()),
            retries_max: Some(provider.retries_max),
            breaker_failures: Some(provider.breaker_failures),
            breaker_open_ms: Some(provider.breaker_open_ms),
            breaker_open_max_ms: Some(provider.breaker_open_max_ms),
            fallback: Some(provider.fallback.iter().map(|route| route.to_string()).collect()),
        }
    }
}
