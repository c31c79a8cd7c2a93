//! Completion: an answer as one chat completion.

use std::future::poll_fn;
use std::task::Poll;

use actix_web::HttpResponse;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::heard::Said;
use super::listening::{Found, Listening};
use super::usage::ChatUsage;
use super::{failure_of, model_of, unix_now};
use crate::event::{Citation, FinishReason};
use crate::failure::{Code, Failure};
use crate::fanout::{Outcome, Subscription, Transcript};
use crate::http::error::ApiResult;

/// What the logprobs of one answer may take, as JSON in bytes.
const LOGPROBS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An answer as a whole.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletion)]
pub(in crate::http) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    #[schema(value_type = Vec<Choice>)]
    choices: [Choice<'a>; 1],
    #[schema(required)]
    usage: Option<ChatUsage>,
    #[serde(flatten)]
    #[schema(value_type = Sources)]
    sources: Option<Sources<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionChoice)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Value,
    finish_reason: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionMessage)]
struct Message<'a> {
    role: &'static str,
    #[schema(required)]
    content: Option<&'a str>,
    #[schema(required)]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionCall)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCompletionFunction)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// Waits for the end of an answer and tells it whole.
pub(super) async fn whole(listening: &mut Listening, wants_logprobs: bool) -> ApiResult {
    let logprobs = if wants_logprobs { logprobs(listening).await? } else { Value::Null };
    let subscription = listening.subscription();
    let outcome = &listening.ended().await.outcome;
    match failure_of(outcome) {
        Some(failure) => Err(failure.into()),
        None => Ok(completion(subscription, outcome, logprobs)),
    }
}

fn completion(subscription: &Subscription, outcome: &Outcome, logprobs: Value) -> HttpResponse {
    let answer = subscription.log.transcript();
    let finish_reason = finish_word(outcome.finish.reason);
    HttpResponse::Ok().json(Completion {
        id: subscription.facts.request.as_str(),
        object: "chat.completion",
        created: unix_now(),
        model: model_of(subscription),
        choices: [Choice { index: 0, message: message(&answer), logprobs, finish_reason }],
        usage: outcome.usage.map(ChatUsage::from),
        sources: (!answer.citations.is_empty()).then(|| Sources::of(&answer.citations)),
    })
}

fn message(answer: &Transcript) -> Message<'_> {
    fn given(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    let has_other = !answer.tool_calls.is_empty() || !answer.refusal.is_empty();
    let calls = answer.tool_calls.iter().map(|call| {
        let function = Function { name: &call.name, arguments: &call.arguments };
        Call { id: &call.id, r#type: "function", function }
    });
    Message {
        role: "assistant",
        // An answer without any text is an empty text, unless it is something else.
        content: given(&answer.text).or_else(|| (!has_other).then_some("")),
        refusal: given(&answer.refusal),
        reasoning_content: given(&answer.reasoning),
        tool_calls: calls.collect(),
    }
}

/// Listens to the end for what only the log has.
async fn logprobs(listening: &mut Listening) -> ApiResult<Value> {
    let mut all: Map<String, Value> = Map::new();
    let mut bytes = 0;
    loop {
        let mut take = |said: Said<'_>| {
            let Said::Logprobs(Value::Object(more)) = said else { return };
            for (name, tokens) in more {
                let Value::Array(tokens) = tokens else { continue };
                bytes += tokens.iter().map(|token| token.to_string().len()).sum::<usize>();
                if let Value::Array(known) = all.entry(name).or_insert_with(|| json!([])) {
                    known.extend(tokens);
                }
            }
        };
        let found = poll_fn(|cx| match listening.next(cx.waker(), &mut take) {
            Found::Nothing => Poll::Pending,
            found => Poll::Ready(found),
        });
        if found.await == Found::End {
            return Ok(if all.is_empty() { Value::Null } else { Value::Object(all) });
        }
        if bytes > LOGPROBS_BYTES_MAX {
            let message = format!("the answer's logprobs exceed {LOGPROBS_BYTES_MAX} bytes");
            return Err(Failure::new(Code::ResponseTooLarge, message).into());
        }
    }
}

/// Why an answer ended. There are no other words that all clients know.
pub(super) fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Stop | FinishReason::Other | FinishReason::Cancelled | FinishReason::Error => "stop",
    }
}

/// The sources of an answer so far, under the names that Perplexity has given them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sources<'a> {
    /// Their urls.
    #[schema(required = false)]
    pub(super) citations: Vec<&'a str>,
    #[schema(required = false)]
    pub(super) search_results: &'a [Citation],
}

impl<'a> Sources<'a> {
    /// All of them: in a stream the last word counts.
    pub(super) fn of(citations: &'a [Citation]) -> Self {
        Self { citations: citations.iter().map(|citation| &*citation.url).collect(), search_results: citations }
    }
}
