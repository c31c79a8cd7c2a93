//! `GET /api/requests/{request_id}`: how one request stands, or stood.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::{Api, edge};
use crate::actors::coalescer::Find;
use crate::chat::RequestId;
use crate::event::Status;
use crate::failure::Code;
use crate::fanout::{Kept, Subscription};
use crate::store::StoredRequest;

pub(super) async fn state(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let not_found = || ApiError::new(Code::RequestNotFound, "no such request");
    let id = RequestId::parse(caller.org.clone(), &id).ok_or_else(not_found)?;
    edge::name(&request, id.as_str());
    let running = api.coalescer.ask(Find(id.clone())).await?;
    let stored = api.store.request(&id).await?;
    let state = match (running, stored) {
        (_, Some(stored)) if stored.status != Status::Streaming => of_stored(&stored),
        (Some(found), _) => of_subscription(&found.0),
        (None, Some(stored)) => of_stored(&stored),
        (None, None) => return Err(not_found()),
    };
    Ok(HttpResponse::Ok().json(state))
}

fn of_stored(stored: &StoredRequest) -> Value {
    let mut state = json!({
        "request_id": stored.id.as_str(),
        "thread_id": stored.thread,
        "stream_id": stored.stream,
        "message_id": stored.answer,
        "user_message_id": stored.user_message,
        "status": stored.status,
        "role": stored.role,
        "provider": stored.provider,
        "model": stored.model,
        "finish_reason": stored.finish_reason,
        "created_at": stored.created_at,
        "ended_at": stored.ended_at,
    });
    let facts = stored.facts.as_object().cloned().unwrap_or_else(Map::new);
    if let Some(state) = state.as_object_mut() {
        state.extend(facts);
    }
    state
}

/// What is known before the store knows more.
fn of_subscription(subscription: &Subscription) -> Value {
    let facts = &subscription.facts;
    let timings = subscription.log.timings();
    let end = subscription.end();
    // What has come to nothing has no messages.
    let exists = end.is_none_or(|end| end.outcome.kept != Kept::NoTurn);
    let (provider, model) = subscription.answered_by();
    json!({
        "request_id": facts.request.as_str(),
        "thread_id": facts.thread,
        "stream_id": facts.stream,
        "message_id": facts.answer.as_ref().filter(|_| exists),
        "user_message_id": facts.user_message.as_ref().filter(|_| exists),
        "status": end.map_or(Status::Streaming, |end| end.outcome.status),
        "role": facts.role,
        "provider": provider,
        "model": &*model,
        "fallback_from": subscription.log.fallback().map(|fallback| fallback.from),
        "finish_reason": end.map(|end| end.outcome.finish.reason),
        "ttft_ms": subscription.since_arrival_ms(timings.first_content),
        "ttfb_ms": subscription.since_arrival_ms(timings.first_byte),
        "queue_wait_ms": subscription.since_arrival_ms(timings.granted),
        "connect_ms": timings.connect_ms,
        "latency_ms": end.map(|end| end.latency_ms),
        "usage": subscription.log.with_transcript(|transcript| transcript.usage),
    })
}
