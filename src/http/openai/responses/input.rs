//! Input: the conversation, item by item, as messages.

use serde_json::Value;

use crate::chat::{ChatMessage, Content, ImageUrl, Part, Role};
use crate::config::Limits;
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::http::error::{ApiError, ApiResult};
use crate::http::messages::{check_image, image_detail};
use crate::http::openai::request::unprocessable;

/// Reads the input: a text, or items.
pub(super) fn read(input: Option<Value>, limits: &Limits) -> ApiResult<Vec<ChatMessage>> {
    let items = match input {
        Some(Value::String(text)) => {
            check_len("input", text.len(), limits)?;
            return Ok(vec![ChatMessage::text(Role::User, text)]);
        }
        Some(Value::Array(items)) if !items.is_empty() => items,
        _ => return Err(ApiError::field("input", "input must be a string, or an array of items that is not empty")),
    };
    if items.len() > limits.messages_max {
        return Err(ApiError::field("input", format!("there may be at most {} items", limits.messages_max)));
    }
    let mut messages = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        read_item(&format!("input[{at}]"), item, limits, &mut messages)?;
    }
    if messages.is_empty() {
        return Err(ApiError::field("input", "the input has no message"));
    }
    Ok(messages)
}

fn read_item(place: &str, item: &Value, limits: &Limits, messages: &mut Vec<ChatMessage>) -> ApiResult<()> {
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    let kind = match item.get("type") {
        None | Some(Value::Null) => "message",
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(ApiError::field(format!("{place}.type"), "the type of an item must be a string")),
    };
    match kind {
        "message" => messages.push(message(place, item, limits)?),
        "function_call" => {
            let (Some(id), Some(name), Some(arguments)) = (text("call_id"), text("name"), text("arguments")) else {
                let message = r#"a call is {"type": "function_call", "call_id": …, "name": …, "arguments": "{…}"}"#;
                return Err(ApiError::field(place.to_owned(), message));
            };
            // What the assistant says and the calls that follow are one message elsewhere.
            if messages.last().is_none_or(|last| last.role != Role::Assistant) {
                messages.push(ChatMessage::text(Role::Assistant, ""));
            }
            if let Some(last) = messages.last_mut() {
                let index = u32::try_from(last.tool_calls.len()).unwrap_or(u32::MAX);
                let [id, name, arguments] = [id, name, arguments].map(str::to_owned);
                last.tool_calls.push(ToolCall { index, id, name, arguments });
            }
        }
        "function_call_output" => {
            let Some(id) = text("call_id") else {
                return Err(ApiError::field(format!("{place}.call_id"), "a result names the call that it answers"));
            };
            let content = content(&format!("{place}.output"), item.get("output"), limits)?;
            let tool_call_id = Some(id.to_owned());
            messages.push(ChatMessage { content, tool_call_id, ..ChatMessage::text(Role::Tool, "") });
        }
        // Reasoning that came from here is a summary for people: providers want their own back, or none.
        "reasoning" => {}
        "item_reference" => {
            return Err(ApiError::field(place.to_owned(), "nothing is kept between calls: send the item itself"));
        }
        _ => {
            let message = "items are messages, function_call, function_call_output and reasoning";
            return Err(unprocessable(format!("{place}.type"), message));
        }
    }
    Ok(())
}

fn message(place: &str, item: &Value, limits: &Limits) -> ApiResult<ChatMessage> {
    let role = match item.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => {
            let message = "the role must be system, developer, user or assistant";
            return Err(ApiError::field(format!("{place}.role"), message));
        }
    };
    let content = content(&format!("{place}.content"), item.get("content"), limits)?;
    Ok(ChatMessage { content, ..ChatMessage::text(role, "") })
}

fn content(place: &str, written: Option<&Value>, limits: &Limits) -> ApiResult<Content> {
    match written {
        Some(Value::String(text)) => {
            check_len(place, text.len(), limits)?;
            Ok(Content::Text(text.clone()))
        }
        Some(Value::Array(written)) => {
            let parts = written.iter().enumerate().map(|(at, part)| read_part(&format!("{place}[{at}]"), part));
            let parts = parts.collect::<ApiResult<Vec<_>>>()?;
            let lens = parts.iter().map(|part| match part {
                Part::Text { text } => text.len(),
                Part::ImageUrl { image_url } => image_url.url.len(),
            });
            check_len(place, lens.sum(), limits)?;
            Ok(Content::Parts(parts))
        }
        _ => Err(ApiError::field(place.to_owned(), "this must be a string or an array of parts")),
    }
}

fn read_part(place: &str, written: &Value) -> ApiResult<Part> {
    let text = |name: &str| written.get(name).and_then(Value::as_str).map(str::to_owned);
    let wrong = |message: &'static str| Err(ApiError::field(place.to_owned(), message));
    match text("type").as_deref() {
        Some("input_text" | "output_text" | "text") => match text("text") {
            Some(text) => Ok(Part::Text { text }),
            None => wrong(r#"a text is {"type": "input_text", "text": …}"#),
        },
        Some("refusal") => match text("refusal") {
            Some(text) => Ok(Part::Text { text }),
            None => wrong(r#"a refusal is {"type": "refusal", "refusal": …}"#),
        },
        Some("input_image") => match text("image_url") {
            Some(url) => {
                let detail = image_detail(place, written)?;
                let part = Part::ImageUrl { image_url: ImageUrl { url, detail } };
                check_image(place.to_owned().into(), &part)?;
                Ok(part)
            }
            None => wrong(r#"an image is {"type": "input_image", "image_url": "https://…"}"#),
        },
        Some(_) => Err(unprocessable(format!("{place}.type"), "parts are texts and images")),
        None => wrong("a part has a type"),
    }
}

fn check_len(place: &str, bytes: usize, limits: &Limits) -> ApiResult<()> {
    if bytes <= limits.content_bytes_max {
        return Ok(());
    }
    let message = format!("content may have at most {} bytes", limits.content_bytes_max);
    Err(ApiError(Failure::new(Code::TooLarge, message).param(place.to_owned())))
}
