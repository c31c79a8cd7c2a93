//! Done: the last event of every stream, written the same for answers that ran just now and for those from the store.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Kept, Outcome};
use crate::chat::{MessageId, RequestId};
use crate::event::{FinishReason, Status, Usage, write_frame};
use crate::failure::FailureBody;

/// The `done` event of one request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done<'a> {
    /// How the answer ended for this request.
    pub status: Status,
    /// Why.
    pub finish_reason: FinishReason,
    /// The provider's word for it.
    #[schema(required)]
    pub native_finish_reason: Option<&'a str>,
    /// What it cost.
    #[schema(required)]
    pub usage: Option<Usage>,
    /// The answer in its thread.
    #[schema(required)]
    pub message_id: Option<&'a str>,
    /// What it answers.
    #[schema(required)]
    pub user_message_id: Option<&'a str>,
    /// The request.
    pub request_id: &'a str,
    /// From its arrival to its end.
    pub latency_ms: u32,
    /// Whether there is text although the answer is not complete.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether the store has it.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub saved: bool,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FailureBody<'a>>,
}

/// With the name that every event has.
#[derive(Serialize)]
struct Typed<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    done: &'a Done<'a>,
}

impl<'a> Done<'a> {
    /// The end of `request`, whose turn has these messages if it came to anything.
    pub fn new(
        request: &'a RequestId,
        (answer, user_message): (Option<&'a MessageId>, Option<&'a MessageId>),
        outcome: &'a Outcome,
        latency_ms: u32,
    ) -> Self {
        let exists = outcome.kept != Kept::NoTurn;
        Self {
            status: outcome.status,
            finish_reason: outcome.finish.reason,
            native_finish_reason: outcome.finish.native.as_deref(),
            usage: outcome.usage,
            message_id: answer.filter(|_| exists).map(|id| id.as_str()),
            user_message_id: user_message.filter(|_| exists).map(|id| id.as_str()),
            request_id: request.as_str(),
            latency_ms,
            partial: outcome.partial,
            saved: outcome.kept != Kept::Failed,
            error: outcome.failure.as_ref().map(|failure| failure.body(Some(request.as_str()))),
        }
    }

    /// The frame. Its id follows the last event's, so that a client that has seen it has nothing to resume.
    pub fn frame(&self, fence: u32, last_seq: u64) -> Bytes {
        let mut frame = BytesMut::with_capacity(512);
        write_frame("done", Some((fence, last_seq + 1)), &Typed { r#type: "done", done: self }, &mut frame);
        frame.freeze()
    }
}
