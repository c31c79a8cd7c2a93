//! Request: takes one HTTP/1.1 request off a connection.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::dialect::Dialect;
use crate::body::{Decoder, Framing, Piece};

const HEADERS_MAX: usize = 64;
const HEAD_LEN_MAX: usize = 64 * 1024;
const BODY_LEN_MAX: usize = 32 * 1024 * 1024;

/// A request, complete.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// The connection ends with the answer.
    pub(super) last: bool,
}

/// The bytes that a connection has brought and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Inbox(BytesMut);

impl Inbox {
    /// The next request; `None` if the connection ends before one begins.
    pub(super) async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
        let (mut request, framing) = loop {
            if let Some(head) = self.take_head()? {
                break head;
            }
            if self.0.len() > HEAD_LEN_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if from.read_buf(&mut self.0).await? == 0 {
                return if self.0.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let (mut decoder, mut body) = (Decoder::new(framing), BytesMut::new());
        loop {
            match decoder.next(&mut self.0).map_err(|_| io::ErrorKind::InvalidData)? {
                Piece::Data(data) if body.len() + data.len() > BODY_LEN_MAX => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::More if from.read_buf(&mut self.0).await? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Piece::More => {}
                Piece::End => break,
            }
        }
        request.body = body.freeze();
        Ok(Some(request))
    }

    /// Reads on until the connection ends, and keeps what comes: it belongs to the next request.
    pub(super) async fn until_closed(&mut self, from: &mut (impl AsyncRead + Unpin)) {
        while self.0.len() <= HEAD_LEN_MAX {
            if !matches!(from.read_buf(&mut self.0).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn take_head(&mut self) -> io::Result<Option<(Request, Framing)>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        let length = match head.parse(&self.0).map_err(|_| io::ErrorKind::InvalidData)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let headers = head
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()));
        let headers: Vec<_> = headers.collect();
        let value = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let framing = match (value("transfer-encoding"), value("content-length")) {
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().map_err(|_| io::ErrorKind::InvalidData)?),
            (None, None) => Framing::Length(0),
        };
        let last = match value("connection") {
            Some(connection) => connection.eq_ignore_ascii_case("close"),
            None => head.version == Some(0),
        };
        let method = head.method.unwrap_or_default().to_owned();
        let path = head.path.unwrap_or_default().to_owned();
        self.0.advance(length);
        Ok(Some((Request { method, path, headers, body: Bytes::new(), last }, framing)))
    }
}

/// What the mock wants to know of a call.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) model: String,
    pub(super) prompt: String,
    pub(super) include_usage: bool,
}

impl Wish {
    /// Reads a call in this dialect.
    pub(super) fn parse(dialect: Dialect, path: &str, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let (messages, content) = match dialect {
            Dialect::OpenaiResponses | Dialect::PerplexityAgent => ("input", "content"),
            Dialect::Gemini => ("contents", "parts"),
            _ => ("messages", "content"),
        };
        let last = body[messages].as_array()?.iter().rev().find(|message| message["role"] == "user");
        let model = match dialect {
            Dialect::Gemini => path.strip_suffix(dialect.call_path())?.rsplit('/').next()?,
            // Perplexity takes a name without a provider for one of its presets.
            Dialect::PerplexityAgent => body["model"].as_str().or_else(|| body["preset"].as_str())?,
            _ => body["model"].as_str()?,
        };
        let include_usage = match dialect {
            Dialect::OpenaiChat => body["stream_options"]["include_usage"] == true,
            _ => true,
        };
        // Not every conversation ends with a person, nor has one.
        let prompt = last.map_or(Some(String::new()), |last| text_of(&last[content]))?;
        Some(Self { model: model.to_owned(), prompt, include_usage })
    }
}

/// The text of a content: itself, or its parts together.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part["text"].as_str()).collect()),
        _ => None,
    }
}
