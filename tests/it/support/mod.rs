//! What the tests have in common: a whole weir in this process, and the shapes of its answers.

pub(crate) mod front;
pub(crate) mod gateway;
pub(crate) mod listener;
pub(crate) mod nginx;
pub(crate) mod virtual_weir;

use std::time::Duration;

use load::client::{Arrived, Client, Response};
use serde_json::Value;
use tokio::time::{interval, timeout};

/// Nothing that a test waits for takes longer, unless it will never come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two questions whether something is so yet.
const ASK_INTERVAL: Duration = Duration::from_millis(2);

/// Asks for a path until the answer is as it should be.
pub(crate) async fn until(client: &Client, path: &str, is_so: impl Fn(&Response) -> bool) -> Response {
    let mut last = None;
    let asking = async {
        let mut ticks = interval(ASK_INTERVAL);
        loop {
            ticks.tick().await;
            let found = client.get(path).await.unwrap();
            if is_so(&found) {
                return found;
            }
            last = Some(found.json());
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(found) => found,
        Err(_) => panic!("{path} stays as it is: {last:?}"),
    }
}

/// The one `done` of a stream. It must be the last event.
pub(crate) fn done(events: &[Arrived]) -> Value {
    let dones = events.iter().filter(|arrived| arrived.event.name == "done").count();
    assert_eq!(dones, 1, "exactly one done: {events:#?}");
    let last = events.last().expect("a stream has events");
    assert_eq!(last.event.name, "done", "nothing follows done");
    last.event.json()
}

/// The first `meta` of a stream.
pub(crate) fn opening(events: &[Arrived]) -> Value {
    let meta = events.iter().find(|arrived| arrived.event.name == "meta");
    meta.expect("a stream begins with a meta").event.json()
}

/// The content events, as they were sent: ids and all.
pub(crate) fn content(events: &[Arrived]) -> Vec<(String, String)> {
    let personal = ["ping", "meta", "snapshot", "done"];
    let content = events.iter().filter(|arrived| !personal.contains(&arrived.event.name.as_str()));
    content.map(|arrived| (arrived.event.id.clone().unwrap_or_default(), arrived.event.data.clone())).collect()
}
