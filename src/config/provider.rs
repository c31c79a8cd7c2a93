//! Provider: one configured LLM server, with everything that the file left out filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dialect::Dialect;
use super::pace::{Pace, PaceTable};
use super::secret::Secret;
use super::section::Table;
use super::tables::{WAIT_MS, check_range, words};
use crate::chat::ProviderName;

/// The providers that exist without being configured, in the order in which one of them becomes the default.
pub(super) const BUILT_IN: [(&str, Dialect); 6] = [
    ("perplexity", Dialect::PerplexityAgent),
    ("openai", Dialect::OpenaiChat),
    ("gemini", Dialect::Gemini),
    ("openrouter", Dialect::Openrouter),
    ("anthropic", Dialect::Anthropic),
    (DEMO, Dialect::Demo),
];

/// The built-in provider that needs no key and no network.
pub(super) const DEMO: &str = "demo";

/// One provider as the rest of weir uses it.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// Its name in requests and metrics.
    pub name: ProviderName,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Where it is, without a trailing slash; empty for the demo.
    pub base_url: String,
    /// The environment variable of its key; empty: it needs none.
    pub api_key_env: String,
    /// Its key.
    pub key: Key,
    /// The models it lists.
    pub models: Vec<Arc<str>>,
    /// The model of requests that name none; `None` only if no model is listed and any is accepted.
    pub default_model: Option<Arc<str>>,
    /// Whether models that are not listed are accepted.
    pub any_model: bool,
    /// How fast it may be called.
    pub pace: Pace,
    /// Requests that may wait for their turn.
    pub queue_max: usize,
    /// How long one of them may wait, in milliseconds.
    pub queue_wait_max_ms: u64,
    /// The version of HTTP.
    pub http: Http,
    /// How long a connection may take, with its handshake, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long the answer's head may take, in milliseconds.
    pub headers_timeout_ms: u64,
    /// How long the first piece of content may take, or the first sign that the provider does something by itself, in
    /// milliseconds.
    pub ttft_timeout_ms: u64,
    /// How long an answer may be silent, in milliseconds. Comments are no silence.
    pub idle_timeout_ms: u64,
    /// How long an answer may take as a whole, from its first call on, in milliseconds.
    pub total_timeout_ms: u64,
    /// What a cancel does to the running call.
    pub on_cancel: OnCancel,
    /// How long a cancelled answer is read on, in milliseconds.
    pub drain_max_ms: u64,
    /// How much of it is read on, in bytes.
    pub drain_bytes_max: usize,
    /// Connections that are kept open for the next request.
    pub warm_connections: usize,
    /// A PEM file with certificates to trust beside the public roots.
    pub ca_file: Option<PathBuf>,
    /// How often a failed call is repeated before any content has come.
    pub retries_max: u32,
    /// Failures in a row after which the provider is left alone; 0: it never is.
    pub breaker_failures: u32,
    /// How long it is left alone at first, in milliseconds; twice as long each time that it has not recovered.
    pub breaker_open_ms: u64,
    /// The longest that it is left alone, in milliseconds.
    pub breaker_open_max_ms: u64,
    /// Where requests go when this provider fails, in order.
    pub fallback: Vec<Route>,
}

impl Provider {
    /// Why it cannot be called, as a sentence without a subject; `Ok` when it can.
    pub fn available(&self) -> Result<(), String> {
        match self.key {
            Key::NotNeeded | Key::Given(_) => Ok(()),
            Key::Missing => Err(format!("no key in {}", self.api_key_env)),
        }
    }

    /// The key, if one is given.
    pub fn api_key(&self) -> Option<&Secret> {
        match &self.key {
            Key::Given(secret) => Some(secret),
            Key::NotNeeded | Key::Missing => None,
        }
    }

    /// Whether the model is listed.
    pub fn lists(&self, model: &str) -> bool {
        self.models.iter().any(|listed| &**listed == model)
    }

    /// Whether requests may name the model.
    pub fn accepts(&self, model: &str) -> bool {
        self.lists(model) || (self.any_model && is_model(model))
    }

    /// The beginning of the names of its environment variables: `my-llm` becomes `MY_LLM`.
    pub fn env_prefix(&self) -> String {
        env_prefix(self.name.as_str())
    }
}

