//! The answer: chunks of every server's variety become pieces.
//!
//! - Only choice 0 is the answer; other choices go out as `ext`.
//! - A finish reason is recorded when it comes, the answer goes on to its terminator: `[DONE]`, Sonar's last object,
//!   or the end of the body once there was a finish reason. What follows a finish reason (usage, moderation, the reason
//!   again) still counts, and an error anywhere fails the answer.
//! - `message` stands for `delta` in an answer that was not streamed. Sonar repeats it in every chunk, so it counts
//!   only where `delta` adds nothing and nothing has been said.
//! - Whole tool calls, signatures and usage that grows with the answer are told at its end.

use std::collections::HashMap;

use serde_json::Value;

use super::pattern::Pattern;
use super::plain::Plain;
use super::signatures::Signatures;
use super::tools::Calls;
use super::usage::Ledger;
use super::{Flavor, errors};
use crate::event::{Event, Finish, FinishReason, ReasoningKind};
use crate::failure::{Code, Failure};
use crate::providers::answer::truncated;
use crate::providers::extras::Extras;
use crate::providers::sources::Sources;
use crate::providers::{Decode, Flow, Frame, Piece, json};

type Out<'o> = dyn FnMut(Piece<'_>) + 'o;

const DONE: &str = "[DONE]";
/// The last object of a Sonar stream.
const SONAR_DONE: &str = "chat.completion.done";

/// Top-level fields that are understood, or not worth telling.
const CHUNK_FIELDS: &[&str] = &[
    "choices",
    "citations",
    "created",
    // What some servers have in place of an error: it is not for clients.
    "detail",
    "error",
    "id",
    "model",
    "obfuscation",
    "object",
    "p",
    "search_results",
    "service_tier",
    "system_fingerprint",
    "type",
    "usage",
    // The operator's own, in OpenRouter's errors.
    "user_id",
];
const CHOICE_FIELDS: &[&str] =
    &["delta", "error", "finish_reason", "index", "logprobs", "message", "native_finish_reason"];
const DELTA_FIELDS: &[&str] = &[
    "annotations",
    "channel",
    "content",
    "extra_content",
    "function_call",
    "index",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "role",
    "tool_calls",
];

/// Decodes one answer.
pub(super) struct Decoder {
    pattern: Pattern,
    upstream_id: bool,
    model: String,
    said: Said,
    calls: Calls,
    sources: Sources,
    signatures: Signatures,
    usage: Ledger,
    extras: Extras,
    finish: Option<Finish>,
}

/// Which kinds of text have been told.
#[derive(Debug, Default)]
struct Said {
    text: bool,
    reasoning: bool,
    refusal: bool,
}

impl Decode for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let data = frame.data.trim();
        if data == DONE {
            self.close(out)?;
            return Ok(Flow::Ended);
        }
        let is_error = frame.event == Some("error");
        if !is_error
            && self.finish.is_none()
            && let Some(Plain { id, model, text, .. }) = self.pattern.read(data)
        {
            self.identify(id, model, out);
            self.text(&text, out);
            return Ok(Flow::More);
        }
        let chunk = match json::parse(data) {
            Ok(chunk) => chunk,
            Err(_) if is_error => return Err(self.failed(&Value::Null, out)),
            // Nothing is a frame that keeps the connection alive, and named frames may be anybody's.
            Err(_) if data.is_empty() || !matches!(frame.event, None | Some("message")) => return Ok(Flow::More),
            Err(failure) => return Err(failure),
        };
        if is_error {
            return Err(self.failed(errors::error_in(&chunk).unwrap_or(&chunk), out));
        }
        self.chunk(&chunk, out)
    }

    fn end(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        if self.finish.is_none() {
            self.tell_cost_of_failure(out);
            return Err(truncated());
        }
        self.close(out)
    }

    fn finish(&self) -> Finish {
        let Finish { reason, native } = self.finish.clone().unwrap_or(Finish::UNTOLD);
        let length = native.as_deref().is_some_and(|native| reason_of(native) == FinishReason::Length);
        let reason = match reason {
            // OpenRouter calls it `tool_calls` even when the limit has cut the arguments.
            FinishReason::ToolCalls | FinishReason::Stop if length => FinishReason::Length,
            FinishReason::Stop if self.calls.any() => FinishReason::ToolCalls,
            FinishReason::Stop if self.said.refusal && !self.said.text => FinishReason::ContentFilter,
            reason => reason,
        };
        Finish { reason, native }
    }
}

impl Decoder {
    /// A decoder for a new answer.
    pub(super) fn new(flavor: &'static Flavor) -> Self {
        Self {
            pattern: Pattern::default(),
            upstream_id: false,
            model: String::new(),
            said: Said::default(),
            calls: Calls::default(),
            sources: Sources::default(),
            signatures: Signatures::default(),
            usage: Ledger::default(),
            extras: Extras::new(flavor.name),
            finish: None,
        }
    }

