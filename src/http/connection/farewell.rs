//! Farewell: the answer to a client whose request never gets to a route: in the same shape as all errors, and written
//! so that the client gets to read it although it may still be sending.

use std::io;
use std::time::Duration;

use actix_web::body::MessageBody;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::failure::{Code, Failure};
use crate::http::edge;
use crate::http::error::ApiError;

/// The longest head that the parser answers with by itself.
const PARSER_HEAD_BYTES_MAX: usize = 256;
/// What is read of a client that has been refused: closing before it has sent everything would take the answer back.
const DISCARDED_BYTES_MAX: u64 = 1024 * 1024;

/// Says why, closes, and waits until the client has, too, but no longer than `wait_max`.
pub(in crate::http) async fn say(io: impl AsyncRead + AsyncWrite + Unpin, failure: Failure, wait_max: Duration) {
    let label = edge::new_label();
    log::debug!(target: "weir::http", request_id = label.as_str(), code = failure.code.as_str(); "refused unread");
    let answer = encode(failure, &label);
    // Nobody is left to hear of a failure.
    let _ = timeout(wait_max, close_after(io, &answer)).await;
}

async fn close_after(mut io: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> io::Result<()> {
    io.write_all(answer).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(DISCARDED_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn encode(failure: Failure, label: &str) -> Bytes {
    let mut response = ApiError(failure).response(Some(label));
    edge::finish_headers(response.headers_mut(), label);
    let (head, body) = response.into_parts();
    let body = body.try_into_bytes().unwrap_or_default();
    let mut out = BytesMut::with_capacity(512 + body.len());
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let status = head.status();
    let reason = status.canonical_reason().unwrap_or_default();
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    out.put_slice(format!("content-length: {}\r\nconnection: close\r\ndate: {date}\r\n", body.len()).as_bytes());
    for (name, value) in head.headers() {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    out.put_slice(&body);
    out.freeze()
}

/// Finds the answer that the parser gives by itself to a head that it cannot read: where it begins in what is written,
/// and what it should have said. It is the last that is written, and has none of the headers that weir's answers have.
pub(super) fn of_parser(written: &[u8]) -> Option<(usize, Failure)> {
    let begin = written.len().saturating_sub(PARSER_HEAD_BYTES_MAX);
    let head = written[begin..].strip_suffix(b"\r\n\r\n")?;
    let at = memchr::memmem::rfind(head, b"HTTP/1.")?;
    let mut lines = std::str::from_utf8(&head[at..]).ok()?.split("\r\n");
    let failure = match lines.next()?.get("HTTP/1.1".len()..)? {
        " 400 Bad Request" => Failure::new(Code::InvalidRequest, "the request is not HTTP/1.1"),
        " 431 Request Header Fields Too Large" => {
            Failure::new(Code::HeadersTooLarge, "the head of the request is too large")
        }
        _ => return None,
    };
    let is_bare = |line: &str| ["content-length: 0", "connection: ", "date: "].iter().any(|own| line.starts_with(own));
    lines.all(is_bare).then_some((begin + at, failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_own_answers_are_told_from_all_others() {
        let bad = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: now\r\n\r\n";
        let large = "HTTP/1.0 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let ours = encode(Failure::new(Code::InvalidRequest, "no"), "r");
        let found = |written: &str| of_parser(written.as_bytes()).map(|(at, failure)| (at, failure.code));

        assert_eq!(found(bad), Some((0, Code::InvalidRequest)));
        assert_eq!(found(large), Some((0, Code::HeadersTooLarge)));
        let long = "x".repeat(10_000);
        assert_eq!(found(&format!("HTTP/1.1 200 OK\r\n\r\n{long}{bad}")), Some((19 + 10_000, Code::InvalidRequest)));
        assert_eq!(of_parser(&ours), None);
        assert_eq!(found("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-request-id: r\r\n\r\n"), None);
        assert_eq!(found("HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: now\r\n\r\n"), None);
        assert_eq!(found("data: 0\r\n\r\n0\r\n\r\n"), None);
    }
}
