//! Fields: what clients add to a request in the words of chat completions, in the words of this dialect. Both OpenAI
//! and Perplexity refuse requests with fields that they do not know.

use serde_json::{Map, Value, json};

use super::Flavor;
use super::encode::{flattened, include};
use crate::providers::json;

/// What weir decides: which model answers and how the answer comes, what has been said before, and that the answer
/// ends when weir wants it to.
const DECIDED: [&str; 8] =
    ["background", "conversation", "input", "messages", "model", "models", "preset", "previous_response_id"];
/// What chat completions take as a hint and this dialect does not know.
const HINTS: [&str; 2] = ["logprobs", "seed"];

/// The fields that the client has added, translated. What has no translation travels as it is, so that the provider
/// can refuse it by name.
pub(super) fn of_client(flavor: &Flavor, extra: &Map<String, Value>) -> Map<String, Value> {
    let mut body = Map::new();
    for (name, value) in extra {
        match name.as_str() {
            decided if DECIDED.contains(&decided) => {}
            hint if HINTS.contains(&hint) => {}
            "n" if *value == 1 => {}
            "stream_options" => stream_options(flavor, value, &mut body),
            "max_completion_tokens" | "max_tokens" => {
                body.entry("max_output_tokens").or_insert_with(|| value.clone());
            }
            "reasoning_effort" => put(&mut body, "reasoning", "effort", value),
            "tool_choice" => drop(body.insert(name.clone(), tool_choice(value))),
            "verbosity" if !flavor.is_agent => put(&mut body, "text", "verbosity", value),
            "response_format" if !flavor.is_agent => put(&mut body, "text", "format", &flattened(value)),
            // Groups of which a translated field may have made a part already.
            "reasoning" | "text" => merge(&mut body, name, value),
            _ => drop(body.insert(name.clone(), value.clone())),
        }
    }
    if extra.get("logprobs") == Some(&Value::Bool(true)) && !flavor.is_agent {
        include(&mut body, "message.output_text.logprobs");
    }
    body
}

/// A tool of the client's.
pub(super) fn tool(flavor: &Flavor, tool: &Value) -> Value {
    let mut flat = flattened(tool);
    match (json::text(tool, "type"), &mut flat) {
        // Unsaid, chat completions mean no and this dialect yes.
        (Some("function"), Value::Object(function)) if !flavor.is_agent => {
            function.entry("strict").or_insert(Value::Bool(false));
        }
        (Some("custom"), Value::Object(custom)) => {
            if let Some(format) = custom.get_mut("format") {
                *format = flattened(format);
            }
        }
        _ => {}
    }
    flat
}

fn tool_choice(choice: &Value) -> Value {
    let mut flat = flattened(choice);
    if let Some(tools) = flat.get_mut("tools").and_then(Value::as_array_mut) {
        tools.iter_mut().for_each(|tool| *tool = flattened(tool));
    }
    flat
}

/// OpenAI takes but one option, and usage comes in any case. Perplexity would stop telling it.
fn stream_options(flavor: &Flavor, options: &Value, body: &mut Map<String, Value>) {
    if let (Some(obfuscation), false) = (json::get(options, "include_obfuscation"), flavor.is_agent) {
        body.insert("stream_options".into(), json!({"include_obfuscation": obfuscation}));
    }
}

fn put(body: &mut Map<String, Value>, group: &str, name: &str, value: &Value) {
    if let Value::Object(group) = body.entry(group).or_insert_with(|| json!({})) {
        group.entry(name).or_insert_with(|| value.clone());
    }
}

fn merge(body: &mut Map<String, Value>, name: &str, value: &Value) {
    match (body.get_mut(name), value) {
        (Some(Value::Object(so_far)), Value::Object(value)) => so_far.extend(value.clone()),
        _ => drop(body.insert(name.to_owned(), value.clone())),
    }
}
