//! Shapes: answers that are whole, in every form that they can come in, and in some that they should not.

use std::iter;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::{Asked, Plan, Script, Step, chunk, end, event_stream, frames};
use crate::mock::script::framed;
use crate::mock::text::Voice;

/// The longest line is this much longer than what anybody should accept.
const HUGE_LINE_LEN: usize = 9 * 1024 * 1024;
/// A huge line and an endless answer are written in pieces of about this size.
const PIECE_LEN: usize = 64 * 1024;
/// How long [`after_done`] goes on.
const TOKENS_AFTER_DONE: u32 = 1_000;
/// The arguments of a tool call, piece by piece.
const ARGUMENTS: [&str; 4] = ["{\"city\":", "\"Zür", "ich\",", "\"days\":3}"];

pub(super) fn text(asked: &Asked) -> Script {
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain(asked.closing()))
}

pub(super) fn tool_call(asked: &Asked) -> Script {
    let (call, gap) = (asked.call, asked.plan.gap);
    let first = json!({"tool_calls": [{
        "index": 0, "id": "call_1", "type": "function", "function": {"name": "forecast", "arguments": ""},
    }]});
    let more = ARGUMENTS.map(|piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
    let pieces = iter::once(first).chain(more);
    let pieces = pieces.flat_map(move |delta| [Step::Wait(gap), chunk(frames::choice(call, &delta, None).as_bytes())]);
    let closing = chunk(asked.closing_events("tool_calls").as_bytes());
    Box::new(asked.opening().chain(pieces).chain([closing]).chain(end()))
}

/// The voice of the reasoning that comes before an answer.
pub(crate) fn thoughts(prompt: &str, bytes: usize) -> Voice {
    Voice::new(&format!("thoughts about {prompt}"), bytes)
}

pub(super) fn reasoning(asked: &Asked) -> Script {
    let (call, gap, voice) = (asked.call, asked.plan.gap, thoughts(&asked.prompt, asked.plan.bytes));
    let thoughts = (0..asked.plan.after).flat_map(move |n| {
        let event = frames::choice(call, &json!({"reasoning_content": voice.token(n)}), None);
        [chunk(event.as_bytes()), Step::Wait(gap)]
    });
    let tokens = asked.tokens(0..asked.plan.tokens);
    Box::new(asked.opening().chain(thoughts).chain(tokens).chain(asked.closing()))
}

pub(super) fn split_utf8(asked: &Asked) -> Script {
    let gap = asked.plan.gap;
    let halves = asked.token_events(0..asked.plan.tokens).flat_map(move |(_, event)| {
        let bytes = event.as_bytes();
        let inside = (1..bytes.len()).find(|at| !event.is_char_boundary(*at)).unwrap_or(bytes.len() / 2);
        [chunk(&bytes[..inside]), Step::Wait(gap), chunk(&bytes[inside..]), Step::Wait(gap)]
    });
    Box::new(asked.opening().chain(halves).chain(asked.closing()))
}

pub(super) fn drip(asked: &Asked) -> Script {
    let plan = Plan { gap: Duration::ZERO, ..asked.plan };
    Box::new(text(&Asked { plan, ..asked.clone() }).flat_map(|step| -> Script {
        let Step::Bytes(bytes) = step else { return Box::new(iter::once(step)) };
        Box::new((0..bytes.len()).flat_map(move |at| [Step::Bytes(bytes.slice(at..=at)), Step::Wait(Duration::ZERO)]))
    }))
}

pub(super) fn after_done(asked: &Asked) -> Script {
    let done = chunk(asked.closing_events("stop").as_bytes());
    let said = asked.plan.tokens;
    let more = asked.tokens(said..said.saturating_add(TOKENS_AFTER_DONE));
    Box::new(asked.opening().chain(asked.tokens(0..said)).chain([done]).chain(more).chain(end()))
}

pub(super) fn garbage(asked: &Asked) -> Script {
    let garbage = chunk(b"data: {\"choices\":[{\"delta\":{\"content\":\"cut\n\n");
    let rest = asked.tokens(asked.plan.before_fault()..asked.plan.tokens);
    Box::new(asked.until_fault().chain([garbage]).chain(rest).chain(asked.closing()))
}

pub(super) fn huge_line(asked: &Asked) -> Script {
    let piece = framed(&[b'x'; PIECE_LEN]);
    let line = iter::repeat_n(Step::Bytes(piece), HUGE_LINE_LEN / PIECE_LEN);
    let line = iter::once(chunk(b"data: {\"choices\":[{\"delta\":{\"content\":\"")).chain(line);
    let line = line.chain([chunk(b"\"}}]}\n\n")]);
    Box::new(asked.until_fault().chain(line).chain(asked.closing()))
}

pub(super) fn endless(asked: &Asked) -> Script {
    let mut events = asked.token_events(0..u32::MAX);
    let pieces = iter::from_fn(move || {
        let mut piece = String::with_capacity(PIECE_LEN + 1024);
        while piece.len() < PIECE_LEN {
            piece.push_str(&events.next()?.1);
        }
        Some(chunk(&Bytes::from(piece)))
    });
    Box::new([event_stream()].into_iter().chain(pieces))
}
