//! A cancel works in every phase of an answer, and the provider sees it.

use std::time::Duration;

use load::client::{Request, text_of};
use load::mock::expected_text;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::gateway::{FAST, Gateway, message};
use crate::support::{done, opening};

/// Cancels a request in the phase that `until` waits for; gives the answer to the cancel.
async fn cancelled_when(model: &str, until: impl AsyncFnOnce(&Gateway)) -> Value {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("hello", model);
    body["request_id"] = "the-one".into();
    let (events, cancel) = futures_util::join!(
        async {
            let mut events = gateway.stream(&thread, &body).await;
            events.rest().await
        },
        async {
            until(&gateway).await;
            gateway.cancel("the-one").await
        }
    );

    assert_eq!(cancel.status(), 200);
    let end = done(&events);
    assert_eq!((end["status"].as_str(), end["finish_reason"].as_str()), (Some("cancelled"), Some("cancelled")));
    let answer = &gateway.read(&thread).await["messages"][1];
    assert_eq!(answer["status"], "cancelled");
    assert_eq!(answer["content"], text_of(&events), "what was delivered is what is kept");
    gateway.at_rest().await;
    cancel.json()
}

#[actix_web::test]
async fn before_the_head_of_the_answer() {
    let cancel = cancelled_when("slow_head@hold_ms=60000", async |gateway| {
        gateway.called(|counts| counts.calls_started == 1).await;
    })
    .await;

    assert_eq!((&cancel["status"], &cancel["upstream"]), (&json!("cancelled"), &json!("aborted")));
}

#[actix_web::test]
async fn before_the_first_byte() {
    let cancel = cancelled_when("silent", async |gateway| {
        gateway.called(|counts| counts.calls_started == 1).await;
    })
    .await;

    assert_eq!(cancel["upstream"], "aborted");
}

#[actix_web::test]
async fn in_the_middle_of_a_fast_answer() {
    let cancel = cancelled_when("text@tokens=100000,gap_ms=1", until_text).await;

    assert_eq!(cancel["upstream"], "aborted");
}

#[actix_web::test]
async fn in_the_middle_of_an_answer_that_has_fallen_silent() {
    let cancel = cancelled_when("stall@after=3", until_text).await;

    assert_eq!(cancel["upstream"], "aborted");
}

#[actix_web::test]
async fn during_the_pause_before_another_try() {
    let cancel = cancelled_when("rate_limited@after_s=20", async |gateway| {
        gateway.called(|counts| counts.calls_finished == 1).await;
        let idle = |pacers: &Value| pacers.as_array().unwrap().iter().all(|pacer| pacer["in_flight"] == 0);
        gateway.until("/api/admin/pacers", idle).await;
    })
    .await;

    assert_eq!(cancel["upstream"], "not_started");
}

#[actix_web::test]
async fn a_cancelled_answer_is_read_on_when_its_cost_is_wanted() {
    let gateway = Gateway::with_provider(&format!("{FAST}\non_cancel = \"drain\"")).await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "gate@after=3");
    body["request_id"] = "the-one".into();
    let mut events = gateway.stream(&thread, &body).await;
    until_text(&gateway).await;

    let cancel = gateway.cancel("the-one").await.json();

    assert_eq!((&cancel["status"], &cancel["upstream"]), (&json!("cancelled"), &json!("drained")));
    let end = done(&events.rest().await);
    assert_eq!((&end["status"], &end["usage"]["estimated"]), (&json!("cancelled"), &json!(true)));
    assert_eq!(gateway.mock.counts().streams_live, 1);
    gateway.mock.open_gate();
    let state = gateway.until("/api/requests/the-one", |state| state["usage"]["estimated"] == false).await;
    let answer = &gateway.read(&thread).await["messages"][1];
    assert_eq!((&answer["usage"], &answer["status"]), (&state["usage"], &json!("cancelled")));
    let counts = gateway.called(|counts| counts.calls_finished == 1).await;
    assert_eq!(counts.calls_started, 1);
    gateway.at_rest().await;
}

async fn until_text(gateway: &Gateway) {
    let has_begun = |streams: &Value| streams[0]["events"].as_u64().is_some_and(|events| events >= 2);
    gateway.until("/api/admin/streams", has_begun).await;
}

#[actix_web::test]
async fn while_it_waits_in_the_queue() {
    let gateway = Gateway::with_provider("rps = 1000.0\nconcurrency = 1\nburst = 1000").await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let mut running = gateway.stream(&first, &message("first", "silent")).await;
    running.next_named("meta").await;
    let mut waiting = gateway.stream(&second, &message("second", "mock")).await;
    let request = waiting.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
    let place = waiting.next_named("meta").await.event.json();
    assert_eq!(place["queue"]["position"], 1);

    let cancel = gateway.cancel(&request).await.json();

    assert_eq!(cancel["upstream"], "not_started");
    assert_eq!(done(&waiting.rest().await)["status"], "cancelled");
    assert_eq!(gateway.mock.counts().calls_started, 1);
    drop(running);
}

#[actix_web::test]
async fn one_of_many_listeners_leaves_the_others_alone() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let model = "gate@after=0";
    let mut first = gateway.stream(&thread, &message("hello", model)).await;
    let first_id = first.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
    let mut second = gateway.stream(&thread, &message("hello", model)).await;

    let cancel = gateway.cancel(&first_id).await.json();

    assert_eq!(cancel["upstream"], "shared");
    assert_eq!(done(&first.rest().await)["status"], "cancelled");
    gateway.mock.open_gate();
    let rest = second.rest().await;
    assert_eq!(opening(&rest)["role"], "follower");
    assert_eq!(done(&rest)["status"], "complete");
    assert_eq!(text_of(&rest), expected_text(model, "hello"));
    assert_eq!(gateway.read(&thread).await["messages"][1]["status"], "complete");
}

