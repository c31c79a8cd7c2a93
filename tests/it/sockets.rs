//! What the sockets must do: send each token at once, and not wait for those who do not read, write or finish.

use std::time::Duration;

use load::client::{Events, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::gateway::{FAST, Gateway, PATIENCE, message};

/// A sender with Nagle's delay holds its small writes back until the last one is acknowledged, and a receiver that
/// delays its acknowledgements, as most do, lets it wait for 40 ms: then tokens arrive in bursts.
#[cfg(target_os = "linux")]
#[actix_web::test]
async fn tokens_that_are_sent_one_by_one_arrive_one_by_one() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let socket = std::net::TcpStream::connect(gateway.address()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let acknowledging = socket2::Socket::from(socket.try_clone().unwrap());
    let stream = TcpStream::from_std(socket).unwrap();
    let connection = load::client::Connection::new(stream, gateway.address().to_string());
    let path = format!("/api/threads/{thread}/messages/stream");
    let request = Request::post(path, &message("hello", "text@tokens=200,gap_ms=4"));

    let mut events = Events::open(connection, &request).await.unwrap();
    let mut deltas = Vec::new();
    while let Some(arrived) = events.next().await.unwrap() {
        acknowledging.set_tcp_quickack(false).unwrap();
        deltas.extend((arrived.event.name == "delta").then_some(arrived));
    }

    let shared = deltas.windows(2).filter(|pair| pair[0].read == pair[1].read).count();
    assert_eq!(deltas.len(), 200);
    assert!(shared < 40, "{shared} of 200 tokens came together with the one before");
}

#[actix_web::test]
async fn a_client_that_takes_nothing_is_closed_and_holds_nobody_up() {
    let tables = "[stream]\nslow_reader_timeout_ms = 1000\nanswer_bytes_max = 100000000";
    let gateway = Gateway::with(FAST, tables).await;
    let thread = gateway.thread().await;
    let body = message("hello", "text@tokens=400,gap_ms=10,bytes=50000");
    let (slow, mut fast) =
        (gateway.stream(&thread, &body).await.unwrap(), gateway.stream(&thread, &body).await.unwrap());

    let began = Instant::now();
    fast.rest().await.unwrap();
    let listeners = async {
        while gateway.get("/api/admin/streams").await.as_array().unwrap().iter().any(|row| row["listeners"] != 0) {}
    };
    timeout(PATIENCE, listeners).await.expect("the slow one is closed");

    assert!(began.elapsed() < Duration::from_secs(15), "the fast one did not wait for the slow one");
    drop(slow);
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
    let mut events = gateway.stream(&thread, &message("hello", "slow_head@hold_ms=2000")).await.unwrap();

    events.next_named("delta").await.unwrap();

    assert!(events.comments() >= 2, "{} comments", events.comments());
}

#[actix_web::test]
async fn nobody_may_hold_an_event_stream_back() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let events = gateway.stream(&thread, &message("hello", "mock")).await.unwrap();

    let head = |name: &str| events.head().header(name).unwrap_or_default().to_owned();
    assert_eq!(head("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(head("cache-control"), "no-cache, no-store, no-transform");
    assert_eq!(head("x-accel-buffering"), "no");
    assert_eq!(head("content-encoding"), "");
    assert!(!head("x-request-id").is_empty() && !head("x-stream-id").is_empty());
}
