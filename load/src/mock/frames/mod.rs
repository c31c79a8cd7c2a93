//! Frames: what an answer consists of in each dialect, and what a refusal looks like. When they are sent is the scripts'
//! business.

mod anthropic;
mod chat;
mod gemini;
mod ollama;
mod responses;

pub(super) use anthropic::Anthropic;
pub(super) use chat::{Chat, choice, error, models, usage};
pub(super) use gemini::Gemini;
pub(super) use ollama::Ollama;
pub(super) use responses::Responses;

/// Tokens, as an answer counts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) input: u32,
    pub(super) output: u32,
}

/// Tells the whole text, to dialects that repeat it.
pub(super) type Said<'s> = &'s dyn Fn() -> String;

/// How a dialect says things. `call` is the number of the call; the same call is answered with the same bytes.
pub(super) trait Speech: Sync {
    /// The type of a stream.
    fn content_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// What comes before the first text.
    fn opening(&self, call: u64) -> String;

    /// A piece of the text.
    fn text(&self, call: u64, text: &str) -> String;

    /// What comes after the last text, but for the terminator. `said` is the whole text.
    fn finish(&self, call: u64, said: Said<'_>, usage: Option<Usage>) -> String;

    /// What only a whole answer ends with; nothing in a dialect whose answers end with their body.
    fn terminator(&self, call: u64, said: Said<'_>, usage: Option<Usage>) -> String;

    /// A sign of life without content.
    fn keep_alive(&self) -> &'static str {
        ": keep-alive\n\n"
    }

    /// A failure in the middle of a stream, and what the provider still writes after it.
    fn error_event(&self, call: u64) -> String;

    /// The status and the body of a refusal.
    fn refusal(&self, why: Refusal) -> (u16, String);
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Rejected,
    TooLong,
    Auth,
    Forbidden,
    NoModel,
    TooLarge,
    Unprocessable,
    TooMany,
    Quota,
    Failed,
    Overloaded,
}

impl Refusal {
    /// The status that most providers have for it.
    fn status(self) -> u16 {
        match self {
            Self::Rejected | Self::TooLong => 400,
            Self::Auth => 401,
            Self::Forbidden => 403,
            Self::NoModel => 404,
            Self::TooLarge => 413,
            Self::Unprocessable => 422,
            Self::TooMany | Self::Quota => 429,
            Self::Failed => 500,
            Self::Overloaded => 503,
        }
    }

    /// What it says to people. None of it may reach a client.
    fn message(self) -> &'static str {
        match self {
            Self::Rejected => "the mock has no use for this value",
            Self::TooLong => "the mock has read enough: this is beyond its maximum context length",
            Self::Auth => "the mock does not know the key sk-mock",
            Self::Forbidden => "the mock does not let this key in",
            Self::NoModel => "the mock has heard of the model, but it does not exist",
            Self::TooLarge => "the mock cannot lift this",
            Self::Unprocessable => "the mock understands, and will not",
            Self::TooMany => "the mock cannot run so fast",
            Self::Quota => "the mock wants to be paid first",
            Self::Failed => "the mock has fallen over",
            Self::Overloaded => "the mock is overloaded",
        }
    }
}
