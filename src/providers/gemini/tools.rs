//! Tools: the client's functions become declarations; what else is in the list are Google's own tools.

use serde_json::{Map, Value, json};

use crate::providers::json;

/// The tools, all functions in one entry, because the API takes no second one. Everything that is not OpenAI's shape of
/// a function travels as it is: `{"googleSearch": {}}`, `{"codeExecution": {}}`, declarations in Gemini's own shape.
pub(super) fn tools(tools: &[Value]) -> Value {
    let (functions, own): (Vec<&Value>, Vec<&Value>) =
        tools.iter().partition(|tool| json::text(tool, "type") == Some("function"));
    let declarations: Vec<Value> = functions.into_iter().map(declaration).collect();
    let declared = (!declarations.is_empty()).then(|| json!({"functionDeclarations": declarations}));
    declared.into_iter().chain(own.into_iter().cloned()).collect()
}

/// `tool_choice` as `toolConfig`; `None` when it says nothing that is known.
pub(super) fn config(choice: &Value) -> Option<Value> {
    let mut calling = Map::new();
    let mode = match choice.as_str() {
        Some("none") => "NONE",
        Some("auto") => "AUTO",
        Some("required") => "ANY",
        Some(_) => return None,
        None => {
            let name = json::text(json::get(choice, "function").unwrap_or(choice), "name")?;
            calling.insert("allowedFunctionNames".into(), json!([name]));
            "ANY"
        }
    };
    calling.insert("mode".into(), json!(mode));
    Some(json!({"functionCallingConfig": calling}))
}

/// A function. Its schema goes where any JSON Schema may: `parameters` takes a part of OpenAPI's alone.
fn declaration(tool: &Value) -> Value {
    let function = json::get(tool, "function").unwrap_or(tool);
    let mut declaration = Map::new();
    for (from, to) in [("name", "name"), ("description", "description"), ("parameters", "parametersJsonSchema")] {
        if let Some(value) = json::get(function, from) {
            declaration.insert(to.to_owned(), value.clone());
        }
    }
    Value::Object(declaration)
}
