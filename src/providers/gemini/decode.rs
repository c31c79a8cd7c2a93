//! The answer: chunks become pieces.
//!
//! - Only candidate 0 is the answer; other candidates go out as `ext`.
//! - A finish reason is recorded when it comes, the answer goes on to the end of its body: after running code the model
//!   says `STOP` and talks on. Some servers say it with every chunk.
//! - Parts are text, thoughts, calls of the client's functions, what the provider's own tools do, or data. A signature
//!   may hang on any of them.
//! - Usage grows with the answer; whole calls, usage and further sources are told at its end.

use serde_json::Value;

use super::calls::Calls;
use super::errors;
use super::grounding::{Grounding, activity};
use super::signatures::Signatures;
use super::usage::usage;
use crate::event::{ActivityKind, Event, Finish, FinishReason, ReasoningKind, Usage};
use crate::failure::Failure;
use crate::providers::answer::truncated;
use crate::providers::extras::Extras;
use crate::providers::{Decode, Flow, Frame, Piece, json};

type Out<'o> = dyn FnMut(Piece<'_>) + 'o;

/// The dialect's name, in front of the names of `ext` events.
const DIALECT: &str = "gemini";

/// Top-level fields that are understood, or not worth telling.
const CHUNK_FIELDS: &[&str] = &["candidates", "createTime", "error", "modelVersion", "responseId", "usageMetadata"];
const CANDIDATE_FIELDS: &[&str] =
    &["citationMetadata", "content", "finishReason", "groundingMetadata", "index", "tokenCount", "urlContextMetadata"];
const PART_FIELDS: &[&str] = &[
    "codeExecutionResult",
    "executableCode",
    "functionCall",
    "text",
    "thought",
    "thoughtSignature",
    "toolCall",
    "toolResponse",
];

/// The fields of a part that is nothing but text.
const TEXT_FIELDS: &[&str] = &["text", "thought", "thoughtSignature"];

/// Decodes one answer.
#[derive(Debug)]
pub(super) struct Decoder {
    upstream_id: bool,
    model: String,
    said: bool,
    /// How long the text is, in bytes: the place of a signature in it.
    text_len: usize,
    calls: Calls,
    grounding: Grounding,
    signatures: Signatures,
    usage: Usage,
    extras: Extras,
    finish: Option<Finish>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            upstream_id: false,
            model: String::new(),
            said: false,
            text_len: 0,
            calls: Calls::default(),
            grounding: Grounding::default(),
            signatures: Signatures::default(),
            usage: Usage::default(),
            extras: Extras::new(DIALECT),
            finish: None,
        }
    }
}

impl Decode for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let data = frame.data.trim();
        let chunk = match json::parse(data) {
            Ok(chunk) => chunk,
            // Google writes neither, but what stands between may: nothing, `[DONE]`, or frames of its own.
            Err(_) if matches!(data, "" | "[DONE]") || !matches!(frame.event, None | Some("message")) => {
                return Ok(Flow::More);
            }
            Err(failure) => return Err(failure),
        };
        self.chunk(&chunk, out)?;
        Ok(Flow::More)
    }

    fn end(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        let Some(finish) = self.finish.as_ref().filter(|finish| finish.reason != FinishReason::Error) else {
            let failure = self.finish.as_ref().map_or_else(truncated, errors::broken_off);
            return Err(self.failed(failure, out));
        };
        let cut = finish.reason == FinishReason::Length;
        self.calls.complete(cut, out);
        self.grounding.complete(&self.extras, out);
        self.tell_usage(out);
        Ok(())
    }

    fn finish(&self) -> Finish {
        let mut finish = self.finish.clone().unwrap_or(Finish::UNTOLD);
        if finish.reason == FinishReason::Stop && self.calls.any() {
            finish.reason = FinishReason::ToolCalls;
        }
        finish
    }
}

impl Decoder {
    fn chunk(&mut self, chunk: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        self.identify(chunk, out);
        if let Some(metadata) = json::get(chunk, "usageMetadata") {
            let usage = usage(metadata);
            if usage != Usage::default() {
                self.usage = usage;
            }
        }
        for (position, candidate) in json::items(chunk, "candidates").iter().enumerate() {
            let index = json::get(candidate, "index").and_then(json::count);
            if index.unwrap_or(position as u64) == 0 {
                self.candidate(candidate, out)?;
            } else if !json::is_blank(candidate) {
                self.extras.piece("candidate", candidate, out);
            }
        }
        let blocked = json::get(chunk, "promptFeedback").and_then(|feedback| json::text(feedback, "blockReason"));
        if let Some(word) = blocked.filter(|word| !is_unspecified(word)) {
            self.finish = Some(Finish { reason: FinishReason::ContentFilter, native: Some(word.to_owned()) });
        }
        self.extras.fields(chunk, CHUNK_FIELDS, out);
        match errors::error_in(chunk) {
            Some(error) => Err(self.failed(errors::in_stream(error), out)),
            None => Ok(()),
        }
    }

