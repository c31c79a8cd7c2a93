//! Faults: everything that a provider can do to its caller, by name. Each says which path of the caller only it
//! reaches.

mod cuts;
mod pauses;
mod refusals;
mod shapes;

use std::ops::Range;

use super::dialect::Dialect;
use super::frames::Usage;
use super::plan::Plan;
use super::script::{Script, Step, chunk, end, stream_head};
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
    /// By its path.
    pub dialect: Dialect,
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
    /// Age: each text is the time at which it is written, after an `@`, so that a reader can tell how long it took.
    "stamped", Nothing, shapes::stamped;
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
    /// The terminator, twice.
    "done_twice", All, shapes::done_twice;
    /// A byte that is no UTF-8, in the last text.
    "bad_utf8", All, shapes::bad_utf8;
    /// A frame that is not JSON, in the middle.
    "garbage", After, shapes::garbage;
    /// An error in JSON between the frames, printed over many lines, without a frame around it.
    "bare_error", After, shapes::bare_error;
    /// The cap of a frame: one line of 9 MiB.
    "huge_line", After, shapes::huge_line;
    /// The same cap: lines of a kilobyte that belong to one frame.
    "huge_frame", After, shapes::huge_frame;
    /// The cap of a head: a header of 1 MiB.
    "huge_head", Nothing, shapes::huge_head;
    /// The other cap of a head: a thousand headers.
    "many_headers", Nothing, shapes::many_headers;
    /// Something that is not HTTP.
    "no_http", Nothing, shapes::no_http;
    /// An interim answer, and no final one.
    "interim", Nothing, shapes::interim;
    /// A body that ends with its connection alone: only the dialect tells whether it is whole.
    "no_length", All, shapes::no_length;
    /// An answer that is compressed, which nobody has asked for.
    "gzip", Nothing, shapes::gzip;
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
    /// The clock of the whole: comments after content, without end.
    "comments_after", After, pauses::comments_after;
    /// Comments as fast as the connection takes them: no clock may wait for a pause.
    "comment_flood", Nothing, pauses::comment_flood;
    /// The clock of the whole: a frame without end, a byte every `gap_ms`.
    "trickle", After, pauses::trickle;
    /// Any path at a moment that the test chooses: `after` tokens, and the rest when the gate is opened.
    "gate", All, pauses::gate;
    /// A connection that closes properly in the middle of an answer.
    "drop", After, cuts::drop;
    /// A connection that closes inside a chunk, which some clients take for the end of the body.
    "cut_chunk", After, cuts::cut_chunk;
    /// A body that ends properly inside a frame.
    "cut_frame", After, cuts::cut_frame;
    /// A body that ends long before its length.
    "short_body", After, cuts::short_body;
    /// A connection that is reset in the middle of an answer.
    "reset", After, cuts::reset;
    /// A connection that is reset when the call has come.
    "reset_head", Nothing, cuts::reset_head;
    /// A connection that is closed properly when the call has come.
    "no_head", Nothing, cuts::no_head;
    /// A connection that closes inside a head.
    "cut_head", Nothing, cuts::cut_head;
    /// A body that ends after the finish reason, without the terminator.
    "no_done", All, cuts::no_done;
    /// A connection that closes after the finish reason, before the terminator and the end of the body.
    "cut_end", All, cuts::cut_end;
    /// A body that ends properly, without finish reason or terminator.
    "no_finish", All, cuts::no_finish;
    /// An error in the middle of a stream, in the dialect's own words.
    "error_frame", After, cuts::error_frame;
    /// `Retry-After`: always 429.
    "rate_limited", Nothing, refusals::rate_limited;
    /// Retries: the first `k` calls fail with `status`.
    "flaky", All, refusals::flaky;
    /// `status`, 503 or 529, without a hint when to come back.
    "overloaded", Nothing, refusals::overloaded;
    /// 500 with an error in JSON.
    "server_error", Nothing, refusals::server_error;
    /// 502 with a page of HTML, as proxies write it.
    "html_error", Nothing, refusals::html_error;
    /// A key that is not accepted: nothing to retry, nothing to pass on.
    "auth", Nothing, refusals::auth;
    /// 403: a key that may not do this.
    "forbidden", Nothing, refusals::forbidden;
    /// 400: a request that is refused as it is.
    "rejected", Nothing, refusals::rejected;
    /// A conversation that is longer than the model's window.
    "too_long", Nothing, refusals::too_long;
    /// 413: a request that is too large.
    "too_large", Nothing, refusals::too_large;
    /// 422: a request that is understood and refused.
    "unprocessable", Nothing, refusals::unprocessable;
    /// A refusal that no waiting helps against.
    "quota", Nothing, refusals::quota;
    /// A model that the provider does not know.
    "not_found", Nothing, refusals::not_found;
    /// An error in JSON behind a 200.
    "error_in_200", Nothing, refusals::error_in_200;
    /// A 200 without a body.
    "empty_200", Nothing, refusals::empty_200;
    /// 204: a success without an answer.
    "no_content", Nothing, refusals::no_content;
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

    /// The head of an answer that is streamed.
    fn stream_head(&self) -> Step {
        stream_head(self.dialect.speech().content_type())
    }

    /// The head of an answer with other headers, in whole lines but for the last end.
    fn head(&self, headers: &str) -> Step {
        let content_type = self.dialect.speech().content_type();
        Step::Bytes(format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{headers}\r\n\r\n").into())
    }

    /// The head, the pause before the first token, what comes before the first text.
    fn opening(&self) -> impl Iterator<Item = Step> + Send + use<> {
        let events = self.opening_events();
        [self.stream_head(), Step::Wait(self.plan.first), chunk(events.as_bytes())].into_iter()
    }

    fn opening_events(&self) -> String {
        self.dialect.speech().opening(self.call)
    }

    /// The event of a piece of text.
    fn text(&self, text: &str) -> String {
        self.dialect.speech().text(self.call, text)
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
        let (call, speech, voice) = (self.call, self.dialect.speech(), Voice::new(&self.prompt, self.plan.bytes));
        numbers.map(move |n| (n, speech.text(call, &voice.token(n))))
    }

    /// The opening and the tokens before the fault.
    fn until_fault(&self) -> impl Iterator<Item = Step> + Send + use<> {
        self.opening().chain(self.tokens(0..self.plan.before_fault()))
    }

    /// The whole text.
    fn said(&self) -> String {
        Voice::new(&self.prompt, self.plan.bytes).tokens(self.plan.tokens)
    }

    /// The tokens, if they are asked for.
    fn usage(&self) -> Option<Usage> {
        let input = u32::try_from(self.prompt.split_whitespace().count()).unwrap_or(u32::MAX);
        self.include_usage.then_some(Usage { input, output: self.plan.tokens })
    }

    /// Why it finished, and the usage if the dialect tells it there.
    fn finish_events(&self) -> String {
        self.dialect.speech().finish(self.call, &|| self.said(), self.usage())
    }

    fn terminator_events(&self) -> String {
        self.dialect.speech().terminator(self.call, &|| self.said(), self.usage())
    }

    fn closing_events(&self) -> String {
        self.finish_events() + &self.terminator_events()
    }

    /// A proper end.
    fn closing(&self) -> impl Iterator<Item = Step> + Send + use<> {
        let asked = self.clone();
        std::iter::once_with(move || chunk(asked.closing_events().as_bytes())).chain(end())
    }
}

#[cfg(test)]
mod tests;
