//! Checks: what an operator asks of a weir that runs, whatever its providers are. One a file.

pub mod alerts;
pub mod compare;
pub mod diagnose;
pub mod profile;
pub mod smoke;
pub mod suite;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Client, ClientError, Events, Request};
use crate::target::{Api, ApiError, TargetError};

/// A weir that runs.
#[derive(Debug, Clone, clap::Args)]
pub struct SiteArguments {
    /// Where it is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// How it is asked.
    #[command(flatten)]
    pub access: Access,
}

/// Longer than weir's streams are silent.
pub(crate) const WAIT_MAX_MS: u64 = 30_000;

/// How it is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Access {
    /// The API key, where weir wants one. In the environment it is seen by fewer than on the command line.
    #[arg(long, env = "WEIR_API_KEY", hide_env_values = true)]
    pub key: Option<Key>,
    /// A PEM file of certificates to trust beside the public ones, with https.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Who answers [default: weir's default provider].
    #[arg(long)]
    pub provider: Option<String>,
    /// What answers [default: the provider's default model].
    #[arg(long)]
    pub model: Option<String>,
    /// How long connecting, each whole answer, and a stream's head and silences may take.
    #[arg(long, default_value_t = WAIT_MAX_MS, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub timeout_ms: u64,
}

/// An API key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key(String);

impl std::str::FromStr for Key {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// A weir that answers.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its interface.
    pub api: Api,
    access: Access,
}

impl Site {
    /// Finds out whether it is up.
    pub async fn reach(arguments: &SiteArguments) -> Result<Self, TargetError> {
        Self::at(&arguments.url, &arguments.access).await
    }

    /// The same for one of several.
    pub async fn at(url: &str, access: &Access) -> Result<Self, TargetError> {
        let mut client =
            Client::new(url)?.trusting(access.ca_file.as_deref())?.within(Duration::from_millis(access.timeout_ms));
        if let Some(Key(key)) = &access.key {
            client = client.with_header("authorization", format!("Bearer {key}"));
        }
        match client.get("/health").await {
            Ok(health) if health.status() == 200 => Ok(Self { api: Api::new(client), access: access.clone() }),
            Ok(health) => Err(TargetError::Unhealthy(url.to_owned(), health.status())),
            Err(error) => Err(TargetError::Down(url.to_owned(), error)),
        }
    }

    /// The request that sends a message.
    pub fn message(&self, thread: &str, content: &str) -> Request {
        let mut body = json!({"role": "user", "content": content});
        for (name, value) in [("provider", &self.access.provider), ("model", &self.access.model)] {
            if let Some(value) = value {
                body[name] = Value::from(value.as_str());
            }
        }
        Request::post(format!("/api/threads/{thread}/messages/stream"), &body)
    }

    /// Sends a message into a new thread and opens the stream of its answer.
    pub async fn ask(&self, content: &str) -> Result<Events, ApiError> {
        let thread = self.api.create_thread().await?;
        self.api.open(self.message(&thread, content)).await
    }

    /// The time to the first piece of an answer, and then from its cancel to its end.
    pub async fn ask_and_cancel(&self, content: &str) -> Result<Taken, ApiError> {
        let mut events = self.ask(content).await?;
        let request = events.head().header("x-request-id").unwrap_or_default().to_owned();
        let ttft = first_piece(&mut events).await? - events.sent();
        let asked = Instant::now();
        self.api.cancel(&request).await?;
        let rest = events.rest().await?;
        let status = rest.last().map(|last| last.event.json()["status"].as_str().unwrap_or_default().to_owned());
        // An answer that was complete when the cancel came says nothing of cancels.
        let cancel = (status.as_deref() == Some("cancelled")).then(|| asked.elapsed());
        Ok(Taken { ttft, cancel })
    }
}

/// How long things took.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// From the request to the first piece.
    pub ttft: Duration,
    /// From the cancel to the end of the stream.
    pub cancel: Option<Duration>,
}

/// When the first piece of content arrives.
async fn first_piece(events: &mut Events) -> Result<Instant, ApiError> {
    while let Some(arrived) = events.next().await? {
        match arrived.event.name.as_str() {
            "delta" | "reasoning" | "refusal" | "tool_call" => return Ok(arrived.at),
            "done" => return Err(ApiError::Lacks("a first piece", arrived.event.data)),
            _ => {}
        }
    }
    Err(ClientError::Closed.into())
}

/// A question that nobody else asks at the same time, so that nothing is shared by chance.
fn question(n: impl std::fmt::Display) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("In two sentences: what is a weir good for? ({}-{n})", now.as_millis())
}
