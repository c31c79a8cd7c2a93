//! Events: what streams of server-sent events consist of. Each schema is of one event, whose `data` is JSON in a text.

use serde_json::{Value, json};

use super::operation::reference;
use super::schemas::Schemas;
use crate::event::Event;
use crate::fanout::Done;
use crate::http::error::ErrorBody;
use crate::http::feed::Report;
use crate::http::openai::chunks::Chunk;
use crate::http::sse::{FallbackMeta, FirstContentMeta, Opening, QueueMeta, Snapshot};

/// The names of a thread's events, in the order of the protocol.
const NAMES: [&str; 13] = [
    "ping",
    "meta",
    "delta",
    "reasoning",
    "refusal",
    "tool_call",
    "activity",
    "citation",
    "usage",
    "snapshot",
    "reset",
    "ext",
    "done",
];

/// Those of a request of a thread.
pub(super) fn of_threads(schemas: &mut Schemas) -> Value {
    let ping = json!({ "type": "object", "required": ["type"], "properties": { "type": { "const": "ping" } } });
    let data = json!({ "oneOf": [
        schemas.named("Ping", ping),
        schemas.tagged::<Opening<'_>>("meta"),
        schemas.tagged::<QueueMeta>("meta"),
        schemas.tagged::<FallbackMeta<'_>>("meta"),
        schemas.tagged::<FirstContentMeta<'_>>("meta"),
        schemas.of::<Event<'_>>(),
        schemas.tagged::<Snapshot<'_>>("snapshot"),
        schemas.tagged::<Done<'_>>("done"),
    ] });
    let data = schemas.named("StreamData", data);
    let event = json!({
        "type": "object",
        "description": "One event of a stream. Its name is the `type` of its data.",
        "required": ["event", "data"],
        "properties": {
            "id": { "type": "string", "description": "`<fence>-<seq>`, on content and `done`.", "pattern": "^[0-9]+-[0-9]+$" },
            "event": { "enum": NAMES },
            "data": json_of(&data),
        },
    });
    schemas.named("StreamEvent", event)
}

/// The chunks of a chat completion.
pub(super) fn of_completions(schemas: &mut Schemas) -> Value {
    let data = json!({ "anyOf": [schemas.of::<Chunk<'_>>(), schemas.of::<ErrorBody<'_>>()] });
    let event = json!({
        "type": "object",
        "description": "A line of `data`: a chunk, the error that ends the stream, or `[DONE]`.",
        "required": ["data"],
        "properties": { "data": { "anyOf": [{ "const": "[DONE]" }, json_of(&data)] } },
    });
    schemas.named("ChatCompletionEvent", event)
}

/// The events of a response.
pub(super) fn of_responses(schemas: &mut Schemas) -> Value {
    let event = json!({
        "type": "object",
        "description": "One event of a response. Its name is the `type` of its data.",
        "required": ["event", "data"],
        "properties": {
            "event": { "type": "string", "pattern": "^response\\." },
            "data": json_of(&reference("schemas", "ResponseData")),
        },
    });
    schemas.named("ResponseEvent", event)
}

/// What the dashboard shows.
pub(super) fn of_feed(schemas: &mut Schemas) -> Value {
    let data = schemas.tagged::<Report>("report");
    let event = json!({
        "type": "object",
        "description": "How things stand, once a second.",
        "required": ["event", "data"],
        "properties": { "event": { "const": "report" }, "data": json_of(&data) },
    });
    schemas.named("FeedEvent", event)
}

fn json_of(schema: &Value) -> Value {
    json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": schema })
}
