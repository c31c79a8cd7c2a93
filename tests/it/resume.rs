//! Who comes back hears the rest; who comes late hears everything; who has heard the end hears nothing more.

use load::client::{Arrived, Request, text_of};
use load::mock::expected_text;
use serde_json::json;

use crate::support::gateway::{Gateway, message};
use crate::support::{content, done, opening};

const MODEL: &str = "text@tokens=40,gap_ms=5";

/// Every event of one answer, and its request's id.
async fn whole(gateway: &Gateway, model: &str) -> (Vec<Arrived>, String) {
    let thread = gateway.thread().await;
    let mut events = gateway.stream(&thread, &message("hello", model)).await;
    let events = events.rest().await;
    let request = opening(&events)["request_id"].as_str().unwrap().to_owned();
    (events, request)
}

fn after(request: &str, last_event_id: &str) -> Request {
    Request::get(format!("/api/requests/{request}/stream")).header("last-event-id", last_event_id)
}

#[actix_web::test]
async fn a_cursor_continues_right_after_it() {
    let gateway = Gateway::start().await;
    let (all, request) = whole(&gateway, MODEL).await;

    for seen in [0, 1, 7, 39] {
        let mut resumed = gateway.open(after(&request, &format!("1-{seen}"))).await;
        let rest = resumed.rest().await;

        assert_eq!(opening(&rest)["resumed"], true);
        assert_eq!(content(&rest), content(&all)[seen..]);
        assert_eq!(done(&rest), done(&all));
    }
}

#[actix_web::test]
async fn the_cursor_may_stand_in_the_query() {
    let gateway = Gateway::start().await;
    let (all, request) = whole(&gateway, MODEL).await;

    let path = format!("/api/requests/{request}/stream?last_event_id=1-5");
    let rest = gateway.open(Request::get(path)).await.rest().await;

    assert_eq!(content(&rest), content(&all)[5..]);
}

#[actix_web::test]
async fn without_a_cursor_that_helps_comes_a_snapshot() {
    let gateway = Gateway::start().await;
    let (_, request) = whole(&gateway, MODEL).await;
    let requests = [
        Request::get(format!("/api/requests/{request}/stream")),
        after(&request, "nonsense"),
        after(&request, "2-5"),
        after(&request, "1-99999"),
    ];

    for asked in requests {
        let rest = gateway.open(asked).await.rest().await;

        let snapshot = rest.iter().find(|arrived| arrived.event.name == "snapshot").unwrap().event.json();
        assert_eq!(snapshot["text"], expected_text(MODEL, "hello"));
        assert!(content(&rest).is_empty());
        assert_eq!(done(&rest)["status"], "complete");
    }
}

#[actix_web::test]
async fn who_has_seen_the_end_gets_204() {
    let gateway = Gateway::start().await;
    let (all, request) = whole(&gateway, MODEL).await;
    let last = all.last().unwrap().event.id.clone().unwrap();

    let answer = gateway.client.send(after(&request, &last)).await.unwrap();

    assert_eq!((answer.status(), answer.body.len()), (204, 0));
}

#[actix_web::test]
async fn a_second_tab_joins_the_running_answer() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut first = gateway.stream(&thread, &message("hello", "gate@after=10,tokens=60")).await;
    for _ in 0..10 {
        first.next_named("delta").await;
    }

    let mut second = gateway.open(Request::get(format!("/api/threads/{thread}/stream"))).await;
    gateway.mock.open_gate();
    let (first, second) = (first.rest().await, second.rest().await);

    let snapshot = second.iter().find(|arrived| arrived.event.name == "snapshot").unwrap().event.json();
    assert_eq!(snapshot["text"], expected_text("text@tokens=10", "hello"));
    let text = format!("{}{}", snapshot["text"].as_str().unwrap(), text_of(&second));
    assert_eq!(text, expected_text("text@tokens=60", "hello"));
    assert_eq!(done(&second), done(&first));
}

#[actix_web::test]
async fn a_thread_without_a_running_answer_has_no_stream() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let idle = gateway.client.get(&format!("/api/threads/{thread}/stream")).await.unwrap();
    let missing = gateway.client.get("/api/threads/t_none/stream").await.unwrap();

    assert_eq!(idle.status(), 204);
    assert_eq!((missing.status(), missing.error_code().as_deref()), (404, Some("thread_not_found")));
}

#[actix_web::test]
async fn an_answer_goes_on_when_its_listener_has_gone() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let model = "gate@after=1";
    let mut events = gateway.stream(&thread, &message("hello", model)).await;
    events.next_named("delta").await;
    drop(events);
    gateway.until_listeners(0).await;

    let mut again = gateway.open(Request::get(format!("/api/threads/{thread}/stream"))).await;
    gateway.mock.open_gate();

    assert_eq!(done(&again.rest().await)["status"], "complete");
    assert_eq!(gateway.read(&thread).await["messages"][1]["content"], expected_text(model, "hello"));
    assert_eq!(gateway.mock.counts().calls_aborted, 0);
}

#[actix_web::test]
async fn a_request_can_be_looked_at() {
    let gateway = Gateway::start().await;
    let (all, request) = whole(&gateway, MODEL).await;

    let state = gateway.get(&format!("/api/requests/{request}")).await;

    assert_eq!(
        (&state["status"], &state["role"], &state["provider"]),
        (&json!("complete"), &json!("leader"), &json!("mock"))
    );
    assert_eq!(state["message_id"], done(&all)["message_id"]);
    assert!(state["ttft_ms"].is_u64() && state["latency_ms"].is_u64());
    let missing = gateway.client.get("/api/requests/none").await.unwrap();
    assert_eq!((missing.status(), missing.error_code().as_deref()), (404, Some("request_not_found")));
}
