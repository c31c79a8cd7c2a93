//! The mock on real sockets.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::client::{Client, ClientError, Connection, Request, openai_text_of};

fn ask(model: &str, prompt: &str) -> Request {
    let messages = json!([{"role": "user", "content": prompt}]);
    Request::post("/chat/completions", &json!({"model": model, "messages": messages, "stream": true}))
}

fn client(mock: &Mock) -> Client {
    Client::new(&mock.url()).unwrap()
}

async fn read_all(connection: &mut Connection, request: &Request) -> u16 {
    let head = connection.send(request).await.unwrap();
    connection.whole(head).await.unwrap().status()
}

#[tokio::test]
async fn an_answer_is_streamed_as_expected() {
    let mock = Mock::start().await;

    let mut stream = client(&mock).open(ask("text@tokens=30,gap_ms=0", "hi")).await.unwrap();
    let events = stream.rest().await.unwrap();

    assert_eq!(openai_text_of(&events), expected_text("text@tokens=30", "hi"));
    let counts = mock.wait_until(|counts| counts.calls_finished == 1).await;
    assert_eq!((counts.calls_started, counts.calls_aborted, counts.streams_live, counts.streams_peak), (1, 0, 0, 1));
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let mock = Mock::start().await;
    let client = client(&mock);
    let mut connection = client.connect().await.unwrap();

    assert_eq!(read_all(&mut connection, &client.complete(Request::get("/models"))).await, 200);
    for model in ["text@tokens=2", "rate_limited", "no_done@tokens=1", "empty_200", "wrong_type"] {
        read_all(&mut connection, &client.complete(ask(model, "hi"))).await;
    }

    let counts = mock.counts();
    assert_eq!((counts.connections_opened, counts.calls_finished, counts.models_listed), (1, 5, 1));
}

#[tokio::test]
async fn requests_may_follow_before_the_answer_and_are_served_in_order() {
    let mock = Mock::start().await;
    let client = client(&mock);
    let mut connection = client.connect().await.unwrap();
    for prompt in ["a", "b"] {
        connection.write(&client.complete(ask("text@tokens=3", prompt))).await.unwrap();
    }

    for prompt in ["a", "b"] {
        let head = connection.read_head(false).await.unwrap();
        let body = connection.whole(head).await.unwrap().body;
        let first = serde_json::to_string(&Voice::new(prompt, 0).token(0)).unwrap();
        assert!(String::from_utf8_lossy(&body).contains(&first));
    }
}

#[tokio::test]
async fn a_body_may_come_in_chunks() {
    let mock = Mock::start().await;
    let client = client(&mock);
    let body =
        json!({"model": "text@tokens=1", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]});
    let body = body.to_string();
    let (left, right) = body.split_at(20);
    let chunked = format!("{:x}\r\n{left}\r\n{:x}\r\n{right}\r\n0\r\n\r\n", left.len(), right.len());
    let mut connection = client.connect().await.unwrap();
    let request = Request::new("POST", "/v1/chat/completions").header("transfer-encoding", "chunked");

    connection.write(&request).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(connection.stream(), chunked.as_bytes()).await.unwrap();
    let head = connection.read_head(false).await.unwrap();

    assert_eq!(head.status, 200);
    assert_eq!(mock.last_call().unwrap().json()["model"], "text@tokens=1");
}

