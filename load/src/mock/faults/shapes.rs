//! Shapes: answers that are whole, in every form that they can come in, and in some that they should not.

use std::iter;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Plan, Script, Step, chunk, end, refusals};
use crate::clock::{STAMP, now_ns};
use crate::mock::dialect::Dialect;
use crate::mock::frames::{self, Refusal};
use crate::mock::script::framed;
use crate::mock::text::Voice;

/// The longest line is this much longer than what anybody should accept.
const HUGE_LINE_LEN: usize = 9 * 1024 * 1024;
/// A huge line and an endless answer are written in pieces of about this size.
const PIECE_LEN: usize = 64 * 1024;
/// How long [`after_done`] goes on.
const TOKENS_AFTER_DONE: u32 = 1_000;
/// How much a head has that nobody should accept.
const HUGE_HEAD_LEN: usize = 1024 * 1024;
/// `data: x` in a stream of gzip, uncompressed inside.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x01\x07\x00\xf8\xffdata: x";
/// The arguments of a tool call, piece by piece.
const ARGUMENTS: [&str; 4] = ["{\"city\":", "\"Zür", "ich\",", "\"days\":3}"];

pub(super) fn text(asked: &Asked) -> Script {
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain(asked.closing()))
}

pub(super) fn stamped(asked: &Asked) -> Script {
    // Elsewhere the end repeats the text.
    if asked.dialect != Dialect::OpenaiChat {
        return refusals::not_in_this_dialect(asked);
    }
    let (speaker, Plan { tokens, gap, bytes, .. }) = (asked.clone(), asked.plan);
    let texts = (0..tokens).flat_map(move |n| {
        let speaker = speaker.clone();
        let wait = (n > 0).then_some(Step::Wait(gap));
        // Made when it is its turn to be written, not before the wait.
        let text = iter::once_with(move || {
            let stamp = format!("{STAMP}{}", now_ns());
            chunk(speaker.text(&format!("{stamp:.<bytes$}")).as_bytes())
        });
        wait.into_iter().chain(text)
    });
    Box::new(asked.opening().chain(texts).chain(asked.closing()))
}

pub(super) fn tool_call(asked: &Asked) -> Script {
    if asked.dialect != Dialect::OpenaiChat {
        return refusals::not_in_this_dialect(asked);
    }
    let (call, gap) = (asked.call, asked.plan.gap);
    let first = json!({"tool_calls": [{
        "index": 0, "id": "call_1", "type": "function", "function": {"name": "forecast", "arguments": ""},
    }]});
    let more = ARGUMENTS.map(|piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
    let pieces = iter::once(first).chain(more);
    let pieces = pieces.flat_map(move |delta| [Step::Wait(gap), chunk(frames::choice(call, &delta, None).as_bytes())]);
    let mut closing = frames::choice(call, &json!({}), Some("tool_calls"));
    closing.extend(asked.usage().map(|usage| frames::usage(call, usage)));
    closing.push_str(&asked.terminator_events());
    Box::new(asked.opening().chain(pieces).chain([chunk(closing.as_bytes())]).chain(end()))
}

/// The voice of the reasoning that comes before an answer.
pub(crate) fn thoughts(prompt: &str, bytes: usize) -> Voice {
    Voice::new(&format!("thoughts about {prompt}"), bytes)
}

pub(super) fn reasoning(asked: &Asked) -> Script {
    if asked.dialect != Dialect::OpenaiChat {
        return refusals::not_in_this_dialect(asked);
    }
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
    let done = chunk(asked.closing_events().as_bytes());
    let said = asked.plan.tokens;
    let more = asked.tokens(said..said.saturating_add(TOKENS_AFTER_DONE));
    Box::new(asked.opening().chain(asked.tokens(0..said)).chain([done]).chain(more).chain(end()))
}

pub(super) fn done_twice(asked: &Asked) -> Script {
    let done = asked.closing_events();
    let done = chunk((done + &asked.terminator_events()).as_bytes());
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain([done]).chain(end()))
}

