//! The request: what goes into its body, and under which names.

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::Flavor;
use super::signatures;
use crate::chat::{ChatMessage, ChatRequest, Content, Role};
use crate::event::ToolCall;

/// The body of the call that streams the answer to `request`. Equal requests have equal bytes: providers' caches of
/// prompts live on that.
pub(super) fn body(flavor: &Flavor, request: &ChatRequest) -> Vec<u8> {
    // What the client added travels as it is, but it cannot change what weir decides.
    let mut body = request.extra.clone();
    body.insert("model".into(), json!(&*request.model));
    body.insert("messages".into(), messages(flavor, request));
    body.insert("stream".into(), Value::Bool(true));
    if flavor.asks_for_usage {
        let options = body.entry("stream_options").or_insert(Value::Null);
        match options {
            Value::Object(options) => drop(options.insert("include_usage".into(), Value::Bool(true))),
            other => *other = json!({"include_usage": true}),
        }
    }
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some(max_tokens) = request.max_tokens {
        limit(flavor, request, &mut body, max_tokens);
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), Value::Array(request.tools.clone()));
    }
    serde_json::to_vec(&body).expect("JSON values can be written")
}

/// Writes the limit under one name. Every server knows `max_tokens`, except OpenAI's for its own newer models, which
/// want `max_completion_tokens`; several compatible ones reject that as unknown. So the model's name decides, and a
/// client that has chosen a name itself (as one must for an Azure deployment) is left alone.
fn limit(flavor: &Flavor, request: &ChatRequest, body: &mut Map<String, Value>, max_tokens: u32) {
    const NAMES: [&str; 2] = ["max_completion_tokens", "max_tokens"];
    let chosen = NAMES.into_iter().find(|name| request.extra.contains_key(*name));
    let newer = flavor.completion_limit && counts_completion(&request.model);
    let name = chosen.unwrap_or(if newer { NAMES[0] } else { NAMES[1] });
    body.insert(name.into(), json!(max_tokens));
}

/// Whether this is one of OpenAI's models that reason: `o1` and its kin, `gpt-5` and later.
pub(in crate::providers) fn counts_completion(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let number = |text: &str| {
        let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse::<u32>().ok()
    };
    let series = |prefix: &str, least: u32| {
        let version = name.strip_prefix(prefix).and_then(number);
        version.is_some_and(|version| version >= least)
    };
    series("gpt-", 5) || series("o", 1)
}

fn messages(flavor: &Flavor, request: &ChatRequest) -> Value {
    let system = request.system.as_deref().map(|text| json!({"role": "system", "content": text}));
    let conversation = request.messages.iter().map(|said| message(flavor, said));
    system.into_iter().chain(conversation).collect()
}

fn message(flavor: &Flavor, said: &ChatMessage) -> Value {
    if let Some(written) = &said.as_written {
        return written.clone();
    }
    let role = said.role.as_str();
    match said.role {
        Role::User => json!({"role": role, "content": said.content}),
        Role::System => json!({"role": role, "content": said.content.text()}),
        Role::Tool => json!({"role": role, "tool_call_id": said.tool_call_id, "content": said.content.text()}),
        Role::Assistant => assistant(flavor, said),
    }
}

fn assistant(flavor: &Flavor, said: &ChatMessage) -> Value {
    let mut message = json!({"role": "assistant", "content": text(&said.content, !said.tool_calls.is_empty())});
    if !said.tool_calls.is_empty() {
        message["tool_calls"] = said.tool_calls.iter().map(|call| tool_call(call, &said.opaque)).collect();
    }
    if flavor.takes_details {
        let details: Vec<&Value> = said.opaque.iter().filter_map(signatures::detail).collect();
        if !details.is_empty() {
            message["reasoning_details"] = json!(details);
        }
    }
    message
}

/// The text; `null` beside tool calls when there is none, because some servers reject an empty one there.
fn text(content: &Content, has_calls: bool) -> Value {
    let text = content.text();
    if text.is_empty() && has_calls { Value::Null } else { json!(text) }
}

fn tool_call(call: &ToolCall, opaque: &[Value]) -> Value {
    // Servers that parse the history fail for ever on arguments that an earlier answer's limit has cut.
    let whole = serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok();
    let arguments = if whole { &call.arguments } else { "{}" };
    let mut sent = json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}});
    if let Some(extra) = opaque.iter().find_map(|opaque| signatures::extra_content(opaque, &call.id)) {
        sent["extra_content"] = extra.clone();
    }
    sent
}
