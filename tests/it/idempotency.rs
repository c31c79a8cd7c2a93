//! The same request twice is one request; another request under the same name is refused.

use load::client::{Request, text_of};
use load::mock::expected_text;

use crate::support::gateway::{Gateway, message};
use crate::support::{content, done, opening};

#[actix_web::test]
async fn the_same_id_and_body_attach_to_the_running_answer() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "gate@after=0");
    body["request_id"] = "once".into();
    let mut first = gateway.stream(&thread, &body).await;
    first.next_named("meta").await;
    let mut second = gateway.stream(&thread, &body).await;

    gateway.mock.open_gate();
    let (first, second) = (first.rest().await, second.rest().await);

    assert_eq!(content(&first), content(&second));
    assert_eq!(opening(&second)["request_id"], "once");
    assert_eq!(gateway.read(&thread).await["messages"].as_array().unwrap().len(), 2);
}

#[actix_web::test]
async fn the_same_key_attaches_to_an_answer_that_has_ended() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/messages");
    let request = || Request::post(path.clone(), &message("hello", "mock")).header("idempotency-key", "k-1");

    let first = gateway.client.send(request()).await.unwrap().json();
    let second = gateway.client.send(request()).await.unwrap().json();

    assert_eq!(first, second);
    assert_eq!(gateway.mock.counts().calls_started, 1);
}

#[actix_web::test]
async fn another_body_under_the_same_id_or_key_is_a_conflict() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/messages");
    for (header, code) in [("x-request-id", "request_id_in_use"), ("idempotency-key", "idempotency_conflict")] {
        let send = async |content: &str| {
            let request = Request::post(path.clone(), &message(content, "mock")).header(header, "r-1");
            gateway.client.send(request).await.unwrap()
        };
        assert_eq!(send("hello").await.status(), 200);

        let other = send("other").await;

        assert_eq!((other.status(), other.error_code().as_deref()), (409, Some(code)), "{header}");
    }
    assert_eq!(gateway.mock.counts().calls_started, 2);
}

#[actix_web::test]
async fn another_message_during_a_turn_is_a_conflict_that_names_the_running_request() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut running = gateway.stream(&thread, &message("hello", "silent")).await;
    let request = running.next_named("meta").await.event.json()["request_id"].clone();

    let other = gateway.send(&thread, &message("something else", "mock")).await;

    assert_eq!((other.status(), other.error_code().as_deref()), (409, Some("turn_in_progress")));
    assert_eq!(other.json()["error"]["request_id"], request);
    assert_eq!(gateway.read(&thread).await["active_request_id"], request);
}

#[actix_web::test]
async fn an_answer_made_anew_is_a_message_of_its_own() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    gateway.send(&thread, &message("hello", "mock")).await;

    let path = format!("/api/threads/{thread}/regenerate");
    let body = serde_json::json!({ "model": "text@tokens=3" });
    let events = gateway.open(Request::post(path, &body)).await.rest().await;

    assert_eq!(done(&events)["status"], "complete");
    assert_eq!(text_of(&events), expected_text("text@tokens=3", "hello"));
    let messages = gateway.read(&thread).await["messages"].as_array().unwrap().clone();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "assistant"]);
    assert_eq!(gateway.mock.last_call().unwrap().json()["messages"].as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn there_must_be_something_to_answer_anew() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let path = format!("/api/threads/{thread}/regenerate");
    let answer = gateway.client.post(&path, &serde_json::json!({})).await.unwrap();

    assert_eq!((answer.status(), answer.error_code().as_deref()), (422, Some("unprocessable")));
}

#[actix_web::test]
async fn tools_are_never_shared() {
    let gateway = Gateway::start().await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let mut body = message("hello", "tool_call");
    body["tools"] = serde_json::json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);

    let (first, second) = futures_util::join!(gateway.send(&first, &body), gateway.send(&second, &body));

    assert_eq!((first.status(), second.status()), (200, 200));
    assert_eq!(gateway.mock.counts().calls_started, 2);
    assert_eq!(first.json()["assistant_message"]["finish_reason"], "tool_calls");
}

#[actix_web::test]
async fn a_key_with_what_cannot_be_seen_is_refused() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/messages");
    let send = async |key: &str| {
        let request = Request::post(path.clone(), &message("hello", "mock")).header("idempotency-key", key);
        gateway.client.send(request).await.unwrap()
    };

    for key in ["a b", "a\tb", "é", "", &"k".repeat(256)] {
        let refused = send(key).await;
        let error = refused.json()["error"].clone();
        assert_eq!((refused.status(), &error["param"]), (400, &"Idempotency-Key".into()), "{key:?}: {error}");
        assert!(error["message"].as_str().unwrap().contains("visible ASCII characters, without a space"), "{error}");
    }
    assert_eq!(send(&"~".repeat(255)).await.status(), 200);
    assert_eq!(gateway.mock.counts().calls_started, 1);
}
