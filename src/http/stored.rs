//! Stored: requests of which only the store knows, and their ends in the words of those that have ended just now.

use serde::de::DeserializeOwned;

use super::Api;
use super::error::{ApiError, ApiResult};
use crate::actors::coalescer::{Find, Found};
use crate::chat::RequestId;
use crate::event::{Finish, FinishReason, Status};
use crate::failure::{Code, Failure};
use crate::fanout::{Kept, Outcome};
use crate::store::StoredRequest;

/// Where a request is.
pub(super) enum Place {
    /// It runs, or has ended not long ago.
    Live(Found),
    /// It has ended, and only the store knows.
    Stored(Box<StoredRequest>),
}

/// Looks for a request where it is now.
pub(super) async fn look(api: &Api, id: &RequestId) -> ApiResult<Option<Place>> {
    if let Some(found) = api.coalescer.ask(Find(id.clone())).await? {
        return Ok(Some(Place::Live(found)));
    }
    let Some(stored) = api.store.request(id).await? else { return Ok(None) };
    if stored.status != Status::Streaming {
        return Ok(Some(Place::Stored(Box::new(stored))));
    }
    // It has begun since the first question, or ended between the two, or was left behind.
    if let Some(found) = api.coalescer.ask(Find(id.clone())).await? {
        return Ok(Some(Place::Live(found)));
    }
    Ok(api.store.request(id).await?.map(|stored| Place::Stored(Box::new(stored))))
}

/// How a stored request ended. `has_text`: whether its answer has any.
pub(super) fn outcome(stored: &StoredRequest, has_text: bool) -> Outcome {
    // A row that still runs although nobody makes its answer any more was left behind.
    let status = if stored.status == Status::Streaming { Status::Interrupted } else { stored.status };
    let failure = stored.facts.get("error").and_then(Failure::of_body);
    Outcome {
        status,
        finish: Finish {
            reason: stored.finish_reason.unwrap_or(FinishReason::Error),
            native: fact(stored, "native_finish_reason"),
        },
        failure: failure.or_else(|| untold(status)),
        usage: fact(stored, "usage"),
        partial: status != Status::Complete && has_text,
        kept: Kept::Yes,
    }
}

/// What is said of a request that has no failure although it should.
fn untold(status: Status) -> Option<Failure> {
    match status {
        Status::Interrupted => Some(Failure::new(Code::Interrupted, "the server stopped during the answer")),
        Status::Error => Some(Failure::new(Code::Internal, "the answer failed")),
        _ => None,
    }
}

/// The number of the last event that a stored request may see.
pub(super) fn last_seq(stored: &StoredRequest) -> u64 {
    fact(stored, "last_seq").unwrap_or(0)
}

/// From the arrival of a stored request to its end.
pub(super) fn latency_ms(stored: &StoredRequest) -> u32 {
    fact(stored, "latency_ms").unwrap_or(0)
}

fn fact<T: DeserializeOwned>(stored: &StoredRequest, name: &str) -> Option<T> {
    T::deserialize(stored.facts.get(name)?).ok()
}

/// What an answer that is not to be had whole is answered with.
pub(super) fn refusal(outcome: &Outcome) -> Option<ApiError> {
    let has_failed = matches!(outcome.status, Status::Error | Status::Interrupted);
    let failure = outcome.failure.clone().or_else(|| untold(outcome.status));
    failure.filter(|_| has_failed).map(ApiError)
}
