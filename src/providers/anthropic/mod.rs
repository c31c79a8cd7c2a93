//! Anthropic's messages, and the gateways that speak them.

mod activity;
mod blocks;
mod decode;
mod encode;
mod errors;
mod models;
mod options;
#[cfg(test)]
mod tests;
mod thinking;
mod turns;
mod usage;

use super::{Adapter, Call, Decode, Framing, Head};
use crate::chat::ChatRequest;
use crate::failure::Failure;

/// The version of the API that this dialect is.
const VERSION: &str = "2023-06-01";

/// The adapter of this dialect.
#[derive(Debug, Clone, Copy)]
pub struct Anthropic;

impl Adapter for Anthropic {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        Ok(Call {
            path: "/v1/messages".to_owned(),
            headers: vec![("accept", "text/event-stream".to_owned()), ("anthropic-version", VERSION.to_owned())],
            body: encode::body(request)?,
        })
    }

    fn authorization(&self, key: &str) -> (&'static str, String) {
        ("x-api-key", key.to_owned())
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(decode::Decoder::default())
    }

    fn failure(&self, head: &Head, body: &[u8]) -> Failure {
        errors::refused(head, body)
    }

    /// Without the key this is refused, which is as good for a connection and even shorter.
    fn warm_path(&self) -> Option<&'static str> {
        Some("/v1/models?limit=1")
    }

    fn warm_headers(&self) -> Vec<(&'static str, String)> {
        vec![("anthropic-version", VERSION.to_owned())]
    }
}