    fn chunk(&mut self, chunk: &Value, out: &mut Out<'_>) -> Result<Flow, Failure> {
        self.identify(json::text(chunk, "id"), json::text(chunk, "model"), out);
        self.usage.note(chunk);
        self.cite(chunk, out);
        let mut choice_error = None;
        for (position, choice) in json::items(chunk, "choices").iter().enumerate() {
            let index = json::get(choice, "index").and_then(json::count);
            if index.unwrap_or(position as u64) == 0 {
                self.choice(choice, out)?;
                choice_error = choice_error.or_else(|| error_of_choice(choice));
            } else {
                self.extras.piece("choice", choice, out);
            }
        }
        self.extras.fields(chunk, CHUNK_FIELDS, out);
        let groq = || json::get(chunk, "x_groq").and_then(errors::error_in);
        if let Some(error) = errors::error_in(chunk).or_else(groq).or(choice_error) {
            return Err(self.failed(error, out));
        }
        if json::text(chunk, "object") == Some(SONAR_DONE) {
            self.close(out)?;
            return Ok(Flow::Ended);
        }
        if self.finish.is_some() {
            self.tell_usage(out);
        }
        Ok(Flow::More)
    }

    /// Tells who answers. Azure's first chunk says nothing about it; a router may change its mind.
    fn identify(&mut self, id: Option<&str>, model: Option<&str>, out: &mut Out<'_>) {
        if let Some(id) = id.filter(|id| !id.is_empty() && !self.upstream_id) {
            self.upstream_id = true;
            out(Piece::UpstreamId(id));
        }
        if let Some(model) = model.filter(|model| !model.is_empty() && *model != self.model) {
            model.clone_into(&mut self.model);
            out(Piece::Model(model));
        }
    }

    /// Tells the sources beside the answer. `citations` has the order that the text refers to, `search_results` more
    /// about each.
    fn cite(&mut self, chunk: &Value, out: &mut Out<'_>) {
        let results = json::items(chunk, "search_results");
        // Backwards, so that the first of several about one page counts.
        let by_url: HashMap<&str, &Value> =
            { results.iter().rev() }.filter_map(|result| Some((json::text(result, "url")?, result))).collect();
        let about = |cited: &Value| cited.as_str().and_then(|url| by_url.get(url).copied());
        let cited = json::items(chunk, "citations").iter().map(|cited| about(cited).unwrap_or(cited));
        self.sources.tell(cited.chain(results), &self.extras, out);
    }

    fn choice(&mut self, choice: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        let message = || json::get(choice, "message").filter(|_| !self.has_said());
        let adds = |delta: &&Value| json::fields(delta).any(|(name, value)| name != "role" && !json::is_blank(value));
        let delta = json::get(choice, "delta").filter(adds);
        if let Some(delta) = delta.or_else(message) {
            self.delta(delta, out)?;
        }
        let logprobs = json::get(choice, "logprobs");
        if let Some(logprobs) = logprobs.filter(|it| json::fields(it).any(|(_, value)| !json::is_blank(value))) {
            self.extras.piece("logprobs", logprobs, out);
        }
        self.extras.fields(choice, CHOICE_FIELDS, out);
        if let Some(word) = json::text(choice, "finish_reason") {
            self.record(word, json::text(choice, "native_finish_reason"));
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        self.reasoning(delta, out);
        match delta.get("content") {
            Some(Value::String(text)) => self.text(text, out),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| self.part(part, out)),
            _ => {}
        }
        if let Some(refusal) = json::text(delta, "refusal") {
            self.said.refusal = true;
            out(Piece::Event(Event::Refusal { delta: refusal.into() }));
        }
        let calls = json::items(delta, "tool_calls").iter();
        for call in calls.chain(json::get(delta, "function_call")) {
            let id = self.calls.add(call, out)?;
            if let Some(extra) = json::get(call, "extra_content") {
                self.signatures.add_extra_content(extra, id);
            }
        }
        let (sources, other): (Vec<&Value>, Vec<&Value>) =
            json::items(delta, "annotations").iter().map(annotated).partition(|it| json::text(it, "url").is_some());
        self.sources.tell(sources, &self.extras, out);
        other.into_iter().for_each(|annotation| self.extras.piece("annotation", annotation, out));
        for (name, value) in json::fields(delta) {
            if !DELTA_FIELDS.contains(&name.as_str()) && !json::is_blank(value) {
                self.extras.piece(name, value, out);
            }
        }
        Ok(())
    }

