//! Mock: a provider that does exactly what the model's name asks for, down to the single write.
//!
//! It speaks every provider's dialect ([`Dialect`]), the one that a call's path names; that of OpenAI's chat completions
//! where none is named: `POST …/chat/completions` streams, `GET …/models` answers.
//! The model chooses the behaviour ([`Plan`]): `mock`, `text@tokens=50,gap_ms=5`, or a fault by name ([`faults`]).
//! Texts are a function of the prompt ([`expected_text`]). What callers did can be asked ([`Counts`], [`Call`]) and
//! waited for ([`Provider::wait_until`]).

mod counters;
mod dialect;
pub mod faults;
mod frames;
mod gate;
mod plan;
mod rate;
mod request;
pub mod script;
mod server;
mod text;
mod watch;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub use counters::{Call, Counts, Outcome};
pub use dialect::Dialect;
pub use plan::{Plan, PlanError};
pub use rate::Rate;
pub use server::Ending;
pub use text::Voice;
pub use watch::Watched;

use counters::Counters;
use faults::Says;
use gate::Gate;
use rate::Meter;
use watch::Watches;

/// Models and prompts that [`Provider`] counts the attempts of; beyond that it forgets them all.
const ATTEMPTS_MAX: usize = 100_000;

/// The provider without its socket: give it connections with [`Provider::serve`].
#[derive(Debug)]
pub struct Provider {
    rate: Option<Rate>,
    meter: Mutex<Meter>,
    counters: Counters,
    attempts: Mutex<HashMap<(String, String), u32>>,
    gate: Gate,
    watches: Watches,
}

impl Provider {
    /// A provider that has seen nothing yet. It refuses calls beyond `rate`, if there is one.
    pub fn new(rate: Option<Rate>) -> Self {
        let (meter, attempts, watches) = (Mutex::default(), Mutex::default(), Watches::default());
        Self { rate, meter, counters: Counters::new(), attempts, gate: Gate::new(), watches }
    }

    /// What it has seen.
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// Waits until it has seen enough. Put a deadline around it if that may never be.
    pub async fn wait_until(&self, condition: impl FnMut(&Counts) -> bool) -> Counts {
        self.counters.wait_until(condition).await
    }

    /// The calls that are remembered, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.counters.calls()
    }

    /// The newest call.
    pub fn last_call(&self) -> Option<Call> {
        self.counters.last_call()
    }

    /// Watches the next call with this prompt.
    pub fn watch(&self, prompt: &str) -> Watched<'_> {
        self.watches.watch(prompt)
    }

    /// Lets one answer go on that waits at its gate: the one that has waited longest, or the next to come there.
    pub fn open_gate(&self) {
        self.open_gates(1);
    }

    /// The same for so many answers. From outside: `POST /__open/COUNT`.
    pub fn open_gates(&self, count: usize) {
        self.gate.open(count);
    }

    /// Forgets what it has seen; what is live stays so.
    pub fn reset(&self) {
        self.gate.reset();
        self.attempts.lock().clear();
        self.counters.reset();
    }

    /// The counts as JSON.
    pub fn stats(&self) -> Value {
        let counts = self.counts();
        let mut stats = serde_json::to_value(counts).expect("counts are numbers");
        let age = counts.last_abort.map(|last| u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX));
        stats["last_abort_age_ms"] = age.into();
        stats
    }

    fn take_turn(&self, now: Instant) -> Result<(), Duration> {
        self.rate.map_or(Ok(()), |rate| self.meter.lock().take(rate, now))
    }

    /// Counts one more call with this model and prompt. Returns how many there were before.
    fn count_attempt(&self, model: &str, prompt: &str) -> u32 {
        let mut attempts = self.attempts.lock();
        if attempts.len() >= ATTEMPTS_MAX {
            attempts.clear();
        }
        let count = attempts.entry((model.to_owned(), prompt.to_owned())).or_default();
        *count += 1;
        *count - 1
    }
}

/// A [`Provider`] that listens on a socket. Dropping it closes every connection.
#[derive(Debug)]
pub struct Mock {
    provider: Arc<Provider>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Mock {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Panics
    /// If there is none.
    pub async fn start() -> Self {
        let mock = Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await;
        mock.expect("the loopback interface has a free port")
    }

    /// Listens on an address and enforces a rate, if one is given.
    pub async fn bind(address: SocketAddr, rate: Option<Rate>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let provider = Arc::new(Provider::new(rate));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&provider)));
        Ok(Self { provider, address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL: `/chat/completions` is to be appended.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL of this dialect.
    pub fn url_of(&self, dialect: Dialect) -> String {
        format!("http://{}/{}", self.address, dialect.name())
    }

    /// The provider behind the socket.
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }
}

impl Deref for Mock {
    type Target = Provider;

    fn deref(&self) -> &Provider {
        &self.provider
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts connections until it is aborted; they end with it.
async fn accept(listener: TcpListener, provider: Arc<Provider>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    connections.spawn(serve_socket(socket, Arc::clone(&provider)));
                } else {
                    // Out of files, most likely: it can only get better.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_socket(mut socket: TcpStream, provider: Arc<Provider>) {
    // Both can only fail on a connection that is gone, which the next read or write says better.
    let _ = socket.set_nodelay(true);
    if provider.serve(&mut socket).await == Ending::Reset {
        let _ = socket.set_zero_linger();
    }
}

/// The text that a call delivers before it ends or fails, up to the first `tokens` of an answer without end; nothing
/// for a name that is none of the mock's.
pub fn expected_text(model: &str, prompt: &str) -> String {
    let Ok(plan) = model.parse::<Plan>() else { return String::new() };
    let tokens = match plan.behaviour.says {
        Says::All => plan.tokens,
        Says::After => plan.before_fault(),
        Says::Nothing => 0,
    };
    let mut text = Voice::new(prompt, plan.bytes).tokens(tokens);
    if plan.behaviour.name == "bad_utf8" {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text
}

/// The reasoning that a call delivers before its text.
pub fn expected_reasoning(model: &str, prompt: &str) -> String {
    match model.parse::<Plan>() {
        Ok(plan) if plan.behaviour.name == "reasoning" => faults::thoughts(prompt, plan.bytes).tokens(plan.after),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
