//! Turns: from what a client asks to a listener of its answer. Reads the history, writes the request, asks the
//! coalescer, and asks again when the thread has moved on meanwhile.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::stored::{self, Place};
use crate::accounts::{Refusal, Ticket};
use crate::actors::coalescer::{Find, FindTurn, Found, Join, NewTurn};
use crate::actors::stream::{Identity, JoinReply, NotJoined};
use crate::chat::{
    Asker, ChatMessage, ChatRequest, Content, MessageId, Priority, ProviderName, RequestId, RequestKey, Role, Scope,
    ThreadId,
};
use crate::config::ShareScope;
use crate::failure::{Code, Failure};
use crate::fanout::{Attachment, Subscription};
use crate::store::{History, Message, NewUserMessage, StoredRequest};

/// How often a request that loses a race for its thread tries again.
pub(super) const TRIES_MAX: u32 = 8;

/// What a client asks for, checked and resolved.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) request: RequestId,
    pub(super) thread: ThreadId,
    /// What is said; `None` when the last answer is to be made anew.
    pub(super) content: Option<Content>,
    /// Whether it is said in the place of the last message.
    pub(super) replaces_last: bool,
    pub(super) provider: ProviderName,
    pub(super) model: std::sync::Arc<str>,
    pub(super) temperature: Option<f64>,
    pub(super) max_tokens: Option<u32>,
    pub(super) tools: Vec<Value>,
    pub(super) user: Option<String>,
    /// What the client wants to be kept with its message.
    pub(super) meta: Map<String, Value>,
    pub(super) may_share: bool,
    pub(super) priority: Priority,
    pub(super) identity: Identity,
    /// Whether the client chose the id, so that the request may be a repetition.
    pub(super) has_own_id: bool,
    pub(super) arrived: Instant,
}

/// Where the answer is.
pub(super) enum Answer {
    /// It runs, or has ended not long ago.
    Live(Attachment),
    /// It has ended, and only the store knows.
    Stored(Box<StoredRequest>),
}

/// Gets a listener for what is asked.
pub(super) async fn join(api: &Api, caller: &Caller, asked: Asked) -> ApiResult<Answer> {
    refuse_when_draining(api)?;
    let mut entry = caller.enter(&api.accounts)?;
    if let Some(stored) = repeated(api, caller, &asked).await? {
        return Ok(Answer::Stored(stored));
    }
    for _ in 0..TRIES_MAX {
        let next = asked.content.as_ref().filter(|_| !asked.replaces_last);
        let messages_max = api.config().history_messages_max;
        let history = api.store.history(&caller.org, &asked.thread, messages_max, next).await?;
        let sequence = history.next_sequence;
        if next.is_none() && history.last_user.is_none() {
            return Err(nothing_to_answer(api, caller, &asked).await?);
        }
        let (reply, answer) = oneshot::channel();
        api.coalescer.ask(write(api, caller, &asked, history, (entry.ticket(), reply))?).await?;
        // The reply comes when the pacer and the store have taken the request in.
        match answer.await {
            Ok(Ok(attachment)) => return Ok(Answer::Live(attachment)),
            Ok(Err(NotJoined::Failed(failure))) if may_go(api, caller, &asked, &failure, sequence).await? => {}
            Ok(Err(NotJoined::Failed(failure))) => return Err(failure.into()),
            Ok(Err(NotJoined::SequenceMoved | NotJoined::JustEnded)) => tokio::task::yield_now().await,
            Ok(Err(NotJoined::TurnEnding(former))) => {
                in_time(api, &former, Subscription::until_over).await?;
            }
            Err(_) => return Err(ApiError::new(Code::Internal, "the answer could not be processed")),
        }
    }
    let message = "other messages of this thread keep coming first";
    Err(ApiError(Failure::new(Code::TurnInProgress, message).retry_after_ms(100)))
}

/// Why there is nothing that could be answered anew: the thread's first turn runs, or there is none.
async fn nothing_to_answer(api: &Api, caller: &Caller, asked: &Asked) -> ApiResult<ApiError> {
    let find = FindTurn { org: caller.org.clone(), thread: asked.thread.clone() };
    let Some(Found(running)) = api.coalescer.ask(find).await? else { return Ok(no_message()) };
    Ok(Failure::turn_in_progress(Some(running.facts.request.as_str())).into())
}

fn no_message() -> ApiError {
    ApiError::new(Code::Unprocessable, "the thread has no message that could be answered anew")
}

/// Whether the turn that was in the way has gone, or was not known when the history was read as far as `sequence`.
async fn may_go(api: &Api, caller: &Caller, asked: &Asked, failure: &Failure, sequence: i64) -> ApiResult<bool> {
    let other = failure.conflicting_request_id.as_deref().filter(|_| failure.code == Code::TurnInProgress);
    let Some(other) = other.and_then(|id| RequestId::parse(caller.org.clone(), id)) else { return Ok(false) };
    let has_gone = in_time(api, &other, Subscription::decided).await?;
    Ok(has_gone || api.store.history(&caller.org, &asked.thread, 0, None).await?.next_sequence != sequence)
}

/// Waits for another request of the thread, within bounds. Whether it has gone.
async fn in_time(api: &Api, other: &RequestId, come: impl AsyncFnOnce(&Subscription)) -> ApiResult<bool> {
    let Some(Found(subscription)) = api.coalescer.ask(Find(other.clone())).await? else { return Ok(true) };
    let wait = Duration::from_millis(api.config().stream.turn_wait_max_ms);
    if timeout(wait, come(&subscription)).await.is_err() {
        let message = "the thread's other message is still being kept (turn_wait_max_ms)";
        let failure = Failure::new(Code::TurnInProgress, message).retry_after_ms(1_000);
        return Err(failure.conflicting(other.as_str()).into());
    }
    Ok(subscription.end().is_some())
}

