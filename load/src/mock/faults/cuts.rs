//! Cuts: answers that end where they should not.

use std::iter;

use super::{Asked, Script, Step, chunk, end};
use crate::mock::script::framed;

/// More than a body has: what it says of its length is never true.
const LENGTH_NEVER_REACHED: usize = 1_000_000;

pub(super) fn drop(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain([Step::Cut]))
}

pub(super) fn cut_chunk(asked: &Asked) -> Script {
    let whole = framed(asked.text("cut").as_bytes());
    let half = whole.slice(..whole.len() / 2);
    Box::new(asked.until_fault().chain([Step::Bytes(half), Step::Cut]))
}

pub(super) fn cut_frame(asked: &Asked) -> Script {
    let whole = asked.text("cut");
    let half = chunk(&whole.as_bytes()[..whole.len() / 2]);
    Box::new(asked.until_fault().chain([half]).chain(end()))
}

pub(super) fn short_body(asked: &Asked) -> Script {
    let head = asked.head(&format!("content-length: {LENGTH_NEVER_REACHED}"));
    let said: String = asked.token_events(0..asked.plan.before_fault()).map(|(_, event)| event).collect();
    Box::new([head, Step::Bytes((asked.opening_events() + &said).into()), Step::Cut].into_iter())
}

pub(super) fn reset(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain([Step::Reset]))
}

pub(super) fn reset_head(_: &Asked) -> Script {
    Box::new(iter::once(Step::Reset))
}

pub(super) fn no_head(_: &Asked) -> Script {
    Box::new(iter::once(Step::Cut))
}

pub(super) fn cut_head(_: &Asked) -> Script {
    Box::new([Step::Bytes("HTTP/1.1 200 OK\r\ncontent-ty".into()), Step::Cut].into_iter())
}

pub(super) fn no_done(asked: &Asked) -> Script {
    let finish = chunk_of(&asked.finish_events());
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain(finish).chain(end()))
}

pub(super) fn cut_end(asked: &Asked) -> Script {
    let finish = chunk_of(&asked.finish_events());
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain(finish).chain([Step::Cut]))
}

pub(super) fn no_finish(asked: &Asked) -> Script {
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain(end()))
}

pub(super) fn error_frame(asked: &Asked) -> Script {
    let events = asked.dialect.speech().error_event(asked.call);
    Box::new(asked.until_fault().chain([chunk(events.as_bytes())]).chain(end()))
}

/// A chunk, unless it were empty: that would be the last one.
fn chunk_of(events: &str) -> Option<Step> {
    (!events.is_empty()).then(|| chunk(events.as_bytes()))
}
