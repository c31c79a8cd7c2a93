//! Rendering: texts as HTML. Messages have it beside their text for clients that ask with `?render=html`, once they have
//! ended. Of an answer that still grows a reader sends what is open (`/api/render`), so that streams know nothing of it.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Path, Query};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::fields::Fields;
use crate::chat::{MessageId, Role, ThreadId};
use crate::event::Status;
use crate::failure::{Code, Failure};
use crate::markdown;
use crate::store::Message;

/// How long stored messages wait until they can be rendered.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How a message's text is wanted beside its plain form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Render {
    /// As HTML.
    Html,
}

/// How one message is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    render: Option<Render>,
}

/// A message as clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shown {
    #[serde(flatten)]
    message: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
}

/// `GET /api/threads/{thread}/messages/{message}`
pub(super) async fn message(
    api: Data<Api>,
    caller: Caller,
    path: Path<(String, String)>,
    wanted: Query<Wanted>,
) -> ApiResult {
    let (thread, message) = path.into_inner();
    let (thread, message) = (ThreadId::new(thread), MessageId::new(message));
    let found = api.store.message(&caller.org, &thread, &message).await?;
    let found = found.ok_or_else(|| ApiError::new(Code::NotFound, "no such message"))?;
    Ok(HttpResponse::Ok().json(shown(&api.renderings, vec![found], wanted.render).await?.pop()))
}

/// The open end of a text that grows, as HTML.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rendered {
    /// How much of the text is settled, in UTF-16 units, in which browsers count.
    settled: usize,
    html: String,
    rest: String,
}

impl Rendered {
    fn of(text: &str) -> Option<Self> {
        let markdown::Growing { settled, html, rest } = markdown::growing(text)?;
        Some(Self { settled: text[..settled].encode_utf16().count(), html, rest })
    }
}

/// `POST /api/render`
pub(super) async fn growing(api: Data<Api>, _caller: Caller, mut fields: Fields) -> ApiResult {
    let text = fields.text("text")?.ok_or_else(|| ApiError::field("text", "text is missing"))?;
    fields.finish()?;
    // It is sent again when it has grown: there is no use in waiting.
    let rendered = in_place(&api.renderings, Duration::ZERO, move || Rendered::of(&text)).await?;
    let too_long = || {
        let message = format!("text may have at most {} bytes", markdown::TEXT_BYTES_MAX);
        ApiError(Failure::new(Code::TooLarge, message).param("text"))
    };
    Ok(HttpResponse::Ok().json(rendered.ok_or_else(too_long)?))
}

/// The messages as they are wanted.
pub(super) async fn shown(
    renderings: &Arc<Semaphore>,
    messages: Vec<Message>,
    render: Option<Render>,
) -> ApiResult<Vec<Shown>> {
    if render.is_none() {
        return Ok(messages.into_iter().map(|message| Shown { message, html: None }).collect());
    }
    in_place(renderings, PLACE_WAIT_MAX, || messages.into_iter().map(with_html).collect()).await
}

/// Renders when there is a place for it. That may take a while, so it does not run on the server's own threads, and
/// keeps its place to its end also when nobody waits for it any more.
async fn in_place<T: Send + 'static>(
    renderings: &Arc<Semaphore>,
    wait_max: Duration,
    render: impl FnOnce() -> T + Send + 'static,
) -> ApiResult<T> {
    let Ok(Ok(place)) = timeout(wait_max, renderings.clone().acquire_owned()).await else {
        let message = "as many texts are being rendered as may be at once (server.renderings_max)";
        return Err(ApiError(Failure::new(Code::Overloaded, message).retry_after_ms(1_000)));
    };
    let render = move || {
        let _place = place;
        render()
    };
    web::block(render).await.map_err(|_| ApiError::new(Code::Internal, "the text could not be rendered"))
}

fn with_html(message: Message) -> Shown {
    let is_wanted = message.role == Role::Assistant && message.status != Status::Streaming;
    let html = if is_wanted { markdown::to_html(&message.content.text()) } else { None };
    Shown { message, html }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::Content;

    fn message(role: Role, status: Status) -> Message {
        Message {
            id: MessageId::new("m_1"),
            role,
            content: Content::Text("**a**".to_owned()),
            status,
            provider: None,
            model: None,
            sequence: 1,
            created_at: 0,
            finish_reason: None,
            usage: None,
            citations: Vec::new(),
            reasoning: None,
            tool_calls: Vec::new(),
            meta: json!({}),
            opaque: Vec::new(),
        }
    }

    async fn html(role: Role, status: Status, render: Option<Render>) -> Value {
        let shown = shown(&Arc::new(Semaphore::new(1)), vec![message(role, status)], render).await.unwrap();
        serde_json::to_value(&shown[0]).unwrap()["html"].clone()
    }

    #[actix_web::test]
    async fn an_answer_that_has_ended_is_rendered() {
        assert_eq!(html(Role::Assistant, Status::Complete, Some(Render::Html)).await, "<p><strong>a</strong></p>\n");
    }

    #[actix_web::test]
    async fn nothing_else_is_rendered() {
        assert_eq!(html(Role::Assistant, Status::Complete, None).await, Value::Null);
        assert_eq!(html(Role::Assistant, Status::Streaming, Some(Render::Html)).await, Value::Null);
        assert_eq!(html(Role::User, Status::Complete, Some(Render::Html)).await, Value::Null);
    }
}
