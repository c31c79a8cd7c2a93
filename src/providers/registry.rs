//! Registry: which adapter speaks which dialect.

use std::sync::Arc;

use super::Adapter;
use super::anthropic::Anthropic;
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai_chat::OpenaiChat;
use super::openai_responses::OpenaiResponses;
use crate::config::Dialect;

/// The adapter of a dialect.
pub fn adapter(dialect: Dialect) -> Arc<dyn Adapter> {
    match dialect {
        // The demo writes what OpenAI would.
        Dialect::OpenaiChat | Dialect::Demo => Arc::new(OpenaiChat::OPENAI),
        Dialect::Openrouter => Arc::new(OpenaiChat::OPENROUTER),
        Dialect::PerplexitySonar => Arc::new(OpenaiChat::SONAR),
        Dialect::OpenaiResponses => Arc::new(OpenaiResponses::OPENAI),
        Dialect::PerplexityAgent => Arc::new(OpenaiResponses::PERPLEXITY),
        Dialect::Gemini => Arc::new(Gemini),
        Dialect::Anthropic => Arc::new(Anthropic),
        Dialect::Ollama => Arc::new(Ollama),
    }
}
