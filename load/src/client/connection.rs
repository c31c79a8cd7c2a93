//! Connection: one HTTP/1.1 connection from the client's side, over anything that reads and writes.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{ClientError, Response, Stream, in_time};
use crate::body::{Decoder, Framing, Piece};

const HEADERS_MAX: usize = 64;
const HEAD_LEN_MAX: usize = 64 * 1024;
const BODY_LEN_MAX: usize = 64 * 1024 * 1024;
const READ_LEN: usize = 64 * 1024;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Bytes>,
}

impl Request {
    /// A request with this method.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None }
    }

    /// `GET`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// `POST` with a body.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new("POST", path).json(body)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string()).header("content-type", "application/json")
    }

    /// Sets a body of any kind.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(super) fn with_prefix(mut self, prefix: &str) -> Self {
        self.path.insert_str(0, prefix);
        self
    }

    fn encode(&self, host: &str) -> Bytes {
        let Self { method, path, headers, body } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if let Some(body) = body {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = BytesMut::from(head.as_bytes());
        bytes.extend_from_slice(body.as_deref().unwrap_or_default());
        bytes.freeze()
    }
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its headers; names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A connection. It can be used again when the answer has been read to its end; dropping it closes it.
#[derive(Debug)]
pub struct Connection<S = Stream> {
    stream: S,
    host: String,
    buffer: BytesMut,
    body: Decoder,
    reads: u64,
    wait_max: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection over this stream, to a server of this name.
    pub fn new(stream: S, host: impl Into<String>) -> Self {
        let body = Decoder::new(Framing::Length(0));
        Self { stream, host: host.into(), buffer: BytesMut::new(), body, reads: 0, wait_max: None }
    }

    /// The same, whose heads, whole answers and silences may each take this long.
    pub(super) fn within(self, wait_max: Option<Duration>) -> Self {
        Self { wait_max, ..self }
    }

    /// Sends a request and reads the head of the answer.
    pub async fn send(&mut self, request: &Request) -> Result<Head, ClientError> {
        in_time(self.wait_max, async {
            self.write(request).await?;
            self.read_head(request.method == "HEAD").await
        })
        .await
    }

    /// Sends a request without waiting for anything.
    pub async fn write(&mut self, request: &Request) -> Result<(), ClientError> {
        self.stream.write_all(&request.encode(&self.host)).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads the head of an answer; `without_body` if none follows whatever it says.
    pub async fn read_head(&mut self, without_body: bool) -> Result<Head, ClientError> {
        loop {
            if let Some((head, framing)) = self.take_head()? {
                self.body = Decoder::new(if without_body { Framing::Length(0) } else { framing });
                return Ok(head);
            }
            if self.buffer.len() > HEAD_LEN_MAX {
                return Err(ClientError::NotHttp);
            }
            if self.read().await? == 0 {
                return Err(ClientError::Closed);
            }
        }
    }

    /// The next piece of the answer's body; `None` at its proper end.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        in_time(self.wait_max, self.piece()).await
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.next(&mut self.buffer).map_err(|_| ClientError::NotHttp)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End => return Ok(None),
                Piece::More if self.read().await? > 0 => {}
                Piece::More if self.body.may_close() => return Ok(None),
                Piece::More => return Err(ClientError::Cut),
            }
        }
    }

    /// Reads an answer's body to its end.
    pub async fn whole(&mut self, head: Head) -> Result<Response, ClientError> {
        let mut body = BytesMut::new();
        in_time(self.wait_max, async {
            while let Some(piece) = self.piece().await? {
                if body.len() + piece.len() > BODY_LEN_MAX {
                    return Err(ClientError::TooLong);
                }
                body.extend_from_slice(&piece);
            }
            Ok(Response { head, body: body.freeze() })
        })
        .await
    }

    /// How many reads have brought something so far.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The stream under it.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Takes the connection apart.
    pub fn into_stream(self) -> S {
        self.stream
    }

    async fn read(&mut self) -> Result<usize, ClientError> {
        self.buffer.reserve(READ_LEN.saturating_sub(self.buffer.len()));
        let length = self.stream.read_buf(&mut self.buffer).await?;
        self.reads += u64::from(length > 0);
        Ok(length)
    }

    /// The head at the beginning of the buffer, if it is whole, and how the body that follows is framed.
    fn take_head(&mut self) -> Result<Option<(Head, Framing)>, ClientError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(&self.buffer).map_err(|_| ClientError::NotHttp)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let headers = parsed
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()));
        let head = Head { status: parsed.code.unwrap_or_default(), headers: headers.collect() };
        self.buffer.advance(length);
        let framing = match (head.status, head.header("transfer-encoding"), head.header("content-length")) {
            (100..200 | 204 | 304, _, _) => Framing::Length(0),
            (_, Some(_), _) => Framing::Chunked,
            (_, None, Some(length)) => Framing::Length(length.parse().map_err(|_| ClientError::NotHttp)?),
            (_, None, None) => Framing::UntilClose,
        };
        Ok(Some((head, framing)))
    }
}
