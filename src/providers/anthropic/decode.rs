//! The answer: blocks of text, thinking and calls become pieces.
//!
//! - The terminator is `message_stop`; some gateways add, or write instead, OpenAI's `[DONE]`. The end of the body
//!   alone is none, not even after a finish reason.
//! - `message_start` may be repeated. One with another id in the middle of an answer begins it anew.
//! - A `message` in place of a stream is an answer that was not streamed.
//! - Whole tool calls, signatures and usage are told at the end.

use serde_json::Value;

use super::blocks::{Block, Blocks};
use super::thinking::{Place, Thinking};
use super::usage::Ledger;
use super::{activity, errors};
use crate::event::{Event, Finish, FinishReason, ReasoningKind};
use crate::failure::{Code, Failure};
use crate::providers::answer::truncated;
use crate::providers::extras::Extras;
use crate::providers::openai_chat::tools::{Calls, Part};
use crate::providers::sources::{Sources, is_link};
use crate::providers::{Decode, Flow, Frame, Piece, json};

type Out<'o> = dyn FnMut(Piece<'_>) + 'o;

const DIALECT: &str = "anthropic";
const DONE: &str = "[DONE]";

/// Fields of a message that are understood, or not worth telling.
const MESSAGE_FIELDS: &[&str] = &["content", "id", "model", "role", "stop_reason", "type", "usage"];
/// The same of `message_delta` and of its `delta`.
const DELTA_FIELDS: &[&str] = &["delta", "stop_reason", "type", "usage"];

/// Decodes one answer.
#[derive(Debug)]
pub(super) struct Decoder {
    id: String,
    model: String,
    /// Where in the answer we are.
    place: Place,
    said: bool,
    blocks: Blocks,
    calls: Calls,
    thinking: Thinking,
    sources: Sources,
    usage: Ledger,
    extras: Extras,
    finish: Option<Finish>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            id: String::new(),
            model: String::new(),
            place: Place::default(),
            said: false,
            blocks: Blocks::default(),
            calls: Calls::default(),
            thinking: Thinking::default(),
            sources: Sources::default(),
            usage: Ledger::default(),
            extras: Extras::new(DIALECT),
            finish: None,
        }
    }
}

impl Decode for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let data = frame.data.trim();
        if data == DONE {
            if self.finish.is_none() {
                return Err(self.broken(truncated(), out));
            }
            return self.close(out);
        }
        if data.is_empty() {
            // Somebody on the way keeps the connection alive.
            return Ok(Flow::More);
        }
        let name = frame.event.unwrap_or_default();
        let event = match json::parse(data) {
            Ok(event) => event,
            Err(_) if name == "error" => return Err(self.broken(errors::in_stream(&Value::Null), out)),
            Err(failure) if name.is_empty() || is_known(name) => return Err(failure),
            // Somebody else's.
            Err(_) => return Ok(Flow::More),
        };
        let kind = json::text(&event, "type").unwrap_or(name);
        let is_error = kind == "error" || name == "error" || (kind.is_empty() && json::get(&event, "error").is_some());
        if is_error {
            return Err(self.broken(errors::in_stream(&event), out));
        }
        self.event(kind, &event, out)
    }

    fn end(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        Err(self.broken(truncated(), out))
    }

    fn finish(&self) -> Finish {
        let finish = self.finish.clone().unwrap_or(Finish::UNTOLD);
        match finish.reason {
            // Some gateways say so.
            FinishReason::Stop if self.calls.any() => Finish { reason: FinishReason::ToolCalls, ..finish },
            _ => finish,
        }
    }
}

impl Decoder {
    fn event(&mut self, kind: &str, event: &Value, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let number = json::get(event, "index").and_then(json::count).unwrap_or(0);
        match kind {
            "message_start" => self.message(event.get("message").unwrap_or(&Value::Null), out)?,
            "message" => {
                self.message(event, out)?;
                return self.close(out);
            }
            "content_block_start" => {
                self.block(number, event.get("content_block").unwrap_or(&Value::Null), out)?;
            }
            "content_block_delta" => self.delta(number, event.get("delta").unwrap_or(&Value::Null), out)?,
            "content_block_stop" => self.block_end(number, out)?,
            "message_delta" => self.message_delta(event, out),
            "message_stop" => return self.close(out),
            // A sign of life has no more than its type.
            _ if json::fields(event).any(|(name, _)| name != "type") => self.extras.piece(kind, event, out),
            _ => {}
        }
        Ok(Flow::More)
    }

