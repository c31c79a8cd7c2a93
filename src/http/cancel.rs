//! `POST …/cancel/{request_id}` and `…/stop`: withdraws one request, or every request of a thread's running answer.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::{Api, edge};
use crate::actors::coalescer::{self, Cancellation, FindTurn, Whose};
use crate::chat::{RequestId, ThreadId};
use crate::event::Status;
use crate::failure::{Code, Failure, FailureBody};

/// The answer to a stop: `cancelled`, or `idle` when nothing ran.
#[derive(Serialize, ToSchema)]
pub(super) struct Stopped<'a> {
    status: &'static str,
    /// The first request of the answer that ran.
    #[schema(required)]
    request_id: Option<&'a str>,
}

/// The answer to a cancel.
#[derive(Serialize, ToSchema)]
pub(super) struct Cancelled<'a> {
    status: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureBody<'a>>,
}

pub(super) async fn cancel(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let asked = Instant::now();
    let Some(id) = RequestId::parse(caller.org.clone(), &id) else { return Ok(not_found(&api, &id)) };
    edge::name(&request, id.as_str());
    let (reply, answer) = oneshot::channel();
    api.coalescer.ask(coalescer::Cancel { request: id.clone(), asked, reply }).await?;
    let gone = |_| ApiError::new(Code::Internal, "the cancel could not be processed");
    match answer.await.map_err(gone)? {
        Cancellation::Withdrawn(cancelled) => {
            let cancel_ms = Some(asked.elapsed().as_micros() as f64 / 1_000.0);
            let status = Status::Cancelled.as_str();
            let upstream = Some(cancelled.as_str());
            let body = Cancelled { status, request_id: id.as_str(), upstream, cancel_ms, error: None };
            Ok(HttpResponse::Ok().json(body))
        }
        Cancellation::Ended(status) => Ok(ended(&id, status)),
        // The store remembers requests longer than the coalescer.
        Cancellation::Unknown => match api.store.request(&id).await? {
            Some(stored) if stored.status != Status::Streaming => Ok(ended(&id, stored.status)),
            _ => Ok(not_found(&api, id.as_str())),
        },
    }
}

fn ended(id: &RequestId, status: Status) -> HttpResponse {
    let body =
        Cancelled { status: status.as_str(), request_id: id.as_str(), upstream: None, cancel_ms: None, error: None };
    HttpResponse::Ok().json(body)
}

/// Unknown, or another organisation's: the same answer.
fn not_found(api: &Api, id: &str) -> HttpResponse {
    api.metrics.refused(Code::RequestNotFound);
    let failure = Failure::new(Code::RequestNotFound, "no such request");
    let error = Some(failure.body(Some(id)));
    let body = Cancelled { status: "not_found", request_id: id, upstream: None, cancel_ms: None, error };
    HttpResponse::NotFound().json(body)
}

pub(super) async fn stop(api: Data<Api>, caller: Caller, thread: Path<String>) -> ApiResult {
    let thread = ThreadId::new(thread.into_inner());
    let turn = FindTurn { org: caller.org.clone(), thread: thread.clone() };
    let Some(found) = api.coalescer.ask(turn).await? else {
        if api.store.thread(&caller.org, &thread, 0, None).await?.is_none() {
            return Err(ApiError::new(Code::ThreadNotFound, "no such thread"));
        }
        return Ok(HttpResponse::Ok().json(Stopped { status: "idle", request_id: None }));
    };
    withdraw_turn(&api, thread).await?;
    let request_id = Some(found.0.facts.request.as_str());
    Ok(HttpResponse::Ok().json(Stopped { status: "cancelled", request_id }))
}

/// Withdraws every request of a thread's running answer; returns when the upstream call has been closed.
pub(super) async fn withdraw_turn(api: &Api, thread: ThreadId) -> ApiResult<()> {
    let (reply, answer) = oneshot::channel();
    let stop = coalescer::Stop { whose: Whose::Thread(thread), status: Status::Cancelled, reply };
    api.coalescer.ask(stop).await?;
    answer.await.map_err(|_| ApiError::new(Code::Internal, "the stop could not be processed"))?;
    Ok(())
}
