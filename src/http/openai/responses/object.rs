//! Object: an answer as one response, and the items that it is made of.

use serde_json::{Map, Value, json};

use crate::event::{Citation, FinishReason, Usage};
use crate::failure::Failure;
use crate::fanout::{Outcome, Subscription};
use crate::http::openai::{model_of, unix_now};

/// What is the same in every state of a response.
pub(super) struct Object {
    id: String,
    created_at: u64,
    /// What it repeats of its request.
    echo: Map<String, Value>,
}

/// How a response stands.
pub(super) enum State<'a> {
    /// It is being made.
    InProgress,
    /// It is there.
    Ended(&'a Outcome),
    /// It has come to nothing, or to less than was asked for.
    Failed(&'a Failure),
}

impl Object {
    /// The response to a request.
    pub(super) fn new(subscription: &Subscription, echo: Map<String, Value>) -> Self {
        // The request's own id, so that whoever has the response can cancel it.
        Self { id: subscription.facts.request.to_string(), created_at: unix_now(), echo }
    }

    /// The response in a state, with the items that it has.
    pub(super) fn state(&self, subscription: &Subscription, state: &State<'_>, output: &[Value]) -> Value {
        let (status, why, error, usage) = match state {
            State::InProgress => ("in_progress", None, None, None),
            State::Ended(outcome) => {
                let (status, why) = status(outcome.finish.reason);
                (status, why, None, outcome.usage)
            }
            State::Failed(failure) => ("failed", None, Some(failure.body(Some(&self.id))), None),
        };
        let mut object = self.echo.clone();
        let own = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": false,
            "error": error,
            "incomplete_details": why.map(|reason| json!({ "reason": reason })),
            "model": model_of(subscription),
            "output": output,
            "previous_response_id": null,
            "store": false,
            "usage": usage.map(written_usage),
        });
        if let Value::Object(own) = own {
            object.extend(own);
        }
        Value::Object(object)
    }

    /// An answer that has ended well, with items made of what it has said.
    pub(super) fn whole(&self, subscription: &Subscription, outcome: &Outcome) -> Value {
        let answer = subscription.log.transcript();
        let mut output = Vec::new();
        if !answer.reasoning.is_empty() {
            let part = json!({ "type": "summary_text", "text": answer.reasoning });
            output.push(reasoning(&self.item_id("rs", output.len()), &[part]));
        }
        let mut parts = Vec::new();
        if !answer.text.is_empty() {
            let annotations: Vec<_> = answer.citations.iter().map(|source| annotation(source, &answer.text)).collect();
            parts.push(text_part(&answer.text, &annotations));
        }
        if !answer.refusal.is_empty() {
            parts.push(json!({ "type": "refusal", "refusal": answer.refusal }));
        }
        if !parts.is_empty() {
            output.push(message(&self.item_id("msg", output.len()), "completed", &parts));
        }
        for call in &answer.tool_calls {
            let id = self.item_id("fc", output.len());
            output.push(function_call(&id, "completed", &call.id, &call.name, &call.arguments));
        }
        self.state(subscription, &State::Ended(outcome), &output)
    }

    /// The id of the item at a place.
    pub(super) fn item_id(&self, kind: &str, at: usize) -> String {
        format!("{kind}_{}_{at}", self.id)
    }
}

/// How an answer that ended well is called, and what it lacks.
fn status(finish: FinishReason) -> (&'static str, Option<&'static str>) {
    match finish {
        FinishReason::Length => ("incomplete", Some("max_output_tokens")),
        FinishReason::ContentFilter => ("incomplete", Some("content_filter")),
        _ => ("completed", None),
    }
}

/// Whether an answer that ended well lacks nothing.
pub(super) fn is_complete(finish: FinishReason) -> bool {
    status(finish).1.is_none()
}

fn written_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": { "cached_tokens": usage.cached_input },
        "output_tokens": usage.output,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.total,
    })
}

/// An item of visible reasoning.
pub(super) fn reasoning(id: &str, parts: &[Value]) -> Value {
    json!({ "id": id, "type": "reasoning", "summary": parts })
}

/// An item that is said.
pub(super) fn message(id: &str, status: &str, parts: &[Value]) -> Value {
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": parts })
}

/// An item that is a call of one of the client's tools.
pub(super) fn function_call(id: &str, status: &str, call_id: &str, name: &str, arguments: &str) -> Value {
    let (kind, status) = ("function_call", status);
    json!({ "id": id, "type": kind, "status": status, "call_id": call_id, "name": name, "arguments": arguments })
}

/// A part of text.
pub(super) fn text_part(text: &str, annotations: &[Value]) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": annotations, "logprobs": [] })
}

/// A source. Where the text speaks of it is not known, so it stands at the end.
pub(super) fn annotation(source: &Citation, text: &str) -> Value {
    let end = text.chars().count();
    let (url, title) = (&source.url, &source.title);
    json!({ "type": "url_citation", "url": url, "title": title, "start_index": end, "end_index": end })
}