    fn message(&mut self, message: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        let id = json::text(message, "id").unwrap_or_default();
        let is_new = self.id.is_empty() || (!id.is_empty() && id != self.id);
        if is_new && self.said && !id.is_empty() {
            *self = Self::default();
            out(Piece::Event(Event::Reset { reason: "upstream_restarted".into() }));
        }
        if is_new && !id.is_empty() {
            id.clone_into(&mut self.id);
            out(Piece::UpstreamId(id));
        }
        if let Some(model) = json::text(message, "model") {
            self.set_model(model, out);
        }
        if let Some(usage) = json::get(message, "usage") {
            self.usage.note(usage);
        }
        if is_new {
            for (number, block) in (0..).zip(json::items(message, "content")) {
                self.block(number, block, out)?;
                self.block_end(number, out)?;
            }
        }
        self.stop(message, MESSAGE_FIELDS, out);
        Ok(())
    }

    fn set_model(&mut self, model: &str, out: &mut Out<'_>) {
        if model != self.model {
            model.clone_into(&mut self.model);
            out(Piece::Model(model));
        }
    }

    fn block(&mut self, number: u64, block: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        match json::text(block, "type").unwrap_or_default() {
            "text" => {
                self.text(json::text(block, "text").unwrap_or_default(), out);
                json::items(block, "citations").iter().for_each(|citation| self.cite(citation, out));
            }
            "thinking" => {
                self.thinking.begin(number, self.place);
                self.think(number, json::text(block, "thinking").unwrap_or_default(), out);
                self.thinking.sign(number, json::text(block, "signature").unwrap_or_default());
            }
            "redacted_thinking" => {
                self.thinking.redacted(number, self.place, json::text(block, "data").unwrap_or_default());
            }
            "tool_use" => {
                self.blocks.begin(number, block)?;
                self.place.calls += 1;
                let (id, name) = (json::text(block, "id"), json::text(block, "name"));
                self.call(&Part { number: Some(number), id, name, arguments: "".into() }, out)?;
            }
            "server_tool_use" | "mcp_tool_use" => {
                self.thinking.spoil();
                self.blocks.begin(number, block)?;
            }
            "fallback" => {
                // Another model goes on, which cannot read what this one has thought.
                self.thinking.spoil();
                if let Some(model) = json::get(block, "to").and_then(|to| json::text(to, "model")) {
                    self.set_model(model, out);
                }
                self.extras.piece("fallback", block, out);
            }
            kind => {
                self.thinking.spoil();
                match activity::kind(kind).filter(|_| kind.ends_with("_tool_result")) {
                    Some(known) => self.result(activity::result(known, block), block, out),
                    None if kind.is_empty() => {}
                    None => self.extras.piece(kind, block, out),
                }
            }
        }
        Ok(())
    }

    fn delta(&mut self, number: u64, delta: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        let text = |key: &str| json::text(delta, key).unwrap_or_default();
        match text("type") {
            "text_delta" => self.text(text("text"), out),
            "thinking_delta" => self.think(number, text("thinking"), out),
            "signature_delta" => self.thinking.sign(number, text("signature")),
            "citations_delta" => {
                if let Some(citation) = json::get(delta, "citation") {
                    self.cite(citation, out);
                }
            }
            "input_json_delta" => {
                let more = text("partial_json");
                if self.blocks.input(number, more)?.is_some() {
                    self.call(&Part { number: Some(number), arguments: more.into(), ..Part::default() }, out)?;
                }
            }
            "" => {}
            other => self.extras.piece(other, delta, out),
        }
        Ok(())
    }

    fn block_end(&mut self, number: u64, out: &mut Out<'_>) -> Result<(), Failure> {
        let Some(block) = self.blocks.end(number) else { return Ok(()) };
        if block.is_clients() {
            if !block.whole_input().is_empty() {
                let arguments = block.whole_input().into();
                self.call(&Part { number: Some(number), arguments, ..Part::default() }, out)?;
            }
            return Ok(());
        }
        self.own_call(block, out);
        Ok(())
    }

