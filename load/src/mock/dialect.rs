//! Dialect: whose format the mock speaks in an answer. The first segment of a call's path names it, so that one mock
//! plays every provider: `/anthropic/v1/messages` is Anthropic's, `/v1/chat/completions` OpenAI's.

use super::frames::{self, Speech};

/// The formats that the mock speaks. Their names are those of weir's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// OpenAI's chat completions; spoken wherever no path names another.
    #[default]
    OpenaiChat,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Perplexity's agents.
    PerplexityAgent,
    /// Perplexity's Sonar.
    PerplexitySonar,
    /// Google's `streamGenerateContent`.
    Gemini,
    /// OpenRouter's chat completions.
    Openrouter,
    /// Anthropic's messages.
    Anthropic,
    /// Ollama's own.
    Ollama,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 8] = [
        Self::OpenaiChat,
        Self::OpenaiResponses,
        Self::PerplexityAgent,
        Self::PerplexitySonar,
        Self::Gemini,
        Self::Openrouter,
        Self::Anthropic,
        Self::Ollama,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
            Self::PerplexityAgent => "perplexity_agent",
            Self::PerplexitySonar => "perplexity_sonar",
            Self::Gemini => "gemini",
            Self::Openrouter => "openrouter",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
        }
    }

    /// The dialect that a path asks for.
    pub(super) fn of(path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        Self::ALL.into_iter().find(|dialect| dialect.name() == first).unwrap_or_default()
    }

    /// How the path of a call ends.
    pub(super) fn call_path(self) -> &'static str {
        match self {
            Self::OpenaiChat | Self::PerplexitySonar | Self::Openrouter => "/chat/completions",
            Self::OpenaiResponses => "/responses",
            Self::PerplexityAgent => "/v1/agent",
            Self::Gemini => ":streamGenerateContent",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    /// How it says things.
    pub(super) fn speech(self) -> &'static dyn Speech {
        match self {
            Self::OpenaiChat => &frames::Chat::Openai,
            Self::PerplexitySonar => &frames::Chat::Sonar,
            Self::Openrouter => &frames::Chat::Openrouter,
            Self::OpenaiResponses => &frames::Responses::Openai,
            Self::PerplexityAgent => &frames::Responses::Perplexity,
            Self::Gemini => &frames::Gemini,
            Self::Anthropic => &frames::Anthropic,
            Self::Ollama => &frames::Ollama,
        }
    }
}
