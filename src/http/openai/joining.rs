//! Joining: gets a listener for a request without a thread.

use tokio::sync::oneshot;

use super::request::Asked;
use crate::accounts::{Refusal, Ticket};
use crate::actors::coalescer::Join;
use crate::actors::stream::{Identity, JoinReply, NotJoined};
use crate::chat::{Asker, RequestKey};
use crate::failure::{Code, Failure};
use crate::fanout::Attachment;
use crate::http::Api;
use crate::http::caller::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::turns::{self, TRIES_MAX};

/// Asks for the answer, and again when the one that it was to share has just ended. Clients retry under the id of the
/// request that has failed: nothing is kept to repeat, so that makes way.
pub(super) async fn join(api: &Api, caller: &Caller, asked: &Asked) -> ApiResult<Attachment> {
    turns::refuse_when_draining(api)?;
    let mut entry = caller.enter(&api.accounts)?;
    if asked.has_own_id && api.store.request(&asked.request).await?.is_some() {
        return Err(ApiError(Failure::new(Code::RequestIdInUse, "another request has this id").param("request_id")));
    }
    for _ in 0..TRIES_MAX {
        let (reply, answer) = oneshot::channel();
        api.coalescer.ask(write(api, caller, asked, (entry.ticket(), reply))).await?;
        // The reply comes when the pacer has taken the request in.
        match answer.await {
            Ok(Ok(attachment)) => return Ok(attachment),
            Ok(Err(NotJoined::Failed(failure))) => return Err(failure.into()),
            Ok(Err(NotJoined::SequenceMoved | NotJoined::JustEnded | NotJoined::TurnEnding(_))) => {
                tokio::task::yield_now().await;
            }
            Err(_) => return Err(ApiError::new(Code::Internal, "the answer could not be processed")),
        }
    }
    Err(ApiError::new(Code::Internal, "the answers that this request could share keep ending"))
}

fn write(api: &Api, caller: &Caller, asked: &Asked, (ticket, reply): (Result<Ticket, Refusal>, JoinReply)) -> Join {
    let user = asked.user.as_deref();
    let key = || RequestKey::new(&turns::scope(api, caller, user), &asked.chat);
    Join {
        request: asked.request.clone(),
        identity: Identity { idempotency_key: None, body_digest: asked.body_digest },
        key: asked.may_share.then(key),
        twin: None,
        turn: None,
        asker: Asker { org: caller.org.clone(), principal: caller.principal(user), priority: asked.priority },
        chat: asked.chat.clone(),
        ticket,
        arrived: asked.arrived,
        reply,
    }
}
