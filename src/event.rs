//! Event: the normalized pieces of an answer, the same for every provider, and their frames on the wire.
//!
//! Content events are encoded once and sent byte for byte to every listener; what differs between listeners
//! (`ping`, `meta`, `snapshot`, `done`) is written by the listener's own side.

use std::borrow::Cow;
use std::io;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One content event, as providers' adapters emit it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A piece of the answer's text.
    Delta {
        /// The text.
        delta: Cow<'a, str>,
    },
    /// A piece of the model's visible reasoning.
    Reasoning {
        /// The text.
        delta: Cow<'a, str>,
        /// The model's own words, or a summary of them.
        kind: ReasoningKind,
    },
    /// A piece of a refusal.
    Refusal {
        /// The text.
        delta: Cow<'a, str>,
    },
    /// A piece of a call of one of the client's tools.
    #[serde(rename = "tool_call")]
    ToolCallPiece {
        /// Which of the answer's calls, from 0.
        index: u32,
        /// The provider's id of the call.
        id: Cow<'a, str>,
        /// The tool's name.
        name: Cow<'a, str>,
        /// The next piece of the JSON arguments.
        arguments_delta: Cow<'a, str>,
    },
    /// A finished call of one of the client's tools.
    #[serde(rename = "tool_call")]
    ToolCall {
        /// The whole call.
        #[serde(flatten)]
        call: ToolCall,
        /// Always true: tells the end of a call from its pieces.
        complete: bool,
        /// Whether the arguments are valid JSON.
        valid: bool,
    },
    /// Something the provider does by itself (a search, say): never a call of the client's tools.
    Activity {
        /// What is being done.
        kind: ActivityKind,
        /// `start`, `result` or the provider's own word.
        state: Cow<'a, str>,
        /// What the provider said about it.
        detail: Value,
    },
    /// Sources, unique by url within an answer, in order of first appearance.
    Citation {
        /// The new sources.
        items: Vec<Citation>,
    },
    /// What the answer has cost so far; the last one wins.
    Usage {
        /// Token counts.
        usage: Usage,
    },
    /// Discard what was shown so far.
    Reset {
        /// Why.
        reason: Cow<'a, str>,
    },
    /// What has no place above: nothing that the provider said is lost.
    Ext {
        /// `<dialect>.<name>`.
        name: Cow<'a, str>,
        /// The provider's own JSON.
        data: Value,
    },
}

impl Event<'_> {
    /// Whether this is a piece of content, so that the first one of an answer stops the TTFT clock.
    pub fn is_content(&self) -> bool {
        matches!(
            self,
            Event::Delta { .. }
                | Event::Reasoning { .. }
                | Event::Refusal { .. }
                | Event::ToolCallPiece { .. }
                | Event::ToolCall { .. }
        )
    }

    /// The event's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Delta { .. } => "delta",
            Event::Reasoning { .. } => "reasoning",
            Event::Refusal { .. } => "refusal",
            Event::ToolCallPiece { .. } | Event::ToolCall { .. } => "tool_call",
            Event::Activity { .. } => "activity",
            Event::Citation { .. } => "citation",
            Event::Usage { .. } => "usage",
            Event::Reset { .. } => "reset",
            Event::Ext { .. } => "ext",
        }
    }

    /// Appends the event's frame with the id `<fence>-<seq>`.
    pub fn write_frame(&self, fence: u32, seq: u64, out: &mut BytesMut) {
        write_frame(self.name(), Some((fence, seq)), self, out);
    }
}

/// Appends a frame. Content events and `done` have an id; `ping`, `meta` and `snapshot` have none.
pub fn write_frame(name: &str, id: Option<(u32, u64)>, data: &impl Serialize, out: &mut BytesMut) {
    if let Some((fence, seq)) = id {
        out.extend_from_slice(b"id: ");
        write_json(&fence, out);
        out.extend_from_slice(b"-");
        write_json(&seq, out);
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write_json(data, out);
    out.extend_from_slice(b"\n\n");
}

/// Also the quickest way to write a number.
fn write_json(data: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(Appending(out), data).expect("frames have string keys and finite numbers");
}

/// Writes whatever it is given in one step. JSON comes in many small pieces.
struct Appending<'a>(&'a mut BytesMut);

