//! What clients may do to a connection: nothing outside of a request keeps it for long, whatever is sent, and when there
//! are too many of them, every further one is told so.

use std::time::Duration;

use load::client::{Connection, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::support::gateway::{Gateway, PATIENCE, message};

/// Between two bytes of a client that is in no hurry.
const DRIP_INTERVAL: Duration = Duration::from_millis(20);

const GET_HEALTH: &str = "GET /health HTTP/1.1\r\nhost: w\r\n\r\n";

/// A connection that has sent `bytes`.
async fn sent(gateway: &Gateway, bytes: &str) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    socket
}

/// Reads until `end` has come.
async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(end) {
            assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "closed: {}", String::from_utf8_lossy(&read));
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer in time");
    String::from_utf8(read).unwrap()
}

/// Sends `drop` again and again, slowly, until the server closes. What came in between.
async fn drip(mut socket: TcpStream, drop: &str) -> String {
    let mut heard = Vec::new();
    let dripping = async {
        let mut ticks = interval(DRIP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = socket.read_buf(&mut heard) => if !matches!(read, Ok(1..)) { return },
                _ = ticks.tick() => {}
            }
            if socket.write_all(drop.as_bytes()).await.is_err() {
                let _ = socket.read_to_end(&mut heard).await;
                return;
            }
        }
    };
    timeout(PATIENCE, dripping).await.expect("the server closes the connection");
    String::from_utf8_lossy(&heard).into_owned()
}

/// Waits until the server closes. What came before.
async fn rest(mut socket: TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&heard).into_owned()
}

/// The answer is one of weir's errors, with this status and code, and the same name in head and body.
fn assert_refused(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let error = serde_json::from_str::<Value>(body).unwrap_or_else(|_| panic!("{answer}"))["error"].clone();
    let named = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    assert_eq!((error["code"].as_str(), error["request_id"].as_str()), (Some(code), Some(named)), "{answer}");
    assert!(head.contains("connection: close") && head.contains("content-type: application/json"), "{answer}");
}

// --- Time ---------------------------------------------------------------------

#[actix_web::test]
async fn every_head_of_a_connection_must_arrive_in_time() {
    let gateway = Gateway::with_server("head_timeout_ms = 300").await;
    let mut socket = sent(&gateway, GET_HEALTH).await;
    read_until(&mut socket, "}").await;

    let answer = drip(socket, "x").await;

    assert_refused(&answer, 408, "request_timeout");
}

#[actix_web::test]
async fn a_head_that_begins_with_the_request_before_it_must_arrive_in_time() {
    let gateway = Gateway::with_server("head_timeout_ms = 300").await;
    let mut socket = sent(&gateway, &format!("{GET_HEALTH}GET /hea")).await;
    read_until(&mut socket, "}").await;

    assert_refused(&rest(socket).await, 408, "request_timeout");
}

#[actix_web::test]
async fn empty_lines_do_not_keep_an_idle_connection() {
    let gateway = Gateway::with_server("keep_alive_ms = 300").await;
    let mut socket = sent(&gateway, &format!("\r\n{GET_HEALTH}")).await;
    read_until(&mut socket, "}").await;

    assert_eq!(drip(socket, "\r\n").await, "", "an idle connection is closed without a word");
}

#[actix_web::test]
async fn a_head_that_begins_while_an_answer_is_streamed_must_arrive_in_time_after_it() {
    let gateway = Gateway::with_server("head_timeout_ms = 300").await;
    let thread = gateway.thread().await;
    let body = message("hello", "gate@after=1").to_string();
    let head = format!("POST /api/threads/{thread}/messages/stream HTTP/1.1\r\nhost: w\r\n");
    let length = body.len();
    let request = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}GET /");
    let mut socket = sent(&gateway, &request).await;
    read_until(&mut socket, "event: delta").await;
    socket.write_all(b"health HTTP/1.1\r\nx: ").await.unwrap();

    gateway.mock.open_gate();
    let end = drip(socket, "x").await;

    let (answer, refusal) = end.rsplit_once("0\r\n\r\n").unwrap();
    assert!(answer.contains("event: done"), "{end}");
    assert_refused(refusal, 408, "request_timeout");
}

