//! Registry: which adapter speaks which dialect.

use std::sync::Arc;

use super::Adapter;
use super::openai_chat::OpenaiChat;
use crate::config::Dialect;

/// The adapter of a dialect; `None` when this build does not speak it.
pub fn adapter(dialect: Dialect) -> Option<Arc<dyn Adapter>> {
    let adapter = match dialect {
        // The demo writes what OpenAI would.
        Dialect::OpenaiChat | Dialect::Demo => OpenaiChat::OPENAI,
        Dialect::Openrouter => OpenaiChat::OPENROUTER,
        Dialect::PerplexitySonar => OpenaiChat::SONAR,
        Dialect::OpenaiResponses
        | Dialect::PerplexityAgent
        | Dialect::Gemini
        | Dialect::Anthropic
        | Dialect::Ollama => return None,
    };
    Some(Arc::new(adapter))
}