#[actix_web::test]
async fn a_cancel_that_comes_before_its_request_waits_for_it() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let early = gateway.cancel("early").await;
    assert_eq!((early.status(), early.json()["status"].as_str()), (404, Some("not_found")));
    let mut body = message("hello", "mock");
    body["request_id"] = "early".into();

    let events = gateway.stream(&thread, &body).await.rest().await;

    assert_eq!(done(&events)["status"], "cancelled");
    assert_eq!(gateway.mock.counts().calls_started, 0);
}

#[actix_web::test]
async fn a_request_that_was_cancelled_before_it_came_is_told_as_such_everywhere() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    gateway.cancel("early").await;
    let mut body = message("hello", "mock");
    body["request_id"] = "early".into();

    let answer = gateway.send(&thread, &body).await;

    let cancelled = |state: &Value| {
        assert_eq!((state["status"].as_str(), state["finish_reason"].as_str()), (Some("cancelled"), Some("cancelled")));
    };
    assert_eq!((answer.status(), &answer.json()["request_id"]), (200, &json!("early")));
    cancelled(&answer.json());
    let said = &answer.json()["assistant_message"];
    cancelled(said);
    assert_eq!((&said["role"], &said["content"], &said["model"]), (&json!("assistant"), &json!(""), &json!("mock")));
    let state = gateway.get("/api/requests/early").await;
    cancelled(&state);
    assert_eq!((&state["thread_id"], &state["message_id"]), (&json!(thread), &Value::Null));
    let resumed = gateway.open(Request::get("/api/requests/early/stream")).await.rest().await;
    cancelled(&done(&resumed));
    assert_eq!(gateway.cancel("early").await.json()["status"], "cancelled");
    let other = gateway.client.clone().with_header("x-org-id", "other");
    assert_eq!(other.get("/api/requests/early").await.unwrap().status(), 404);
    assert_eq!(gateway.read(&thread).await["messages"], json!([]));
    assert_eq!(gateway.mock.counts().calls_started, 0);
}

#[actix_web::test]
async fn a_request_that_is_cancelled_in_the_queue_is_told_as_such_to_who_waits_for_the_whole() {
    let gateway = Gateway::with_provider("rps = 1000.0\nconcurrency = 1\nburst = 1000").await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let mut running = gateway.stream(&first, &message("first", "silent")).await;
    running.next_named("meta").await;
    let mut body = message("second", "mock");
    body["request_id"] = "queued".into();
    let (answer, ()) = futures_util::join!(gateway.send(&second, &body), async {
        let waits = |pacers: &Value| pacers.as_array().unwrap().iter().any(|pacer| pacer["queued"] == 1);
        gateway.until("/api/admin/pacers", waits).await;
        gateway.cancel("queued").await;
    });

    assert_eq!((answer.status(), answer.json()["finish_reason"].as_str()), (200, Some("cancelled")));
    assert_eq!(answer.json()["assistant_message"]["status"], "cancelled");
}

#[actix_web::test]
async fn a_cancel_after_the_end_says_how_it_ended() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "mock");
    body["request_id"] = "done-already".into();
    gateway.send(&thread, &body).await;

    let again = gateway.cancel("done-already").await;

    assert_eq!((again.status(), again.json()["status"].as_str()), (200, Some("complete")));
}

#[actix_web::test]
async fn another_organisations_request_is_not_found() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "silent");
    body["request_id"] = "mine".into();
    let mut events = gateway.stream(&thread, &body).await;
    events.next_named("meta").await;

    let other = gateway.client.clone().with_header("x-org-id", "other");
    let foreign = other.post("/api/threads/cancel/mine", &json!({})).await.unwrap();

    assert_eq!(foreign.status(), 404);
    assert_eq!(gateway.get("/api/requests/mine").await["status"], "streaming");
    assert_eq!(gateway.cancel("mine").await.status(), 200);
}

#[actix_web::test]
async fn stopping_a_thread_withdraws_every_request_of_its_answer() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let body = message("hello", "silent");
    let mut first = gateway.stream(&thread, &body).await;
    first.next_named("meta").await;
    let mut second = gateway.stream(&thread, &body).await;

    let stop = gateway.client.post(&format!("/api/threads/{thread}/stop"), &json!({})).await.unwrap();

    assert_eq!(stop.json()["status"], "cancelled");
    for events in [&mut first, &mut second] {
        assert_eq!(done(&events.rest().await)["status"], "cancelled");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_thousand_cancels_leave_nothing_behind() {
    let gateway = Gateway::start().await;
    let threads = futures_util::future::join_all((0..40).map(|_| gateway.thread())).await;
    for round in 0..25 {
        let requests = threads.iter().enumerate().map(|(at, thread)| {
            let model = ["silent", "text@tokens=10000,gap_ms=1", "slow_head@hold_ms=60000", "stall"][at % 4];
            let mut body = message(&format!("{round} {at}"), model);
            body["request_id"] = format!("r-{round}-{at}").into();
            let gateway = &gateway;
            async move {
                let mut events = gateway.stream(thread, &body).await;
                events.next_named("meta").await;
                gateway.cancel(body["request_id"].as_str().unwrap()).await;
                assert_eq!(done(&events.rest().await)["status"], "cancelled");
            }
        });
        timeout(Duration::from_secs(60), futures_util::future::join_all(requests)).await.unwrap();
    }

    gateway.at_rest().await;
    gateway.called(|counts| counts.connections_live == 0).await;
}
