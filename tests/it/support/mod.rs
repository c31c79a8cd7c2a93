//! What the tests have in common: a whole weir in this process, and the shapes of its answers.

pub(crate) mod gateway;

use load::client::Arrived;
use serde_json::Value;

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
