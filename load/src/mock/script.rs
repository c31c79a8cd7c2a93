//! Script: what the mock does on the connection to answer one call, down to the single write. No I/O.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do nothing for a while. Waits are counted from when the one before was due, so that a rate is kept.
    Wait(Duration),
    /// Write these bytes at once, as they are.
    Bytes(Bytes),
    /// The answer is complete: the connection takes its next request.
    End,
    /// Close the connection properly (FIN), whatever the answer still lacks.
    Cut,
    /// Close it with an error (RST).
    Reset,
    /// Wait until the provider's gate is opened for this answer.
    Gate,
    /// Keep it open and never write again.
    Silence,
}

/// The steps of one answer. Made while they are taken, so that it may be endless.
pub type Script = Box<dyn Iterator<Item = Step> + Send>;

/// The head of an answer that is streamed in chunks.
pub fn stream_head(content_type: &str) -> Step {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-cache\r\nx-request-id: mock\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    Step::Bytes(head.into())
}

/// One chunk of a body.
pub fn chunk(data: &[u8]) -> Step {
    Step::Bytes(framed(data))
}

/// The bytes of one chunk of a body.
pub fn framed(data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(data.len() + 16);
    bytes.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
    bytes.put_slice(data);
    bytes.put_slice(b"\r\n");
    bytes.freeze()
}

/// The end of a streamed answer.
pub fn end() -> impl Iterator<Item = Step> + Send {
    [Step::Bytes(Bytes::from_static(b"0\r\n\r\n")), Step::End].into_iter()
}

/// A whole answer in one write. `headers` are whole lines.
pub fn respond(status: u16, headers: &str, content_type: &str, body: &str) -> Script {
    let reason = reason(status);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} {reason}\r\n{headers}content-type: {content_type}\r\n");
    let bytes = format!("{head}content-length: {length}\r\n\r\n{body}");
    Box::new([Step::Bytes(bytes.into()), Step::End].into_iter())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Error",
    }
}
