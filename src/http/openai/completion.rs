//! Completion: an answer as one chat completion.

use std::future::poll_fn;
use std::task::Poll;

use serde::Serialize;
use serde_json::{Map, Value, json};

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

/// Waits for the end of an answer and tells it whole.
pub(super) async fn whole(listening: &mut Listening, wants_logprobs: bool) -> ApiResult<Value> {
    let logprobs = if wants_logprobs { logprobs(listening).await? } else { Value::Null };
    let subscription = listening.subscription();
    let outcome = &subscription.ended().await.outcome;
    match failure_of(outcome) {
        Some(failure) => Err(failure.into()),
        None => Ok(completion(subscription, outcome, &logprobs)),
    }
}

fn completion(subscription: &Subscription, outcome: &Outcome, logprobs: &Value) -> Value {
    let answer = subscription.log.transcript();
    let mut completion = json!({
        "id": subscription.facts.request.as_str(),
        "object": "chat.completion",
        "created": unix_now(),
        "model": model_of(subscription),
        "choices": [{
            "index": 0,
            "message": message(&answer),
            "logprobs": logprobs,
            "finish_reason": finish_word(outcome.finish.reason),
        }],
        "usage": outcome.usage.map(ChatUsage::from),
    });
    if !answer.citations.is_empty() {
        let sources = Sources::of(&answer.citations);
        completion["citations"] = json!(sources.citations);
        completion["search_results"] = json!(sources.search_results);
    }
    completion
}

fn message(answer: &Transcript) -> Value {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let has_other = !answer.tool_calls.is_empty() || !answer.refusal.is_empty();
    // An answer without any text is an empty text, unless it is something else.
    let content = given(&answer.text).or_else(|| (!has_other).then(String::new));
    let mut message = json!({ "role": "assistant", "content": content, "refusal": given(&answer.refusal) });
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning);
    }
    if !answer.tool_calls.is_empty() {
        let calls = answer.tool_calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        message["tool_calls"] = calls.collect();
    }
    message
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
#[derive(Debug, Serialize)]
pub(super) struct Sources<'a> {
    pub(super) citations: Vec<&'a str>,
    pub(super) search_results: &'a [Citation],
}

impl<'a> Sources<'a> {
    /// All of them: in a stream the last word counts.
    pub(super) fn of(citations: &'a [Citation]) -> Self {
        Self { citations: citations.iter().map(|citation| &*citation.url).collect(), search_results: citations }
    }
}
