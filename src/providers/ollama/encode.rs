//! The request: what goes into its body.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::chat::{ChatMessage, ChatRequest, Content, Part, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::providers::{images, json};

/// Fields of the API's own that travel as they are.
const OWN: [&str; 7] = ["format", "keep_alive", "logprobs", "shift", "think", "top_logprobs", "truncate"];

/// OpenAI's fields that are options here, under the same names.
const OPTIONS: [&str; 7] = ["frequency_penalty", "min_p", "presence_penalty", "seed", "stop", "top_k", "top_p"];

/// The body of the call that streams the answer to `request`. Equal requests have equal bytes.
pub(super) fn body(request: &ChatRequest) -> Result<Vec<u8>, Failure> {
    let extra = &request.extra;
    let mut body = Map::new();
    for name in OWN {
        if let Some(value) = extra.get(name).filter(|value| !value.is_null()) {
            body.insert(name.into(), value.clone());
        }
    }
    if let Some(format) = extra.get("response_format").and_then(format) {
        body.entry("format").or_insert(format);
    }
    if let Some(effort) = extra.get("reasoning_effort").and_then(Value::as_str) {
        body.entry("think").or_insert(if effort == "none" { Value::Bool(false) } else { effort.into() });
    }
    body.insert("model".into(), json!(&*request.model));
    body.insert("messages".into(), messages(request)?);
    body.insert("stream".into(), Value::Bool(true));
    let options = options(request);
    if !options.is_empty() {
        body.insert("options".into(), Value::Object(options));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), Value::Array(request.tools.clone()));
    }
    Ok(serde_json::to_vec(&body).expect("JSON values can be written"))
}

/// The model's options: the client's own, OpenAI's, and what weir decides.
fn options(request: &ChatRequest) -> Map<String, Value> {
    let own = request.extra.get("options").and_then(Value::as_object);
    let mut options = own.cloned().unwrap_or_default();
    for name in OPTIONS {
        if let Some(value) = request.extra.get(name).filter(|value| !value.is_null()) {
            options.entry(name).or_insert(value.clone());
        }
    }
    if let Some(Value::String(stop)) = options.get("stop") {
        options.insert("stop".into(), json!([stop]));
    }
    if let Some(temperature) = request.temperature {
        options.insert("temperature".into(), json!(temperature));
    }
    if let Some(max_tokens) = request.max_tokens {
        options.insert("num_predict".into(), json!(max_tokens));
    }
    options
}

/// OpenAI's `response_format`: any JSON, or JSON of a schema.
fn format(format: &Value) -> Option<Value> {
    match json::text(format, "type")? {
        "json_object" => Some("json".into()),
        "json_schema" => json::get(json::get(format, "json_schema")?, "schema").cloned(),
        _ => None,
    }
}

fn messages(request: &ChatRequest) -> Result<Value, Failure> {
    let system = request.system.as_deref().map(|text| Ok(json!({"role": "system", "content": text})));
    // Results name their tool here, so the calls are remembered; ids may begin anew in every answer, the last counts.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let conversation = request.messages.iter().map(|said| {
        names.extend(said.tool_calls.iter().map(|call| (call.id.as_str(), call.name.as_str())));
        message(said, &names)
    });
    system.into_iter().chain(conversation).collect()
}

fn message(said: &ChatMessage, names: &HashMap<&str, &str>) -> Result<Value, Failure> {
    let mut message = json!({"role": said.role.as_str(), "content": said.content.text()});
    let images = images(&said.content)?;
    if !images.is_empty() {
        message["images"] = images.into();
    }
    if !said.tool_calls.is_empty() {
        message["tool_calls"] = said.tool_calls.iter().map(tool_call).collect();
    }
    if let Some(id) = said.tool_call_id.as_deref().filter(|_| said.role == Role::Tool) {
        message["tool_call_id"] = id.into();
        if let Some(name) = names.get(id) {
            message["tool_name"] = (*name).into();
        }
    }
    Ok(message)
}

/// The images, which are given beside the text. The server fetches none.
fn images(content: &Content) -> Result<Vec<Value>, Failure> {
    let Content::Parts(parts) = content else { return Ok(Vec::new()) };
    let urls = parts.iter().filter_map(|part| match part {
        Part::Text { .. } => None,
        Part::ImageUrl { image_url } => Some(&image_url.url),
    });
    let image = |url: &String| match images::inline(url) {
        Some((_, data)) => Ok(data.into()),
        None => {
            let message = "the provider takes images as data: URLs in base64 only";
            Err(Failure::new(Code::Unprocessable, message).param("content"))
        }
    };
    urls.map(image).collect()
}

fn tool_call(call: &ToolCall) -> Value {
    // Arguments that an earlier answer's limit has cut are none.
    let arguments = serde_json::from_str::<Value>(&call.arguments).ok().filter(Value::is_object);
    let arguments = arguments.unwrap_or_else(|| json!({}));
    json!({"id": call.id, "function": {"name": call.name, "arguments": arguments}})
}
