//! Conversation: the messages of a call.
//!
//! Each is read into what every provider understands. A provider that speaks chat completions itself gets it as the
//! client wrote it, with whatever else the client knows that provider to take.

use serde_json::Value;

use super::request::unprocessable;
use crate::chat::{ChatMessage, Content, ImageUrl, Part, Role};
use crate::config::{Limits, Provider};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::http::error::{ApiError, ApiResult};
use crate::http::messages::{check_image, image_detail};

/// Reads the messages that go to `provider`.
pub(super) fn read(messages: Vec<Value>, provider: &Provider, limits: &Limits) -> ApiResult<Vec<ChatMessage>> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages are missing"));
    }
    if messages.len() > limits.messages_max {
        let message = format!("there may be at most {} messages", limits.messages_max);
        return Err(ApiError::field("messages", message));
    }
    let reader = Reader { provider, content_bytes_max: limits.content_bytes_max };
    messages.into_iter().enumerate().map(|(at, message)| reader.message(&format!("messages[{at}]"), message)).collect()
}

struct Reader<'p> {
    provider: &'p Provider,
    content_bytes_max: usize,
}

impl Reader<'_> {
    fn message(&self, place: &str, written: Value) -> ApiResult<ChatMessage> {
        let word = written.get("role").and_then(Value::as_str);
        let role = match word {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool") => Role::Tool,
            // A result of the functions that tools have replaced.
            Some("function") if self.takes_all() => Role::Tool,
            _ => {
                let message = "the role must be system, developer, user, assistant or tool";
                return Err(ApiError::field(format!("{place}.role"), message));
            }
        };
        let content = self.content(&format!("{place}.content"), role, written.get("content"))?;
        let call = written.get("tool_call_id").and_then(Value::as_str);
        if word == Some("tool") && call.is_none() {
            return Err(ApiError::field(format!("{place}.tool_call_id"), "a result names the call that it answers"));
        }
        let tool_calls = match written.get("tool_calls") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(calls)) if role == Role::Assistant => {
                let calls = calls.iter().enumerate();
                calls.map(|(at, call)| tool_call(&format!("{place}.tool_calls"), at, call)).collect::<Result<_, _>>()?
            }
            Some(_) => {
                let message = "tool_calls must be an array, in a message of the assistant";
                return Err(ApiError::field(format!("{place}.tool_calls"), message));
            }
        };
        let tool_call_id = call.map(str::to_owned);
        let as_written = self.takes_all().then_some(written);
        Ok(ChatMessage { content, tool_calls, tool_call_id, as_written, ..ChatMessage::text(role, "") })
    }

    /// Whether the provider gets what the client has written.
    fn takes_all(&self) -> bool {
        self.provider.dialect.is_chat_completions()
    }

    fn content(&self, place: &str, role: Role, content: Option<&Value>) -> ApiResult<Content> {
        let (content, bytes) = match content {
            // An assistant that has called tools has often said nothing.
            None | Some(Value::Null) if role == Role::Assistant => (Content::Text(String::new()), 0),
            Some(Value::String(text)) => (Content::Text(text.clone()), text.len()),
            Some(Value::Array(written)) => {
                let mut parts = Vec::with_capacity(written.len());
                let mut bytes = 0;
                for (at, part) in written.iter().enumerate() {
                    let (part, part_bytes) = self.part(&format!("{place}[{at}]"), part)?;
                    parts.extend(part);
                    bytes += part_bytes;
                }
                (Content::Parts(parts), bytes)
            }
            _ => return Err(ApiError::field(place.to_owned(), "content must be a string or an array of parts")),
        };
        if bytes > self.content_bytes_max {
            let message = format!("content may have at most {} bytes", self.content_bytes_max);
            return Err(ApiError(Failure::new(Code::TooLarge, message).param(place.to_owned())));
        }
        Ok(content)
    }

    /// One part, unless it is of a kind that only the provider knows, and how large it is.
    fn part(&self, place: &str, written: &Value) -> ApiResult<(Option<Part>, usize)> {
        let text = |name: &str| written.get(name).and_then(Value::as_str);
        let said = |text: &str| (Some(Part::Text { text: text.to_owned() }), text.len());
        match (text("type"), text("text"), text("refusal")) {
            (Some("text"), Some(text), _) | (Some("refusal"), _, Some(text)) => Ok(said(text)),
            (Some("image_url"), ..) => {
                let image = written.get("image_url");
                let url = image.and_then(|image| image.get("url")).and_then(Value::as_str);
                let Some((image, url)) = image.zip(url) else {
                    let message = r#"an image is {"type": "image_url", "image_url": {"url": …}}"#;
                    return Err(ApiError::field(place.to_owned(), message));
                };
                let (bytes, detail) = (url.len(), image_detail(place, image)?);
                let part = Part::ImageUrl { image_url: ImageUrl { url: url.to_owned(), detail } };
                check_image(place.to_owned().into(), &part)?;
                Ok((Some(part), bytes))
            }
            (Some("text" | "refusal") | None, ..) => {
                Err(ApiError::field(place.to_owned(), r#"a part is {"type": "text", "text": …}, or of another type"#))
            }
            (Some(_), ..) if self.takes_all() => Ok((None, written.to_string().len())),
            (Some(_), ..) => {
                let message = format!("{} takes parts of the types text and image_url", self.provider.name);
                Err(unprocessable(format!("{place}.type"), message))
            }
        }
    }
}

/// A call that the assistant has made.
fn tool_call(place: &str, at: usize, written: &Value) -> ApiResult<ToolCall> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let inner = |name: &str| written.get("function").or_else(|| written.get("custom")).and_then(|call| call.get(name));
    let arguments = text(inner("arguments")).or_else(|| text(inner("input")));
    match (text(written.get("id")), text(inner("name")), arguments) {
        (Some(id), Some(name), Some(arguments)) => {
            Ok(ToolCall { index: u32::try_from(at).unwrap_or(u32::MAX), id, name, arguments })
        }
        _ => {
            let message = r#"a call is {"id": …, "type": "function", "function": {"name": …, "arguments": "{…}"}}"#;
            Err(ApiError::field(format!("{place}[{at}]"), message))
        }
    }
}
