//! OpenAI's responses, and the servers that imitate them: Perplexity's agent API, xAI, OpenRouter's `/responses`, Azure,
//! vLLM.
//!
//! An answer is a list of items (messages, reasoning, calls, what the provider runs by itself), told by named events.
//! The decoder accepts what any of these servers sends; a `Flavor` holds what differs in requests, and the one thing
//! that two of them mean differently in answers.

mod activities;
mod decode;
mod encode;
mod fields;
mod input;
mod parts;
mod signatures;
#[cfg(test)]
mod tests;

use super::openai_chat::errors;
use super::{Adapter, Call, Decode, Framing, Head};
use crate::chat::ChatRequest;
use crate::failure::Failure;

/// Longer ids than this are nobody's.
const UPSTREAM_ID_LEN_MAX: usize = 128;

/// The adapter of this dialect.
#[derive(Debug, Clone, Copy)]
pub struct OpenaiResponses {
    flavor: &'static Flavor,
}

/// In what the dialect's branches differ.
#[derive(Debug)]
struct Flavor {
    /// The dialect's name, in front of the names of `ext` events.
    name: &'static str,
    /// Where requests go, after the base URL.
    path: &'static str,
    /// See [`Adapter::warm_path`].
    warm_path: &'static str,
    /// Whether the answer is a run at the server, which ends by a call rather than with its connection. Such a server
    /// shows its own tools' calls when they begin; a client's call is known by its end alone.
    is_agent: bool,
}

impl OpenaiResponses {
    /// OpenAI, and whoever imitates it.
    pub const OPENAI: Self = Self {
        flavor: &Flavor { name: "openai_responses", path: "/responses", warm_path: "/models", is_agent: false },
    };

    /// Perplexity's agents, which search by themselves.
    pub const PERPLEXITY: Self = Self {
        flavor: &Flavor { name: "perplexity_agent", path: "/v1/agent", warm_path: "/v1/models", is_agent: true },
    };
}

impl Adapter for OpenaiResponses {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        Ok(call(self.flavor.path.to_owned(), encode::body(self.flavor, request)))
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

    fn cancel_call(&self, upstream_id: &str) -> Option<Call> {
        // The id came from outside and goes into a path.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = (1..=UPSTREAM_ID_LEN_MAX).contains(&upstream_id.len()) && upstream_id.bytes().all(is_plain);
        let path = || format!("{}/{upstream_id}/cancel", self.flavor.path);
        (self.flavor.is_agent && fits).then(|| Call { headers: Vec::new(), ..call(path(), b"{}".to_vec()) })
    }

    fn warm_path(&self) -> Option<&'static str> {
        Some(self.flavor.warm_path)
    }
}

fn call(path: String, body: Vec<u8>) -> Call {
    Call { path, headers: vec![("accept", "text/event-stream".to_owned())], body }
}