/// A server that is about to stop takes no new work.
pub(super) fn refuse_when_draining(api: &Api) -> ApiResult<()> {
    if !api.drain.has_begun() {
        return Ok(());
    }
    Err(ApiError(Failure::new(Code::Draining, "the server is about to stop").retry_after_ms(1_000)))
}

/// The same request as the store remembers it, when the coalescer does not any more.
async fn repeated(api: &Api, caller: &Caller, asked: &Asked) -> ApiResult<Option<Box<StoredRequest>>> {
    let by_key = match &asked.identity.idempotency_key {
        Some(key) => api.store.request_by_idempotency_key(&caller.org, key).await?,
        None => None,
    };
    let is_by_key = by_key.is_some();
    let stored = match by_key {
        Some(stored) => Some(stored),
        None if asked.has_own_id => api.store.request(&asked.request).await?,
        None => None,
    };
    let Some(stored) = stored else { return Ok(None) };
    if stored.body_digest == asked.identity.body_digest {
        return Ok(match stored::look(api, &stored.id).await? {
            Some(Place::Stored(stored)) => Some(stored),
            Some(Place::Live(_)) | None => None,
        });
    }
    Err(ApiError(if is_by_key {
        Failure::new(Code::IdempotencyConflict, "the same idempotency key came with another body")
            .param("Idempotency-Key")
    } else {
        Failure::new(Code::RequestIdInUse, "another request has this id").param("request_id")
    }))
}

fn write(
    api: &Api,
    caller: &Caller,
    asked: &Asked,
    history: History,
    (ticket, reply): (Result<Ticket, Refusal>, JoinReply),
) -> ApiResult<Join> {
    let expected_sequence = history.next_sequence;
    let Conversation { messages, user_message, replaces } = conversation(asked, history)?;
    let chat = ChatRequest {
        provider: asked.provider.clone(),
        model: asked.model.clone(),
        system: api.config().system_prompt.clone(),
        messages,
        temperature: asked.temperature,
        max_tokens: asked.max_tokens,
        tools: asked.tools.clone(),
        extra: Map::new(),
    };
    let new_user = asked.content.clone().map(|content| {
        let id = user_message.clone();
        let mut meta = asked.meta.clone();
        meta.extend(replaces.iter().map(|replaced| ("replaces".to_owned(), json!(replaced))));
        NewUserMessage { id, content, meta: meta.into(), replaces }
    });
    let is_message = asked.content.is_some() && !asked.replaces_last && asked.tools.is_empty();
    let twin = is_message.then(|| RequestKey::new(&scope(api, caller, asked.user.as_deref()), &chat));
    Ok(Join {
        request: asked.request.clone(),
        identity: asked.identity.clone(),
        key: twin.clone().filter(|_| asked.may_share),
        twin,
        turn: Some(NewTurn {
            thread: asked.thread.clone(),
            expected_sequence: Some(expected_sequence),
            user: new_user,
            user_message: Some(user_message),
            answer: MessageId::generate(),
        }),
        chat,
        asker: Asker {
            org: caller.org.clone(),
            principal: caller.principal(asked.user.as_deref()),
            priority: asked.priority,
        },
        ticket,
        arrived: asked.arrived,
        reply,
    })
}

/// What goes upstream.
struct Conversation {
    messages: Vec<ChatMessage>,
    /// The id of the user message that is answered.
    user_message: MessageId,
    /// The one whose place it takes.
    replaces: Option<MessageId>,
}

fn conversation(asked: &Asked, history: History) -> ApiResult<Conversation> {
    let History { messages, last_user, .. } = history;
    let new = |messages: Vec<Message>, content: &Content, replaces| {
        let mut messages: Vec<_> = messages.into_iter().filter_map(said).collect();
        messages.push(ChatMessage { content: content.clone(), ..ChatMessage::text(Role::User, "") });
        Conversation { messages, user_message: MessageId::generate(), replaces }
    };
    if let Some(content) = asked.content.as_ref().filter(|_| !asked.replaces_last) {
        return Ok(new(messages, content, None));
    }
    let Some(last_user) = last_user else { return Err(no_message()) };
    let before: Vec<_> = messages.into_iter().filter(|message| message.sequence < last_user.sequence).collect();
    if let Some(content) = &asked.content {
        return Ok(new(before, content, Some(last_user.id)));
    }
    let user_message = last_user.id.clone();
    let messages = before.into_iter().chain([last_user]).filter_map(said).collect();
    Ok(Conversation { messages, user_message, replaces: None })
}

/// A message as it goes upstream. The results of tools are not part of a thread, and a call without its result is
/// refused by providers: an answer that did nothing but call tools is left out.
fn said(message: Message) -> Option<ChatMessage> {
    let Message { role, content, opaque, .. } = message;
    let says_something = !content.text().trim().is_empty() || matches!(content, Content::Parts(_));
    says_something.then(|| ChatMessage { content, opaque, ..ChatMessage::text(role, "") })
}

/// Who may share with `caller`, on behalf of `user`.
pub(super) fn scope(api: &Api, caller: &Caller, user: Option<&str>) -> Scope {
    match api.config().coalesce.scope {
        ShareScope::Principal => Scope::Principal(caller.org.clone(), caller.principal(user)),
        ShareScope::Org => Scope::Org(caller.org.clone()),
    }
}
