//! Registry: which adapter speaks which dialect.

use std::sync::Arc;

use super::Adapter;
use super::anthropic::Anthropic;
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai_chat::OpenaiChat;
use crate::config::Dialect;

/// The adapter of a dialect; `None` when this build does not speak it.
pub fn adapter(dialect: Dialect) -> Option<Arc<dyn Adapter>> {
    Some(match dialect {
        // The demo writes what OpenAI would.
        Dialect::OpenaiChat | Dialect::Demo => Arc::new(OpenaiChat::OPENAI),
        Dialect::Openrouter => Arc::new(OpenaiChat::OPENROUTER),
        Dialect::PerplexitySonar => Arc::new(OpenaiChat::SONAR),
        Dialect::Gemini => Arc::new(Gemini),
        Dialect::Anthropic => Arc::new(Anthropic),
        Dialect::Ollama => Arc::new(Ollama),
        Dialect::OpenaiResponses | Dialect::PerplexityAgent => return None,
    })
}
