//! Transcript: the answer as it accumulates; what a snapshot shows and what the store keeps.

use serde_json::Value;

use crate::event::{Citation, Event, ToolCall, Usage};

/// Everything that an answer has said so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// The text.
    pub text: String,
    /// The visible reasoning.
    pub reasoning: String,
    /// The refusal, when there was one.
    pub refusal: String,
    /// The sources, in order of first appearance.
    pub citations: Vec<Citation>,
    /// The finished calls of the client's tools.
    pub tool_calls: Vec<ToolCall>,
    /// The last word on what it cost.
    pub usage: Option<Usage>,
    /// What its question is likely to cost, in tokens, once the provider has begun to answer; 0 before.
    pub prompt_tokens: u64,
    /// Signatures for the provider's next turn.
    pub opaque: Vec<Value>,
    /// The model as the provider reports it.
    pub model: Option<String>,
    /// The provider's id of the answer.
    pub upstream_id: Option<String>,
    /// Sources, calls and signatures, in bytes.
    other_bytes: usize,
    /// Arguments of calls that have not ended yet, in bytes.
    unfinished_bytes: usize,
}

impl Transcript {
    /// Adds one event.
    pub fn apply(&mut self, event: &Event<'_>) {
        match event {
            Event::Delta { delta } => self.text.push_str(delta),
            Event::Reasoning { delta, .. } => self.reasoning.push_str(delta),
            Event::Refusal { delta } => self.refusal.push_str(delta),
            Event::ToolCall { call, .. } => {
                self.unfinished_bytes = self.unfinished_bytes.saturating_sub(call.arguments.len());
                self.other_bytes += call.arguments.len() + call.name.len() + call.id.len();
                self.tool_calls.push(call.clone());
            }
            Event::Citation { items } => {
                self.other_bytes += items.iter().map(citation_bytes).sum::<usize>();
                self.citations.extend(items.iter().cloned());
            }
            Event::Usage { usage } => self.usage = Some(*usage),
            Event::Reset { .. } => *self = Self { model: self.model.take(), ..Self::default() },
            Event::ToolCallPiece { arguments_delta, .. } => self.unfinished_bytes += arguments_delta.len(),
            Event::Activity { .. } | Event::Ext { .. } => {}
        }
    }

    /// Keeps a signature for the provider's next turn.
    pub fn keep_opaque(&mut self, signature: Value) {
        self.other_bytes += signature.to_string().len();
        self.opaque.push(signature);
    }

    /// Everything that grows with the answer, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.reasoning.len() + self.refusal.len() + self.other_bytes + self.unfinished_bytes
    }

    /// Whether there is anything to read.
    pub fn has_text(&self) -> bool {
        !(self.text.is_empty() && self.reasoning.is_empty() && self.refusal.is_empty())
    }

    /// The text that a thread keeps: a refusal is the answer when there is nothing else.
    pub fn content(&self) -> &str {
        if self.text.is_empty() { &self.refusal } else { &self.text }
    }
}

fn citation_bytes(citation: &Citation) -> usize {
    let Citation { url, title, snippet, date, .. } = citation;
    url.len() + title.len() + snippet.as_ref().map_or(0, String::len) + date.as_ref().map_or(0, String::len)
}
