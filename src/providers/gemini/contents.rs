//! Contents: the conversation as Gemini wants it: turns of the user and of the model, each made of parts.
//!
//! A turn of the model that calls functions must be followed at once by as many results, all in one turn. So a call
//! goes out with its result or not at all, and so does a result.

use serde_json::{Value, json};

use super::signatures;
use crate::chat::{ChatMessage, ChatRequest, Content, Part, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};

/// The instructions: the operator's, then those in the conversation. There is no place for them among the turns.
pub(super) fn instructions(request: &ChatRequest) -> Option<Value> {
    let system = request.system.as_deref().map(Into::into);
    let said = request.messages.iter().filter(|said| said.role == Role::System).map(|said| said.content.text());
    let texts = system.into_iter().chain(said).filter(|text| !text.is_empty());
    let parts: Vec<Value> = texts.map(|text| json!({"text": text})).collect();
    (!parts.is_empty()).then(|| json!({"parts": parts}))
}

/// The turns.
pub(super) fn contents(request: &ChatRequest) -> Result<Value, Failure> {
    let mut contents = Vec::new();
    let mut rest = request.messages.as_slice();
    while let [said, after @ ..] = rest {
        rest = after;
        match said.role {
            // Instructions stand elsewhere, and a result that follows no call has no name.
            Role::System | Role::Tool => {}
            Role::User => push(&mut contents, "user", parts(&said.content)?),
            Role::Assistant => {
                let results_len = after.iter().take_while(|next| next.role == Role::Tool).count();
                let (results, after) = after.split_at(results_len);
                rest = after;
                let pairs: Vec<_> = said.tool_calls.iter().filter_map(|call| with_result(call, results)).collect();
                push(&mut contents, "model", answer(&request.model, said, &pairs));
                push(
                    &mut contents,
                    "user",
                    pairs.iter().map(|(call, result)| function_response(call, result)).collect(),
                );
            }
        }
    }
    Ok(Value::Array(contents))
}

/// Adds a turn, unless it is empty, which no turn may be.
fn push(contents: &mut Vec<Value>, role: &str, parts: Vec<Value>) {
    if !parts.is_empty() {
        let turn = [("role".to_owned(), json!(role)), ("parts".to_owned(), Value::Array(parts))];
        contents.push(turn.into_iter().collect());
    }
}

fn with_result<'m>(call: &'m ToolCall, results: &'m [ChatMessage]) -> Option<(&'m ToolCall, &'m ChatMessage)> {
    let result = results.iter().find(|result| result.tool_call_id.as_deref() == Some(&call.id))?;
    Some((call, result))
}

fn answer(model: &str, said: &ChatMessage, calls: &[(&ToolCall, &ChatMessage)]) -> Vec<Value> {
    let mut parts = signatures::text_parts(&said.content.text(), &said.opaque);
    let signed = calls.iter().any(|(call, _)| signatures::of_call(&said.opaque, &call.id).is_some());
    for (at, (call, _)) in calls.iter().enumerate() {
        // The model signs the first of several calls only.
        let stand_in = || signatures::of_foreign_call(model).filter(|_| at == 0 && !signed);
        let signature = signatures::of_call(&said.opaque, &call.id).or_else(stand_in);
        parts.push(function_call(call, signature));
    }
    parts
}

fn function_call(call: &ToolCall, signature: Option<&str>) -> Value {
    // Arguments that an earlier answer's limit has cut are no object.
    let args = object(&call.arguments).unwrap_or_else(|| json!({}));
    let mut part = json!({"functionCall": {"id": call.id, "name": call.name, "args": args}});
    if let Some(signature) = signature {
        part["thoughtSignature"] = json!(signature);
    }
    part
}

fn function_response(call: &ToolCall, result: &ChatMessage) -> Value {
    let text = result.content.text();
    let response = object(&text).unwrap_or_else(|| json!({"output": text}));
    json!({"functionResponse": {"id": call.id, "name": call.name, "response": response}})
}

fn object(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// The parts of what the user says.
fn parts(content: &Content) -> Result<Vec<Value>, Failure> {
    let Content::Parts(said) = content else {
        let text = content.text();
        return Ok(if text.is_empty() { Vec::new() } else { vec![json!({"text": text})] });
    };
    let mut parts = Vec::with_capacity(said.len());
    for part in said {
        match part {
            Part::Text { text } if text.is_empty() => {}
            Part::Text { text } => parts.push(json!({"text": text})),
            Part::ImageUrl { image_url } => parts.push(image(&image_url.url)?),
        }
    }
    Ok(parts)
}

/// An image: its bytes from a `data:` URL, else the place that Google gets it from.
fn image(url: &str) -> Result<Value, Failure> {
    let Some(inline) = strip_scheme(url, "data:") else {
        let mut file = json!({"fileUri": url});
        if let Some(mime_type) = mime_type(url) {
            file["mimeType"] = json!(mime_type);
        }
        return Ok(json!({"fileData": file}));
    };
    let base64 = inline.split_once(',').and_then(|(kind, data)| {
        let kind = kind.strip_suffix(";base64")?;
        Some((kind.split(';').next().unwrap_or_default(), data))
    });
    match base64.filter(|(mime_type, _)| mime_type.contains('/')) {
        Some((mime_type, data)) => Ok(json!({"inlineData": {"mimeType": mime_type, "data": data}})),
        None => {
            let message = "an image's data: URL must have a media type and be in base64";
            Err(Failure::new(Code::Unprocessable, message).param("content"))
        }
    }
}

fn strip_scheme<'u>(url: &'u str, scheme: &str) -> Option<&'u str> {
    let (head, rest) = url.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// What the end of a URL's path says about the image there.
fn mime_type(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, extension) = path.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "gif" => Some("image/gif"),
        "heic" => Some("image/heic"),
        "heif" => Some("image/heif"),
        _ => None,
    }
}
