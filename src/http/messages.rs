//! `POST …/messages`, `…/messages/stream`, `…/regenerate`: a message is sent, or answered anew.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::web::{Data, Path};
use actix_web::{Either, HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::fields::{Fields, wrong_type};
use super::sse::LogBody;
use super::stored;
use super::streams::{self, StreamResponse};
use super::timing::Timing;
use super::turns::{self, Answer, Asked};
use super::{Api, edge};
use crate::actors::stream::Identity;
use crate::chat::{Content, ImageUrl, MessageId, OrgId, Part, Priority, ProviderName, RequestId, Role, ThreadId};
use crate::event::{FinishReason, Status, Usage};
use crate::failure::{Code, Failure};
use crate::fanout::{Kept, Outcome, Subscription};
use crate::store::Message;

/// The longest `Idempotency-Key`.
pub(super) const IDEMPOTENCY_KEY_LEN_MAX: usize = 255;
/// The longest answer that may be asked for, in tokens.
pub(super) const MAX_TOKENS_MAX: u64 = 1_000_000;
/// The least and the highest sampling temperature.
pub(super) const TEMPERATURE: (f64, f64) = (0.0, 2.0);

/// A turn that has ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Turn<'a> {
    request_id: &'a str,
    status: Status,
    #[schema(required)]
    finish_reason: Option<FinishReason>,
    /// Null when the request was cancelled before its turn had begun; left out when it is not known what was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Message>)]
    user_message: Option<Option<Message>>,
    #[schema(required)]
    assistant_message: Option<Answered<'a>>,
    /// False when the answer could not be stored, left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<bool>,
}

/// The answer of a turn.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Answered<'a> {
    Stored(Message),
    Unstored(Unstored<'a>),
}

/// An answer that is not in the store: a message with these fields alone.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UnstoredAnswer)]
struct Unstored<'a> {
    #[schema(required)]
    id: Option<&'a MessageId>,
    role: Role,
    content: String,
    status: Status,
    provider: ProviderName,
    #[schema(value_type = String)]
    model: Arc<str>,
    #[schema(required)]
    finish_reason: Option<FinishReason>,
    #[schema(required)]
    usage: Option<Usage>,
}

/// How the answer is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Stream,
    Whole,
}

pub(super) async fn stream(
    api: Data<Api>,
    caller: Caller,
    thread: Path<String>,
    request: HttpRequest,
    fields: Fields,
) -> ApiResult<StreamResponse> {
    let asked = read(&api, &caller, &request, thread.into_inner(), fields, Delivery::Stream)?;
    answer(&api, &caller, asked, &request).await
}

pub(super) async fn send(
    api: Data<Api>,
    caller: Caller,
    thread: Path<String>,
    request: HttpRequest,
    fields: Fields,
) -> ApiResult {
    let asked = read(&api, &caller, &request, thread.into_inner(), fields, Delivery::Whole)?;
    match turns::join(&api, &caller, asked).await? {
        Answer::Live(attachment) => {
            let subscription = attachment.subscription();
            edge::name(&request, subscription.facts.request.as_str());
            let outcome = &attachment.ended().await.outcome;
            Timing::of_answer(subscription).note(&request);
            ended_turn(&api, &caller.org, subscription, outcome).await
        }
        Answer::Stored(stored) => {
            edge::name(&request, stored.id.as_str());
            let outcome = stored::outcome(&stored, false);
            if let Some(refusal) = stored::refusal(&outcome) {
                return Err(refusal);
            }
            let ids = (stored.thread.clone(), stored.user_message.clone(), stored.answer.clone());
            whole_turn(&api, &caller.org, stored.id.as_str(), &outcome, ids).await
        }
    }
}

/// Tells the turn of an answer that has ended.
async fn ended_turn(api: &Api, org: &OrgId, subscription: &Subscription, outcome: &Outcome) -> ApiResult {
    if let Some(refusal) = stored::refusal(outcome) {
        return Err(refusal);
    }
    let Outcome { status, kept, finish, usage, .. } = outcome;
    let facts = &subscription.facts;
    let (request_id, finish_reason) = (facts.request.as_str(), finish.reason);
    let (provider, model) = subscription.answered_by();
    let unstored = |id| {
        Answered::Unstored(Unstored {
            id,
            role: Role::Assistant,
            content: subscription.log.with_transcript(|transcript| transcript.content().to_owned()),
            status: *status,
            provider,
            model,
            finish_reason: Some(finish_reason),
            usage: *usage,
        })
    };
    let ended = |user_message, answer, saved| Turn {
        request_id,
        status: *status,
        finish_reason: Some(finish_reason),
        user_message,
        assistant_message: Some(unstored(answer)),
        saved,
    };
    let turn = match kept {
        Kept::Yes => {
            let ids = (facts.thread.clone(), facts.user_message.clone(), facts.answer.clone());
            return whole_turn(api, org, request_id, outcome, ids).await;
        }
        // Cancelled before anything began: the thread has no messages of it.
        Kept::NoTurn => ended(Some(None), None, None),
        // The store has less than the client is owed.
        Kept::Failed => ended(None, facts.answer.as_ref(), Some(false)),
    };
    Ok(HttpResponse::Ok().json(turn))
}