/// A provider's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The server asks for none.
    NotNeeded,
    /// From the environment.
    Given(Secret),
    /// The server asks for one and the environment has none: the provider is listed, but cannot be called.
    Missing,
}

/// A provider and one of its models; written `provider/model`, or `provider` for its default model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The provider's name.
    pub provider: ProviderName,
    /// The model as that provider calls it; `None`: its default model.
    pub model: Option<Arc<str>>,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.model {
            Some(model) => write!(f, "{}/{model}", self.provider),
            None => f.write_str(self.provider.as_str()),
        }
    }
}

words! {
    /// The version of HTTP towards a provider.
    Http {
        /// What the handshake agrees on.
        Auto = "auto",
        /// HTTP/1.1.
        Http1 = "1.1",
        /// HTTP/2.
        Http2 = "2",
    }

    /// What a cancel does to the running call.
    OnCancel {
        /// The connection is closed.
        Abort = "abort",
        /// The answer is read on, bounded, to learn the usage.
        Drain = "drain",
    }
}

/// `[providers.<name>]` as it is written: what is left out comes from the dialect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ProviderTable {
    pub(super) dialect: Option<Dialect>,
    pub(super) base_url: Option<String>,
    pub(super) api_key_env: Option<String>,
    pub(super) models: Option<Vec<String>>,
    pub(super) default_model: Option<String>,
    pub(super) any_model: Option<bool>,
    pub(super) rps: Option<f64>,
    pub(super) concurrency: Option<usize>,
    pub(super) burst: Option<u32>,
    pub(super) tpm: Option<u32>,
    pub(super) queue_max: Option<usize>,
    pub(super) queue_wait_max_ms: Option<u64>,
    pub(super) http: Option<Http>,
    pub(super) connect_timeout_ms: Option<u64>,
    pub(super) headers_timeout_ms: Option<u64>,
    pub(super) ttft_timeout_ms: Option<u64>,
    pub(super) idle_timeout_ms: Option<u64>,
    pub(super) total_timeout_ms: Option<u64>,
    pub(super) on_cancel: Option<OnCancel>,
    pub(super) drain_max_ms: Option<u64>,
    pub(super) drain_bytes_max: Option<usize>,
    pub(super) warm_connections: Option<usize>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) retries_max: Option<u32>,
    pub(super) breaker_failures: Option<u32>,
    pub(super) breaker_open_ms: Option<u64>,
    pub(super) breaker_open_max_ms: Option<u64>,
    pub(super) fallback: Option<Vec<String>>,
}

