//! Cuts: answers that end where they should not.

use bytes::Bytes;
use serde_json::json;

use super::{Asked, Script, Step, chunk, end, frames};
use crate::mock::script::framed;

pub(super) fn drop(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain([Step::Cut]))
}

pub(super) fn cut_chunk(asked: &Asked) -> Script {
    let whole = framed(frames::choice(asked.call, &json!({"content": "cut"}), None).as_bytes());
    let half = whole.slice(..whole.len() / 2);
    Box::new(asked.until_fault().chain([Step::Bytes(half), Step::Cut]))
}

pub(super) fn reset(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain([Step::Reset]))
}

pub(super) fn no_done(asked: &Asked) -> Script {
    let finish = frames::choice(asked.call, &json!({}), Some("stop"));
    let tokens = asked.tokens(0..asked.plan.tokens);
    Box::new(asked.opening().chain(tokens).chain([chunk(finish.as_bytes())]).chain(end()))
}

pub(super) fn no_finish(asked: &Asked) -> Script {
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain(end()))
}

pub(super) fn error_frame(asked: &Asked) -> Script {
    let mut events = frames::error_event("the engine failed");
    events.push_str(frames::DONE);
    Box::new(asked.until_fault().chain([chunk(&Bytes::from(events))]).chain(end()))
}
