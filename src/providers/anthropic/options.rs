//! Options: what the client asks for beyond the common fields.
//!
//! The API refuses a whole request for one field that it does not know, so nothing travels unseen: its own fields do
//! as they are, OpenAI's under the names that mean the same here, and the others are left out.

use serde_json::{Map, Value, json};

use super::models;
use crate::chat::ChatRequest;
use crate::providers::json;

/// Fields of the API's own that change nothing that weir decides.
const OWN: [&str; 8] = [
    "cache_control",
    "container",
    "inference_geo",
    "output_config",
    "stop_sequences",
    "thinking",
    // Only where temperature is taken too.
    "top_k",
    "top_p",
];

/// Writes the options of `request` into its body.
pub(super) fn write(request: &ChatRequest, body: &mut Map<String, Value>) {
    let extra = &request.extra;
    for name in OWN {
        if let Some(value) = extra.get(name).filter(|value| !value.is_null()) {
            body.insert(name.into(), value.clone());
        }
    }
    sampling(request, body);
    if let Some(stop) = extra.get("stop").filter(|_| !body.contains_key("stop_sequences")).and_then(stop_sequences) {
        body.insert("stop_sequences".into(), stop);
    }
    if let Some(format) = extra.get("response_format").and_then(format) {
        let config = body.entry("output_config").or_insert_with(|| json!({}));
        if let Value::Object(config) = config {
            config.entry("format").or_insert(format);
        }
    }
    if let Some(tier @ ("auto" | "standard_only")) = extra.get("service_tier").and_then(Value::as_str) {
        body.insert("service_tier".into(), tier.into());
    }
    // OpenAI's metadata are anybody's; here they are the user's id alone.
    let user = extra.get("metadata").and_then(|metadata| json::text(metadata, "user_id"));
    if let Some(user) = user.or_else(|| extra.get("user").and_then(Value::as_str)) {
        body.insert("metadata".into(), json!({"user_id": user}));
    }
    if !request.tools.is_empty()
        && let Some(choice) = tool_choice(extra)
    {
        body.insert("tool_choice".into(), choice);
    }
}

/// Whether the client has asked for thinking.
pub(super) fn thinks(request: &ChatRequest) -> bool {
    let kind = request.extra.get("thinking").and_then(|thinking| json::text(thinking, "type"));
    kind.is_some_and(|kind| kind != "disabled")
}

/// Temperature and its kin, where the model takes them: newer models do not, older ones not while they think, and
/// most take only one of temperature and `top_p`.
fn sampling(request: &ChatRequest, body: &mut Map<String, Value>) {
    if !models::takes_sampling(&request.model) || thinks(request) {
        body.remove("top_k");
        body.remove("top_p");
        return;
    }
    if let Some(temperature) = request.temperature {
        // OpenAI's scale goes to 2.
        body.insert("temperature".into(), json!(temperature.min(1.0)));
        body.remove("top_p");
    }
}

/// OpenAI's `stop`: one text or several.
fn stop_sequences(stop: &Value) -> Option<Value> {
    match stop {
        Value::String(_) => Some(json!([stop])),
        Value::Array(_) => Some(stop.clone()),
        _ => None,
    }
}

/// OpenAI's `response_format`, if it has a schema. There is no JSON without one here.
fn format(format: &Value) -> Option<Value> {
    let schema = json::get(json::get(format, "json_schema")?, "schema")?;
    Some(json!({"type": "json_schema", "schema": schema}))
}

fn tool_choice(extra: &Map<String, Value>) -> Option<Value> {
    let chosen = extra.get("tool_choice").and_then(|choice| match choice {
        Value::String(word) => match word.as_str() {
            "auto" | "none" => Some(json!({"type": word})),
            "required" => Some(json!({"type": "any"})),
            _ => None,
        },
        _ => match json::get(choice, "function").and_then(|function| json::text(function, "name")) {
            Some(name) => Some(json!({"type": "tool", "name": name})),
            None => Some(choice.clone())
                .filter(|own| matches!(json::text(own, "type"), Some("auto" | "any" | "none" | "tool"))),
        },
    });
    if extra.get("parallel_tool_calls") != Some(&Value::Bool(false)) {
        return chosen;
    }
    let mut choice = chosen.unwrap_or_else(|| json!({"type": "auto"}));
    if choice["type"] != "none" {
        choice["disable_parallel_tool_use"] = Value::Bool(true);
    }
    Some(choice)
}