    /// Tells of a call of the provider's own tools.
    fn own_call(&self, block: Block, out: &mut Out<'_>) {
        let tool = if block.kind == "server_tool_use" { &block.name } else { &block.kind };
        match activity::kind(tool) {
            Some(kind) => out(Piece::Event(Event::Activity { kind, state: "start".into(), detail: block.detail() })),
            None => self.extras.piece("server_tool_use", &block.detail(), out),
        }
    }

    fn result(&mut self, event: Event<'static>, block: &Value, out: &mut Out<'_>) {
        out(Piece::Event(event));
        // What is no link stands in the event itself.
        self.sources.tell(activity::sources(block).iter().filter(|source| is_link(source)), &self.extras, out);
    }

    fn call(&mut self, part: &Part<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        self.said = true;
        self.calls.add_part(part, out).map(drop)
    }

    fn text(&mut self, text: &str, out: &mut Out<'_>) {
        if !text.is_empty() {
            self.said = true;
            self.place.text += text.len();
            out(Piece::Event(Event::Delta { delta: text.into() }));
        }
    }

    fn think(&mut self, number: u64, text: &str, out: &mut Out<'_>) {
        if !text.is_empty() {
            self.said = true;
            self.thinking.think(number, text);
            out(Piece::Event(Event::Reasoning { delta: text.into(), kind: ReasoningKind::Text }));
        }
    }

    /// Tells what the text refers to: a page as a source, a place in a document of the conversation as it is.
    fn cite(&mut self, citation: &Value, out: &mut Out<'_>) {
        match activity::cited(citation) {
            Some(source) => self.sources.tell([&source], &self.extras, out),
            None => self.extras.piece("citation", citation, out),
        }
    }

    fn message_delta(&mut self, event: &Value, out: &mut Out<'_>) {
        let delta = event.get("delta").unwrap_or(&Value::Null);
        if let Some(usage) = json::get(event, "usage") {
            self.usage.note(usage);
            self.usage.finish();
            let uses = json::get(usage, "server_tool_use");
            if let Some(uses) = uses.filter(|uses| json::fields(uses).any(|(_, uses)| json::count(uses) > Some(0))) {
                self.extras.piece("usage.server_tool_use", uses, out);
            }
        }
        self.stop(delta, DELTA_FIELDS, out);
        self.extras.fields(event, DELTA_FIELDS, out);
    }

    /// Records why the answer stops, where it says so, and tells what else stands there.
    fn stop(&mut self, object: &Value, known: &[&str], out: &mut Out<'_>) {
        if let Some(word) = json::text(object, "stop_reason") {
            self.finish = Some(Finish { reason: reason_of(word), native: Some(word.to_owned()) });
        }
        let details = json::get(object, "stop_details");
        if let Some(refusal) = details.and_then(|details| json::text(details, "explanation")) {
            self.said = true;
            out(Piece::Event(Event::Refusal { delta: refusal.into() }));
        }
        self.extras.fields(object, known, out);
    }

    /// Tells what a broken answer has cost, if that is known. One that has said nothing stays silent, so that it can
    /// be tried again.
    fn broken(&mut self, failure: Failure, out: &mut Out<'_>) -> Failure {
        if self.said && self.usage.is_final() {
            self.tell_usage(out);
        }
        failure
    }

    fn tell_usage(&mut self, out: &mut Out<'_>) {
        if let Some(event) = self.usage.news() {
            out(Piece::Event(event));
        }
    }

    /// The terminator has come. Without a finish reason the answer counts if it has said anything, and nothing is
    /// said about why it ended.
    fn close(&mut self, out: &mut Out<'_>) -> Result<Flow, Failure> {
        if self.finish.is_none() && !self.said {
            return Err(Failure::new(Code::UpstreamProtocol, "the provider's answer is empty"));
        }
        let cut = Decode::finish(self).reason == FinishReason::Length;
        self.calls.complete(cut, out);
        self.thinking.tell(&self.model, out);
        self.tell_usage(out);
        Ok(Flow::Ended)
    }
}

/// Whether the name is one of the dialect's events that carry an answer.
fn is_known(name: &str) -> bool {
    name == "message" || name.starts_with("message_") || name.starts_with("content_block_")
}

/// A stop reason's normalized meaning.
fn reason_of(word: &str) -> FinishReason {
    match word {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        // `pause_turn` among them: the provider would go on if it were asked to.
        _ => FinishReason::Other,
    }
}
