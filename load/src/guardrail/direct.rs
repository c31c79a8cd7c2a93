//! Direct: calls to the provider without weir, which everything is compared with.

use serde_json::json;

use crate::client::{Client, ClientError, Events, Request};
use crate::sse::Event;

/// Opens the stream of an answer.
pub(super) async fn open(provider: &Client, model: &str, prompt: &str) -> Result<Events, ClientError> {
    let messages = json!([{"role": "user", "content": prompt}]);
    let body = json!({"model": model, "messages": messages, "stream": true});
    provider.open(Request::post("/chat/completions", &body)).await
}

/// Whether an event has text.
pub(super) fn is_token(event: &Event) -> bool {
    let content = &event.json()["choices"][0]["delta"]["content"];
    content.as_str().is_some_and(|content| !content.is_empty())
}
