//! Registry: which adapter speaks which dialect.

use std::sync::Arc;

use super::Adapter;
use super::gemini::Gemini;
use super::openai_chat::OpenaiChat;
use super::openai_responses::OpenaiResponses;
use crate::config::Dialect;

/// The adapter of a dialect; `None` when this build does not speak it.
pub fn adapter(dialect: Dialect) -> Option<Arc<dyn Adapter>> {
    Some(match dialect {
        // The demo writes what OpenAI would.
        Dialect::OpenaiChat | Dialect::Demo => Arc::new(OpenaiChat::OPENAI),
        Dialect::Openrouter => Arc::new(OpenaiChat::OPENROUTER),
        Dialect::PerplexitySonar => Arc::new(OpenaiChat::SONAR),
        Dialect::OpenaiResponses => Arc::new(OpenaiResponses::OPENAI),
        Dialect::PerplexityAgent => Arc::new(OpenaiResponses::PERPLEXITY),
        Dialect::Gemini => Arc::new(Gemini),
        Dialect::Anthropic | Dialect::Ollama => return None,
    })
}