    /// Tells who answers.
    fn identify(&mut self, chunk: &Value, out: &mut Out<'_>) {
        if let Some(id) = json::text(chunk, "responseId").filter(|_| !self.upstream_id) {
            self.upstream_id = true;
            self.calls.name_after(id);
            out(Piece::UpstreamId(id));
        }
        if let Some(model) = json::text(chunk, "modelVersion").filter(|model| *model != self.model) {
            model.clone_into(&mut self.model);
            out(Piece::Model(model));
        }
    }

    fn candidate(&mut self, candidate: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        if let Some(content) = json::get(candidate, "content") {
            json::items(content, "parts").iter().try_for_each(|part| self.part(part, out))?;
        }
        self.grounding.note(candidate, &mut self.extras, out);
        self.extras.fields(candidate, CANDIDATE_FIELDS, out);
        if let Some(word) = json::text(candidate, "finishReason").filter(|word| !is_unspecified(word)) {
            self.record(word);
        }
        Ok(())
    }

    fn part(&mut self, part: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        let from = self.text_len;
        let is_thought = part.get("thought") == Some(&Value::Bool(true));
        if let Some(text) = json::text(part, "text") {
            self.text(text, is_thought, out);
        }
        let call_id = match json::get(part, "functionCall") {
            Some(call) => self.call(call, out)?,
            None => None,
        };
        ran_by_provider(part, out);
        let kind = if is_thought { "thought." } else { "" };
        for (name, value) in json::fields(part) {
            if !PART_FIELDS.contains(&name.as_str()) && !json::is_blank(value) {
                self.extras.piece(&format!("{kind}{name}"), value, out);
            }
        }
        if let Some(signature) = json::text(part, "thoughtSignature") {
            // Anything else does not go back with the next turn, and a signature alone is of no use there.
            let is_text = || json::fields(part).all(|(name, _)| TEXT_FIELDS.contains(&name.as_str()));
            match call_id {
                Some(id) => self.signatures.keep_on_call(signature, &id, out),
                None if is_text() => self.signatures.keep_on_text(signature, from, self.text_len, out),
                None => {}
            }
        }
        Ok(())
    }

    /// Takes a call of one of the client's functions; returns its id. What names no function is none.
    fn call(&mut self, call: &Value, out: &mut Out<'_>) -> Result<Option<String>, Failure> {
        let id = self.calls.add(call, out)?;
        self.said |= id.is_some();
        if id.is_none() && !json::is_blank(call) {
            self.extras.piece("functionCall", call, out);
        }
        Ok(id)
    }

    /// Tells a text. The thoughts that Google shows are summaries.
    fn text(&mut self, text: &str, is_thought: bool, out: &mut Out<'_>) {
        self.said = true;
        let delta = text.into();
        out(Piece::Event(if is_thought {
            Event::Reasoning { delta, kind: ReasoningKind::Summary }
        } else {
            self.text_len += text.len();
            Event::Delta { delta }
        }));
    }

    /// Records a finish reason. It may be repeated; a mere `STOP` takes nothing back.
    fn record(&mut self, word: &str) {
        let reason = reason_of(word);
        if reason != FinishReason::Stop || self.finish.is_none() {
            self.finish = Some(Finish { reason, native: Some(word.to_owned()) });
        }
    }

    fn tell_usage(&mut self, out: &mut Out<'_>) {
        let usage = std::mem::take(&mut self.usage);
        if usage != Usage::default() {
            out(Piece::Event(Event::Usage { usage }));
        }
    }

    /// Tells what a broken answer has cost. One that has said nothing stays silent, so that it can be tried again.
    fn failed(&mut self, failure: Failure, out: &mut Out<'_>) -> Failure {
        if self.said {
            self.tell_usage(out);
        }
        failure
    }
}

/// Tells what the provider's own tools do, if the part is about one.
fn ran_by_provider(part: &Value, out: &mut Out<'_>) {
    let states = [
        ("executableCode", "start"),
        ("codeExecutionResult", "result"),
        ("toolCall", "start"),
        ("toolResponse", "result"),
    ];
    for (name, state) in states {
        if let Some(detail) = json::get(part, name) {
            activity(kind_of(json::text(detail, "toolType")), state, detail, out);
        }
    }
}

fn kind_of(tool: Option<&str>) -> ActivityKind {
    match tool {
        None => ActivityKind::Code,
        Some(tool) if tool.contains("MCP") => ActivityKind::Mcp,
        Some(tool) if tool.contains("URL") => ActivityKind::Fetch,
        Some(tool) if tool.contains("CODE") => ActivityKind::Code,
        // Of the web, of maps, of files.
        Some(_) => ActivityKind::Search,
    }
}

fn is_unspecified(word: &str) -> bool {
    word.ends_with("_UNSPECIFIED")
}

/// A finish reason's normalized meaning.
fn reason_of(word: &str) -> FinishReason {
    match word {
        "STOP" => FinishReason::Stop,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => FinishReason::ContentFilter,
        // What the model wrote cannot be used; asked again, it mostly writes something else.
        "MALFORMED_FUNCTION_CALL" | "MALFORMED_RESPONSE" | "MISSING_THOUGHT_SIGNATURE" | "UNEXPECTED_TOOL_CALL" => {
            FinishReason::Error
        }
        _ => FinishReason::Other,
    }
}
