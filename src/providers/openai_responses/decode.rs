//! The answer: events about items become pieces.
//!
//! - The terminator is one event: `response.completed`, `.incomplete`, `.failed` or `.cancelled`. It holds the whole
//!   answer once more, of which only the usage is news, unless the server has not told any item before.
//! - Texts are told from their pieces; whatever repeats them counts only where there were none.
//! - Whole tool calls, signatures and the usage are told at the answer's end.
//! - The answer as an object repeats the request with the operator's instructions and tools. Of its fields only those
//!   known to be harmless go out.

use serde_json::Value;

use super::Flavor;
use super::activities::{self, Activities, Meaning};
use super::parts::{Kind, Part, Told};
use super::signatures::Signatures;
use crate::event::{Event, Finish, FinishReason};
use crate::failure::Failure;
use crate::providers::answer::truncated;
use crate::providers::extras::Extras;
use crate::providers::openai_chat::errors;
use crate::providers::openai_chat::tools::{self, Calls};
use crate::providers::openai_chat::usage::Ledger;
use crate::providers::sources::{Sources, is_link};
use crate::providers::{Decode, Flow, Frame, Piece, json};

type Out<'o> = dyn FnMut(Piece<'_>) + 'o;

/// Some servers send it behind the terminator. In place of one it is none.
const DONE: &str = "[DONE]";
/// Events that only say that the answer, or a part of it, begins, ends or goes on.
const SILENT: [&str; 14] = [
    "content_part.added",
    "content_part.done",
    "created",
    "heartbeat",
    "in_progress",
    "keepalive",
    "ping",
    "queued",
    "reasoning_part.added",
    "reasoning_part.done",
    "reasoning_summary_part.added",
    "reasoning_summary_part.done",
    "reasoning_summary.done",
    "unknown",
];
/// Fields of the whole answer that go out.
const TOLD_FIELDS: [&str; 2] = ["content_filters", "moderation"];
/// Longer names than this are nobody's.
const NAME_LEN_MAX: usize = 64;

/// Decodes one answer.
pub(super) struct Decoder {
    flavor: &'static Flavor,
    upstream_id: bool,
    model: String,
    told: Told,
    calls: Calls,
    sources: Sources,
    activities: Activities,
    signatures: Signatures,
    usage: Ledger,
    extras: Extras,
    /// Whether anything has been told.
    spoke: bool,
    /// Whether an item has come whole.
    itemized: bool,
    /// Whether annotations have come by themselves.
    annotated: bool,
    finish: Option<Finish>,
}

impl Decode for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let mut speaks = false;
        let flow = self.read(frame, &mut |piece| {
            speaks |= matches!(piece, Piece::Event(_));
            out(piece);
        });
        self.spoke |= speaks;
        flow
    }

    fn end(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        Err(self.truncated(out))
    }

    fn finish(&self) -> Finish {
        self.finish.clone().unwrap_or(Finish::UNTOLD)
    }
}

impl Decoder {
    /// A decoder for a new answer.
    pub(super) fn new(flavor: &'static Flavor) -> Self {
        Self {
            flavor,
            upstream_id: false,
            model: String::new(),
            told: Told::default(),
            calls: Calls::default(),
            sources: Sources::default(),
            activities: Activities::default(),
            signatures: Signatures::default(),
            usage: Ledger::default(),
            extras: Extras::new(flavor.name),
            spoke: false,
            itemized: false,
            annotated: false,
            finish: None,
        }
    }

    fn read(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let data = frame.data.trim();
        if data == DONE {
            return Err(self.truncated(out));
        }
        let event = match json::parse(data) {
            Ok(event) => event,
            Err(_) if frame.event == Some("error") => return Err(self.failed(&Value::Null, out)),
            // Nothing is a frame that keeps the connection alive, and frames with names of their own may be anybody's.
            Err(_) if data.is_empty() || !frame.event.is_none_or(is_ours) => return Ok(Flow::More),
            Err(failure) => return Err(failure),
        };
        if json::text(&event, "object") == Some("response") {
            // An answer that was not streamed.
            let status = json::text(&event, "status").unwrap_or_default();
            return if is_terminal(status) { self.terminal(status, &event, out) } else { Ok(Flow::More) };
        }
        let name = json::text(&event, "type").or(frame.event).unwrap_or_default();
        let name = name.strip_prefix("response.").unwrap_or(name);
        if name == "error" || frame.event == Some("error") || name.is_empty() {
            return match errors::error_in(&event) {
                Some(error) => Err(self.failed(error, out)),
                None if name.is_empty() => Ok(Flow::More),
                None => Err(self.failed(&event, out)),
            };
        }
        self.event(name, &event, out)
    }