pub(super) async fn regenerate(
    api: Data<Api>,
    caller: Caller,
    thread: Path<String>,
    request: HttpRequest,
    mut fields: Fields,
) -> ApiResult<StreamResponse> {
    let digest = fields.digest(&format!("regenerate {thread}"), "request_id");
    let id = name(&caller, &request, &mut fields)?;
    let content = content(&api, &mut fields)?;
    let mut asked = options(&api, &request, thread.into_inner(), &mut fields, (id, digest))?;
    fields.finish()?;
    asked.replaces_last = content.is_some();
    asked.content = content;
    asked.may_share = false;
    answer(&api, &caller, asked, &request).await
}

/// Joins and streams.
async fn answer(api: &Api, caller: &Caller, asked: Asked, request: &HttpRequest) -> ApiResult<StreamResponse> {
    match turns::join(api, caller, asked).await? {
        Answer::Live(attachment) => {
            edge::name(request, attachment.subscription().facts.request.as_str());
            Timing::of_head(attachment.subscription()).note(request);
            Ok(Either::Left(LogBody::from_start(attachment, streams::pings(api)).into_response()))
        }
        Answer::Stored(stored) => {
            edge::name(request, stored.id.as_str());
            streams::from_store(api, &caller.org, &stored, None).await.map(Either::Right)
        }
    }
}

type TurnIds = (Option<ThreadId>, Option<MessageId>, Option<MessageId>);

/// A turn that has ended, as the store keeps it.
async fn whole_turn(api: &Api, org: &OrgId, request_id: &str, outcome: &Outcome, ids: TurnIds) -> ApiResult {
    let (status, finish_reason) = (outcome.status, Some(outcome.finish.reason));
    let (thread, user, answer) = ids;
    let message = async |id: Option<MessageId>| match (&thread, id) {
        (Some(thread), Some(id)) => api.store.message(org, thread, &id).await,
        _ => Ok(None),
    };
    let user_message = Some(message(user).await?);
    let assistant_message = message(answer).await?.map(Answered::Stored);
    let turn = Turn { request_id, status, finish_reason, user_message, assistant_message, saved: None };
    Ok(HttpResponse::Ok().json(turn))
}

/// Reads a message.
fn read(
    api: &Api,
    caller: &Caller,
    request: &HttpRequest,
    thread: String,
    mut fields: Fields,
    delivery: Delivery,
) -> ApiResult<Asked> {
    let digest = fields.digest(&format!("message {thread}"), "request_id");
    let id = name(caller, request, &mut fields)?;
    let role = fields.text("role")?.unwrap_or_else(|| "user".to_owned());
    if role != "user" {
        return Err(ApiError::field("role", "only messages with the role user can be sent"));
    }
    let content = content(api, &mut fields)?.ok_or_else(|| ApiError::field("content", "content is missing"))?;
    let mut asked = options(api, request, thread, &mut fields, (id, digest))?;
    fields.finish()?;
    asked.content = Some(content);
    asked.may_share &= delivery == Delivery::Whole || api.config().stream.fanout_enabled;
    Ok(asked)
}

/// The id of a request, and who chose it.
pub(super) struct Named {
    pub(super) request: RequestId,
    pub(super) has_own_id: bool,
}

/// Names the request before anything about it can be wrong, so that its refusals carry its name.
pub(super) fn name(caller: &Caller, request: &HttpRequest, fields: &mut Fields) -> ApiResult<Named> {
    let chosen = chosen_id(caller, request, fields)?;
    let has_own_id = chosen.is_some();
    let id = chosen.unwrap_or_else(|| RequestId::generate(caller.org.clone()));
    edge::name(request, id.as_str());
    Ok(Named { request: id, has_own_id })
}

