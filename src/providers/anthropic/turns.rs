//! Turns: a conversation as the API takes it, which is strict about its form.
//!
//! - User and assistant alternate, the user begins; neighbours of one role are one turn.
//! - The results of tools are the user's, stand before everything else in the turn that follows their calls, and there
//!   is exactly one for each call. A conversation of ours may have none (the client went on without it) or have lost
//!   the call to its length; then a call without a result gets one that says so, and a result without its call becomes
//!   text.
//! - No text is blank, no id of a call comes twice or has other characters than `[A-Za-z0-9_-]`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::thinking;
use crate::chat::{ChatMessage, ChatRequest, Content, Part, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::providers::images;

/// What the API can look at.
const IMAGE_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];
const NO_BEGINNING: &str = "(The conversation began earlier.)";
const NO_RESULT: &str = "(The tool gave no result.)";

/// The conversation of `request`, as the value of `messages`.
pub(super) fn of(request: &ChatRequest) -> Result<Value, Failure> {
    let mut turns = Turns::default();
    for said in &request.messages {
        match said.role {
            // It is told outside the conversation.
            Role::System => {}
            Role::User => turns.user.extend(blocks(&said.content)?),
            Role::Tool => turns.result(said)?,
            Role::Assistant => turns.assistant(said, &request.model),
        }
    }
    Ok(turns.finish())
}

/// The turns so far: those that are complete, and the next pair.
#[derive(Debug, Default)]
struct Turns {
    done: Vec<Value>,
    assistant: Vec<Value>,
    /// Calls that have no result yet: the id that the conversation knows, and the one that is sent.
    open: Vec<(String, String)>,
    results: Vec<Value>,
    user: Vec<Value>,
    /// Ids that were sent.
    ids: HashSet<String>,
}

impl Turns {
    fn assistant(&mut self, said: &ChatMessage, model: &str) {
        // Thinking alone is no turn.
        if said.tool_calls.is_empty() && said.content.text().trim().is_empty() {
            return;
        }
        self.end_pair();
        let calls: Vec<Value> = said.tool_calls.iter().map(|call| self.call(call)).collect();
        self.assistant.extend(thinking::interleaved(&said.content.text(), calls, &said.opaque, model));
    }

    fn call(&mut self, call: &ToolCall) -> Value {
        let id = self.unused_id(call);
        self.open.push((call.id.clone(), id.clone()));
        // Arguments that an earlier answer's limit has cut are none.
        let input = serde_json::from_str::<Value>(&call.arguments).ok().filter(Value::is_object);
        json!({"type": "tool_use", "id": id, "name": call.name, "input": input.unwrap_or_else(|| json!({}))})
    }

    /// Other providers' ids have other characters, or begin anew in every answer.
    fn unused_id(&mut self, call: &ToolCall) -> String {
        let plain = |char: char| if char.is_ascii_alphanumeric() || "_-".contains(char) { char } else { '_' };
        let mut id: String = call.id.chars().map(plain).collect();
        if id.is_empty() {
            "call".clone_into(&mut id);
        }
        let base = id.clone();
        let mut again = 1;
        while !self.ids.insert(id.clone()) {
            again += 1;
            id = format!("{base}_{again}");
        }
        id
    }

    fn result(&mut self, said: &ChatMessage) -> Result<(), Failure> {
        let mut content = blocks(&said.content)?;
        let known = said.tool_call_id.as_deref();
        let Some(at) = self.open.iter().position(|(id, _)| Some(id.as_str()) == known) else {
            self.user.append(&mut content);
            return Ok(());
        };
        let (_, id) = self.open.remove(at);
        self.results.push(json!({"type": "tool_result", "tool_use_id": id, "content": content}));
        Ok(())
    }

    /// Ends an assistant's turn and the user's that follows it, if the user has said anything.
    fn end_pair(&mut self) {
        for (_, id) in self.open.drain(..) {
            self.results
                .push(json!({"type": "tool_result", "tool_use_id": id, "content": NO_RESULT, "is_error": true}));
        }
        let mut content = std::mem::take(&mut self.results);
        content.append(&mut self.user);
        if !content.is_empty() {
            self.end_assistant();
            self.done.push(json!({"role": "user", "content": content}));
        }
    }

    fn end_assistant(&mut self) {
        if self.assistant.is_empty() {
            return;
        }
        if self.done.is_empty() {
            self.done.push(json!({"role": "user", "content": NO_BEGINNING}));
        }
        self.done.push(json!({"role": "assistant", "content": std::mem::take(&mut self.assistant)}));
    }

    fn finish(mut self) -> Value {
        self.end_pair();
        self.end_assistant();
        Value::Array(self.done)
    }
}

/// A text as a block; none for a blank one, which the API refuses.
pub(super) fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn blocks(content: &Content) -> Result<Vec<Value>, Failure> {
    let parts = match content {
        Content::Text(text) => return Ok(text_block(text).into_iter().collect()),
        Content::Parts(parts) => parts,
    };
    let blocks = parts.iter().filter_map(|part| match part {
        Part::Text { text } => text_block(text).map(Ok),
        Part::ImageUrl { image_url } => Some(image(&image_url.url)),
    });
    blocks.collect()
}

fn image(url: &str) -> Result<Value, Failure> {
    let source = match images::inline(url) {
        Some((media_type, data)) if IMAGE_TYPES.contains(&media_type) => {
            json!({"type": "base64", "media_type": media_type, "data": data})
        }
        None if url.starts_with("https://") => json!({"type": "url", "url": url}),
        _ => {
            let message = "the provider takes images as https: URLs, or as base64 in JPEG, PNG, GIF or WebP";
            return Err(Failure::new(Code::Unprocessable, message).param("content"));
        }
    };
    Ok(json!({"type": "image", "source": source}))
}
