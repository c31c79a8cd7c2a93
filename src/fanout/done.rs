//! Done: the last event of every stream, written the same for answers that ran just now and for those from the store.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use utoipa::ToSchema;

use crate::event::{FinishReason, Status, Usage, write_frame};

/// The `done` event of one request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done<'a, E: Serialize> {
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
    /// What went wrong, as it is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<E>,
}

/// With the name that every event has.
#[derive(Serialize)]
struct Typed<'a, E: Serialize> {
    r#type: &'static str,
    #[serde(flatten)]
    done: &'a Done<'a, E>,
}

impl<E: Serialize> Done<'_, E> {
    /// The frame. Its id follows the last event's, so that a client that has seen it has nothing to resume.
    pub fn frame(&self, fence: u32, last_seq: u64) -> Bytes {
        let mut frame = BytesMut::with_capacity(512);
        write_frame("done", Some((fence, last_seq + 1)), &Typed { r#type: "done", done: self }, &mut frame);
        frame.freeze()
    }
}
