//! Google's Gemini: `streamGenerateContent` with server-sent events.
//!
//! An answer has no last event and no `[DONE]`: it ends with its body, and is whole if a finish reason has come by then.

mod calls;
mod contents;
mod decode;
mod encode;
mod errors;
mod grounding;
mod partial;
mod signatures;
#[cfg(test)]
mod tests;
mod tools;
mod usage;

use super::{Adapter, Call, Decode, Framing, Head};
use crate::chat::ChatRequest;
use crate::failure::Failure;

/// The adapter of this dialect.
#[derive(Debug, Clone, Copy)]
pub struct Gemini;

impl Adapter for Gemini {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        Ok(Call {
            path: path(&request.model),
            headers: vec![("accept", "text/event-stream".to_owned())],
            body: encode::body(request)?,
        })
    }

    fn authorization(&self, key: &str) -> (&'static str, String) {
        ("x-goog-api-key", key.to_owned())
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

    fn warm_path(&self) -> Option<&'static str> {
        Some("/models?pageSize=1")
    }
}

/// Where the model is called. Google's own list has models by their full names, `models/…`.
fn path(model: &str) -> String {
    let is_full = ["models/", "tunedModels/"].iter().any(|kind| model.starts_with(kind));
    let kind = if is_full { "" } else { "models/" };
    format!("/{kind}{model}:streamGenerateContent?alt=sse")
}

/// The generation that a model's name tells: 3 for `gemini-3.8-flash`, none for `gemini-flash-latest`, which is the
/// newest.
fn generation(model: &str) -> Option<u32> {
    let version = model.rsplit('/').next()?.strip_prefix("gemini-")?;
    let digits = version.find(|char: char| !char.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}
