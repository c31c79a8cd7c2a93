//! Who comes back hears the rest; who comes late hears everything; who has heard the end hears nothing more.

use load::client::{Arrived, Request, text_of};
use load::mock::expected_text;
use serde_json::{Value, json};

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

/// Both are cancelled after three pieces, and neither provider has said what it costs.
#[actix_web::test]
async fn a_request_that_is_not_stored_says_the_same_of_its_end_as_a_stored_one() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "stall@after=3");
    body["request_id"] = "stored".into();
    let mut stored = gateway.stream(&thread, &body).await;
    for _ in 0..3 {
        stored.next_named("delta").await;
    }
    let body = json!({ "model": "mock/stall@after=3", "stream": true, "request_id": "unstored",
                       "messages": [{ "role": "user", "content": "hello" }] });
    let mut unstored = gateway.open(Request::post("/v1/chat/completions", &body)).await;
    for _ in 0..4 {
        unstored.next().await.unwrap();
    }
    for request in ["stored", "unstored"] {
        gateway.cancel(request).await;
        gateway.until(&format!("/api/requests/{request}"), |state| state["status"] == "cancelled").await;
    }

    let stored = gateway.get("/api/requests/stored").await;
    let unstored = gateway.get("/api/requests/unstored").await;

    assert_eq!((&unstored["usage"]["estimated"], &unstored["last_seq"]), (&json!(true), &json!(3)));
    for fact in ["usage", "last_seq", "finish_reason", "native_finish_reason", "error", "fallback_from"] {
        assert_eq!(unstored[fact], stored[fact], "{fact}");
    }
    for span in ["ttft_ms", "ttfb_ms", "queue_wait_ms", "connect_ms", "latency_ms"] {
        assert!(unstored[span].is_u64() && stored[span].is_u64(), "{span}: {unstored} {stored}");
    }
}

#[actix_web::test]
async fn what_a_request_hears_no_more_is_not_counted_for_it() {
    let gateway = Gateway::start().await;
    let ask = |id: &str| {
        let body = json!({ "model": "mock/gate@after=3,tokens=9", "stream": true, "request_id": id, "temperature": 0,
                           "messages": [{ "role": "user", "content": "hello" }] });
        Request::post("/v1/chat/completions", &body)
    };
    let (mut leaves, mut stays) = (gateway.open(ask("leaves")).await, gateway.open(ask("stays")).await);
    for _ in 0..4 {
        leaves.next().await.unwrap();
    }
    assert_eq!(gateway.cancel("leaves").await.json()["upstream"], "shared");
    let left = gateway.until("/api/requests/leaves", |state| state["status"] == "cancelled").await;

    gateway.mock.open_gate();
    stays.rest().await;

    assert_eq!(left["last_seq"], 3);
    assert_eq!(gateway.get("/api/requests/leaves").await, left);
}

#[actix_web::test]
async fn nothing_is_known_of_a_connection_that_was_never_made() {
    let gateway = Gateway::with_provider("rps = 1000.0\nconcurrency = 1\nburst = 10").await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let _running = gateway.stream(&first, &message("hello", "silent")).await;
    gateway.called(|counts| counts.calls_started == 1).await;
    let mut body = message("hello again", "mock");
    body["request_id"] = "waits".into();
    let mut waits = gateway.stream(&second, &body).await;
    waits.next_named("meta").await;

    let waiting = gateway.get("/api/requests/waits").await;
    gateway.cancel("waits").await;
    waits.rest().await;
    let cancelled = gateway.get("/api/requests/waits").await;

    for state in [waiting, cancelled] {
        assert_eq!((&state["connect_ms"], &state["queue_wait_ms"]), (&Value::Null, &Value::Null), "{state}");
    }
}
