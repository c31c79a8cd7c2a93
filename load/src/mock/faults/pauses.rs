//! Pauses: answers that come late, or stop coming, or never get on.

use std::iter;
use std::time::Duration;

use super::{Asked, Plan, Script, Step, chunk, shapes};

/// Between two comments.
const COMMENT_GAP: Duration = Duration::from_millis(20);
/// How many comments a flood has in each write.
const FLOOD_LEN: usize = 1_000;

pub(super) fn stall(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain([Step::Silence]))
}

pub(super) fn silent(asked: &Asked) -> Script {
    Box::new([asked.stream_head(), Step::Silence].into_iter())
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
    let rest = shapes::text(asked).skip(1);
    let count = asked.plan.hold.as_millis().div_ceil(COMMENT_GAP.as_millis());
    let count = usize::try_from(count).expect("a wait is at most a day");
    let comments = iter::repeat_n(sign_of_life(asked), count).flatten();
    Box::new([asked.stream_head()].into_iter().chain(comments).chain(rest))
}

pub(super) fn comments_after(asked: &Asked) -> Script {
    Box::new(asked.until_fault().chain(iter::repeat(sign_of_life(asked)).flatten()))
}

pub(super) fn comment_flood(asked: &Asked) -> Script {
    let flood = chunk(asked.dialect.speech().keep_alive().repeat(FLOOD_LEN).as_bytes());
    Box::new([asked.stream_head()].into_iter().chain(iter::repeat(flood)))
}

pub(super) fn trickle(asked: &Asked) -> Script {
    let whole = asked.text("|");
    let (before, _) = whole.split_once('|').expect("the text stands in its frame");
    let drops = iter::repeat([Step::Wait(asked.plan.gap), chunk(b".")]).flatten();
    Box::new(asked.until_fault().chain([chunk(before.as_bytes())]).chain(drops))
}

/// A comment, or what the dialect has instead.
fn sign_of_life(asked: &Asked) -> [Step; 2] {
    [chunk(asked.dialect.speech().keep_alive().as_bytes()), Step::Wait(COMMENT_GAP)]
}
