//! Registry: which adapter speaks which dialect.

use std::sync::Arc;

use super::Adapter;
use super::anthropic::Anthropic;
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai_chat::OpenaiChat;
use super::openai_responses::OpenaiResponses;
use super::owned::Owned;
use crate::config::{Dialect, Provider};

/// The adapter of a provider: that of its dialect, which takes back only the signatures that this provider has made.
pub fn of(provider: &Provider) -> Arc<dyn Adapter> {
    Arc::new(Owned::new(adapter(provider.dialect), provider))
}

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