    fn event(&mut self, name: &str, event: &Value, out: &mut Out<'_>) -> Result<Flow, Failure> {
        if let Some(response) = json::get(event, "response") {
            self.identify(response, out);
        }
        self.usage.note(event);
        let delta = json::text(event, "delta").unwrap_or_default();
        let text = json::text(event, "text").unwrap_or_default();
        let part = |kind| Part::of(kind, event);
        match name {
            "output_text.delta" => {
                self.logprobs(event, out);
                self.told.piece(part(Kind::Text), delta, out)?;
            }
            "output_text.done" => self.told.whole(part(Kind::Text), text, out)?,
            "refusal.delta" => self.told.piece(part(Kind::Refusal), delta, out)?,
            "refusal.done" => {
                let refusal = json::text(event, "refusal").unwrap_or_default();
                self.told.whole(part(Kind::Refusal), refusal, out)?;
            }
            "reasoning_text.delta" | "reasoning.delta" => self.told.piece(part(Kind::Reasoning), delta, out)?,
            "reasoning_text.done" | "reasoning.done" => self.told.whole(part(Kind::Reasoning), text, out)?,
            "reasoning_summary_text.delta" | "reasoning_summary.delta" => {
                self.told.piece(part(Kind::Summary), delta, out)?;
            }
            "reasoning_summary_text.done" => self.told.whole(part(Kind::Summary), text, out)?,
            "output_text.annotation.added" => {
                self.annotated = true;
                self.annotations(json::get(event, "annotation"), true, out);
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                let part = tools::Part { number: place(event), arguments: delta.into(), ..tools::Part::default() };
                self.calls.add_part(&part, out)?;
            }
            "function_call_arguments.done" | "custom_tool_call_input.done" => {
                let arguments = arguments(event).into();
                let part = tools::Part { number: place(event), arguments, ..tools::Part::default() };
                self.calls.add_whole(part, out)?;
            }
            "output_item.added" => self.begun(place(event), json::get(event, "item"), out)?,
            "output_item.done" => self.item(place(event), json::get(event, "item"), out)?,
            _ if is_terminal(name) => return self.terminal(name, event, out),
            _ if SILENT.contains(&name) => {}
            _ => self.other(name, event, out),
        }
        Ok(Flow::More)
    }

    /// Tells who answers. A router, or an agent, knows it for sure at the end only.
    fn identify(&mut self, response: &Value, out: &mut Out<'_>) {
        if let Some(id) = json::text(response, "id").filter(|_| !self.upstream_id) {
            self.upstream_id = true;
            out(Piece::UpstreamId(id));
        }
        if let Some(model) = json::text(response, "model").filter(|model| *model != self.model) {
            model.clone_into(&mut self.model);
            out(Piece::Model(model));
        }
    }

    fn logprobs(&self, event: &Value, out: &mut Out<'_>) {
        if let Some(logprobs) = event.get("logprobs").filter(|logprobs| !json::is_blank(logprobs)) {
            self.extras.piece("logprobs", logprobs, out);
        }
    }

