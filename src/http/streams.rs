//! `GET …/stream`: listeners who come back, or come from elsewhere, to an answer that runs or has ended.

use actix_web::web::{Data, Path, Query};
use actix_web::{Either, HttpRequest, HttpResponse};
use bytes::BytesMut;
use serde::Deserialize;

use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::sse::{self, LogBody, Opening, Pings, Snapshot};
use super::stored::{self, Place};
use super::{Api, edge};
use crate::actors::coalescer::{FindTurn, Found};
use crate::chat::{OrgId, RequestId, ThreadId};
use crate::event::write_frame;
use crate::failure::{Code, Failure};
use crate::fanout::{Attachment, Done, StreamLog, Subscription};
use crate::store::StoredRequest;

/// An event stream from a log, or a response that is there as a whole.
pub(super) type StreamResponse = Either<HttpResponse<LogBody>, HttpResponse>;

/// Where the client stopped reading, as it may say without a header.
#[derive(Debug, Deserialize)]
pub(super) struct Resume {
    last_event_id: Option<String>,
}

pub(super) fn pings(api: &Api) -> Pings {
    Pings::new(&api.config().server)
}

pub(super) async fn of_thread(
    api: Data<Api>,
    caller: Caller,
    thread: Path<String>,
    resume: Query<Resume>,
    request: HttpRequest,
) -> ApiResult<StreamResponse> {
    let thread = ThreadId::new(thread.into_inner());
    let turn = FindTurn { org: caller.org.clone(), thread: thread.clone() };
    match api.coalescer.ask(turn).await? {
        Some(found) => resumed(&api, found, &request, &resume),
        None if api.store.thread(&caller.org, &thread, 0, None).await?.is_some() => {
            Ok(Either::Right(HttpResponse::NoContent().finish()))
        }
        None => Err(ApiError::new(Code::ThreadNotFound, "no such thread")),
    }
}

pub(super) async fn of_request(
    api: Data<Api>,
    caller: Caller,
    id: Path<String>,
    resume: Query<Resume>,
    request: HttpRequest,
) -> ApiResult<StreamResponse> {
    let not_found = || ApiError::new(Code::RequestNotFound, "no such request");
    let id = RequestId::parse(caller.org.clone(), &id).ok_or_else(not_found)?;
    edge::name(&request, id.as_str());
    match stored::look(&api, &id).await?.ok_or_else(not_found)? {
        Place::Live(found) => resumed(&api, found, &request, &resume),
        Place::Stored(stored) => {
            from_store(&api, &caller.org, &stored, last_event(&request, &resume)).await.map(Either::Right)
        }
    }
}

fn resumed(api: &Api, found: Found, request: &HttpRequest, resume: &Resume) -> ApiResult<StreamResponse> {
    let Found(subscription) = found;
    edge::name(request, subscription.facts.request.as_str());
    let seen = last_event(request, resume).filter(|seen| seen.fence == subscription.log.fence());
    let seen = match (seen, subscription.end()) {
        (Some(seen), Some(end)) if seen.seq == end.last_seq + 1 => {
            return Ok(Either::Right(HttpResponse::NoContent().finish()));
        }
        (Some(seen), _) => Some(seen.seq).filter(|seq| is_held(&subscription, *seq)),
        (None, _) => None,
    };
    let attachment = Attachment::new(subscription).map_err(Failure::from)?;
    Ok(Either::Left(LogBody::resumed(attachment, seen, pings(api)).into_response()))
}

/// Whether an event with this number has been sent: a client of another stream may have seen any.
fn is_held(subscription: &Subscription, seq: u64) -> bool {
    let last_seq = subscription.end().map_or_else(|| subscription.log.last_seq(), |end| end.last_seq);
    seq <= last_seq
}

/// The last event that a client has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastEvent {
    fence: u32,
    seq: u64,
}

/// What the client says of where it stopped; nothing when it is malformed.
fn last_event(request: &HttpRequest, resume: &Resume) -> Option<LastEvent> {
    let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    parse_last_event(header.or(resume.last_event_id.as_deref())?)
}

fn parse_last_event(text: &str) -> Option<LastEvent> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (fence, seq) = text.split_once('-').filter(|(fence, seq)| digits(fence) && digits(seq))?;
    Some(LastEvent { fence: fence.parse().ok()?, seq: seq.parse().ok()? })
}

/// The stream of an answer that has ended, as the store keeps it: its text in one piece, and its end.
pub(super) async fn from_store(
    api: &Api,
    org: &OrgId,
    stored: &StoredRequest,
    seen: Option<LastEvent>,
) -> ApiResult<HttpResponse> {
    let last_seq = stored::last_seq(stored);
    if seen == Some(LastEvent { fence: StreamLog::FENCE, seq: last_seq + 1 }) {
        return Ok(HttpResponse::NoContent().finish());
    }
    let message = match (&stored.thread, &stored.answer) {
        (Some(thread), Some(answer)) => api.store.message(org, thread, answer).await?,
        _ => None,
    };
    let mut out = BytesMut::with_capacity(1024);
    sse::write_ping(&mut out);
    let messages @ (message_id, user_message_id) = (stored.answer.as_ref(), stored.user_message.as_ref());
    let opening = Opening {
        r#type: "meta",
        request_id: stored.id.as_str(),
        thread_id: stored.thread.as_ref().map(|id| id.as_str()),
        stream_id: stored.stream.as_str(),
        role: stored.role.as_str(),
        provider: &stored.provider,
        model: &stored.model,
        message_id: message_id.map(|id| id.as_str()),
        user_message_id: user_message_id.map(|id| id.as_str()),
        resumed: true,
    };
    write_frame("meta", None, &opening, &mut out);
    let text = message.as_ref().map(|message| message.content.text()).unwrap_or_default();
    let reasoning = message.as_ref().and_then(|message| message.reasoning.as_deref()).unwrap_or_default();
    let snapshot = Snapshot { r#type: "snapshot", text: &text, reasoning, seq: last_seq };
    write_frame("snapshot", None, &snapshot, &mut out);
    let outcome = stored::outcome(stored, !(text.is_empty() && reasoning.is_empty()));
    let done = Done::new(&stored.id, messages, &outcome, stored::latency_ms(stored));
    out.extend_from_slice(&done.frame(StreamLog::FENCE, last_seq));
    let mut response = HttpResponse::Ok();
    sse::event_stream(&mut response);
    response.insert_header(("x-stream-id", stored.stream.to_string()));
    Ok(response.body(out.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_a_fence_and_a_number() {
        assert_eq!(parse_last_event("1-7"), Some(LastEvent { fence: 1, seq: 7 }));
        for bad in ["", "-", "1-", "-1", "7", "1-7-7", "+1-7", "1- 7", "x-7", "1-99999999999999999999"] {
            assert_eq!(parse_last_event(bad), None, "{bad:?}");
        }
    }
}