pub(super) fn garbage(asked: &Asked) -> Script {
    // A whole frame, but for the end of its JSON.
    let whole = asked.text("cut");
    let (json, blank) = whole.split_at(whole.trim_end().len());
    let garbage = chunk(format!("{}{blank}", &json[..json.len() - 3]).as_bytes());
    let rest = asked.tokens(asked.plan.before_fault()..asked.plan.tokens);
    Box::new(asked.until_fault().chain([garbage]).chain(rest).chain(asked.closing()))
}

pub(super) fn bare_error(asked: &Asked) -> Script {
    let (_, body) = asked.dialect.speech().refusal(Refusal::Failed);
    let body: Value = serde_json::from_str(&body).expect("a server's own failure is told in JSON");
    let bare = chunk(format!("{body:#}\n").as_bytes());
    Box::new(asked.until_fault().chain([bare]).chain(end()))
}

pub(super) fn bad_utf8(asked: &Asked) -> Script {
    let whole = asked.text("|");
    let (before, after) = whole.split_once('|').expect("the text stands in its frame");
    let bad = chunk(&[before.as_bytes(), b"\xff", after.as_bytes()].concat());
    Box::new(asked.opening().chain(asked.tokens(0..asked.plan.tokens)).chain([bad]).chain(asked.closing()))
}

pub(super) fn huge_line(asked: &Asked) -> Script {
    let piece = framed(&[b'x'; PIECE_LEN]);
    let line = iter::repeat_n(Step::Bytes(piece), HUGE_LINE_LEN / PIECE_LEN);
    let whole = asked.text("|");
    let (before, after) = whole.split_once('|').expect("the text stands in its frame");
    let (before, after) = (chunk(before.as_bytes()), chunk(after.as_bytes()));
    Box::new(asked.until_fault().chain([before]).chain(line).chain([after]).chain(asked.closing()))
}

pub(super) fn huge_frame(asked: &Asked) -> Script {
    let lines = format!("data: {}\n", "x".repeat(1_017)).repeat(PIECE_LEN / 1_024);
    let frame = iter::repeat_n(chunk(lines.as_bytes()), HUGE_LINE_LEN / PIECE_LEN);
    Box::new(asked.until_fault().chain(frame).chain(asked.closing()))
}

pub(super) fn huge_head(asked: &Asked) -> Script {
    let padding = format!("x-padding: {}", "x".repeat(HUGE_HEAD_LEN));
    Box::new([asked.head(&padding)].into_iter().chain([Step::End]))
}

pub(super) fn many_headers(asked: &Asked) -> Script {
    let headers: Vec<_> = (0..1_000).map(|number| format!("x-{number}: {number}")).collect();
    Box::new([asked.head(&headers.join("\r\n"))].into_iter().chain([Step::End]))
}

pub(super) fn no_http(_: &Asked) -> Script {
    Box::new([Step::Bytes("220 mail.example ready\r\n\r\n".into()), Step::Cut].into_iter())
}

pub(super) fn interim(_: &Asked) -> Script {
    Box::new([Step::Bytes("HTTP/1.1 103 Early Hints\r\n\r\n".into()), Step::Silence].into_iter())
}

pub(super) fn no_length(asked: &Asked) -> Script {
    let head = asked.head("connection: close");
    let said: String = asked.token_events(0..asked.plan.tokens).map(|(_, event)| event).collect();
    let body = asked.opening_events() + &said + &asked.closing_events();
    Box::new([head, Step::Bytes(body.into()), Step::Cut].into_iter())
}

pub(super) fn gzip(asked: &Asked) -> Script {
    let head = asked.head("content-encoding: gzip\r\ntransfer-encoding: chunked");
    Box::new([head, chunk(GZIP)].into_iter().chain(end()))
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
    Box::new([asked.stream_head()].into_iter().chain(pieces))
}
