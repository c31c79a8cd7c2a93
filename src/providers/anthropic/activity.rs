//! Activity: what the provider does by itself in the course of an answer, and the sources that it finds.

use serde_json::{Map, Value, json};

use crate::event::{ActivityKind, Event};
use crate::providers::json;
use crate::providers::sources::is_link;

/// What a call of the provider's own tools tells of; `None` for a tool that is not known.
pub(super) fn kind(name: &str) -> Option<ActivityKind> {
    match name {
        _ if name.starts_with("mcp_") => Some(ActivityKind::Mcp),
        _ if name.contains("code_execution") => Some(ActivityKind::Code),
        _ if name.contains("search") => Some(ActivityKind::Search),
        _ if name.contains("fetch") => Some(ActivityKind::Fetch),
        _ => None,
    }
}

/// The event for a block that holds a tool's result.
pub(super) fn result(kind: ActivityKind, block: &Value) -> Event<'static> {
    let content = json::get(block, "content").and_then(|content| json::text(content, "type"));
    let failed = content.is_some_and(|kind| kind.ends_with("_error")) || block.get("is_error") == Some(&json!(true));
    let state = if failed { "error" } else { "result" };
    Event::Activity { kind, state: state.into(), detail: shown(block) }
}

/// The sources in a tool's result, as [`crate::providers::sources::Sources`] reads them.
pub(super) fn sources(block: &Value) -> Vec<Value> {
    let found = match json::get(block, "content") {
        Some(Value::Array(results)) => results.as_slice(),
        Some(result) => std::slice::from_ref(result),
        None => &[],
    };
    let source = |result: &Value| {
        let url = json::text(result, "url")?;
        let document = json::get(result, "content").and_then(|document| json::text(document, "title"));
        let title = json::text(result, "title").or(document);
        Some(json!({"url": url, "title": title, "date": json::text(result, "page_age")}))
    };
    found.iter().filter_map(source).collect()
}

/// The source that a citation points to; `None` when it is no page but a document of the conversation.
pub(super) fn cited(citation: &Value) -> Option<Value> {
    let url = ["url", "source"].iter().find_map(|key| json::text(citation, key))?;
    let source = json!({"url": url, "title": citation.get("title"), "snippet": citation.get("cited_text")});
    is_link(&source).then_some(source)
}

/// What a client is shown: without what only the provider can read, and without the documents themselves.
fn shown(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(fields) => {
            let is_document = fields.get("type").and_then(Value::as_str) == Some("document");
            let hidden = |key: &str| key.starts_with("encrypted_") || (is_document && key == "source");
            let fields = fields.iter().filter(|(key, _)| !hidden(key.as_str()));
            Value::Object(fields.map(|(key, value)| (key.clone(), shown(value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}
