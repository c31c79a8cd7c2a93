//! The request: what goes into its body.

use serde_json::{Map, Value, json};

use super::{models, options, turns};
use crate::chat::{ChatRequest, Role};
use crate::failure::Failure;
use crate::providers::json;

/// The body of the call that streams the answer to `request`. Equal requests have equal bytes: the provider's cache of
/// prompts lives on that.
pub(super) fn body(request: &ChatRequest) -> Result<Vec<u8>, Failure> {
    let mut body = Map::new();
    options::write(request, &mut body);
    body.insert("model".into(), json!(&*request.model));
    body.insert("max_tokens".into(), json!(max_tokens(request)));
    body.insert("messages".into(), turns::of(request)?);
    body.insert("stream".into(), Value::Bool(true));
    if let Some(system) = system(request) {
        body.insert("system".into(), json!(system));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    Ok(serde_json::to_vec(&body).expect("JSON values can be written"))
}

/// The limit, which must be there and, where thinking has a budget, must leave room beside it.
fn max_tokens(request: &ChatRequest) -> u32 {
    let default = || {
        let thinking = request.extra.get("thinking").and_then(|thinking| json::get(thinking, "budget_tokens"));
        let budget = thinking.and_then(json::count).and_then(|budget| u32::try_from(budget).ok());
        let limit = models::max_tokens_default(&request.model);
        budget.filter(|budget| *budget >= limit).map_or(limit, |budget| budget.saturating_add(limit))
    };
    request.max_tokens.unwrap_or_else(default)
}

/// The operator's instructions. They stand outside the conversation here, wherever they stood in it.
fn system(request: &ChatRequest) -> Option<String> {
    let said = request.messages.iter().filter(|said| said.role == Role::System).map(|said| said.content.text());
    let texts = request.system.as_deref().map(Into::into).into_iter().chain(said);
    let texts: Vec<_> = texts.filter(|text| !text.trim().is_empty()).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

/// A tool as the API wants it. What is no function is a tool of the provider's own and stays as it is.
fn tool(tool: &Value) -> Value {
    let Some(function) = json::get(tool, "function") else { return tool.clone() };
    let mut schema = json::get(function, "parameters").filter(|it| it.is_object()).cloned().unwrap_or(json!({}));
    if schema.get("type").is_none() {
        schema["type"] = "object".into();
    }
    let mut sent = json!({"name": function.get("name"), "input_schema": schema});
    if let Some(description) = json::text(function, "description") {
        sent["description"] = description.into();
    }
    sent
}
