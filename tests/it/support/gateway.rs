//! Gateway: a whole weir in this process, on a free port, in front of a mock provider, with a database of its own.

use std::sync::Arc;

use load::client::{Client, Request, Response};
use load::mock::{Counts, Mock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use weir::app::{self, App};
use weir::config::Origin;

pub(crate) use super::PATIENCE;
use super::listener::Listener;
use super::until;

/// The pace of a provider that is never in the way.
pub(crate) const FAST: &str = "rps = 10000.0\nconcurrency = 1000\nburst = 1000";

const CONFIG_FILE: &str = "config.toml";

/// See the module. The mock is the provider `mock`, which is the default one and takes any model.
pub(crate) struct Gateway {
    pub(crate) mock: Mock,
    pub(crate) client: Client,
    app: App,
    directory: TempDir,
}

/// What a configuration says beside the usual.
#[derive(Default)]
struct Further<'t> {
    /// Before the first table.
    keys: &'t str,
    server: &'t str,
    store: &'t str,
}

impl Gateway {
    /// With a provider that hardly paces.
    pub(crate) async fn start() -> Self {
        Self::with(FAST, "").await
    }

    /// With other keys of the provider's table.
    pub(crate) async fn with_provider(provider: &str) -> Self {
        Self::with(provider, "").await
    }

    /// With further tables.
    pub(crate) async fn with_tables(tables: &str) -> Self {
        Self::with(FAST, tables).await
    }

    /// With further keys of the server's table.
    pub(crate) async fn with_server(server: &str) -> Self {
        Self::with_all(server, FAST, "").await
    }

    /// With keys before the first table.
    pub(crate) async fn with_keys(keys: &str) -> Self {
        Self::build(Mock::start().await, Further { keys, ..Further::default() }, FAST, "").await
    }

    /// With other keys of the provider's table, and further tables.
    pub(crate) async fn with(provider: &str, tables: &str) -> Self {
        Self::with_all("", provider, tables).await
    }

    /// With further keys of the server's table, other keys of the provider's, and further tables.
    pub(crate) async fn with_all(server: &str, provider: &str, tables: &str) -> Self {
        Self::build(Mock::start().await, Further { server, ..Further::default() }, provider, tables).await
    }

    /// With further keys of the store's table.
    pub(crate) async fn with_store(store: &str) -> Self {
        Self::build(Mock::start().await, Further { store, ..Further::default() }, FAST, "").await
    }

    /// In front of a mock of one's own, with other keys of the provider's table.
    pub(crate) async fn before(mock: Mock, provider: &str) -> Self {
        Self::build(mock, Further::default(), provider, "").await
    }

    async fn build(mock: Mock, further: Further<'_>, provider: &str, tables: &str) -> Self {
        let Further { keys, server, store } = further;
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("weir.db");
        let toml = config(&mock.url(), database.to_str().unwrap(), provider, tables);
        let toml = toml.replacen("[server]", &format!("{keys}\n[server]\n{server}"), 1);
        let toml = toml.replacen("[store]", &format!("[store]\n{store}"), 1);
        let file = directory.path().join(CONFIG_FILE);
        std::fs::write(&file, &toml).unwrap();
        let mut origin = Origin::new(Some(file), []);
        let config = origin.load().unwrap_or_else(|error| panic!("{error}\n{toml}"));
        let app = App::start(config, origin, Arc::new(app::transport)).await.unwrap();
        let client = Client::new(&format!("http://{}", app.address)).unwrap();
        Self { mock, client, app, directory }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.app.address
    }

    /// Where it listens for operators.
    pub(crate) fn admin_address(&self) -> std::net::SocketAddr {
        self.app.admin_address.unwrap_or(self.app.address)
    }

