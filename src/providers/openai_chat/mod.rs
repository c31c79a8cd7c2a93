//! OpenAI's chat completions, and the many servers that imitate them: OpenRouter, vLLM, llama.cpp, LM Studio, Ollama's
//! `/v1`, Groq, DeepSeek, Mistral, xAI, Azure, and Perplexity's Sonar.
//!
//! They differ in more than their documents say, so the decoder accepts every variant from everybody. A `Flavor`
//! holds only what must be known before an answer comes.

mod decode;
pub(super) mod encode;
pub(super) mod errors;
mod pattern;
mod plain;
mod signatures;
#[cfg(test)]
mod tests;
pub(super) mod tools;
pub(super) mod usage;

use super::{Adapter, Call, Decode, Framing, Head};
use crate::chat::ChatRequest;
use crate::failure::Failure;

/// The adapter of this dialect.
#[derive(Debug, Clone, Copy)]
pub struct OpenaiChat {
    flavor: &'static Flavor,
}

/// In what the dialect's branches differ.
#[derive(Debug)]
struct Flavor {
    /// The dialect's name, in front of the names of `ext` events.
    name: &'static str,
    /// See [`Adapter::warm_path`].
    warm_path: &'static str,
    /// Whether usage comes only when it is asked for.
    asks_for_usage: bool,
    /// Whether OpenAI's newer models want their limit as `max_completion_tokens`.
    completion_limit: bool,
    /// Whether `reasoning_details` go back with the next turn. Servers that never send them may reject them.
    takes_details: bool,
}

impl OpenaiChat {
    /// OpenAI, and whoever imitates it.
    pub const OPENAI: Self = Self {
        flavor: &Flavor {
            name: "openai_chat",
            warm_path: "/models",
            asks_for_usage: true,
            completion_limit: true,
            takes_details: false,
        },
    };

    /// OpenRouter. Its list of models is large; what it says about a key is not.
    pub const OPENROUTER: Self = Self {
        flavor: &Flavor {
            name: "openrouter",
            warm_path: "/key",
            asks_for_usage: true,
            completion_limit: false,
            takes_details: true,
        },
    };

    /// Perplexity's Sonar: no `[DONE]`, and usage and sources repeated in every chunk.
    pub const SONAR: Self = Self {
        flavor: &Flavor {
            name: "perplexity_sonar",
            warm_path: "/v1/models",
            asks_for_usage: false,
            completion_limit: false,
            takes_details: false,
        },
    };
}

impl Adapter for OpenaiChat {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        Ok(Call {
            path: "/chat/completions".to_owned(),
            headers: vec![("accept", "text/event-stream".to_owned())],
            body: encode::body(self.flavor, request),
        })
    }

    fn authorization(&self, key: &str) -> (&'static str, String) {
        ("authorization", format!("Bearer {key}"))
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(decode::Decoder::new(self.flavor))
    }

    fn failure(&self, head: &Head, body: &[u8]) -> Failure {
        errors::refused(head, body)
    }

    fn warm_path(&self) -> Option<&'static str> {
        Some(self.flavor.warm_path)
    }
}