#[actix_web::test]
async fn a_body_that_nobody_wants_is_waited_for_only_so_long() {
    let gateway = Gateway::with_server("head_timeout_ms = 300\nbody_timeout_ms = 200").await;
    let thread = gateway.thread().await;
    let json = "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let refused = [
        (format!("POST /nowhere HTTP/1.1\r\nhost: w\r\n{json}"), 404),
        (format!("GET /health HTTP/1.1\r\nhost: w\r\n{json}"), 200),
        (format!("POST /api/threads/{thread}/messages HTTP/1.1\r\nhost: w\r\n{json}"), 408),
    ];
    for (head, status) in refused {
        // Bytes of a chunk, chunks, a chunk's extension, the trailer.
        for (begin, drop) in [("ffffff\r\n", "x"), ("", "1\r\nx\r\n"), ("1;", "x"), ("0\r\n", "a: b\r\n"), ("", "")] {
            let socket = sent(&gateway, &format!("{head}{begin}")).await;

            let answer = if drop.is_empty() { rest(socket).await } else { drip(socket, drop).await };

            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}{begin}{drop}: {answer}");
            assert!(answer.contains("connection: close"), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    }
}

#[actix_web::test]
async fn a_body_that_nobody_wants_is_read_only_so_far() {
    let gateway = Gateway::with_server("head_timeout_ms = 86400000").await;
    let head = "POST /nowhere HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n7fffffffffff\r\n";
    let mut socket = sent(&gateway, head).await;
    let piece = vec![b'x'; 64 * 1024];

    let flooding = async { while socket.write_all(&piece).await.is_ok() {} };
    timeout(PATIENCE, flooding).await.expect("the server closes the connection");
}

// --- Order --------------------------------------------------------------------

#[actix_web::test]
async fn requests_that_come_together_are_answered_one_by_one() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}");
    let body = "{\"title\":\"new\"}";
    let length = body.len();
    let together = format!(
        "GET {path} HTTP/1.1\r\nhost: w\r\n\r\n\
         PATCH {path} HTTP/1.1\r\nhost: w\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}\
         GET {path} HTTP/1.1\r\nhost: w\r\n\r\n\
         HEAD {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n"
    );

    let answers = rest(sent(&gateway, &together).await).await;

    let answers: Vec<_> = answers.split("HTTP/1.1 200 OK").skip(1).collect();
    let [first, second, third, fourth] = answers[..] else { panic!("{answers:?}") };
    assert!(!first.contains("\"new\"") && first.ends_with('}'), "{first}");
    assert!(second.contains("\"new\""), "{second}");
    assert!(third.contains("\"new\"") && !third.contains("connection: close"), "{third}");
    assert!(fourth.contains("connection: close") && fourth.ends_with("\r\n\r\n"), "{fourth}");
}

#[actix_web::test]
async fn what_is_sent_ahead_of_an_answers_end_waits_and_keeps_nobody_busy() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut connection = gateway.client.connect().await.unwrap();
    let path = format!("/api/threads/{thread}/messages/stream");
    let request = gateway.client.complete(Request::post(path, &message("hello", "gate@after=1")));
    let head = connection.send(&request).await.unwrap();
    let ahead = GET_HEALTH.repeat(1_000);
    connection.stream().write_all(ahead.as_bytes()).await.unwrap();

    gateway.mock.open_gate();
    let stream = timeout(PATIENCE, connection.whole(head)).await.expect("the stream ends").unwrap();

    assert!(String::from_utf8_lossy(&stream.body).contains("event: done"));
    for _ in 0..1_000 {
        let head = timeout(PATIENCE, connection.read_head(false)).await.expect("an answer for each").unwrap();
        assert_eq!(connection.whole(head).await.unwrap().status(), 200);
    }
}

#[actix_web::test]
async fn a_body_in_many_pieces_is_read_to_its_end_and_the_connection_goes_on() {
    let gateway = Gateway::start().await;
    let mut socket = sent(&gateway, "").await;
    socket.set_nodelay(true).unwrap();
    let mut request = String::from("POST /api/threads HTTP/1.1\r\nhost: w\r\ncontent-type: application/json\r\n");
    request.push_str("transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n2\r\n{\"\r\n10;a=b\r\ntitle\":\"ab\"    }\r\n0\r\n\r\n");
    for byte in request.as_bytes() {
        socket.write_all(&[*byte]).await.unwrap();
    }
    let answer = read_until(&mut socket, "}").await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 "), "{answer}");

    socket.write_all(GET_HEALTH.as_bytes()).await.unwrap();
    assert!(read_until(&mut socket, "}").await.starts_with("HTTP/1.1 200 "));
}

// --- What is not HTTP -------------------------------------------------------------

