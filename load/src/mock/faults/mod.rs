//! Faults: everything that a provider can do to its caller, by name. Each says which path of the caller only it
//! reaches.

mod cuts;
mod pauses;
mod refusals;
mod shapes;

use std::ops::Range;

use serde_json::json;

use super::frames;
use super::plan::Plan;
use super::script::{Script, Step, chunk, end, event_stream};
use super::text::Voice;

pub(super) use refusals::{no_model, too_many};
pub(super) use shapes::thoughts;

/// One way to answer.
#[derive(Debug)]
pub struct Behaviour {
    /// Its name, the beginning of the model's.
    pub name: &'static str,
    /// Which path of the caller it reaches.
    pub reaches: &'static str,
    /// How much of the text is delivered before the answer ends or fails.
    pub says: Says,
    pub(super) script: fn(&Asked) -> Script,
}

/// How much of a text is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// All of its tokens.
    All,
    /// The first `after` tokens.
    After,
    /// Nothing.
    Nothing,
}

/// What a call asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// By its model.
    pub plan: Plan,
    /// The last message of the user.
    pub prompt: String,
    /// The number of the call, from 1.
    pub call: u64,
    /// How many calls with the same model and prompt came before.
    pub earlier: u32,
    /// Whether it wants to know the usage.
    pub include_usage: bool,
}

macro_rules! behaviours {
    ($($(#[doc = $reaches:literal])+ $name:literal, $says:ident, $script:path;)*) => {
        /// Every behaviour.
        pub const ALL: &[Behaviour] = &[$(Behaviour {
            name: $name,
            reaches: concat!($($reaches),+),
            says: Says::$says,
            script: $script,
        }),*];
    };
}

behaviours! {
    /// The good case.
    "text", All, shapes::text;
    /// Tool calls: arguments in pieces, and a finish reason of its own.
    "tool_call", Nothing, shapes::tool_call;
    /// Reasoning before the text.
    "reasoning", All, shapes::reasoning;
    /// Decoding of characters whose bytes come in two reads.
    "split_utf8", All, shapes::split_utf8;
    /// Parsing at every cut: one byte a write, the framing of chunks included.
    "drip", All, shapes::drip;
    /// What follows the terminator must be ignored, and must not be waited for.
    "after_done", All, shapes::after_done;
    /// A frame that is not JSON, in the middle.
    "garbage", After, shapes::garbage;
    /// The cap of a frame: one line of 9 MiB.
    "huge_line", After, shapes::huge_line;
    /// The cap of an answer: as fast as the connection takes it, without end.
    "endless", All, shapes::endless;
    /// The idle clock after content: silence on an open connection.
    "stall", After, pauses::stall;
    /// The first-token clock: a head and nothing else.
    "silent", Nothing, pauses::silent;
    /// The clock of the head, which comes late.
    "slow_head", All, pauses::slow_head;
    /// The first-token clock below its limit: the first byte comes late.
    "slow_first_byte", All, pauses::slow_first_byte;
    /// Comments are life, but no first token.
    "comments", All, pauses::comments;
    /// Any path at a moment that the test chooses: `after` tokens, and the rest when the gate is opened.
    "gate", All, pauses::gate;
    /// A connection that closes properly in the middle of an answer.
    "drop", After, cuts::drop;
    /// A connection that closes inside a chunk, which some clients take for the end of the body.
    "cut_chunk", After, cuts::cut_chunk;
    /// A connection that is reset in the middle of an answer.
    "reset", After, cuts::reset;
    /// A body that ends after the finish reason, without `[DONE]`.
    "no_done", All, cuts::no_done;
    /// A body that ends properly, without finish reason or `[DONE]`.
    "no_finish", All, cuts::no_finish;
    /// An error in the middle of a stream that ends with `[DONE]` nevertheless.
    "error_frame", After, cuts::error_frame;
    /// `Retry-After`: always 429.
    "rate_limited", Nothing, refusals::rate_limited;
    /// Retries: the first `k` calls fail with `status`.
    "flaky", All, refusals::flaky;
    /// 503, without a hint when to come back.
    "overloaded", Nothing, refusals::overloaded;
    /// 500 with an error in JSON.
    "server_error", Nothing, refusals::server_error;
    /// 502 with a page of HTML, as proxies write it.
    "html_error", Nothing, refusals::html_error;
    /// A key that is not accepted: nothing to retry, nothing to pass on.
    "auth", Nothing, refusals::auth;
    /// A 429 that no waiting helps against.
    "quota", Nothing, refusals::quota;
    /// A model that the provider does not know.
    "not_found", Nothing, refusals::not_found;
    /// An error in JSON behind a 200.
    "error_in_200", Nothing, refusals::error_in_200;
    /// A 200 without a body.
    "empty_200", Nothing, refusals::empty_200;
    /// A 200 that is a page of HTML.
    "wrong_type", Nothing, refusals::wrong_type;
    /// A redirect to `/elsewhere`; a caller that follows it is counted as a stray.
    "redirect", Nothing, refusals::redirect;
}

/// The behaviour of this name; `mock` is another one of `text`.
pub fn find(name: &str) -> Option<&'static Behaviour> {
    let name = if name == "mock" { "text" } else { name };
    ALL.iter().find(|behaviour| behaviour.name == name)
}

impl Asked {
    /// The script that answers.
    pub fn script(&self) -> Script {
        (self.plan.behaviour.script)(self)
    }

    /// The head, the pause before the first token, the role.
    fn opening(&self) -> impl Iterator<Item = Step> + Send + use<> {
        let role = frames::choice(self.call, &json!({"role": "assistant", "content": ""}), None);
        [event_stream(), Step::Wait(self.plan.first), chunk(role.as_bytes())].into_iter()
    }

    /// The tokens with these numbers, each in a chunk of its own.
    fn tokens(&self, numbers: Range<u32>) -> impl Iterator<Item = Step> + Send + use<> {
        let gap = self.plan.gap;
        self.token_events(numbers).flat_map(move |(n, event)| {
            let wait = (n > 0).then_some(Step::Wait(gap));
            wait.into_iter().chain([chunk(event.as_bytes())])
        })
    }

    /// The events of the tokens with these numbers.
    fn token_events(&self, numbers: Range<u32>) -> impl Iterator<Item = (u32, String)> + Send + use<> {
        let (call, voice) = (self.call, Voice::new(&self.prompt, self.plan.bytes));
        numbers.map(move |n| (n, frames::choice(call, &json!({"content": voice.token(n)}), None)))
    }

    /// The opening and the tokens before the fault.
    fn until_fault(&self) -> impl Iterator<Item = Step> + Send + use<> {
        self.opening().chain(self.tokens(0..self.plan.before_fault()))
    }

    /// The finish reason, the usage if it was asked for, and `[DONE]`.
    fn closing_events(&self, finish_reason: &str) -> String {
        let mut events = frames::choice(self.call, &json!({}), Some(finish_reason));
        if self.include_usage {
            let words = u32::try_from(self.prompt.split_whitespace().count()).unwrap_or(u32::MAX);
            events.push_str(&frames::usage(self.call, words, self.plan.tokens));
        }
        events.push_str(frames::DONE);
        events
    }

    /// A proper end.
    fn closing(&self) -> impl Iterator<Item = Step> + Send + use<> {
        [chunk(self.closing_events("stop").as_bytes())].into_iter().chain(end())
    }
}

#[cfg(test)]
mod tests;