/// Reads what a new message and a new answer have in common.
fn options(
    api: &Api,
    request: &HttpRequest,
    thread: String,
    fields: &mut Fields,
    (Named { request: id, has_own_id }, body_digest): (Named, [u8; 32]),
) -> ApiResult<Asked> {
    let arrived = Instant::now();
    let config = api.config();
    let limits = &config.limits;
    let provider = fields.text("provider")?;
    let model = fields.text("model")?;
    let (provider, model) = config.resolve_model(provider.as_deref(), model.as_deref())?;
    let temperature = fields.number("temperature", TEMPERATURE.0, TEMPERATURE.1)?;
    let max_tokens = fields.whole("max_tokens", 1, MAX_TOKENS_MAX)?.and_then(|tokens| u32::try_from(tokens).ok());
    let tools = tools(fields, limits.tools_max)?;
    let user = fields.short_text("user_id", limits.user_id_chars_max)?;
    let mut meta = Map::new();
    for name in ["reason", "scope"] {
        if let Some(text) = fields.short_text(name, limits.title_chars_max)? {
            meta.insert(name.to_owned(), text.into());
        }
    }
    if let Some(user) = &user {
        meta.insert("user_id".to_owned(), user.as_str().into());
    }
    // The predecessor's clients send it; there is no memory to use.
    fields.flag("use_memory")?;
    if fields.flag("collaboration_mode")? == Some(true) {
        let message = "several models cannot answer together; send collaboration_mode: false";
        return Err(ApiError(Failure::new(Code::Unprocessable, message).param("collaboration_mode")));
    }
    let (priority, wants_to_share) = urgency(request, fields)?;
    let idempotency_key = idempotency_key(request)?;
    Ok(Asked {
        request: id,
        has_own_id,
        thread: ThreadId::new(thread),
        content: None,
        replaces_last: false,
        provider: provider.name.clone(),
        model,
        temperature,
        max_tokens,
        may_share: config.coalesce.enabled && wants_to_share && tools.is_empty(),
        priority,
        tools,
        user,
        meta,
        identity: Identity { idempotency_key, body_digest },
        arrived,
    })
}

/// What is said, if anything is: a text or parts, and the attachments as further parts.
fn content(api: &Api, fields: &mut Fields) -> ApiResult<Option<Content>> {
    let content = fields.take("content");
    let images = attachments(fields)?;
    let content = match content {
        None if images.is_empty() => return Ok(None),
        None => return Err(ApiError::field("content", "attachments come with a content")),
        Some(Value::String(text)) => Content::Text(text),
        Some(Value::Array(parts)) => Content::Parts(parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?),
        Some(other) => return Err(wrong_type("content", "a string or an array of parts", &other)),
    };
    for part in parts_of(&content) {
        check_image("content".into(), part)?;
    }
    for (at, image) in images.iter().enumerate() {
        check_image(format!("attachments[{at}]").into(), image)?;
    }
    check_size(&content, &images, api.config().limits.content_bytes_max)?;
    Ok(Some(match content {
        content if images.is_empty() => content,
        Content::Text(text) => Content::Parts([vec![Part::Text { text }], images].concat()),
        Content::Parts(parts) => Content::Parts([parts, images].concat()),
    }))
}

/// One part of a content. The error says where it is, not what it says.
fn part((at, value): (usize, Value)) -> ApiResult<Part> {
    let wrong = |_| {
        let message = r#"a part is {"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": …}}"#;
        ApiError::field(format!("content[{at}]"), message)
    };
    serde_json::from_value(value).map_err(wrong)
}

fn parts_of(content: &Content) -> &[Part] {
    match content {
        Content::Text(_) => &[],
        Content::Parts(parts) => parts,
    }
}

/// Together they say something, and not too much.
fn check_size(content: &Content, images: &[Part], bytes_max: usize) -> ApiResult<()> {
    let size = |part: &Part| match part {
        Part::Text { text } => text.len(),
        Part::ImageUrl { image_url } => image_url.url.len(),
    };
    let says_something = |part: &Part| !matches!(part, Part::Text { text } if text.trim().is_empty());
    let (bytes, is_empty) = match content {
        Content::Text(text) => (text.len(), text.trim().is_empty()),
        Content::Parts(parts) => (parts.iter().map(size).sum(), !parts.iter().any(says_something)),
    };
    if is_empty && images.is_empty() {
        return Err(ApiError::field("content", "content is empty"));
    }
    let param = if bytes > bytes_max { "content" } else { "attachments" };
    if bytes + images.iter().map(size).sum::<usize>() > bytes_max {
        let message = format!("content and attachments may have at most {bytes_max} bytes");
        return Err(ApiError(Failure::new(Code::TooLarge, message).param(param)));
    }
    Ok(())
}

/// `field` is where the image was given.
pub(super) fn check_image(field: Cow<'static, str>, part: &Part) -> ApiResult<()> {
    let Part::ImageUrl { image_url } = part else { return Ok(()) };
    let ImageUrl { url, detail } = image_url;
    if !(url.starts_with("https://") || url.starts_with("data:image/")) {
        return Err(ApiError::field(field, "an image's url must begin with https:// or data:image/"));
    }
    if detail.as_deref().is_some_and(|detail| !["low", "high", "auto"].contains(&detail)) {
        return Err(ApiError::field(field, "an image's detail must be low, high or auto"));
    }
    Ok(())
}