#[actix_web::test]
async fn what_cannot_be_read_is_refused_in_the_shape_of_all_errors() {
    let gateway = Gateway::with_server("head_timeout_ms = 300").await;
    let large = format!("GET / HTTP/1.1\r\nhost: w\r\nx: {}", "x".repeat(300_000));
    for (bytes, status, code) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nhost: w\r\nhost: v\r\n\r\n", 400, "invalid_request"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nhost: w\r\na b: c\r\n", 400, "invalid_request"),
        (
            "POST / HTTP/1.1\r\nhost: w\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "invalid_request",
        ),
        (&large, 431, "headers_too_large"),
        ("GET / HTTP/1.1\r\nhost: w\r\n", 408, "request_timeout"),
    ] {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        let (mut reader, mut writer) = socket.split();
        let mut answer = Vec::new();
        let reading = timeout(PATIENCE, reader.read_to_end(&mut answer));
        // It may be refused before all of it has been sent.
        let (_, read) = futures_util::join!(writer.write_all(bytes.as_bytes()), reading);
        read.expect("the server closes the connection").unwrap();

        assert_refused(std::str::from_utf8(&answer).unwrap(), status, code);
    }
    let after_another = rest(sent(&gateway, &format!("{GET_HEALTH}\0\r\n\r\n")).await).await;
    let (first, second) = after_another.split_once('}').unwrap();
    assert!(first.starts_with("HTTP/1.1 200 "), "{after_another}");
    assert_refused(second, 400, "invalid_request");
}

#[actix_web::test]
async fn a_connection_on_which_nothing_was_said_is_closed_without_a_word() {
    let gateway = Gateway::with_server("head_timeout_ms = 300").await;

    assert_eq!(rest(sent(&gateway, "").await).await, "");
}

// --- How many -------------------------------------------------------------------

#[actix_web::test]
async fn when_all_places_are_taken_health_is_answered_and_others_are_told_to_come_back() {
    let gateway = Gateway::with_server("connections_max = 50\nhead_timeout_ms = 60000").await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut socket = sent(&gateway, GET_HEALTH).await;
        read_until(&mut socket, "}").await;
        socket.write_all(b"GET").await.unwrap();
        held.push(socket);
    }

    let health = gateway.client.get("/health").await.unwrap();
    assert_eq!((health.status(), health.head.header("connection")), (200, Some("close")));
    let refused = gateway.client.get("/api/threads").await.unwrap();
    assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("overloaded")));
    assert_eq!((refused.head.header("retry-after"), refused.head.header("connection")), (Some("1"), Some("close")));
    // Even if many more come at once and say nothing, each is told or closed soon.
    let asked = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    let told = futures_util::future::join_all(silent.into_iter().map(rest)).await;
    assert!(asked.elapsed() < PATIENCE);
    let told: Vec<_> = told.iter().filter(|answer| !answer.is_empty()).collect();
    assert!(!told.is_empty());
    told.iter().for_each(|answer| assert_refused(answer, 503, "overloaded"));

    held.clear();
    gateway.until("/api/threads", Value::is_array).await;
    let metrics = gateway.client.get("/metrics").await.unwrap();
    let counted = "weir_error_responses_total{code=\"overloaded\"} ";
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let counted: usize = text.lines().find_map(|line| line.strip_prefix(counted)).unwrap().parse().unwrap();
    assert!(counted > told.len(), "{counted} of {}", told.len());
}

// --- Names ----------------------------------------------------------------------

#[actix_web::test]
async fn the_authority_of_the_target_is_the_name_that_counts() {
    let gateway = Gateway::with_server("allowed_hosts = [\"good\", \"[::1]\"]").await;
    let answer = async |target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        rest(sent(&gateway, &request).await).await["HTTP/1.1 ".len()..][..3].to_owned()
    };

    assert_eq!(answer("/health", "good:80").await, "200");
    assert_eq!(answer("/health", "[::1]:80").await, "200");
    assert_eq!(answer("http://GOOD/health", "good").await, "200");
    assert_eq!(answer("http://good:8000/health", "evil").await, "200");
    for (target, host) in [
        ("http://evil/health", "good"),
        ("http://good@evil/health", "good"),
        ("http://evil:80/health", "good"),
        ("/health", "evil"),
        ("/health", ""),
    ] {
        assert_eq!(answer(target, host).await, "403", "{target} {host}");
    }
    for host in ["evil@good", "go od", "good/evil", "good\\"] {
        assert_eq!(answer("/health", host).await, "400", "{host}");
    }
}

