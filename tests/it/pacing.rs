//! The pacer keeps its provider's limits, tells who waits where they stand, and refuses what cannot wait.

use futures_util::future::join_all;
use load::client::Request;
use serde_json::{Value, json};

use crate::support::done;
use crate::support::gateway::{FAST, Gateway, message};
use crate::support::listener::Listener;

#[actix_web::test]
async fn never_more_calls_at_once_than_allowed() {
    let gateway = Gateway::with_provider("rps = 10000.0\nconcurrency = 3\nburst = 1000").await;
    let threads = join_all((0..12).map(|_| gateway.thread())).await;

    let answers = threads.iter().enumerate().map(|(at, thread)| {
        let body = message(&format!("question {at}"), "gate@after=0");
        let gateway = &gateway;
        async move { gateway.send(thread, &body).await.status() }
    });

    let once_three_run = async {
        gateway.called(|counts| counts.answers_held == 3).await;
        (0..12).for_each(|_| gateway.mock.open_gate());
    };
    let (statuses, ()) = futures_util::join!(join_all(answers), once_three_run);

    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!(gateway.mock.counts().streams_peak, 3);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_full_queue_is_a_429_before_the_stream_begins() {
    let gateway = Gateway::with_provider("rps = 10000.0\nconcurrency = 1\nburst = 1000\nqueue_max = 1").await;
    let threads = join_all((0..3).map(|_| gateway.thread())).await;
    let mut running = gateway.stream(&threads[0], &message("a", "silent")).await;
    running.next_named("meta").await;
    let mut waiting = gateway.stream(&threads[1], &message("b", "silent")).await;
    waiting.next_named("meta").await;

    let path = format!("/api/threads/{}/messages/stream", threads[2]);
    let refused = gateway.client.post(&path, &message("c", "silent")).await.unwrap();

    assert_eq!((refused.status(), refused.error_code().as_deref()), (429, Some("provider_busy")));
    assert!(refused.head.header("retry-after").is_some());
    assert!(refused.json()["error"]["retry_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(gateway.read(&threads[2]).await["messages"], json!([]), "nothing has begun");
}

#[actix_web::test]
async fn who_waits_too_long_is_told_so() {
    let provider = "rps = 10000.0\nconcurrency = 1\nburst = 1000\nqueue_wait_max_ms = 200";
    let gateway = Gateway::with_provider(provider).await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let mut running = gateway.stream(&first, &message("a", "silent")).await;
    running.next_named("meta").await;

    let mut waiting = gateway.stream(&second, &message("b", "silent")).await;
    let end = done(&waiting.rest().await);

    assert_eq!((&end["error"]["code"], &end["error"]["phase"]), (&json!("queue_timeout"), &json!("queue")));
    assert!(end["error"]["retry_after_ms"].as_u64().unwrap() > 0);
    let third = gateway.thread().await;
    let refused = gateway.send(&third, &message("c", "silent")).await;
    assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("queue_timeout")));
    let whole_s: u64 = refused.head.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(whole_s, refused.json()["error"]["retry_after_ms"].as_u64().unwrap().div_ceil(1_000));
    assert_eq!(gateway.mock.counts().calls_started, 1);
}

/// The names of what an answer tells.
fn fields(row: &Value) -> Vec<&str> {
    row.as_object().unwrap().keys().map(String::as_str).collect()
}

#[actix_web::test]
async fn limits_can_be_changed_while_callers_wait() {
    let gateway = Gateway::with_provider("rps = 10000.0\nconcurrency = 1\nburst = 1000").await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let mut running = gateway.stream(&first, &message("a", "silent")).await;
    running.next_named("meta").await;
    let mut waiting = gateway.stream(&second, &message("b", "mock")).await;
    waiting.next_named("meta").await;

    let patch = Request::new("PATCH", "/api/admin/pacers/mock").json(&json!({ "concurrency": 2 }));
    let changed = gateway.client.send(patch).await.unwrap();

    assert_eq!((changed.status(), &changed.json()["concurrency"]), (200, &json!(2)));
    assert_eq!(fields(&changed.json()), fields(&gateway.get("/api/admin/pacers").await[0]));
    assert_eq!(done(&waiting.rest().await)["status"], "complete");
}

#[actix_web::test]
async fn limits_that_make_no_sense_are_refused() {
    let gateway = Gateway::start().await;
    for (field, value) in [
        ("rps", json!(0)),
        ("rps", json!("fast")),
        ("concurrency", json!(0)),
        ("burst", json!(-1)),
        ("tpm", json!(-1)),
        ("speed", json!(1)),
    ] {
        let patch = Request::new("PATCH", "/api/admin/pacers/mock").json(&json!({ field: value }));
        let refused = gateway.client.send(patch).await.unwrap();

        assert_eq!((refused.status(), refused.json()["error"]["param"].as_str()), (400, Some(field)));
    }
    let missing = gateway.client.send(Request::new("PATCH", "/api/admin/pacers/none").json(&json!({}))).await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[actix_web::test]
async fn a_profile_is_switched_and_restored() {
    let profile = "[profiles.ttft.providers.mock]\nrps = 5.0\nconcurrency = 7\nburst = 6";
    let gateway = Gateway::with(FAST, profile).await;
    let concurrency = async || {
        gateway
            .get("/api/admin/pacers")
            .await
            .as_array()
            .unwrap()
            .iter()
            .find_map(|pacer| (pacer["provider"] == "mock").then(|| pacer["concurrency"].as_u64()))
    };

    let switched = gateway.client.post("/api/admin/profile/ttft", &json!({})).await.unwrap();
    assert_eq!((switched.status(), concurrency().await.flatten()), (200, Some(7)));
    assert_eq!(fields(&switched.json()["pacers"]["mock"]), fields(&gateway.get("/api/admin/pacers").await[0]));

    gateway.client.post("/api/admin/profile/production", &json!({})).await.unwrap();
    assert_eq!(concurrency().await.flatten(), Some(1000));
    assert_eq!(gateway.client.post("/api/admin/profile/none", &json!({})).await.unwrap().status(), 404);
}

#[actix_web::test]
async fn background_calls_wait_behind_user_messages() {
    let gateway = Gateway::with_provider("rps = 10000.0\nconcurrency = 1\nburst = 1000").await;
    let threads = join_all((0..3).map(|_| gateway.thread())).await;
    let path = |at: usize| format!("/api/threads/{}/messages/stream", threads[at]);
    let mut running = gateway.stream(&threads[0], &message("a", "gate@after=0")).await;
    running.next_named("meta").await;
    gateway.called(|counts| counts.answers_held == 1).await;

    let title = Request::post(path(1), &message("b", "mock")).header("x-priority", "background");
    let mut title = gateway.open(title).await;
    let mut urgent = gateway.open(Request::post(path(2), &message("c", "mock")).header("x-priority", "user")).await;

    assert_eq!(place(&mut urgent).await, 1, "the one who came later goes first");
    while place(&mut title).await != 2 {}
    gateway.mock.open_gate();
    assert_eq!(done(&title.rest().await)["status"], "complete");
}

/// The next place in the queue that a listener is told.
async fn place(listener: &mut Listener) -> u64 {
    loop {
        if let Some(position) = listener.next_named("meta").await.event.json()["queue"]["position"].as_u64() {
            return position;
        }
    }
}

#[actix_web::test]
async fn a_background_call_shares_no_answer_with_those_who_wait() {
    let gateway = Gateway::start().await;
    let threads = join_all((0..2).map(|_| gateway.thread())).await;
    let path = |at: usize| format!("/api/threads/{}/messages/stream", threads[at]);
    let body = message("a", "gate@after=0");

    let mut title = gateway.open(Request::post(path(0), &body).header("x-priority", "background")).await;
    let mut urgent = gateway.open(Request::post(path(1), &body)).await;
    gateway.called(|counts| counts.answers_held == 2).await;

    (0..2).for_each(|_| gateway.mock.open_gate());
    assert_eq!(
        [done(&title.rest().await)["status"].clone(), done(&urgent.rest().await)["status"].clone()],
        ["complete", "complete"]
    );
}

#[actix_web::test]
async fn a_priority_that_there_is_not_is_refused() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    for priority in ["urgent", "", "Background"] {
        let path = format!("/api/threads/{thread}/messages");
        let request = Request::post(path, &message("a", "mock")).header("x-priority", priority);

        let refused = gateway.client.send(request).await.unwrap();

        assert_eq!((refused.status(), refused.json()["error"]["param"].as_str()), (400, Some("X-Priority")));
    }
}
