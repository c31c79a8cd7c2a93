//! Input: the conversation as the list of items that this dialect wants.

use std::collections::{HashMap, HashSet};

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Flavor, signatures};
use crate::chat::{ChatMessage, ChatRequest, Content, Part, Role};
use crate::event::ToolCall;
use crate::providers::json;

/// The conversation, oldest item first.
pub(super) fn items(flavor: &Flavor, request: &ChatRequest) -> Value {
    let mut input = Input { flavor, custom: custom_tools(&request.tools), called: HashMap::new(), items: Vec::new() };
    request.messages.iter().for_each(|said| input.message(said));
    Value::Array(input.items)
}

struct Input<'r> {
    flavor: &'r Flavor,
    /// The names of the tools that take any text instead of JSON.
    custom: HashSet<&'r str>,
    /// The calls so far by their ids, with the signatures that hang on them.
    called: HashMap<&'r str, (&'r ToolCall, Option<&'r str>)>,
    items: Vec<Value>,
}

impl<'r> Input<'r> {
    fn message(&mut self, said: &'r ChatMessage) {
        match said.role {
            Role::User => self.say(said, &self.content(&said.content)),
            Role::System => self.say(said, &json!(said.content.text())),
            Role::Assistant => self.assistant(said),
            Role::Tool => self.result(said),
        }
    }

    fn say(&mut self, said: &ChatMessage, content: &Value) {
        self.items.push(json!({"type": "message", "role": said.role.as_str(), "content": content}));
    }

    fn content(&self, content: &Content) -> Value {
        match content {
            Content::Text(text) => json!(text),
            Content::Parts(parts) => parts.iter().map(|part| self.part(part)).collect(),
        }
    }

    fn part(&self, part: &Part) -> Value {
        match part {
            Part::Text { text } => json!({"type": "input_text", "text": text}),
            Part::ImageUrl { image_url } => {
                let mut image = json!({"type": "input_image", "image_url": image_url.url});
                // OpenAI's schema demands it, Perplexity's does not know it.
                if !self.flavor.is_agent {
                    image["detail"] = json!(image_url.detail.as_deref().unwrap_or("auto"));
                }
                image
            }
        }
    }

    /// Reasoning, text and calls, in this order. Reasoning that led to nothing stays away: it is refused alone.
    fn assistant(&mut self, said: &'r ChatMessage) {
        let text = said.content.text();
        if text.is_empty() && said.tool_calls.is_empty() {
            return;
        }
        if !self.flavor.is_agent {
            self.items.extend(said.opaque.iter().filter_map(signatures::reasoning).cloned());
        }
        if !text.is_empty() {
            self.say(said, &json!(text));
        }
        for call in &said.tool_calls {
            let signature = said.opaque.iter().find_map(|opaque| signatures::of_call(opaque, &call.id));
            self.called.insert(&call.id, (call, signature.filter(|_| self.flavor.is_agent)));
            self.call(call);
        }
    }

    fn call(&mut self, call: &'r ToolCall) {
        if self.custom.contains(call.name.as_str()) {
            let item = json!({"type": "custom_tool_call", "call_id": call.id, "name": call.name,
                "input": call.arguments});
            self.items.push(item);
            return;
        }
        // Servers that parse the history fail for ever on arguments that an earlier answer's limit has cut.
        let whole = serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok();
        let arguments = if whole { &call.arguments } else { "{}" };
        let mut item = json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments});
        if let Some((_, Some(signature))) = self.called.get(call.id.as_str()) {
            item["thought_signature"] = json!(signature);
        }
        self.items.push(item);
    }

    fn result(&mut self, said: &ChatMessage) {
        let id = said.tool_call_id.as_deref().unwrap_or_default();
        let called = self.called.get(id);
        let is_custom = called.is_some_and(|(call, _)| self.custom.contains(call.name.as_str()));
        let kind = if is_custom { "custom_tool_call_output" } else { "function_call_output" };
        let mut item = json!({"type": kind, "call_id": id, "output": said.content.text()});
        if let (Some((call, signature)), true) = (called, self.flavor.is_agent) {
            item["name"] = json!(call.name);
            if let Some(signature) = signature {
                item["thought_signature"] = json!(signature);
            }
        }
        self.items.push(item);
    }
}

fn custom_tools(tools: &[Value]) -> HashSet<&str> {
    let custom = tools.iter().filter(|tool| json::text(tool, "type") == Some("custom"));
    custom.filter_map(|tool| json::text(json::get(tool, "custom").unwrap_or(tool), "name")).collect()
}