impl io::Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where reasoning text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningKind {
    /// The model's own words.
    Text,
    /// The provider's summary of them.
    Summary,
}

/// What a provider does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivityKind {
    /// Searches.
    Search,
    /// Fetches a page.
    Fetch,
    /// Runs code.
    Code,
    /// Talks to an MCP server.
    Mcp,
    /// Makes an image.
    Image,
}

/// A whole call of one of the client's tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolCall {
    /// Which of the answer's calls, from 0.
    pub index: u32,
    /// The provider's id of the call.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: JSON, unless the answer was cut.
    pub arguments: String,
}

/// One source of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Citation {
    /// The number that the text uses for it.
    pub n: u32,
    /// Where it is.
    pub url: String,
    /// Its title, empty when unknown.
    pub title: String,
    /// A quotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
    /// Its date as the provider writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

/// What an answer cost, in tokens. `input` includes cached ones, `output` includes reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    #[schema(required)]
    pub input: u64,
    /// Answer tokens, reasoning included.
    #[schema(required)]
    pub output: u64,
    /// Both.
    #[schema(required)]
    pub total: u64,
    /// The part of `input` that came from the provider's cache.
    #[schema(required)]
    pub cached_input: u64,
    /// The part of `output` that is reasoning.
    #[schema(required)]
    pub reasoning: u64,
    /// The provider's own price in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// True when weir estimated it because the provider's figure never came.
    #[schema(required)]
    pub estimated: bool,
}

/// Why an answer ended, normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model had said everything.
    Stop,
    /// The token limit.
    Length,
    /// The model wants its tools called.
    ToolCalls,
    /// The provider's policy.
    ContentFilter,
    /// Somebody pressed Stop.
    Cancelled,
    /// A failure.
    Error,
    /// Something else.
    Other,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It still runs.
    Streaming,
    /// The provider finished it.
    Complete,
    /// It was cancelled.
    Cancelled,
    /// The server stopped while it ran.
    Interrupted,
    /// It failed.
    Error,
}

impl Status {
    /// The name in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Streaming => "streaming",
            Status::Complete => "complete",
            Status::Cancelled => "cancelled",
            Status::Interrupted => "interrupted",
            Status::Error => "error",
        }
    }
}

/// The finish reason of an answer, with the provider's own word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Normalized.
    pub reason: FinishReason,
    /// The provider's word.
    pub native: Option<String>,
}

impl Finish {
    /// Of an answer that is whole, but whose provider never said why it ended.
    pub const UNTOLD: Finish = Finish { reason: FinishReason::Other, native: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &Event<'_>) -> String {
        let mut out = BytesMut::new();
        event.write_frame(1, 7, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_delta_is_one_frame_whatever_its_text_contains() {
        let text = "a\nb\r\nevent: done\u{2028}\0\"";

        let frame = frame(&Event::Delta { delta: text.into() });

        assert_eq!(frame.lines().count(), 4);
        let data = frame.lines().nth(2).unwrap().strip_prefix("data: ").unwrap();
        let json: Value = serde_json::from_str(data).unwrap();
        assert_eq!(json["type"], "delta");
        assert_eq!(json["delta"], text);
    }

    #[test]
    fn the_name_of_an_event_is_its_type() {
        let call = ToolCall { index: 0, id: "c".into(), name: "f".into(), arguments: "{}".into() };

        let frame = frame(&Event::ToolCall { call, complete: true, valid: true });

        assert!(frame.starts_with("id: 1-7\nevent: tool_call\ndata: {\"type\":\"tool_call\",\"index\":0"));
        assert!(frame.contains("\"complete\":true,\"valid\":true"));
    }
}
