//! Pauses: answers that come late, or stop coming.

use std::iter;
use std::time::Duration;

use super::{Asked, Plan, Script, Step, chunk, event_stream, shapes};

/// Between two comments.
const COMMENT_GAP: Duration = Duration::from_millis(20);

pub(super) fn stall(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain([Step::Silence]))
}

pub(super) fn silent(_: &Asked) -> Script {
    Box::new([event_stream(), Step::Silence].into_iter())
}

pub(super) fn slow_head(asked: &Asked) -> Script {
    Box::new([Step::Wait(asked.plan.hold)].into_iter().chain(shapes::text(asked)))
}

pub(super) fn slow_first_byte(asked: &Asked) -> Script {
    let plan = Plan { first: asked.plan.hold, ..asked.plan };
    shapes::text(&Asked { plan, ..asked.clone() })
}

pub(super) fn gate(asked: &Asked) -> Script {
    let Plan { tokens, gate, .. } = asked.plan;
    let first = asked.plan.before_fault();
    // An answer that has nothing more to say still waits before its end.
    let stretch = if gate == 0 { u32::MAX } else { gate };
    let begins = (first..tokens.max(first + 1)).step_by(stretch as usize);
    let speaker = asked.clone();
    let held = begins.flat_map(move |begin| {
        let said = speaker.tokens(begin..begin.saturating_add(stretch).min(tokens));
        iter::once(Step::Gate).chain(said)
    });
    Box::new(asked.until_fault().chain(held).chain(asked.closing()))
}

pub(super) fn comments(asked: &Asked) -> Script {
    let count = asked.plan.hold.as_millis().div_ceil(COMMENT_GAP.as_millis());
    let count = usize::try_from(count).expect("a wait is at most a day");
    let comments = iter::repeat_n([chunk(b": keep-alive\n\n"), Step::Wait(COMMENT_GAP)], count).flatten();
    let rest = shapes::text(asked).skip(1);
    Box::new([event_stream()].into_iter().chain(comments).chain(rest))
}
