//! Listener: an event stream as a test hears it. Nothing of it is waited for longer than the patience.

use std::fmt;

use load::client::{Arrived, Client, ClientError, Events, Head, Request};
use tokio::time::timeout;

use super::PATIENCE;

/// See the module. Dropping it closes the connection.
pub(crate) struct Listener(Events);

impl Listener {
    /// Opens a stream, which must not be refused.
    pub(crate) async fn open(client: &Client, request: Request) -> Self {
        match timeout(PATIENCE, client.open(request)).await.expect("the stream begins in time") {
            Ok(events) => Self(events),
            Err(error) => panic!("{error}: {}", error.refusal().map(|refusal| refusal.json()).unwrap_or_default()),
        }
    }

    /// Listens on a connection of the test's own.
    pub(crate) fn new(events: Events) -> Self {
        Self(events)
    }

    /// The next event; `None` at the proper end.
    pub(crate) async fn next(&mut self) -> Result<Option<Arrived>, ClientError> {
        timeout(PATIENCE, self.0.next()).await.expect("the next event comes in time")
    }

    /// The next event of this name; those before it are skipped.
    pub(crate) async fn next_named(&mut self, name: &str) -> Arrived {
        in_time(name, self.0.next_named(name)).await
    }

    /// The events that are left, to the proper end.
    pub(crate) async fn rest(&mut self) -> Vec<Arrived> {
        in_time("the end", self.0.rest()).await
    }

    /// The head of the answer.
    pub(crate) fn head(&self) -> &Head {
        self.0.head()
    }
}

async fn in_time<T>(what: &str, heard: impl Future<Output = Result<T, ClientError>>) -> T {
    let heard = timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{what} does not come"));
    heard.unwrap_or_else(|error| panic!("{what} does not come: {error}"))
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
