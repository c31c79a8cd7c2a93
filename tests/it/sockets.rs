//! What the sockets must do: send each token at once, and not wait for those who do not read, write or finish.

use std::time::Duration;

use load::client::{Events, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::done;
use crate::support::gateway::{Gateway, PATIENCE, message};
use crate::support::listener::Listener;

/// How long Linux waits before it acknowledges what it has nothing to answer to.
const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(40);

/// A sender with Nagle's delay holds its small writes back until the last one is acknowledged, and a receiver that
/// delays its acknowledgements, as most do, lets it wait for 40 ms: then each token waits that long for the one before.
#[cfg(target_os = "linux")]
#[actix_web::test]
async fn a_token_does_not_wait_until_the_one_before_is_acknowledged() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let socket = std::net::TcpStream::connect(gateway.address()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let acknowledging = socket2::Socket::from(socket.try_clone().unwrap());
    let stream = load::client::Stream::from(TcpStream::from_std(socket).unwrap());
    let connection = load::client::Connection::new(stream, gateway.address().to_string());
    let path = format!("/api/threads/{thread}/messages/stream");
    let request = Request::post(path, &message("hello", "gate@after=1,gate=1,tokens=100,gap_ms=0"));

    let mut events = Listener::new(Events::open(connection, &request).await.unwrap());
    let mut waits = Vec::new();
    events.next_named("delta").await;
    for _ in 1..100 {
        // Asked for only now: each token is a small write after one that has not been acknowledged.
        acknowledging.set_tcp_quickack(false).unwrap();
        let asked = Instant::now();
        gateway.mock.open_gate();
        events.next_named("delta").await;
        waits.push(asked.elapsed());
    }

    waits.sort_unstable();
    assert!(waits[50] < ACKNOWLEDGEMENT_DELAY / 2, "half of the tokens took longer than {:?}", waits[50]);
}

#[actix_web::test]
async fn a_client_that_takes_nothing_is_closed_and_holds_nobody_up() {
    let tables = "[stream]\nslow_reader_timeout_ms = 2000\nanswer_bytes_max = 100000000";
    let gateway = Gateway::with_tables(tables).await;
    let thread = gateway.thread().await;
    let body = message("hello", "gate@after=0,gate=1,tokens=401,gap_ms=0,bytes=50000");
    let (mut slow, mut fast) = (gateway.stream(&thread, &body).await, gateway.stream(&thread, &body).await);
    // Together more than all buffers between the two ends hold, but never more at once than the fast one can take.
    for _ in 0..400 {
        gateway.mock.open_gate();
        fast.next_named("delta").await;
    }

    // The answer still runs, so it is not its end that closes the slow one.
    gateway.until_listeners(1).await;
    gateway.mock.open_gate();

    assert_eq!(done(&fast.rest().await)["status"], "complete");
    let mut names = Vec::new();
    let ending = loop {
        match slow.next().await {
            Ok(Some(arrived)) => names.push(arrived.event.name),
            ending => break ending,
        }
    };
    assert!(ending.is_err(), "the slow one's connection has been reset");
    assert!(!names.contains(&"done".to_owned()), "what it has not taken is lost to it");
}

/// Sends `bytes` and gives what comes back until the server closes, which must happen within the patience.
async fn closed_after(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[actix_web::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let gateway = Gateway::with_server("head_timeout_ms = 300").await;

    let answer = closed_after(&gateway, b"GET /health HTTP/1.1\r\nhost: w").await;

    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[actix_web::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gateway = Gateway::with_server("body_timeout_ms = 300").await;
    let thread = gateway.thread().await;
    let head = format!(
        "POST /api/threads/{thread}/messages HTTP/1.1\r\nhost: w\r\ncontent-type: application/json\r\n\
         content-length: 100\r\nconnection: close\r\n\r\n{{\"con"
    );

    let answer = closed_after(&gateway, head.as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[actix_web::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let gateway = Gateway::with_server("keep_alive_ms = 300").await;

    let answer = closed_after(&gateway, b"GET /health HTTP/1.1\r\nhost: w\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[actix_web::test]
async fn a_silent_stream_says_that_it_lives() {
    let gateway = Gateway::with_server("ping_early_ms = 100").await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/messages/stream");
    let mut connection = gateway.client.connect().await.unwrap();
    let request = gateway.client.complete(Request::post(path, &message("hello", "silent")));
    connection.send(&request).await.unwrap();

    let two_comments = async {
        let mut heard = String::new();
        while heard.matches(": keep-alive\n\n").count() < 2 {
            let piece = connection.next_piece().await.unwrap().expect("the stream goes on");
            heard.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    timeout(PATIENCE, two_comments).await.expect("a comment now and then");
}

#[actix_web::test]
async fn nobody_may_hold_an_event_stream_back() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let events = gateway.stream(&thread, &message("hello", "mock")).await;

    let head = |name: &str| events.head().header(name).unwrap_or_default().to_owned();
    assert_eq!(head("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(head("cache-control"), "no-cache, no-store, no-transform");
    assert_eq!(head("x-accel-buffering"), "no");
    assert_eq!(head("content-encoding"), "");
    assert!(!head("x-request-id").is_empty() && !head("x-stream-id").is_empty());
}
