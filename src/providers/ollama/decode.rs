//! The answer: a line of JSON for each piece, the last one with `done`.
//!
//! Calls of tools come whole, their arguments as an object; that the answer ends in them is not said (`stop`), but
//! seen. An answer that was not streamed is the last line alone.

use serde_json::Value;

use super::errors;
use crate::event::{Event, Finish, FinishReason, ReasoningKind, Usage};
use crate::failure::Failure;
use crate::providers::answer::truncated;
use crate::providers::extras::Extras;
use crate::providers::openai_chat::tools::Calls;
use crate::providers::{Decode, Flow, Frame, Piece, json};

type Out<'o> = dyn FnMut(Piece<'_>) + 'o;

const DIALECT: &str = "ollama";

/// Fields of a line that are understood, or not worth telling.
const LINE_FIELDS: &[&str] = &[
    "created_at",
    "done",
    "done_reason",
    "error",
    "eval_count",
    "eval_duration",
    "load_duration",
    "logprobs",
    "message",
    "model",
    "prompt_eval_count",
    "prompt_eval_duration",
    "total_duration",
];
const MESSAGE_FIELDS: &[&str] = &["content", "role", "thinking", "tool_calls"];

/// How long the parts of the answer took, in nanoseconds.
const TIMINGS: [&str; 4] = ["eval_duration", "load_duration", "prompt_eval_duration", "total_duration"];

/// Decodes one answer.
#[derive(Debug)]
pub(super) struct Decoder {
    model: String,
    calls: Calls,
    extras: Extras,
    done_reason: Option<String>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { model: String::new(), calls: Calls::default(), extras: Extras::new(DIALECT), done_reason: None }
    }
}

impl Decode for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let line = json::parse(frame.data)?;
        if let Some(error) = json::get(&line, "error").filter(|error| !json::is_blank(error)) {
            return Err(errors::in_stream(error));
        }
        if let Some(model) = json::text(&line, "model").filter(|model| *model != self.model) {
            model.clone_into(&mut self.model);
            out(Piece::Model(model));
        }
        if let Some(message) = json::get(&line, "message") {
            self.message(message, out)?;
        }
        if let Some(logprobs) = json::get(&line, "logprobs").filter(|logprobs| !json::is_blank(logprobs)) {
            self.extras.piece("logprobs", logprobs, out);
        }
        self.extras.fields(&line, LINE_FIELDS, out);
        if line.get("done") != Some(&Value::Bool(true)) {
            return Ok(Flow::More);
        }
        self.close(&line, out);
        Ok(Flow::Ended)
    }

    fn end(&mut self, _out: &mut Out<'_>) -> Result<(), Failure> {
        Err(truncated())
    }

    fn finish(&self) -> Finish {
        let Some(word) = &self.done_reason else { return Finish::UNTOLD };
        let reason = match word.as_str() {
            "length" => FinishReason::Length,
            "stop" if self.calls.any() => FinishReason::ToolCalls,
            "stop" => FinishReason::Stop,
            // `load` and `unload` among them: the request had no message.
            _ => FinishReason::Other,
        };
        Finish { reason, native: Some(word.clone()) }
    }
}

impl Decoder {
    fn message(&mut self, message: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        if let Some(text) = json::text(message, "thinking") {
            out(Piece::Event(Event::Reasoning { delta: text.into(), kind: ReasoningKind::Text }));
        }
        if let Some(text) = json::text(message, "content") {
            out(Piece::Event(Event::Delta { delta: text.into() }));
        }
        for call in json::items(message, "tool_calls") {
            self.calls.add(call, out)?;
        }
        for (name, value) in json::fields(message) {
            if !MESSAGE_FIELDS.contains(&name.as_str()) && !json::is_blank(value) {
                self.extras.piece(name, value, out);
            }
        }
        Ok(())
    }

    /// The last line has come.
    fn close(&mut self, line: &Value, out: &mut Out<'_>) {
        self.done_reason = json::text(line, "done_reason").map(str::to_owned);
        let cut = Decode::finish(self).reason == FinishReason::Length;
        self.calls.complete(cut, out);
        let count = |key: &str| json::get(line, key).and_then(json::count).unwrap_or(0);
        let (input, output) = (count("prompt_eval_count"), count("eval_count"));
        let usage = Usage { input, output, total: input.saturating_add(output), ..Usage::default() };
        if usage != Usage::default() {
            out(Piece::Event(Event::Usage { usage }));
        }
        let timings = TIMINGS.iter().filter_map(|name| Some(((*name).to_owned(), json::get(line, name)?.clone())));
        let timings = Value::Object(timings.collect());
        if !json::is_blank(&timings) {
            self.extras.piece("timings", &timings, out);
        }
    }
}
