//! The request: what goes into its body, and under which names.

use serde_json::{Map, Value, json};

use super::{Flavor, fields, input};
use crate::chat::ChatRequest;
use crate::providers::json;
use crate::providers::openai_chat::encode::counts_completion;

/// OpenAI refuses smaller limits.
const OPENAI_TOKENS_MIN: u32 = 16;
/// What Perplexity's `anthropic/` models get when nobody says a limit: they refuse requests without one.
const ANTHROPIC_TOKENS: u32 = 8_192;

/// Asks for reasoning in a form that can go back with the next turn.
const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

/// The body of the call that streams the answer to `request`. Equal requests have equal bytes: providers' caches of
/// prompts live on that.
pub(super) fn body(flavor: &Flavor, request: &ChatRequest) -> Vec<u8> {
    let mut body = fields::of_client(flavor, &request.extra);
    // A model of Perplexity's has its maker's name in front; what has none is a preset.
    let model = if flavor.is_agent && !request.model.contains('/') { "preset" } else { "model" };
    body.insert(model.into(), json!(&*request.model));
    body.insert("input".into(), input::items(flavor, request));
    body.insert("stream".into(), Value::Bool(true));
    if let Some(system) = &request.system {
        body.insert("instructions".into(), json!(system));
    }
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    limit(flavor, request, &mut body);
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(|tool| fields::tool(flavor, tool)).collect());
    }
    if !flavor.is_agent {
        // History is kept here, and nowhere else unless the client wants it.
        body.entry("store").or_insert(Value::Bool(false));
        if reasons(&request.model) {
            include(&mut body, ENCRYPTED_REASONING);
        }
    }
    serde_json::to_vec(&body).expect("JSON values can be written")
}

fn limit(flavor: &Flavor, request: &ChatRequest, body: &mut Map<String, Value>) {
    let least = if flavor.is_agent { 1 } else { OPENAI_TOKENS_MIN };
    if let Some(max_tokens) = request.max_tokens {
        body.insert("max_output_tokens".into(), json!(max_tokens.max(least)));
    } else if flavor.is_agent && request.model.starts_with("anthropic/") {
        body.entry("max_output_tokens").or_insert(json!(ANTHROPIC_TOKENS));
    }
}

/// Adds to what the answer shall contain.
pub(super) fn include(body: &mut Map<String, Value>, what: &str) {
    match body.entry("include").or_insert_with(|| json!([])) {
        Value::Array(included) if included.iter().any(|other| other == what) => {}
        Value::Array(included) => included.push(json!(what)),
        other => *other = json!([what]),
    }
}

/// Whether this is one of OpenAI's models that reason. The others refuse to be asked for it.
fn reasons(model: &str) -> bool {
    counts_completion(model) && !model.contains("-chat")
}

/// `{"type": t, t: {…}}`, as chat completions write many things, as `{"type": t, …}`.
pub(super) fn flattened(value: &Value) -> Value {
    let inner = json::text(value, "type").and_then(|kind| Some((kind, json::get(value, kind)?.as_object()?)));
    let Some((kind, inner)) = inner else { return value.clone() };
    let mut flat = inner.clone();
    flat.insert("type".into(), json!(kind));
    Value::Object(flat)
}
