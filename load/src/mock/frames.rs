//! Frames: the JSON of an OpenAI-shaped answer, one event at a time.

use serde_json::{Value, json};

/// The end of a stream.
pub(super) const DONE: &str = "data: [DONE]\n\n";

/// One event of the answer `call`, with what its only choice adds and why it finished.
pub(super) fn choice(call: u64, delta: &Value, finish_reason: Option<&str>) -> String {
    event(call, &json!([{"index": 0, "delta": delta, "finish_reason": finish_reason}]), None)
}

/// The event that counts the tokens.
pub(super) fn usage(call: u64, input: u32, output: u32) -> String {
    let usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
    event(call, &json!([]), Some(usage))
}

/// An error inside a stream.
pub(super) fn error_event(message: &str) -> String {
    format!("data: {}\n\n", error(message, "server_error", None))
}

/// The body of an error.
pub(super) fn error(message: &str, kind: &str, code: Option<&str>) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

/// The answer to the question which models there are.
pub(super) fn models(names: impl Iterator<Item = &'static str>) -> String {
    let models = names.map(|name| json!({"id": name, "object": "model", "created": CREATED, "owned_by": "mock"}));
    json!({"object": "list", "data": models.collect::<Vec<_>>()}).to_string()
}

/// A fixed time, so that the same call is answered with the same bytes.
const CREATED: u32 = 1_700_000_000;

fn event(call: u64, choices: &Value, usage: Option<Value>) -> String {
    let mut event = json!({
        "id": format!("chatcmpl-{call}"),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "mock-1",
        "choices": choices,
    });
    if let Some(usage) = usage {
        event["usage"] = usage;
    }
    format!("data: {event}\n\n")
}