#[tokio::test]
async fn a_caller_that_leaves_is_counted_in_every_phase() {
    let mock = Mock::start().await;
    let client = client(&mock);
    for (aborts, model) in
        (1..).zip(["text@gap_ms=3600000", "stall", "silent", "slow_first_byte@hold_ms=3600000", "endless"])
    {
        let before = Instant::now();
        let mut stream = client.open(ask(model, "hi")).await.unwrap();
        if model.starts_with("text") || model == "endless" {
            stream.next().await.unwrap();
        }
        drop(stream);

        let counts = mock.wait_until(|counts| counts.calls_aborted == aborts).await;
        assert!(counts.last_abort.unwrap() >= before);
        assert_eq!((counts.streams_live, counts.calls_finished), (0, 0), "{model}");
        assert_eq!(mock.last_call().unwrap().ended.map(|(outcome, _)| outcome), Some(Outcome::Aborted));
    }
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_head_is_counted() {
    let mock = Mock::start().await;
    let client = client(&mock);
    let mut connection = client.connect().await.unwrap();
    connection.write(&client.complete(ask("slow_head@hold_ms=3600000", "hi"))).await.unwrap();
    mock.wait_until(|counts| counts.streams_live == 1).await;

    drop(connection);

    mock.wait_until(|counts| counts.calls_aborted == 1 && counts.connections_live == 0).await;
}

#[tokio::test]
async fn a_caller_that_resets_its_connection_is_counted() {
    let mock = Mock::start().await;
    let mut stream = client(&mock).open(ask("stall", "hi")).await.unwrap();
    stream.next().await.unwrap();

    stream.reset();

    mock.wait_until(|counts| counts.calls_aborted == 1).await;
}

#[tokio::test]
async fn a_reset_is_told_from_a_close() {
    let mock = Mock::start().await;
    let ending = async |model: &str| client(&mock).open(ask(model, "hi")).await.unwrap().rest().await;

    assert!(matches!(ending("drop").await, Err(ClientError::Cut)));
    assert!(matches!(ending("cut_chunk").await, Err(ClientError::Cut)));
    assert!(
        matches!(ending("reset").await, Err(ClientError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test]
async fn calls_beyond_the_rate_are_refused_and_counted() {
    let rate = Rate { rps: 0.001, burst: 2 };
    let mock = Mock::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Some(rate)).await.unwrap();
    let client = client(&mock);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.send(ask("text@tokens=1", "hi")).await.unwrap().status());
    }

    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(mock.counts().calls_refused, 1);
}

#[tokio::test]
async fn the_most_streams_at_once_are_remembered() {
    let mock = Mock::start().await;
    let client = client(&mock);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.open(ask("stall", "hi")).await.unwrap());
    }
    mock.wait_until(|counts| counts.streams_live == 3).await;

    streams.clear();

    let counts = mock.wait_until(|counts| counts.streams_live == 0).await;
    assert_eq!((counts.streams_peak, counts.calls_aborted), (3, 3));
}

#[tokio::test]
async fn a_call_is_remembered_with_its_headers_and_body() {
    let mock = Mock::start().await;
    let client = client(&mock).with_header("Authorization", "Bearer x");

    client.send(ask("text@tokens=1", "hi")).await.unwrap();

    let call = mock.last_call().unwrap();
    assert_eq!((call.number, call.header("authorization")), (1, Some("Bearer x")));
    assert_eq!(call.json()["messages"][0]["content"], "hi");
}

#[tokio::test]
async fn the_counts_can_be_asked_for_and_reset_over_http() {
    let mock = Mock::start().await;
    client(&mock).send(ask("text@tokens=1", "hi")).await.unwrap();
    let admin = Client::new(&format!("http://{}", mock.address())).unwrap();

    let stats = admin.get("/__stats").await.unwrap().json();
    admin.post("/__reset", &Value::Null).await.unwrap();
    let after = admin.get("/__stats").await.unwrap().json();

    assert_eq!((&stats["calls_finished"], &stats["last_abort_age_ms"]), (&json!(1), &Value::Null));
    assert_eq!(after["calls_finished"], 0);
}

#[tokio::test]
async fn dropping_the_mock_closes_its_connections() {
    let mock = Mock::start().await;
    let mut stream = client(&mock).open(ask("stall@after=0", "hi")).await.unwrap();
    stream.next().await.unwrap();
    let client = client(&mock);

    drop(mock);

    assert!(stream.next().await.is_err());
    let refused = tokio::time::timeout(Duration::from_secs(10), async {
        while client.connect().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await.unwrap();
}

#[tokio::test]
async fn gates_are_opened_from_outside_for_as_many_answers_as_are_named() {
    let mock = Mock::start().await;
    let client = client(&mock);
    let mut streams = Vec::new();
    for prompt in ["a", "b", "c"] {
        streams.push(client.open(ask("gate@after=1,tokens=2", prompt)).await.unwrap());
    }
    mock.wait_until(|counts| counts.answers_held == 3).await;

    let outside = Client::new(&format!("http://{}", mock.address())).unwrap();
    assert_eq!(outside.send(Request::new("POST", "/__open/2")).await.unwrap().status(), 200);

    let counts = mock.wait_until(|counts| counts.calls_finished == 2).await;
    assert_eq!((counts.answers_held, counts.streams_live, counts.strays), (1, 1, 0));
}
