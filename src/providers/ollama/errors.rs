//! Errors: a text under `error`, in the stream or in place of it. Only the texts tell errors apart, and most of what
//! they say is said by OpenAI's servers too.

use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::providers::openai_chat::errors;
use crate::providers::{Head, json, refused};

/// What texts say that the common words do not cover.
const PHRASES: [(Code, &str); 3] = [
    // Of a session or a week: none is worth waiting for.
    (Code::UpstreamQuota, "usage limit"),
    (Code::UpstreamOverloaded, "server busy"),
    (Code::UpstreamModel, "try pulling it first"),
];

/// The failure of an answer that has this error in its stream.
pub(super) fn in_stream(error: &Value) -> Failure {
    match own_code(error) {
        Some(code) => Failure::new(code, refused::sentence(code)),
        None => errors::in_stream(error),
    }
}

/// The failure of a call that was answered with something else than a stream.
pub(super) fn refused(head: &Head, body: &[u8]) -> Failure {
    let document = json::parse(&String::from_utf8_lossy(body)).unwrap_or_default();
    let own = json::get(&document, "error").and_then(own_code);
    match own.filter(|_| (400..600).contains(&head.status)) {
        Some(code) => refused::failure(head, code, None),
        None => errors::refused(head, body),
    }
}

fn own_code(error: &Value) -> Option<Code> {
    let message = errors::message(error)?;
    PHRASES.iter().find(|(_, phrase)| message.contains(phrase)).map(|(code, _)| *code)
}
