//! OpenAI: `/v1`, the API that OpenAI's own clients speak, on the same streams as threads. Nothing of it is stored.
//!
//! | file | what it does |
//! |---|---|
//! | `chat.rs`, `models.rs`, `responses/` | the routes |
//! | `request.rs`, `conversation.rs` | a body, read and resolved |
//! | `joining.rs` | from a request to a listener of its answer |
//! | `listening.rs`, `heard.rs` | an answer as it comes: the frames of its log, read back |
//! | `body.rs` | the body of a stream, whatever it is written in |
//! | `chunks.rs`, `completion.rs`, `usage.rs` | an answer in the words of chat completions, in pieces and whole |

mod body;
pub(super) mod chat;
pub(super) mod chunks;
pub(super) mod completion;
mod conversation;
mod heard;
mod joining;
mod listening;
pub(super) mod models;
mod request;
pub(super) mod responses;
mod usage;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::Status;
use crate::failure::{Code, Failure};
use crate::fanout::{Outcome, Subscription};

/// Seconds since 1970, as OpenAI counts time.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The model that answers: as the provider reports it, else as it was asked for.
fn model_of(subscription: &Subscription) -> String {
    let reported = subscription.log.with_transcript(|transcript| transcript.model.clone());
    reported.unwrap_or_else(|| subscription.answered_by().1.to_string())
}

/// What has kept an answer from being complete. This API has no other word for a cancel than a failure.
fn failure_of(outcome: &Outcome) -> Option<Failure> {
    match (outcome.status, &outcome.failure) {
        (Status::Complete, _) => None,
        (_, Some(failure)) => Some(failure.clone()),
        (Status::Cancelled, None) => Some(Failure::new(Code::Cancelled, "the request was cancelled")),
        (_, None) => Some(Failure::new(Code::Internal, "the answer failed")),
    }
}
