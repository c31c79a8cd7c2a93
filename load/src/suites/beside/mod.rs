//! Beside: what else relays streams, measured in the same run, with the same client and the same provider behind it.

mod nginx;
mod rounds;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub(super) use nginx::{LISTEN, Nginx, PUBLISH, Site};
pub(super) use rounds::{Spread, ratio};

use crate::client::{Client, ClientError, Events, Request};
use crate::report::Report;
use crate::sse::Event;
use crate::target::{Api, ApiError, MOCK, Target};

/// Connections that each worker of nginx keeps open to the provider, at least.
const KEEPALIVE_MIN: usize = 256;

/// What to measure beside weir.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BesideArguments {
    /// Measures this beside weir, in the same run; what is not installed is left out, with a word.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(super) beside: Option<Beside>,
    /// The nginx to start.
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    pub(super) nginx: PathBuf,
}

/// What there is to be measured beside weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Beside {
    /// A reverse proxy that passes streams on.
    Nginx,
}

/// One way to a provider's answer.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// What it is called in reports.
    pub(super) name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A call in OpenAI's dialect, to the provider or to a proxy.
    Openai(Client),
    /// A message into a thread of weir.
    Thread(Api),
}

/// What an answer on one way is asked for with: a thread where that is needed, so that it is there when time counts.
#[derive(Debug, Clone)]
pub(super) struct Ticket(Option<String>);

impl Way {
    /// Straight to the provider at this URL.
    pub(super) fn direct(url: &str) -> Result<Self, ClientError> {
        Ok(Self { name: "direct", kind: Kind::Openai(Client::new(url)?) })
    }

    /// Through weir, with everything that a message into a thread is.
    pub(super) fn weir(target: &Target) -> Self {
        Self { name: "weir", kind: Kind::Thread(target.api.clone()) }
    }

    /// Through nginx.
    pub(super) fn nginx(nginx: &Nginx) -> Result<Self, ClientError> {
        Ok(Self { name: "nginx", kind: Kind::Openai(nginx.client("/v1")?) })
    }

    /// Makes what a question needs.
    pub(super) async fn ticket(&self) -> Result<Ticket, ApiError> {
        match &self.kind {
            Kind::Openai(_) => Ok(Ticket(None)),
            Kind::Thread(api) => Ok(Ticket(Some(api.create_thread().await?))),
        }
    }

    /// Asks, on a connection of its own.
    pub(super) async fn ask(&self, ticket: Ticket, model: &str, prompt: &str) -> Result<Events, ApiError> {
        match &self.kind {
            Kind::Openai(client) => {
                let messages = json!([{"role": "user", "content": prompt}]);
                let body = json!({"model": model, "messages": messages, "stream": true});
                Ok(client.open(Request::post("/chat/completions", &body)).await?)
            }
            Kind::Thread(api) => api.send(&ticket.0.unwrap_or_default(), MOCK, model, prompt).await,
        }
    }

    /// Whether an event brings text.
    pub(super) fn is_token(&self, event: &Event) -> bool {
        match self.kind {
            Kind::Thread(_) => event.name == "delta",
            Kind::Openai(_) => {
                let content = &event.json()["choices"][0]["delta"]["content"];
                content.as_str().is_some_and(|content| !content.is_empty())
            }
        }
    }

    /// Whether an event is the last one of an answer that is complete.
    pub(super) fn is_end(&self, event: &Event) -> bool {
        match self.kind {
            Kind::Thread(_) => event.name == "done" && event.json()["status"] == "complete",
            Kind::Openai(_) => event.data == "[DONE]",
        }
    }
}

/// Starts the nginx that is asked for, in front of the mock, for so many answers at once. `None` without one, which the report then says.
pub(super) async fn proxy(
    arguments: &BesideArguments,
    mock: SocketAddr,
    at_once: usize,
    report: &mut Report,
) -> Option<Nginx> {
    if arguments.beside != Some(Beside::Nginx) {
        return None;
    }
    start(&arguments.nginx, "nginx", Site::Proxy { to: mock, keepalive: at_once.max(KEEPALIVE_MIN) }, report).await
}

/// Starts an nginx. `None` without one, which the report then says of `what` is not compared with.
pub(super) async fn start(program: &Path, what: &str, site: Site, report: &mut Report) -> Option<Nginx> {
    match Nginx::start(program, site).await {
        Ok(nginx) => Some(nginx),
        Err(why) => {
            report.line(format!("Not compared with {what}: {why}"));
            None
        }
    }
}

/// The ways in the order of a round: each is first, and after each other, equally often.
pub(super) fn in_turns(ways: &[Arc<Way>], round: usize) -> Vec<Arc<Way>> {
    let mut turns = ways.to_vec();
    turns.rotate_left(round % ways.len().max(1));
    if round / ways.len().max(1) % 2 == 1 {
        turns.reverse();
    }
    turns
}

/// Microseconds of processor time for each of a number of things.
pub(super) fn each_us(cpu: Duration, things: u64) -> Option<f64> {
    (things > 0).then(|| cpu.as_secs_f64() * 1e6 / things as f64)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod with_nginx;
