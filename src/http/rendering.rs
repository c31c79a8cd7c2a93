//! Rendering: messages with their text as HTML, for clients that ask with `?render=html`. Only answers that have ended
//! are rendered, so that nothing of this is in the way of a stream.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Path, Query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use crate::chat::{MessageId, Role, ThreadId};
use crate::event::Status;
use crate::failure::Code;
use crate::markdown;
use crate::store::Message;

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
    Ok(HttpResponse::Ok().json(shown(vec![found], wanted.render).await?.pop()))
}

/// The messages as they are wanted. Rendering may take a while, so it does not run on the server's own threads.
pub(super) async fn shown(messages: Vec<Message>, render: Option<Render>) -> ApiResult<Vec<Shown>> {
    if render.is_none() {
        return Ok(messages.into_iter().map(|message| Shown { message, html: None }).collect());
    }
    let rendered = web::block(|| messages.into_iter().map(with_html).collect()).await;
    rendered.map_err(|_| ApiError::new(Code::Internal, "the messages could not be rendered"))
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
        let shown = shown(vec![message(role, status)], render).await.unwrap();
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
