//! Tests of connections without a framework: what its parser would get, and when.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

const PATIENCE: Patience = Patience { head: Duration::from_secs(5), idle: Duration::from_secs(75) };
/// What is under way between the two ends.
const PIPE_BYTES: usize = 1024;
const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: w\r\n\r\n";

/// A connection, what its requests would know of it, and the client's end.
fn connection() -> (Connection<DuplexStream>, Rc<Line>, DuplexStream) {
    let (server, client) = duplex(PIPE_BYTES);
    let line = Line::new(false);
    (Connection::new(server, Rc::default(), line.clone(), PATIENCE), line, client)
}

/// What the parser gets at the next read; `None`: nothing yet.
async fn given(connection: &mut Connection<DuplexStream>) -> Option<Vec<u8>> {
    let mut space = [0; 8 * 1024];
    let mut buf = ReadBuf::new(&mut space);
    let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *connection).poll_read(cx, &mut buf))).await;
    match read {
        Poll::Ready(read) => {
            read.unwrap();
            Some(buf.filled().to_vec())
        }
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_parser_gets_one_head_at_a_time() {
    let (mut connection, line, mut client) = connection();
    client.write_all(&[b"\r\n", HEAD, HEAD].concat()).await.unwrap();

    for _ in 0..2 {
        assert_eq!(given(&mut connection).await.as_deref(), Some(HEAD));
        assert_eq!(given(&mut connection).await, None);
        line.begin(Body::NONE);
        assert_eq!(given(&mut connection).await, None);
        line.end();
    }
    assert_eq!(given(&mut connection).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_parser_gets_no_more_of_a_body_than_belongs_to_it() {
    let (mut connection, line, mut client) = connection();
    client.write_all(&[HEAD, b"12345", HEAD].concat()).await.unwrap();

    assert_eq!(given(&mut connection).await.as_deref(), Some(HEAD));
    line.begin(Body::Length(5));
    assert_eq!(given(&mut connection).await.as_deref(), Some(&b"12345"[..]));
    assert_eq!(given(&mut connection).await, None);
    line.end();
    assert_eq!(given(&mut connection).await.as_deref(), Some(HEAD));
}

#[tokio::test(start_paused = true)]
async fn who_sends_without_end_while_an_answer_runs_is_read_only_so_far() {
    let (mut connection, line, mut client) = connection();
    client.write_all(HEAD).await.unwrap();
    given(&mut connection).await.unwrap();
    line.begin(Body::NONE);

    let mut sent = 0;
    let flooding = async {
        while let Ok(written) = client.write(HEAD).await {
            sent += written;
        }
    };
    let mut nothing = [0];
    let reading = connection.read(&mut nothing);
    timeout(Duration::from_secs(60), futures_util::future::join(flooding, reading)).await.unwrap_err();

    assert!((HELD_BYTES_MAX..=HELD_BYTES_MAX + READ_BYTES + PIPE_BYTES).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_an_answer_runs_is_noticed() {
    let (mut connection, line, mut client) = connection();
    client.write_all(HEAD).await.unwrap();
    given(&mut connection).await.unwrap();
    line.begin(Body::NONE);
    assert_eq!(given(&mut connection).await, None);

    drop(client);

    assert_eq!(given(&mut connection).await, Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_no_deadline_and_the_head_after_it_has() {
    let (mut connection, line, mut client) = connection();
    client.write_all(HEAD).await.unwrap();
    given(&mut connection).await.unwrap();
    line.begin(Body::NONE);
    client.write_all(b"GET /").await.unwrap();
    let mut space = [0; 64];
    timeout(Duration::from_secs(86_400), connection.read(&mut space)).await.unwrap_err();

    line.end();
    assert_eq!(given(&mut connection).await.as_deref(), Some(&b"GET /"[..]));
    let began = Instant::now();
    assert_eq!(connection.read(&mut space).await.unwrap(), 0);

    assert_eq!(began.elapsed(), PATIENCE.head);
    assert_eq!(line.take_farewell().unwrap().code, Code::RequestTimeout);
}