/// How closely an image is to be looked at, if it says so; what it says is checked with the image.
pub(super) fn image_detail(field: &str, image: &Value) -> ApiResult<Option<String>> {
    match image.get("detail") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(detail)) => Ok(Some(detail.clone())),
        Some(_) => Err(ApiError::field(field.to_owned(), "an image's detail must be low, high or auto")),
    }
}

/// The predecessor's attachments: images become parts, anything else is refused.
fn attachments(fields: &mut Fields) -> ApiResult<Vec<Part>> {
    let images = fields.list("attachments")?.into_iter().enumerate().map(|(at, attachment)| {
        let given = |name: &str| attachment.get(name).filter(|value| !value.is_null());
        let text = |name: &str| given(name).and_then(Value::as_str);
        let kinds = ["mime_type", "content_type", "type"];
        if kinds.into_iter().filter_map(given).any(|kind| !kind.is_string()) {
            return Err(ApiError::field(format!("attachments[{at}]"), "the type of an attachment must be a string"));
        }
        let kind = kinds.into_iter().find_map(text).unwrap_or("image");
        let url = ["url", "image_url", "data"].into_iter().find_map(text);
        match url.filter(|_| kind.starts_with("image")) {
            Some(url) => Ok(Part::ImageUrl { image_url: ImageUrl { url: url.to_owned(), detail: None } }),
            None => {
                let message = "only images with a url can be attached";
                Err(ApiError(Failure::new(Code::Unprocessable, message).param(format!("attachments[{at}]"))))
            }
        }
    });
    images.collect()
}

fn tools(fields: &mut Fields, tools_max: usize) -> ApiResult<Vec<Value>> {
    let tools = fields.list("tools")?;
    if tools.len() > tools_max {
        return Err(ApiError::field("tools", format!("there may be at most {tools_max} tools")));
    }
    for (at, tool) in tools.iter().enumerate() {
        let name = tool.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
        if tool.get("type").and_then(Value::as_str) != Some("function") || name.is_none_or(str::is_empty) {
            let message = r#"a tool is {"type": "function", "function": {"name": …}}"#;
            return Err(ApiError::field(format!("tools[{at}]"), message));
        }
    }
    Ok(tools)
}

/// How urgent a request is, and whether it would share an answer: nobody is to wait behind a call that may wait.
pub(super) fn urgency(request: &HttpRequest, fields: &mut Fields) -> ApiResult<(Priority, bool)> {
    let priority = priority(request)?;
    let (by_header, by_field) = (may_share(request)?, fields.flag("coalesce")?.unwrap_or(true));
    Ok((priority, by_header && by_field && priority == Priority::User))
}

/// What `X-Coalesce` says; nothing is the same as `on`.
fn may_share(request: &HttpRequest) -> ApiResult<bool> {
    let Some(value) = request.headers().get("x-coalesce") else { return Ok(true) };
    match value.as_bytes() {
        on if on.eq_ignore_ascii_case(b"on") => Ok(true),
        off if off.eq_ignore_ascii_case(b"off") => Ok(false),
        _ => Err(ApiError::field("X-Coalesce", "X-Coalesce must be on or off")),
    }
}

/// How urgent the request is; a message is, unless its header says otherwise.
fn priority(request: &HttpRequest) -> ApiResult<Priority> {
    let Some(value) = request.headers().get("x-priority") else { return Ok(Priority::default()) };
    let found = value.to_str().ok().and_then(Priority::find);
    found.ok_or_else(|| ApiError::field("X-Priority", "a priority is user or background"))
}

/// The id that the client chose: in the body, else in the header.
fn chosen_id(caller: &Caller, request: &HttpRequest, fields: &mut Fields) -> ApiResult<Option<RequestId>> {
    let in_header = request.headers().get("x-request-id").map(|value| value.to_str().unwrap_or_default());
    let read = |param: &'static str, text: Option<&str>| {
        let parse = |text| RequestId::parse(caller.org.clone(), text);
        let wrong = || ApiError::field(param, "a request id is 1 to 64 of [A-Za-z0-9_-]");
        text.map(|text| parse(text).ok_or_else(wrong)).transpose()
    };
    let in_body = read("request_id", fields.text("request_id")?.as_deref())?;
    Ok(in_body.or(read("X-Request-Id", in_header)?))
}

fn idempotency_key(request: &HttpRequest) -> ApiResult<Option<String>> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let is_visible = |key: &&str| key.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = |key: &&str| (1..=IDEMPOTENCY_KEY_LEN_MAX).contains(&key.len());
    match value.to_str().ok().filter(fits).filter(is_visible) {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            let message = format!(
                "an idempotency key is 1 to {IDEMPOTENCY_KEY_LEN_MAX} visible ASCII characters, without a space"
            );
            Err(ApiError::field("Idempotency-Key", message))
        }
    }
}
