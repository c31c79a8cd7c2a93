//! Dialect: the kinds of servers that weir can talk to, and what is known of each before anything is configured.
//!
//! The paces are what a new account may do at the provider; a better account raises them in the file.

use std::str::FromStr;

use super::pace::Pace;
use super::tables::words;

words! {
    /// How a kind of server is spoken to.
    Dialect {
        /// OpenAI's chat completions, and the many servers that imitate them.
        OpenaiChat = "openai_chat",
        /// OpenAI's responses.
        OpenaiResponses = "openai_responses",
        /// Perplexity's agent API.
        PerplexityAgent = "perplexity_agent",
        /// Perplexity's older chat completions.
        PerplexitySonar = "perplexity_sonar",
        /// Google's Gemini.
        Gemini = "gemini",
        /// OpenRouter.
        Openrouter = "openrouter",
        /// Anthropic's messages.
        Anthropic = "anthropic",
        /// Ollama's own API.
        Ollama = "ollama",
        /// The built-in provider without a network.
        Demo = "demo",
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|dialect| dialect.as_str() == text).ok_or(UnknownDialect)
    }
}

/// The text names no dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownDialect;

impl std::fmt::Display for UnknownDialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unknown dialect")
    }
}

impl std::error::Error for UnknownDialect {}

impl Dialect {
    /// The server that the dialect was made for, without a trailing slash; empty for the demo.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Dialect::OpenaiChat | Dialect::OpenaiResponses => "https://api.openai.com/v1",
            Dialect::PerplexityAgent | Dialect::PerplexitySonar => "https://api.perplexity.ai",
            Dialect::Gemini => "https://generativelanguage.googleapis.com/v1beta",
            Dialect::Openrouter => "https://openrouter.ai/api/v1",
            Dialect::Anthropic => "https://api.anthropic.com",
            Dialect::Ollama => "http://127.0.0.1:11434",
            Dialect::Demo => "",
        }
    }

    /// Whether servers of this kind ask for a key.
    pub fn needs_key(self) -> bool {
        !matches!(self, Dialect::Ollama | Dialect::Demo)
    }

    /// Whether it is a kind of OpenAI's chat completions, so that what a client has written in it can travel as it is.
    pub fn is_chat_completions(self) -> bool {
        matches!(self, Dialect::OpenaiChat | Dialect::Openrouter | Dialect::PerplexitySonar | Dialect::Demo)
    }

    /// Whether it is a kind of OpenAI's responses.
    pub fn is_responses(self) -> bool {
        matches!(self, Dialect::OpenaiResponses | Dialect::PerplexityAgent)
    }

    /// Models of the server at [`Dialect::default_base_url`], the default one first.
    pub(super) fn known_models(self) -> &'static [&'static str] {
        match self {
            Dialect::OpenaiChat | Dialect::OpenaiResponses => {
                &["gpt-5.6-luna", "gpt-5.6-terra", "gpt-5.6-sol", "gpt-6-astra"]
            }
            Dialect::PerplexityAgent => &["perplexity/sonar", "openai/gpt-6-luna", "anthropic/claude-haiku-4-5"],
            Dialect::PerplexitySonar => &["sonar", "sonar-pro", "sonar-reasoning-pro"],
            Dialect::Gemini => &["gemini-3.8-flash", "gemini-3.5-flash-lite", "gemini-3.1-pro-preview"],
            Dialect::Openrouter => &["openrouter/auto"],
            Dialect::Anthropic => &["claude-sonnet-5", "claude-haiku-4-5", "claude-opus-4-8"],
            Dialect::Ollama => &[],
            Dialect::Demo => &["demo"],
        }
    }

    /// Whether models beyond the listed ones are accepted when the file does not say.
    pub(super) fn any_model(self) -> bool {
        self == Dialect::Openrouter
    }

    /// How often its servers say that they are still at it while they are silent otherwise, in milliseconds; `None`
    /// where that is not known, or often enough.
    pub(super) fn keepalive_ms(self) -> Option<u64> {
        (self == Dialect::OpenaiResponses).then_some(30_000)
    }

    /// How long an answer may be silent when the file does not say, in milliseconds: longer than a few of those.
    pub(super) fn idle_timeout_ms(self) -> u64 {
        self.keepalive_ms().map_or(30_000, |keepalive_ms| 3 * keepalive_ms)
    }

    /// The pace when neither the file nor the environment says one.
    pub(super) fn pace(self) -> Pace {
        let (rps, concurrency, burst) = match self {
            Dialect::PerplexityAgent | Dialect::PerplexitySonar => (1.0, 3, 2),
            Dialect::OpenaiChat | Dialect::OpenaiResponses => (8.0, 64, 16),
            Dialect::Gemini => (2.0, 32, 8),
            Dialect::Openrouter => (10.0, 64, 20),
            Dialect::Anthropic => (1.0, 16, 4),
            Dialect::Ollama => (10.0, 4, 4),
            Dialect::Demo => (1000.0, 1000, 1000),
        };
        Pace { rps, concurrency, burst, tpm: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_by_its_name() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.as_str().parse(), Ok(*dialect));
        }
        assert_eq!("OpenAI".parse::<Dialect>(), Err(UnknownDialect));
    }
}
