//! Answers as providers send them: the mock's, in every dialect, read once before anything is measured.

use std::sync::Arc;

use bytes::Bytes;
use load::client::{Connection, Request};
use load::mock::Provider;
use weir::chat::{ChatMessage, ChatRequest, ProviderName, Role};
use weir::config::Dialect;
use weir::providers::registry;

/// Pieces of text in one answer.
pub(crate) const CHUNKS: usize = 1_000;

/// What a pipe to the mock holds.
const PIPE_LEN: usize = 64 * 1024;

/// A conversation of so many messages, with the model of a long answer.
pub(crate) fn request(messages: usize) -> ChatRequest {
    let words = "The river carries what it is given, and the weir decides how fast. ".repeat(8);
    let message = |n: usize| {
        let role = if n.is_multiple_of(2) { Role::User } else { Role::Assistant };
        ChatMessage::text(role, format!("{n}: {words}"))
    };
    ChatRequest {
        provider: ProviderName::new("mock"),
        model: format!("text@tokens={CHUNKS},gap_ms=0,bytes=12").into(),
        system: Some("Answer in one sentence.".to_owned()),
        messages: (0..messages).map(message).collect(),
        temperature: Some(0.2),
        max_tokens: Some(1_024),
        tools: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

/// The body of an answer, in the pieces in which it is sent: one for each chunk.
pub(crate) fn body(dialect: Dialect) -> Vec<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread can be made").block_on(ask(dialect))
}

async fn ask(dialect: Dialect) -> Vec<Bytes> {
    let call = registry::adapter(dialect).encode(&request(1)).expect("every dialect has words for text");
    let provider = Arc::new(Provider::new(None));
    let (near, mut far) = tokio::io::duplex(PIPE_LEN);
    let serving = tokio::spawn(async move { provider.serve(&mut far).await });
    let mut connection = Connection::new(near, "mock");
    let path = format!("/{}{}", dialect.as_str(), call.path);
    let head = connection.send(&Request::new("POST", path).body(call.body)).await.expect("the mock answers");
    assert_eq!(head.status, 200, "the mock knows the model");
    let mut pieces = Vec::new();
    while let Some(piece) = connection.next_piece().await.expect("the mock's answers are whole") {
        pieces.push(piece);
    }
    serving.abort();
    pieces
}
