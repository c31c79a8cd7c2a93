//! Events: an answer as the stream of events that OpenAI's clients put a response together from.
//!
//! Each item is opened, grows and is closed; so is each part of it. Reasoning and text come one after the other, calls
//! may overlap. The last event is `response.completed`, `.incomplete` or `.failed`; nothing follows it.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};

use super::object::{self, Object, State};
use crate::event::Citation;
use crate::failure::{Code, Failure};
use crate::fanout::{End, Subscription};
use crate::http::openai::body::Words;
use crate::http::openai::failure_of;
use crate::http::openai::heard::Said;

/// See the module.
pub(super) struct Events {
    object: Object,
    /// The number of the next event.
    sequence: u64,
    has_begun: bool,
    is_over: bool,
    /// The items, each at its place once it is closed.
    output: Vec<Value>,
    current: Option<Item>,
    /// The calls that are open, by their index.
    calls: BTreeMap<u32, Call>,
    /// Sources that no text has got yet.
    citations: Vec<Citation>,
}

/// The item that is being said.
struct Item {
    at: usize,
    id: String,
    kind: ItemKind,
    /// The parts that are closed.
    parts: Vec<Value>,
    open: Option<(PartKind, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Reasoning,
    Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartKind {
    Summary,
    Text,
    Refusal,
}

/// A call that is being made.
struct Call {
    at: usize,
    id: String,
    call_id: String,
    name: String,
}

/// What the events of a kind of part are called.
struct Names {
    item: ItemKind,
    added: &'static str,
    delta: &'static str,
    done: &'static str,
    part_done: &'static str,
    /// The field that says which part of the item it is.
    index: &'static str,
    /// The field of the part that has its text.
    text: &'static str,
}

impl PartKind {
    fn names(self) -> Names {
        let content = Names {
            item: ItemKind::Message,
            added: "response.content_part.added",
            delta: "response.output_text.delta",
            done: "response.output_text.done",
            part_done: "response.content_part.done",
            index: "content_index",
            text: "text",
        };
        match self {
            PartKind::Text => content,
            PartKind::Refusal => {
                Names { delta: "response.refusal.delta", done: "response.refusal.done", text: "refusal", ..content }
            }
            PartKind::Summary => Names {
                item: ItemKind::Reasoning,
                added: "response.reasoning_summary_part.added",
                delta: "response.reasoning_summary_text.delta",
                done: "response.reasoning_summary_text.done",
                part_done: "response.reasoning_summary_part.done",
                index: "summary_index",
                text: "text",
            },
        }
    }

    fn part(self, text: &str, annotations: &[Value]) -> Value {
        match self {
            PartKind::Summary => json!({ "type": "summary_text", "text": text }),
            PartKind::Text => object::text_part(text, annotations),
            PartKind::Refusal => json!({ "type": "refusal", "refusal": text }),
        }
    }
}

impl Item {
    fn value(&self, status: &str) -> Value {
        match self.kind {
            ItemKind::Reasoning => object::reasoning(&self.id, &self.parts),
            ItemKind::Message => object::message(&self.id, status, &self.parts),
        }
    }
}

impl Events {
    /// The events of a response.
    pub(super) fn new(object: Object) -> Self {
        Self {
            object,
            sequence: 0,
            has_begun: false,
            is_over: false,
            output: Vec::new(),
            current: None,
            calls: BTreeMap::new(),
            citations: Vec::new(),
        }
    }

    /// Writes one event; `fields` are those beside its type and number.
    fn event(&mut self, kind: &str, mut fields: Value, out: &mut BytesMut) {
        fields["type"] = kind.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        let mut out = out.writer();
        write!(out, "event: {kind}\ndata: ").expect("writing to memory cannot fail");
        serde_json::to_writer(&mut out, &fields).expect("events have string keys and finite numbers");
        out.write_all(b"\n\n").expect("writing to memory cannot fail");
    }

    fn begin(&mut self, subscription: &Subscription, out: &mut BytesMut) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let response = self.object.state(subscription, &State::InProgress, &[]);
        self.event("response.created", json!({ "response": response }), out);
        self.event("response.in_progress", json!({ "response": response }), out);
    }

    /// The next place for an item.
    fn place(&mut self) -> usize {
        self.output.push(Value::Null);
        self.output.len() - 1
    }

    /// Says more of a kind of part; opens and closes what has to be.
    fn say(&mut self, kind: PartKind, text: &str, out: &mut BytesMut) {
        let names = kind.names();
        if self.current.as_ref().is_none_or(|item| item.kind != names.item) {
            self.close_item(out);
            self.open_item(names.item, out);
        }
        if !matches!(&self.current, Some(Item { open: Some((open, _)), .. }) if *open == kind) {
            self.close_part(out);
            self.part_event(names.added, kind, json!({ "part": kind.part("", &[]) }), out);
        }
        let mut fields = json!({ "delta": text });
        if kind == PartKind::Text {
            fields["logprobs"] = json!([]);
        }
        self.part_event(names.delta, kind, fields, out);
        if let Some(item) = &mut self.current {
            item.open.get_or_insert_with(|| (kind, String::new())).1.push_str(text);
        }
    }

    /// Writes an event about the part of the current item that is open, or about to be.
    fn part_event(&mut self, name: &str, kind: PartKind, mut fields: Value, out: &mut BytesMut) {
        let Some(item) = &self.current else { return };
        fields["item_id"] = item.id.as_str().into();
        fields["output_index"] = item.at.into();
        fields[kind.names().index] = item.parts.len().into();
        self.event(name, fields, out);
    }

    fn open_item(&mut self, kind: ItemKind, out: &mut BytesMut) {
        let at = self.place();
        let prefix = if kind == ItemKind::Message { "msg" } else { "rs" };
        let item = Item { at, id: self.object.item_id(prefix, at), kind, parts: Vec::new(), open: None };
        let fields = json!({ "output_index": at, "item": item.value("in_progress") });
        self.current = Some(item);
        self.event("response.output_item.added", fields, out);
    }

    fn close_part(&mut self, out: &mut BytesMut) {
        let Some((kind, text)) = self.current.as_mut().and_then(|item| item.open.take()) else { return };
        let names = kind.names();
        let mut annotations = Vec::new();
        if kind == PartKind::Text {
            for (at, source) in std::mem::take(&mut self.citations).iter().enumerate() {
                let annotation = object::annotation(source, &text);
                let fields = json!({ "annotation_index": at, "annotation": annotation });
                self.part_event("response.output_text.annotation.added", kind, fields, out);
                annotations.push(annotation);
            }
        }
        let part = kind.part(&text, &annotations);
        let mut fields = json!({ names.text: text });
        if kind == PartKind::Text {
            fields["logprobs"] = json!([]);
        }
        self.part_event(names.done, kind, fields, out);
        self.part_event(names.part_done, kind, json!({ "part": part }), out);
        if let Some(item) = &mut self.current {
            item.parts.push(part);
        }
    }

    fn close_item(&mut self, out: &mut BytesMut) {
        self.close_part(out);
        if let Some(item) = self.current.take() {
            self.item_done(item.at, item.value("completed"), out);
        }
    }

    fn item_done(&mut self, at: usize, item: Value, out: &mut BytesMut) {
        self.event("response.output_item.done", json!({ "output_index": at, "item": item }), out);
        self.output[at] = item;
    }

    fn call_begins(&mut self, index: u32, call_id: &str, name: &str, out: &mut BytesMut) {
        self.close_item(out);
        let at = self.place();
        let id = self.object.item_id("fc", at);
        let item = object::function_call(&id, "in_progress", call_id, name, "");
        self.calls.insert(index, Call { at, id, call_id: call_id.to_owned(), name: name.to_owned() });
        self.event("response.output_item.added", json!({ "output_index": at, "item": item }), out);
    }

    fn call_grows(&mut self, index: u32, delta: &str, out: &mut BytesMut) {
        let Some(Call { at, id, .. }) = self.calls.get(&index) else { return };
        let fields = json!({ "item_id": id, "output_index": at, "delta": delta });
        self.event("response.function_call_arguments.delta", fields, out);
    }

    fn call_ends(&mut self, index: u32, arguments: &str, out: &mut BytesMut) {
        let Some(Call { at, id, call_id, name }) = self.calls.remove(&index) else { return };
        let fields = json!({ "item_id": id, "output_index": at, "name": name, "arguments": arguments });
        self.event("response.function_call_arguments.done", fields, out);
        let item = object::function_call(&id, "completed", &call_id, &name, arguments);
        self.item_done(at, item, out);
    }

    /// Writes the last event, with the items that are closed.
    fn end(&mut self, kind: &str, state: &State<'_>, subscription: &Subscription, out: &mut BytesMut) {
        self.is_over = true;
        let closed: Vec<_> = self.output.iter().filter(|item| !item.is_null()).cloned().collect();
        let response = self.object.state(subscription, state, &closed);
        self.event(kind, json!({ "response": response }), out);
    }
}

impl Words for Events {
    fn said(&mut self, subscription: &Subscription, said: Said<'_>, out: &mut BytesMut) {
        if self.is_over || matches!(said, Said::Logprobs(_)) || (said == Said::Reset && !self.has_begun) {
            return;
        }
        self.begin(subscription, out);
        match said {
            Said::Text(text) => self.say(PartKind::Text, text, out),
            Said::Reasoning(text) => self.say(PartKind::Summary, text, out),
            Said::Refusal(text) => self.say(PartKind::Refusal, text, out),
            Said::CallBegins { index, id, name } => self.call_begins(index, id, name, out),
            Said::CallArguments { index, delta } => self.call_grows(index, delta, out),
            Said::CallEnds { index, arguments } => self.call_ends(index, arguments, out),
            Said::Citations(items) => self.citations.extend(items),
            Said::Logprobs(_) => {}
            Said::Reset => {
                let message = "the answer begins anew, which cannot be told to this client";
                let failure = Failure::new(Code::UpstreamError, message);
                self.end("response.failed", &State::Failed(&failure), subscription, out);
            }
        }
    }

    fn ended(&mut self, subscription: &Subscription, End { outcome, .. }: &End, out: &mut BytesMut) {
        if self.is_over {
            return;
        }
        self.begin(subscription, out);
        if let Some(failure) = failure_of(outcome) {
            return self.end("response.failed", &State::Failed(&failure), subscription, out);
        }
        self.close_item(out);
        let is_complete = object::is_complete(outcome.finish.reason);
        let kind = if is_complete { "response.completed" } else { "response.incomplete" };
        self.end(kind, &State::Ended(outcome), subscription, out);
    }
}
