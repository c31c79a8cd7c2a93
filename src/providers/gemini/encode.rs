//! The request: what goes into its body, and under which names.
//!
//! The API refuses a body with any field that it does not know. So of what a client adds only two kinds travel:
//! Gemini's own fields, as they are, and the fields of OpenAI's that mean the same under another name.

use serde_json::{Map, Value, json};

use super::{contents, tools};
use crate::chat::ChatRequest;
use crate::failure::Failure;
use crate::providers::json;

/// Gemini's own fields beside those that weir writes. `generationConfig` is one more.
const OWN: [&str; 5] = ["cachedContent", "labels", "safetySettings", "serviceTier", "toolConfig"];

/// OpenAI's names, and the same in `generationConfig`.
const RENAMED: [(&str, &str); 9] = [
    ("frequency_penalty", "frequencyPenalty"),
    ("logprobs", "responseLogprobs"),
    ("max_completion_tokens", "maxOutputTokens"),
    ("max_tokens", "maxOutputTokens"),
    ("presence_penalty", "presencePenalty"),
    ("seed", "seed"),
    ("top_k", "topK"),
    ("top_logprobs", "logprobs"),
    ("top_p", "topP"),
];

/// The body of the call that streams the answer to `request`. Equal requests have equal bytes: providers' caches of
/// prompts live on that.
pub(super) fn body(request: &ChatRequest) -> Result<Vec<u8>, Failure> {
    let extra = |name: &str| request.extra.get(name).filter(|value| !value.is_null());
    let mut body = Map::new();
    for name in OWN {
        if let Some(value) = extra(name) {
            body.insert(name.to_owned(), value.clone());
        }
    }
    body.insert("contents".into(), contents::contents(request)?);
    if let Some(instructions) = contents::instructions(request) {
        body.insert("systemInstruction".into(), instructions);
    }
    let generation = generation_config(request);
    if !generation.is_empty() {
        body.insert("generationConfig".into(), Value::Object(generation));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), tools::tools(&request.tools));
    }
    if let Some(config) = extra("tool_choice").and_then(tools::config) {
        body.entry("toolConfig").or_insert(config);
    }
    Ok(serde_json::to_vec(&body).expect("JSON values can be written"))
}

/// How the answer is to be made. What weir decides comes first, then Gemini's own names, then OpenAI's.
fn generation_config(request: &ChatRequest) -> Map<String, Value> {
    let extra = |name: &str| request.extra.get(name).filter(|value| !value.is_null());
    let mut config = extra("generationConfig").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(temperature) = request.temperature {
        config.insert("temperature".into(), json!(temperature));
    }
    if let Some(max_tokens) = request.max_tokens {
        config.insert("maxOutputTokens".into(), json!(max_tokens));
    }
    let renamed = RENAMED.iter().filter_map(|(from, to)| Some((*to, extra(from)?.clone())));
    let stop = extra("stop").map(|stop| if stop.is_array() { stop.clone() } else { json!([stop]) });
    let stop = stop.map(|stop| ("stopSequences", stop));
    let format = extra("response_format").map(response_format).unwrap_or_default();
    let effort = extra("reasoning_effort").and_then(Value::as_str);
    let thinking = effort.map(|effort| ("thinkingConfig", thinking_config(&request.model, effort)));
    for (name, value) in renamed.chain(stop).chain(format).chain(thinking) {
        config.entry(name).or_insert(value);
    }
    config
}

/// OpenAI's `response_format`: JSON, and maybe of which schema.
fn response_format(format: &Value) -> Vec<(&'static str, Value)> {
    let kind = json::text(format, "type");
    if !matches!(kind, Some("json_object" | "json_schema")) {
        return Vec::new();
    }
    let schema = json::get(format, "json_schema").and_then(|it| json::get(it, "schema"));
    let schema = schema.map(|schema| ("responseJsonSchema", schema.clone()));
    [("responseMimeType", json!("application/json"))].into_iter().chain(schema).collect()
}

/// How hard the model is to think. Up to generation 2 that is a number of tokens, later a word. Whoever asks for
/// thoughts gets to see them.
fn thinking_config(model: &str, effort: &str) -> Value {
    let counts = super::generation(model).is_some_and(|generation| generation < 3);
    let (level, tokens) = match effort {
        "none" => ("minimal", 0),
        "minimal" => ("minimal", 1_024),
        "low" => ("low", 1_024),
        "medium" => ("medium", 8_192),
        _ => ("high", 24_576),
    };
    let shown = effort != "none";
    if counts {
        json!({"thinkingBudget": tokens, "includeThoughts": shown})
    } else {
        json!({"thinkingLevel": level, "includeThoughts": shown})
    }
}