    /// Tells the reasoning once, however many fields hold it.
    fn reasoning(&mut self, delta: &Value, out: &mut Out<'_>) {
        let details = json::items(delta, "reasoning_details");
        let plain = json::text(delta, "reasoning_content").or_else(|| json::text(delta, "reasoning"));
        if let Some(text) = plain {
            self.thought(text, ReasoningKind::Text, out);
        }
        for detail in details {
            self.signatures.add_detail(detail);
            if plain.is_some() {
                continue;
            }
            if let Some(summary) = json::text(detail, "summary") {
                self.thought(summary, ReasoningKind::Summary, out);
            } else if let Some(text) = json::text(detail, "text") {
                self.thought(text, ReasoningKind::Text, out);
            }
        }
    }

    /// Takes one part of a content that is an array, as Mistral writes it.
    fn part(&mut self, part: &Value, out: &mut Out<'_>) {
        match (json::text(part, "type"), part) {
            (_, Value::String(text)) => self.text(text, out),
            (Some("text" | "output_text"), _) => self.text(json::text(part, "text").unwrap_or_default(), out),
            (Some("thinking" | "reasoning"), _) => {
                let whole = ["thinking", "text"].iter().find_map(|key| json::text(part, key));
                let pieces = json::items(part, "thinking").iter().filter_map(|piece| json::text(piece, "text"));
                for text in whole.into_iter().chain(pieces) {
                    self.thought(text, ReasoningKind::Text, out);
                }
            }
            _ => self.extras.piece("content", part, out),
        }
    }

    fn text(&mut self, text: &str, out: &mut Out<'_>) {
        if !text.is_empty() {
            self.said.text = true;
            out(Piece::Event(Event::Delta { delta: text.into() }));
        }
    }

    fn thought(&mut self, text: &str, kind: ReasoningKind, out: &mut Out<'_>) {
        self.said.reasoning = true;
        out(Piece::Event(Event::Reasoning { delta: text.into(), kind }));
    }

    fn has_said(&self) -> bool {
        self.said.text || self.said.reasoning || self.said.refusal || self.calls.any()
    }

    /// Records a finish reason. It may be repeated; a mere `stop` takes nothing back.
    fn record(&mut self, word: &str, native: Option<&str>) {
        let reason = reason_of(word);
        if reason != FinishReason::Stop || self.finish.is_none() {
            self.finish = Some(Finish { reason, native: Some(native.unwrap_or(word).to_owned()) });
        }
    }

    fn tell_usage(&mut self, out: &mut Out<'_>) {
        if let Some(event) = self.usage.news() {
            out(Piece::Event(event));
        }
    }

    fn failed(&mut self, error: &Value, out: &mut Out<'_>) -> Failure {
        self.tell_cost_of_failure(out);
        errors::in_stream(error)
    }

    /// Tells what a broken answer has cost. One that has said nothing stays silent, so that it can be tried again.
    fn tell_cost_of_failure(&mut self, out: &mut Out<'_>) {
        if self.has_said() {
            self.tell_usage(out);
        }
    }

    /// The terminator has come. Without a finish reason the answer counts if it has said anything, and nothing is
    /// said about why it ended.
    fn close(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        if self.finish.is_none() && !self.has_said() {
            return Err(Failure::new(Code::UpstreamProtocol, "the provider's answer is empty"));
        }
        let cut = Decode::finish(self).reason == FinishReason::Length;
        self.calls.complete(cut, out);
        self.signatures.tell(out);
        self.tell_usage(out);
        Ok(())
    }
}

/// What an annotation is about: the object under the name of its type, or itself.
fn annotated(annotation: &Value) -> &Value {
    json::get(annotation, "url_citation").unwrap_or(annotation)
}

/// The error of a choice: said outright, or by a finish reason that is none.
fn error_of_choice(choice: &Value) -> Option<&Value> {
    let broken = json::text(choice, "finish_reason").is_some_and(|word| reason_of(word) == FinishReason::Error);
    errors::error_in(choice).or_else(|| json::get(choice, "finish_reason").filter(|_| broken))
}

/// A finish reason's normalized meaning.
fn reason_of(word: &str) -> FinishReason {
    match word.to_ascii_lowercase().as_str() {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "completed" => FinishReason::Stop,
        "length" | "max_tokens" | "max_output_tokens" | "model_length" => FinishReason::Length,
        "tool_calls" | "function_call" | "tool_use" | "tool_call" => FinishReason::ToolCalls,
        "content_filter" | "content-filter" | "safety" | "sensitive" | "refusal" | "prohibited_content" => {
            FinishReason::ContentFilter
        }
        "error" | "abort" | "network_error" | "insufficient_system_resource" => FinishReason::Error,
        _ => FinishReason::Other,
    }
}