    /// Where its database is.
    pub(crate) fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("weir.db")
    }

    /// Changes the configuration file: `from` becomes `to`.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let file = self.directory.path().join(CONFIG_FILE);
        let toml = std::fs::read_to_string(&file).unwrap();
        assert!(toml.contains(from), "{from} is not in\n{toml}");
        std::fs::write(file, toml.replacen(from, to, 1)).unwrap();
    }

    /// A new thread's id.
    pub(crate) async fn thread(&self) -> String {
        let made = self.client.post("/api/threads", &json!({})).await.unwrap();
        assert_eq!(made.status(), 201);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Opens the stream of a new message.
    pub(crate) async fn stream(&self, thread: &str, body: &Value) -> Listener {
        self.open(Request::post(format!("/api/threads/{thread}/messages/stream"), body)).await
    }

    /// Opens any other stream.
    pub(crate) async fn open(&self, request: Request) -> Listener {
        Listener::open(&self.client, request).await
    }

    /// Sends a message and waits for the whole answer.
    pub(crate) async fn send(&self, thread: &str, body: &Value) -> Response {
        let path = format!("/api/threads/{thread}/messages");
        timeout(PATIENCE, self.client.post(&path, body)).await.expect("an answer in time").unwrap()
    }

    /// A thread with its messages.
    pub(crate) async fn read(&self, thread: &str) -> Value {
        self.get(&format!("/api/threads/{thread}")).await
    }

    /// The JSON at a path.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.client.get(path).await.unwrap();
        assert_eq!(response.status(), 200, "{path}: {}", response.json());
        response.json()
    }

    /// Waits until the JSON at a path is as it should be.
    pub(crate) async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&self.client, path, |response| response.status() == 200 && is_so(&response.json())).await.json()
    }

    /// Waits until the running answers are heard by this many requests together.
    pub(crate) async fn until_listeners(&self, count: u64) {
        let listeners = |streams: &Value| {
            streams.as_array().unwrap().iter().map(|row| row["listeners"].as_u64().unwrap()).sum::<u64>()
        };
        self.until("/api/admin/streams", |streams| listeners(streams) == count).await;
    }

    /// Waits until the provider has seen enough.
    pub(crate) async fn called(&self, is_enough: impl Fn(&Counts) -> bool) -> Counts {
        let seen = timeout(PATIENCE, self.mock.wait_until(|counts| is_enough(counts))).await;
        seen.unwrap_or_else(|_| panic!("the provider has seen too little: {:?}", self.mock.counts()))
    }

    /// Cancels a request.
    pub(crate) async fn cancel(&self, request: &str) -> Response {
        self.client.post(&format!("/api/threads/cancel/{request}"), &json!({})).await.unwrap()
    }

    /// Waits until nothing is left of all requests: no call, no permit, no place in a queue, no stream.
    pub(crate) async fn at_rest(&self) {
        self.until("/api/admin/streams", |streams| streams.as_array().unwrap().is_empty()).await;
        let idle = |pacer: &Value| pacer["in_flight"] == 0 && pacer["queued"] == 0;
        self.until("/api/admin/pacers", |pacers| pacers.as_array().unwrap().iter().all(idle)).await;
        self.called(|counts| counts.streams_live == 0).await;
    }
}

/// The body of a message to the mock.
pub(crate) fn message(content: &str, model: &str) -> Value {
    json!({ "role": "user", "content": content, "provider": "mock", "model": model })
}

/// A configuration with the mock as its default provider.
pub(crate) fn config(url: &str, database: &str, provider: &str, tables: &str) -> String {
    format!(
        "default_provider = \"mock\"\n\
         [server]\nbind = \"127.0.0.1:0\"\nworkers = 2\n\
         [store]\npath = {database:?}\n\
         [providers.mock]\ndialect = \"openai_chat\"\nbase_url = {url:?}\napi_key_env = \"\"\n\
         default_model = \"mock\"\nmodels = [\"mock\"]\nany_model = true\nwarm_connections = 0\n\
         {provider}\n{tables}\n"
    )
}