    /// Tells annotations: those with a url are citations; the others go out only where they come first.
    fn annotations<'v>(&mut self, found: impl IntoIterator<Item = &'v Value>, is_news: bool, out: &mut Out<'_>) {
        let annotated = |it: &'v Value| json::get(it, "url_citation").unwrap_or(it);
        let (sources, others): (Vec<&Value>, Vec<&Value>) =
            found.into_iter().map(annotated).partition(|it| json::text(it, "url").is_some());
        self.sources.tell(sources, &self.extras, out);
        others.into_iter().filter(|_| is_news).for_each(|annotation| self.extras.piece("annotation", annotation, out));
    }

    /// An item begins.
    fn begun(&mut self, place: Option<u64>, item: Option<&Value>, out: &mut Out<'_>) -> Result<(), Failure> {
        let Some(item) = item else { return Ok(()) };
        let kind = json::text(item, "type").unwrap_or_default();
        if let Some(kind) = activities::is_run(kind) {
            out(Piece::Event(Event::Activity { kind, state: "start".into(), detail: item.clone() }));
        } else if is_call(kind) && !self.flavor.is_agent {
            self.calls.add_part(&call(place, item, ""), out)?;
        }
        Ok(())
    }

    /// An item has come whole.
    fn item(&mut self, place: Option<u64>, item: Option<&Value>, out: &mut Out<'_>) -> Result<(), Failure> {
        let Some(item) = item else { return Ok(()) };
        self.itemized = true;
        self.signatures.note(item);
        let kind = json::text(item, "type").unwrap_or_default();
        match kind {
            "message" => self.message(place.unwrap_or(0), item, out)?,
            "reasoning" => self.reasoning(place.unwrap_or(0), item, out)?,
            _ if is_call(kind) => drop(self.calls.add_whole(call(place, item, arguments(item)), out)?),
            _ => {
                if let Some(kind) = activities::is_run(kind) {
                    out(Piece::Event(Event::Activity { kind, state: "result".into(), detail: item.clone() }));
                } else if let Some(kind) = activities::is_found(kind) {
                    let cited = self.cite(item, out);
                    self.activities.found_item(kind, item, cited).map(Piece::Event).into_iter().for_each(out);
                } else {
                    self.ext(kind, item, out);
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, place: u64, item: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        if let Some(text) = json::text(item, "content") {
            return self.told.whole(Part { kind: Kind::Text, item: place, index: 0 }, text, out);
        }
        for (index, content) in (0..).zip(json::items(item, "content")) {
            let part = |kind| Part { kind, item: place, index };
            match json::text(content, "type") {
                Some("output_text" | "text") => {
                    self.told.whole(part(Kind::Text), json::text(content, "text").unwrap_or_default(), out)?;
                    self.annotations(json::items(content, "annotations"), !self.annotated, out);
                }
                Some("refusal") => {
                    let refusal = json::text(content, "refusal").unwrap_or_default();
                    self.told.whole(part(Kind::Refusal), refusal, out)?;
                }
                _ => self.extras.piece("content", content, out),
            }
        }
        Ok(())
    }

    fn reasoning(&mut self, place: u64, item: &Value, out: &mut Out<'_>) -> Result<(), Failure> {
        for (kind, name) in [(Kind::Summary, "summary"), (Kind::Reasoning, "content")] {
            for (index, part) in (0..).zip(json::items(item, name)) {
                let text = json::text(part, "text").unwrap_or_default();
                self.told.whole(Part { kind, item: place, index }, text, out)?;
            }
        }
        Ok(())
    }

    /// Tells the results of a search as citations; whether all of them are.
    fn cite(&mut self, found: &Value, out: &mut Out<'_>) -> bool {
        let results = json::items(found, "results");
        self.sources.tell(results.iter().filter(|result| is_link(result)), &self.extras, out);
        !results.is_empty() && results.iter().all(is_link)
    }

    /// An event that is about neither texts nor calls.
    fn other(&mut self, name: &str, event: &Value, out: &mut Out<'_>) {
        let activity = match activities::meaning(name) {
            Meaning::Nothing => return,
            Meaning::Unknown => return self.ext(name, &activities::detail(event), out),
            Meaning::Activity(kind, "result") => {
                let cited = self.cite(event, out);
                self.activities.found(kind, event, cited)
            }
            Meaning::Activity(kind, state) => {
                Event::Activity { kind, state: state.into(), detail: activities::detail(event) }
            }
            Meaning::Progress(kind) => {
                let state = name.rsplit('.').next().unwrap_or(name);
                Event::Activity { kind, state: state.into(), detail: activities::detail(event) }
            }
        };
        out(Piece::Event(activity));
    }

    /// Hands on what has no place elsewhere, if its name is one.
    fn ext(&self, name: &str, data: &Value, out: &mut Out<'_>) {
        let is_name = name.len() <= NAME_LEN_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
        if is_name && !name.is_empty() && !json::is_blank(data) {
            self.extras.piece(name, data, out);
        }
    }

    /// The terminator, or a whole answer in its place.
    fn terminal(&mut self, name: &str, event: &Value, out: &mut Out<'_>) -> Result<Flow, Failure> {
        let response = json::get(event, "response").unwrap_or(event);
        self.identify(response, out);
        self.usage.note(response);
        let status = json::text(response, "status").filter(|status| is_terminal(status)).unwrap_or(name);
        let error = [response, event].into_iter().find_map(errors::error_in);
        if status == "failed" || (error.is_some() && status != "cancelled") {
            return Err(self.failed(error.unwrap_or(&Value::Null), out));
        }
        if !self.itemized && self.told.is_empty() {
            for (place, item) in (0..).zip(json::items(response, "output")) {
                self.item(Some(place), Some(item), out)?;
            }
        }
        for name in TOLD_FIELDS {
            self.ext(name, response.get(name).unwrap_or(&Value::Null), out);
        }
        let searches = json::get(response, "usage").and_then(|usage| json::get(usage, "tool_calls_details"));
        self.ext("tool_calls_details", searches.unwrap_or(&Value::Null), out);
        self.finish = Some(self.finish_of(status, response));
        self.close(out);
        Ok(Flow::Ended)
    }

    fn finish_of(&self, status: &str, response: &Value) -> Finish {
        let details = json::get(response, "incomplete_details");
        let native = match status {
            "incomplete" => details.and_then(|details| json::text(details, "reason")).unwrap_or(status),
            status => status,
        };
        let reason = match native {
            "cancelled" => FinishReason::Cancelled,
            "max_output_tokens" | "max_tokens" | "length" => FinishReason::Length,
            "content_filter" => FinishReason::ContentFilter,
            "completed" | "requires_action" if self.calls.any() => FinishReason::ToolCalls,
            "completed" if self.told.any(Kind::Refusal) && !self.told.any(Kind::Text) => FinishReason::ContentFilter,
            "completed" => FinishReason::Stop,
            _ => FinishReason::Other,
        };
        Finish { reason, native: Some(native.to_owned()) }
    }

    /// Tells what waits for the answer's end.
    fn close(&mut self, out: &mut Out<'_>) {
        let is_whole = |finish: &Finish| matches!(finish.reason, FinishReason::Stop | FinishReason::ToolCalls);
        let cut = !self.finish.as_ref().is_some_and(is_whole);
        self.calls.complete(cut, out);
        self.signatures.tell(out);
        self.tell_usage(out);
    }

    fn truncated(&mut self, out: &mut Out<'_>) -> Failure {
        self.tell_cost_of_failure(out);
        truncated()
    }

    fn failed(&mut self, error: &Value, out: &mut Out<'_>) -> Failure {
        self.tell_cost_of_failure(out);
        errors::in_stream(error)
    }

    /// Tells what a broken answer has cost. One that has said nothing stays silent, so that it can be tried again.
    fn tell_cost_of_failure(&mut self, out: &mut Out<'_>) {
        if self.spoke {
            self.tell_usage(out);
        }
    }

    fn tell_usage(&mut self, out: &mut Out<'_>) {
        if let Some(event) = self.usage.news() {
            out(Piece::Event(event));
        }
    }
}

/// Whether a frame of this name is part of the answer, so that none of it may be missing.
fn is_ours(name: &str) -> bool {
    name == "message" || name.starts_with("response.")
}

/// The states from which an answer does not go on; the terminators have the same names.
fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "incomplete" | "failed" | "cancelled" | "requires_action")
}

/// Whether an item of this type is a call of the client's tools.
fn is_call(kind: &str) -> bool {
    matches!(kind, "function_call" | "custom_tool_call")
}

fn call<'v>(place: Option<u64>, item: &'v Value, arguments: &'v str) -> tools::Part<'v> {
    let id = json::text(item, "call_id").or_else(|| json::text(item, "id"));
    tools::Part { number: place, id, name: json::text(item, "name"), arguments: arguments.into() }
}

/// A call's arguments: JSON for a function, any text for a custom tool.
fn arguments(value: &Value) -> &str {
    json::text(value, "arguments").or_else(|| json::text(value, "input")).unwrap_or_default()
}

/// An item's place in the answer.
fn place(event: &Value) -> Option<u64> {
    json::get(event, "output_index").and_then(json::count)
}
