//! Chunks: an answer as a stream of chat completion chunks.
//!
//! What OpenAI's clients survive is narrower than what the standard allows: only `data:` lines of one JSON document
//! each, the role in the first chunk, a chunk with the finish reason, and `[DONE]` as the very last thing, which an
//! answer that failed does not get. An `error` is there or not there, and never null.

use std::io::Write;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::Words;
use super::completion::{Sources, finish_word};
use super::heard::Said;
use super::usage::ChatUsage;
use super::{failure_of, model_of, unix_now};
use crate::event::Citation;
use crate::failure::{Code, Failure};
use crate::fanout::{End, Outcome, Subscription};
use crate::http::error::ErrorBody;

/// See the module.
pub(super) struct Chunks {
    id: String,
    created: u64,
    /// What answers; known with the first chunk.
    model: Option<String>,
    wants_usage: bool,
    citations: Vec<Citation>,
    is_over: bool,
}

/// A piece of a chat completion.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionChunk)]
pub(in crate::http) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    /// Null in every chunk but the last, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ChatUsage>)]
    usage: Option<Option<ChatUsage>>,
    #[serde(flatten)]
    #[schema(value_type = Sources)]
    sources: Option<Sources<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionChunkChoice)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Value>,
    #[schema(required)]
    finish_reason: Option<&'static str>,
}

/// What a chunk adds to the message.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = ChatCompletionDelta)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<CallDelta>>)]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionCallDelta)]
struct CallDelta<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionFunctionDelta)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl Chunks {
    /// The chunks of a request's answer.
    pub(super) fn new(subscription: &Subscription, wants_usage: bool) -> Self {
        // The request's own id, so that whoever has a chunk can cancel it.
        let id = subscription.facts.request.to_string();
        Self { id, created: unix_now(), model: None, wants_usage, citations: Vec::new(), is_over: false }
    }

    /// Writes the chunk with the role, unless it was written before.
    fn begin(&mut self, subscription: &Subscription, out: &mut BytesMut) {
        if self.model.is_none() {
            self.model = Some(model_of(subscription));
            self.choice(Delta { role: Some("assistant"), content: Some(""), ..Delta::default() }, None, None, out);
        }
    }

    fn choice(&self, delta: Delta<'_>, logprobs: Option<Value>, finish: Option<&'static str>, out: &mut BytesMut) {
        let sources = (finish.is_some() && !self.citations.is_empty()).then(|| Sources::of(&self.citations));
        self.chunk(&[Choice { index: 0, delta, logprobs, finish_reason: finish }], None, sources, out);
    }

    fn chunk(
        &self,
        choices: &[Choice<'_>],
        usage: Option<ChatUsage>,
        sources: Option<Sources<'_>>,
        out: &mut BytesMut,
    ) {
        let (id, model) = (&*self.id, self.model.as_deref().unwrap_or_default());
        let object = "chat.completion.chunk";
        let usage = self.wants_usage.then_some(usage);
        write_data(&Chunk { id, object, created: self.created, model, choices, usage, sources }, out);
    }

    /// Writes the failure that ends the stream.
    fn fail(&mut self, failure: &Failure, out: &mut BytesMut) {
        self.is_over = true;
        write_data(&ErrorBody { error: failure.body(Some(&self.id)) }, out);
    }
}

impl Words for Chunks {
    fn said(&mut self, subscription: &Subscription, said: Said<'_>, out: &mut BytesMut) {
        if self.is_over {
            return;
        }
        let mut logprobs = None;
        let delta = match said {
            Said::Text(text) => Delta { content: Some(text), ..Delta::default() },
            Said::Reasoning(text) => Delta { reasoning_content: Some(text), ..Delta::default() },
            Said::Refusal(text) => Delta { refusal: Some(text), ..Delta::default() },
            Said::CallBegins { index, id, name } => {
                let function = FunctionDelta { name: Some(name), arguments: "" };
                let call = CallDelta { index, id: Some(id), r#type: Some("function"), function };
                Delta { tool_calls: Some([call]), ..Delta::default() }
            }
            Said::CallArguments { index, delta } => {
                let function = FunctionDelta { name: None, arguments: delta };
                let call = CallDelta { index, id: None, r#type: None, function };
                Delta { tool_calls: Some([call]), ..Delta::default() }
            }
            Said::Logprobs(data) => {
                logprobs = Some(data);
                Delta::default()
            }
            Said::Citations(items) => {
                self.begin(subscription, out);
                self.citations.extend(items);
                let choices = [Choice { index: 0, delta: Delta::default(), logprobs: None, finish_reason: None }];
                return self.chunk(&choices, None, Some(Sources::of(&self.citations)), out);
            }
            Said::CallEnds { .. } => return,
            Said::Reset if self.model.is_none() => return,
            Said::Reset => {
                let message = "the answer begins anew, which cannot be told to this client";
                return self.fail(&Failure::new(Code::UpstreamError, message), out);
            }
        };
        self.begin(subscription, out);
        self.choice(delta, logprobs, None, out);
    }

    fn ended(&mut self, subscription: &Subscription, End { outcome, .. }: &End, out: &mut BytesMut) {
        if self.is_over {
            return;
        }
        if let Some(failure) = failure_of(outcome) {
            return self.fail(&failure, out);
        }
        self.begin(subscription, out);
        let Outcome { finish, usage, .. } = outcome;
        self.choice(Delta::default(), None, Some(finish_word(finish.reason)), out);
        if let Some(usage) = usage.filter(|_| self.wants_usage) {
            self.chunk(&[], Some(usage.into()), None, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// Appends one event: JSON in one line, and nothing else.
pub(super) fn write_data(data: &impl Serialize, out: &mut BytesMut) {
    let mut out = out.writer();
    out.write_all(b"data: ").expect("writing to memory cannot fail");
    serde_json::to_writer(&mut out, data).expect("chunks have string keys and finite numbers");
    out.write_all(b"\n\n").expect("writing to memory cannot fail");
}
