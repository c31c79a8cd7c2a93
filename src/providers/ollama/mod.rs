//! Ollama's own API, which knows more of its models than the `/v1` beside it.

mod decode;
mod encode;
mod errors;
#[cfg(test)]
mod tests;

use super::{Adapter, Call, Decode, Framing, Head};
use crate::chat::ChatRequest;
use crate::failure::Failure;

/// The adapter of this dialect.
#[derive(Debug, Clone, Copy)]
pub struct Ollama;

impl Adapter for Ollama {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        Ok(Call {
            path: "/api/chat".to_owned(),
            headers: vec![("accept", "application/x-ndjson".to_owned())],
            body: encode::body(request)?,
        })
    }

    fn authorization(&self, key: &str) -> (&'static str, String) {
        ("authorization", format!("Bearer {key}"))
    }

    fn framing(&self) -> Framing {
        Framing::NdJson
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(decode::Decoder::default())
    }

    fn failure(&self, head: &Head, body: &[u8]) -> Failure {
        errors::refused(head, body)
    }

    fn warm_path(&self) -> Option<&'static str> {
        Some("/api/version")
    }
}
