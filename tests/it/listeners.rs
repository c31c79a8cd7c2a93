//! One answer has so many listeners at once as it may, however they come to it, and whoever leaves makes room.

use futures_util::future::join_all;
use load::client::{Request, Response};
use serde_json::Value;

use crate::support::done;
use crate::support::gateway::{Gateway, message};

const MODEL: &str = "gate@after=1";

/// The refusal of one listener too many.
fn check_refused(refused: &Response) {
    assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("overloaded")));
    let error = refused.json()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("stream.listeners_max"), "{error}");
    assert_eq!((&error["retryable"], error["retry_after_ms"].as_u64()), (&Value::Bool(true), Some(1_000)));
    assert_eq!(refused.head.header("retry-after"), Some("1"));
}

#[actix_web::test]
async fn every_way_to_a_full_answer_is_closed_until_somebody_leaves() {
    let gateway = Gateway::with_tables("[stream]\nlisteners_max = 2").await;
    let (thread, other) = (gateway.thread().await, gateway.thread().await);
    let mut body = message("hello", MODEL);
    body["request_id"] = "first".into();
    let mut first = gateway.stream(&thread, &body).await;
    first.next_named("delta").await;
    let join = Request::get(format!("/api/threads/{thread}/stream"));
    let second = gateway.open(join.clone()).await;
    gateway.until_listeners(2).await;

    let post = |thread: &str, how: &str, body: &Value| Request::post(format!("/api/threads/{thread}/{how}"), body);
    let ways = [
        join.clone(),
        Request::get("/api/requests/first/stream"),
        Request::get("/api/requests/first/stream").header("last-event-id", "1-1"),
        post(&thread, "messages/stream", &message("hello", MODEL)),
        post(&thread, "messages", &message("hello", MODEL)),
        post(&other, "messages/stream", &message("hello", MODEL)),
        post(&thread, "messages/stream", &body),
        post(&thread, "messages", &body),
    ];
    for refused in join_all(ways.map(|way| gateway.client.send(way))).await {
        check_refused(&refused.unwrap());
    }
    assert_eq!(gateway.get("/api/requests/first").await["status"], "streaming", "who only looks needs no place");
    assert_eq!(gateway.read(&other).await["messages"].as_array().unwrap().len(), 0, "who is refused leaves nothing");
    let elsewhere = gateway.send(&other, &message("something else", "mock")).await;
    assert_eq!(elsewhere.status(), 200, "its thread is free");

    drop(second);
    gateway.until_listeners(1).await;
    let mut third = gateway.open(join.clone()).await;
    check_refused(&gateway.client.send(join).await.unwrap());
    gateway.mock.open_gate();

    for listener in [&mut first, &mut third] {
        assert_eq!(done(&listener.rest().await)["status"], "complete");
    }
    let seen_all = Request::get("/api/requests/first/stream").header("last-event-id", "1-1");
    assert!(!gateway.open(seen_all).await.rest().await.is_empty(), "an answer that has ended has its places back");
    gateway.at_rest().await;
}

#[actix_web::test]
async fn many_may_have_listened_as_long_as_few_do() {
    let gateway = Gateway::with_tables("[stream]\nlisteners_max = 2").await;
    let thread = gateway.thread().await;
    let mut first = gateway.stream(&thread, &message("hello", MODEL)).await;
    first.next_named("delta").await;

    for _ in 0..5 {
        let mut passing = gateway.stream(&thread, &message("hello", MODEL)).await;
        passing.next_named("delta").await;
        drop(passing);
        gateway.until_listeners(1).await;
    }
    let mut body = message("hello", MODEL);
    body["request_id"] = "waiting".into();
    let (answer, ()) = futures_util::join!(gateway.send(&thread, &body), async {
        gateway.until("/api/requests/waiting", |state| state["status"] == "streaming").await;
        gateway.mock.open_gate();
    });

    assert_eq!((answer.status(), done(&first.rest().await)["status"].as_str()), (200, Some("complete")));
}