#[actix_web::test]
async fn without_keys_a_name_with_a_dot_is_refused_in_the_target_as_well() {
    let gateway = Gateway::start().await;
    let request = "GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    assert_refused(&rest(sent(&gateway, request).await).await, 403, "forbidden");
}

// --- Versions and methods -----------------------------------------------------------

#[actix_web::test]
async fn who_speaks_http_1_0_gets_streams_that_end_with_the_connection() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let body = message("hello", "text@tokens=3").to_string();
    let head = format!("POST /api/threads/{thread}/messages/stream HTTP/1.0\r\nconnection: keep-alive\r\n");
    let length = body.len();
    let request = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");

    let answer = rest(sent(&gateway, &request).await).await;

    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 ") && !head.contains("transfer-encoding"), "{head}");
    assert!(!head.contains("keep-alive"), "{head}");
    assert!(
        body.starts_with("event: ping\n")
            && body.trim_end().lines().last().unwrap().starts_with("data: {\"type\":\"done\""),
        "{body}"
    );
}

/// Every path, and what it allows.
const PATHS: [(&str, &str); 31] = [
    ("/", "GET, HEAD"),
    ("/admin", "GET, HEAD"),
    ("/assets/app.js", "GET, HEAD"),
    ("/health", "GET, HEAD"),
    ("/ready", "GET, HEAD"),
    ("/api/session", "GET, HEAD, POST, DELETE"),
    ("/api/providers", "GET, HEAD"),
    ("/api/render", "POST"),
    ("/api/threads", "POST, GET, HEAD"),
    ("/api/threads/THREAD", "GET, HEAD, PATCH, DELETE"),
    ("/api/threads/THREAD/messages", "POST"),
    ("/api/threads/THREAD/messages/stream", "POST"),
    ("/api/threads/THREAD/messages/m", "GET, HEAD"),
    ("/api/threads/THREAD/regenerate", "POST"),
    ("/api/threads/THREAD/stream", "GET"),
    ("/api/threads/THREAD/stop", "POST"),
    ("/api/threads/cancel/r", "POST"),
    ("/api/requests/r", "GET, HEAD"),
    ("/api/requests/r/stream", "GET"),
    ("/v1/chat/completions", "POST"),
    ("/v1/responses", "POST"),
    ("/v1/models", "GET, HEAD"),
    ("/v1/models/mock/mock", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/api/metrics/performance", "GET, HEAD"),
    ("/api/admin/pacers", "GET, HEAD"),
    ("/api/admin/pacers/mock", "PATCH"),
    ("/api/admin/streams", "GET, HEAD"),
    ("/api/admin/feed", "GET"),
    ("/api/admin/profile/p", "POST"),
    ("/api/admin/reload", "POST"),
];

#[actix_web::test]
async fn a_path_says_which_methods_it_has() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    for (path, allowed) in PATHS {
        let refused = gateway.client.send(Request::new("PUT", path.replace("THREAD", &thread))).await.unwrap();
        assert_eq!((refused.status(), refused.error_code().as_deref()), (405, Some("method_not_allowed")), "{path}");
        assert_eq!(refused.head.header("allow"), Some(allowed), "{path}");
    }
    let found = gateway.client.get("/nowhere").await.unwrap();
    assert_eq!((found.status(), found.head.header("allow")), (404, None));
}

#[actix_web::test]
async fn head_answers_like_get_without_the_body_but_starts_no_stream() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut connection: Connection = gateway.client.connect().await.unwrap();
    for (path, allowed) in PATHS {
        let path = path.replace("THREAD", &thread);
        let head = connection.send(&Request::new("HEAD", &*path)).await.unwrap();
        if !allowed.contains("HEAD") {
            assert_eq!((head.status, head.header("allow")), (405, Some(allowed)), "{path}");
            continue;
        }
        let head_again = connection.send(&Request::get(&*path)).await.unwrap();
        let got = connection.whole(head_again).await.unwrap();
        assert_eq!(head.status, got.status(), "{path}");
        let facts = ["content-type", "content-length", "cache-control"];
        let of = |head: &load::client::Head| facts.map(|name| head.header(name).map(str::to_owned));
        assert_eq!(of(&head), of(&got.head), "{path}");
        assert_eq!(head.header("content-length"), Some(&*got.body.len().to_string()), "{path}");
    }
    assert_eq!(gateway.mock.counts().calls_started, 0);
}