impl Table for ProviderTable {
    fn check(&self, wrong: &mut dyn FnMut(&'static str, String)) {
        self.pace().check(wrong);
        let waits = [
            ("queue_wait_max_ms", self.queue_wait_max_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("headers_timeout_ms", self.headers_timeout_ms),
            ("ttft_timeout_ms", self.ttft_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("total_timeout_ms", self.total_timeout_ms),
            ("drain_max_ms", self.drain_max_ms),
            ("breaker_open_ms", self.breaker_open_ms),
            ("breaker_open_max_ms", self.breaker_open_max_ms),
        ];
        for (key, wait) in waits {
            check_range(key, &WAIT_MS, wait, wrong);
        }
        check_range("queue_max", &(0..=10_000), self.queue_max, wrong);
        check_range("drain_bytes_max", &(1_024..=1_073_741_824), self.drain_bytes_max, wrong);
        check_range("warm_connections", &(0..=1_000), self.warm_connections, wrong);
        check_range("retries_max", &(0..=10), self.retries_max, wrong);
        check_range("breaker_failures", &(0..=1_000), self.breaker_failures, wrong);
    }
}

impl ProviderTable {
    /// The part of it that a profile can override.
    fn pace(&self) -> PaceTable {
        PaceTable { rps: self.rps, concurrency: self.concurrency, burst: self.burst, tpm: self.tpm }
    }

    /// Fills in what is left out. `None` if that cannot be done: a name of one's own has no dialect. The key is not
    /// looked up yet.
    pub(super) fn resolve(self, name: &str) -> Option<Provider> {
        let built_in = BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map(|(_, dialect)| *dialect);
        let dialect = self.dialect.or(built_in)?;
        // What a dialect's own server lists says nothing about another server that speaks it.
        let knows_models = built_in.is_some() || self.base_url.is_none();
        let models: Vec<Arc<str>> = match &self.models {
            Some(models) => models.iter().map(|model| model.as_str().into()).collect(),
            None if knows_models => dialect.known_models().iter().map(|model| (*model).into()).collect(),
            None => Vec::new(),
        };
        let pace = self.pace().over(dialect.pace());
        // A server of which nothing is known knows best.
        let any_model = self.any_model.unwrap_or(dialect.any_model() || models.is_empty());
        let needs_key = dialect.needs_key();
        let api_key_env = self.api_key_env;
        let api_key_env = api_key_env.unwrap_or_else(|| if needs_key { key_variable(name) } else { String::new() });
        let base_url = self.base_url.as_deref().unwrap_or(dialect.default_base_url());
        Some(Provider {
            name: ProviderName::new(name),
            dialect,
            base_url: base_url.trim_end_matches('/').to_owned(),
            key: if api_key_env.is_empty() { Key::NotNeeded } else { Key::Missing },
            api_key_env,
            default_model: self.default_model.map(Arc::from).or_else(|| models.first().cloned()),
            models,
            any_model,
            pace,
            queue_max: self.queue_max.unwrap_or(256),
            queue_wait_max_ms: self.queue_wait_max_ms.unwrap_or(30_000),
            http: self.http.unwrap_or(Http::Auto),
            connect_timeout_ms: self.connect_timeout_ms.unwrap_or(3_000),
            headers_timeout_ms: self.headers_timeout_ms.unwrap_or(30_000),
            ttft_timeout_ms: self.ttft_timeout_ms.unwrap_or(60_000),
            idle_timeout_ms: self.idle_timeout_ms.unwrap_or(dialect.idle_timeout_ms()),
            total_timeout_ms: self.total_timeout_ms.unwrap_or(600_000),
            on_cancel: self.on_cancel.unwrap_or(OnCancel::Abort),
            drain_max_ms: self.drain_max_ms.unwrap_or(30_000),
            drain_bytes_max: self.drain_bytes_max.unwrap_or(4_194_304),
            warm_connections: self.warm_connections.unwrap_or(if dialect == Dialect::Demo { 0 } else { 2 }),
            ca_file: self.ca_file.filter(|path| !path.as_os_str().is_empty()),
            retries_max: self.retries_max.unwrap_or(2),
            breaker_failures: self.breaker_failures.unwrap_or(5),
            breaker_open_ms: self.breaker_open_ms.unwrap_or(5_000),
            breaker_open_max_ms: self.breaker_open_max_ms.unwrap_or(300_000),
            fallback: self.fallback.iter().flatten().filter_map(|route| parse_route(route)).collect(),
        })
    }
}

/// The built-in providers, without their keys.
pub(super) fn built_in() -> BTreeMap<String, Provider> {
    let resolved = BUILT_IN.iter().filter_map(|(name, _)| {
        let provider = ProviderTable::default().resolve(name)?;
        Some(((*name).to_owned(), provider))
    });
    resolved.collect()
}

/// `provider/model`, or `provider` alone; the model may contain slashes of its own.
pub(super) fn parse_route(text: &str) -> Option<Route> {
    let (provider, model) = match text.split_once('/') {
        Some((provider, model)) => (provider, Some(model)),
        None => (text, None),
    };
    let fits = !provider.is_empty() && model.is_none_or(is_model);
    fits.then(|| Route { provider: ProviderName::new(provider), model: model.map(Arc::from) })
}

/// Whether the text can be a model's name. It may become part of a URL's path, so it cannot leave it.
pub(super) fn is_model(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\\\"'<>".contains(&byte);
    (1..=200).contains(&text.len()) && text.bytes().all(plain) && !text.contains("..")
}

/// See [`Provider::env_prefix`].
pub(super) fn env_prefix(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

fn key_variable(name: &str) -> String {
    format!("{}_API_KEY", env_prefix(name))
}
