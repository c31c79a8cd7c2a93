//! Server: answers the requests of one connection, one after the other, by their scripts.
//!
//! Works on anything that reads and writes, so that a simulation can put pipes in the place of sockets.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::Provider;
use super::counters::Outcome;
use super::dialect::Dialect;
use super::faults::{self, Asked};
use super::frames;
use super::request::{Inbox, Request, Wish};
use super::script::{Script, Step, respond};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By the client, or properly by the mock.
    Closed,
    /// The script wants it to be reset: for a socket, set its linger time to zero and drop it.
    Reset,
}

/// How the script of one answer ended.
enum Played {
    Ended,
    Cut,
    Reset,
}

impl Provider {
    /// Serves one connection until it ends. What is not HTTP ends it, too.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, connection: &mut S) -> Ending {
        self.counters.count(|counts| {
            counts.connections_opened += 1;
            counts.connections_live += 1;
        });
        let _closed = OnDrop(|| self.counters.count(|counts| counts.connections_live -= 1));
        self.answer_all(connection).await.unwrap_or(Ending::Closed)
    }

    async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(&self, connection: &mut S) -> io::Result<Ending> {
        let (mut reader, mut writer) = tokio::io::split(connection);
        let mut inbox = Inbox::default();
        while let Some(request) = inbox.next(&mut reader).await? {
            let last = request.last;
            let (script, call) = self.route(request);
            let call = call.map(|number| RunningCall { provider: self, number, outcome: Outcome::Aborted });
            // Whoever closes its side has left: nobody who reads an event stream does that.
            let played = tokio::select! {
                biased;
                played = self.play(script, &mut writer) => played?,
                () = inbox.until_closed(&mut reader) => return Ok(Ending::Closed),
            };
            if let Some(mut call) = call {
                call.outcome = Outcome::Finished;
            }
            match played {
                Played::Ended if !last => {}
                Played::Ended | Played::Cut => {
                    writer.shutdown().await?;
                    return Ok(Ending::Closed);
                }
                Played::Reset => return Ok(Ending::Reset),
            }
        }
        Ok(Ending::Closed)
    }

    /// How to answer a request, and the number of the call if it is one.
    fn route(&self, request: Request) -> (Script, Option<u64>) {
        let path = request.path.split('?').next().unwrap_or_default();
        let dialect = Dialect::of(path);
        match request.method.as_str() {
            "POST" if path.ends_with(dialect.call_path()) => {
                let call = self.counters.call_started(request.headers, &request.body);
                (self.call_script(call, dialect, path, &request.body), Some(call))
            }
            "POST" if path.contains(dialect.call_path()) && path.ends_with("/cancel") => {
                self.counters.count(|counts| counts.runs_cancelled += 1);
                (respond(200, "", JSON, "{}"), None)
            }
            "GET" if path.ends_with("/models") => {
                self.counters.count(|counts| counts.models_listed += 1);
                let names = faults::ALL.iter().map(|behaviour| behaviour.name);
                (respond(200, "", JSON, &frames::models(names)), None)
            }
            "GET" if path == "/__stats" => (respond(200, "", JSON, &self.stats().to_string()), None),
            "POST" if path == "/__reset" => {
                self.reset();
                (respond(200, "", JSON, "{}"), None)
            }
            "POST" if path.starts_with("/__open/") => {
                let count = path.rsplit('/').next().and_then(|count| count.parse().ok());
                self.open_gates(count.unwrap_or(1));
                (respond(200, "", JSON, "{}"), None)
            }
            _ => {
                self.counters.count(|counts| counts.strays += 1);
                (respond(404, "", JSON, &frames::error("no such path", "invalid_request_error", None)), None)
            }
        }
    }

    fn call_script(&self, call: u64, dialect: Dialect, path: &str, body: &[u8]) -> Script {
        if let Err(wait) = self.take_turn(Instant::now()) {
            self.counters.count(|counts| counts.calls_refused += 1);
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            return faults::too_many(dialect, seconds as u32);
        }
        let Some(Wish { model, prompt, include_usage }) = Wish::parse(dialect, path, body) else {
            let body = frames::error("model, or messages with one of the user", "invalid_request_error", None);
            return respond(400, "", JSON, &body);
        };
        self.watches.started(&prompt, call);
        match model.parse() {
            Ok(plan) => {
                let earlier = self.count_attempt(&model, &prompt);
                Asked { plan, dialect, prompt, call, earlier, include_usage }.script()
            }
            Err(error) => faults::no_model(&format!("{error}")),
        }
    }

    /// Performs a script.
    async fn play(&self, script: Script, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<Played> {
        let mut due = Instant::now();
        for step in script {
            match step {
                Step::Wait(wait) if wait.is_zero() => tokio::task::yield_now().await,
                Step::Wait(wait) => {
                    // A writer that was held up does not hurry afterwards.
                    due = (due + wait).max(Instant::now());
                    tokio::time::sleep_until(due).await;
                }
                Step::Bytes(bytes) => {
                    out.write_all(&bytes).await?;
                    out.flush().await?;
                }
                Step::Gate => self.gate.pass(&self.counters).await,
                Step::End => return Ok(Played::Ended),
                Step::Cut => return Ok(Played::Cut),
                Step::Reset => return Ok(Played::Reset),
                Step::Silence => std::future::pending().await,
            }
        }
        Ok(Played::Ended)
    }
}

const JSON: &str = "application/json";

/// A call that is being answered. It counts as aborted unless its script comes to its end.
struct RunningCall<'p> {
    provider: &'p Provider,
    number: u64,
    outcome: Outcome,
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.provider.counters.call_ended(self.number, self.outcome);
        self.provider.watches.ended(self.number, self.outcome);
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
