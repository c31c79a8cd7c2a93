//! The demo: a provider without a network or a key, so that every state of an answer can be seen by hand.
//!
//! It is a [`Transport`] that writes what a server of OpenAI's dialect would, decoded by the same adapter as theirs.
//! The same prompt gets the same answer at the same pace. What the last user message wishes for (see `wishes.rs`) makes
//! it slow, fast, thoughtful or faulty.

mod prose;
mod script;
#[cfg(test)]
mod tests;
mod wishes;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, ready};
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use self::script::{Script, Wait};
use super::{Body, Opened, Status, Transport, TransportError};
use crate::providers::{Call, Head};

/// The transport of the demo.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demo;

impl Demo {
    /// The demo needs nothing.
    pub fn new() -> Self {
        Self
    }
}

impl Transport for Demo {
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>> {
        let script = Script::new(&call.body);
        Box::pin(async move {
            if let Some(pause) = script.refuses_after() {
                sleep(pause).await;
                return Ok(refusal());
            }
            let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
            Ok(Opened { head: Head { status: 200, headers }, body: play(script), connect_ms: 0 })
        })
    }

    fn recycle(&self, body: Body) {
        drop(body);
    }

    fn status(&self) -> Status {
        Status { http: "none", warm: 0 }
    }
}

/// The answer of a server that has too much to do.
fn refusal() -> Opened {
    let body = r#"{"error":{"message":"the demo was asked to fail","type":"overloaded_error","code":503}}"#;
    let headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("retry-after".to_owned(), "1".to_owned()),
        ("x-request-id".to_owned(), "demo-refusal".to_owned()),
    ];
    let body = stream::once(ready(Ok(Bytes::from_static(body.as_bytes()))));
    Opened { head: Head { status: 503, headers }, body: body.boxed_local(), connect_ms: 0 }
}

/// Plays a script at its pace.
fn play(script: Script) -> Body {
    let player = Player { script, timer: Box::pin(sleep(Duration::ZERO)), due: Instant::now() };
    stream::unfold(player, Player::next).boxed_local()
}

struct Player {
    script: Script,
    /// The only timer of the answer.
    timer: Pin<Box<Sleep>>,
    /// When the last frame was due, so that the pace does not drift.
    due: Instant,
}

impl Player {
    async fn next(mut self) -> Option<(Result<Bytes, TransportError>, Self)> {
        let beat = self.script.next()?;
        match beat.wait {
            Wait::Yield => tokio::task::yield_now().await,
            Wait::Pause(pause) => {
                self.due += pause;
                self.timer.as_mut().reset(self.due);
                self.timer.as_mut().await;
            }
            Wait::Forever => std::future::pending().await,
        }
        Some((Ok(beat.frames), self))
    }
}
