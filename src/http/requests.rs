//! `GET /api/requests/{request_id}`: how one request stands, or stood.

use std::borrow::Cow;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::stored::{self, Place};
use super::{Api, edge};
use crate::actors::coalescer::Found;
use crate::chat::{MessageId, RequestId, StreamId, ThreadId};
use crate::event::{FinishReason, Status};
use crate::failure::Code;
use crate::fanout::{Facts, Kept, Subscription};
use crate::store::{CallRole, StoredRequest, UnixMs};

pub(super) async fn state(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let not_found = || ApiError::new(Code::RequestNotFound, "no such request");
    let id = RequestId::parse(caller.org.clone(), &id).ok_or_else(not_found)?;
    edge::name(&request, id.as_str());
    Ok(match stored::look(&api, &id).await?.ok_or_else(not_found)? {
        Place::Stored(stored) => HttpResponse::Ok().json(of_stored(&stored)),
        Place::Live(Found(subscription)) => match api.store.request(&id).await? {
            Some(stored) if stored.status != Status::Streaming => HttpResponse::Ok().json(of_stored(&stored)),
            _ => HttpResponse::Ok().json(of_subscription(&subscription)),
        },
    })
}

/// How a request stands. What is not known yet is null.
#[derive(Serialize, ToSchema)]
#[schema(as = RequestState)]
pub(super) struct State<'a> {
    request_id: &'a str,
    #[schema(required)]
    thread_id: Option<&'a ThreadId>,
    stream_id: &'a StreamId,
    #[schema(required)]
    message_id: Option<&'a MessageId>,
    #[schema(required)]
    user_message_id: Option<&'a MessageId>,
    status: Status,
    role: CallRole,
    /// Who answers.
    provider: Cow<'a, str>,
    /// What answers.
    model: Cow<'a, str>,
    #[schema(required)]
    finish_reason: Option<FinishReason>,
    #[schema(required, value_type = Option<i64>)]
    created_at: Option<UnixMs>,
    #[schema(required, value_type = Option<i64>)]
    ended_at: Option<UnixMs>,
    #[serde(flatten)]
    facts: Facts<'a>,
}

fn of_stored(stored: &StoredRequest) -> State<'_> {
    let outcome = stored::outcome(stored, false);
    let request_id = stored.id.as_str();
    let error = outcome.failure.as_ref().map(|failure| json!(failure.body(Some(request_id))));
    State {
        request_id,
        thread_id: stored.thread.as_ref(),
        stream_id: &stored.stream,
        message_id: stored.answer.as_ref(),
        user_message_id: stored.user_message.as_ref(),
        status: outcome.status,
        role: stored.role,
        provider: stored.provider.as_str().into(),
        model: stored.model.as_str().into(),
        finish_reason: Some(outcome.finish.reason),
        created_at: Some(stored.created_at),
        ended_at: stored.ended_at,
        facts: Facts { error, ..Facts::deserialize(&stored.facts).unwrap_or_default() },
    }
}

/// What is known before the store knows more.
fn of_subscription(subscription: &Subscription) -> State<'_> {
    let facts = &subscription.facts;
    let outcome = subscription.end().map(|end| &end.outcome);
    // What has come to nothing has no messages.
    let exists = outcome.is_none_or(|outcome| outcome.kept != Kept::NoTurn);
    let (provider, model) = subscription.answered_by();
    State {
        request_id: facts.request.as_str(),
        thread_id: facts.thread.as_ref(),
        stream_id: &facts.stream,
        message_id: facts.answer.as_ref().filter(|_| exists),
        user_message_id: facts.user_message.as_ref().filter(|_| exists),
        status: outcome.map_or(Status::Streaming, |outcome| outcome.status),
        role: facts.role,
        provider: provider.to_string().into(),
        model: model.to_string().into(),
        finish_reason: outcome.map(|outcome| outcome.finish.reason),
        created_at: None,
        ended_at: None,
        facts: Facts::of(subscription),
    }
}
