//! Threads are made, listed, read, changed and deleted, and belong to one organisation.

use load::client::Request;
use serde_json::{Value, json};

use crate::support::done;
use crate::support::gateway::{Gateway, message};

fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|thread| thread["id"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn a_new_thread_says_what_it_is() {
    let gateway = Gateway::start().await;

    let made = gateway.client.post("/api/threads", &json!({ "title": "Flüsse", "user_id": "u" })).await.unwrap();

    let thread = made.json();
    assert_eq!(made.status(), 201);
    assert_eq!((&thread["title"], &thread["id"]), (&json!("Flüsse"), &thread["thread_id"]));
    let whole = gateway.read(thread["id"].as_str().unwrap()).await;
    assert_eq!((&whole["org_id"], &whole["messages"]), (&json!("org_demo"), &json!([])));
    assert_eq!(whole["active_request_id"], Value::Null);
}

#[actix_web::test]
async fn the_list_has_the_latest_first_and_pages_without_gaps() {
    let gateway = Gateway::start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(gateway.thread().await);
    }
    gateway.send(&made[1], &message("hello", "mock")).await;

    let mut listed = Vec::new();
    let mut path = "/api/threads?limit=2".to_owned();
    loop {
        let page = gateway.client.get(&path).await.unwrap();
        listed.extend(ids(&page.json()));
        let Some(cursor) = page.head.header("x-next-cursor") else { break };
        path = format!("/api/threads?limit=2&before={cursor}");
    }

    assert_eq!(listed.len(), 5);
    assert_eq!(listed[0], made[1], "an answer moves a thread to the top");
    assert!(made.iter().all(|thread| listed.contains(thread)));
}

#[actix_web::test]
async fn the_list_shows_what_was_said_last() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    gateway.send(&thread, &message("hello there", "text@tokens=1")).await;

    let row = gateway.get("/api/threads").await[0].clone();

    assert_eq!((&row["last_provider"], &row["last_model"]), (&json!("mock"), &json!("text@tokens=1")));
    assert_eq!(row["title"], "hello there");
    assert!(row["last_message_preview"].is_string());
}

#[actix_web::test]
async fn a_thread_can_be_renamed_and_pinned() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let patch = |body: Value| Request::new("PATCH", format!("/api/threads/{thread}")).json(&body);

    let changed = gateway.client.send(patch(json!({ "title": "New", "pinned": true }))).await.unwrap();
    let wrong = gateway.client.send(patch(json!({ "pinned": "yes" }))).await.unwrap();

    assert_eq!(
        (changed.status(), &changed.json()["title"], &changed.json()["pinned"]),
        (200, &json!("New"), &json!(true))
    );
    assert_eq!((wrong.status(), wrong.json()["error"]["param"].as_str()), (400, Some("pinned")));
}

#[actix_web::test]
async fn deleting_a_thread_cancels_its_running_answer_first() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut events = gateway.stream(&thread, &message("hello", "silent")).await;
    events.next_named("meta").await;

    let deleted = gateway.client.send(Request::new("DELETE", format!("/api/threads/{thread}"))).await.unwrap();

    assert_eq!(deleted.status(), 204);
    assert_eq!(crate::support::done(&events.rest().await)["status"], "cancelled");
    assert_eq!(gateway.client.get(&format!("/api/threads/{thread}")).await.unwrap().status(), 404);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_foreign_thread_is_the_same_as_a_missing_one() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let stranger = gateway.client.clone().with_header("x-org-id", "other");
    let requests = |thread: &str| {
        let path = format!("/api/threads/{thread}");
        [
            Request::get(path.clone()),
            Request::new("PATCH", path.clone()).json(&json!({ "title": "mine now" })),
            Request::new("DELETE", path.clone()),
            Request::post(format!("{path}/messages"), &message("hello", "mock")),
            Request::post(format!("{path}/messages/stream"), &message("hello", "mock")),
            Request::post(format!("{path}/regenerate"), &json!({})),
            Request::post(format!("{path}/stop"), &json!({})),
            Request::get(format!("{path}/stream")),
        ]
    };
    for (foreign, missing) in requests(&thread).into_iter().zip(requests("t_missing")) {
        let foreign = stranger.send(foreign).await.unwrap();
        let missing = stranger.send(missing).await.unwrap();

        let error = |answer: &load::client::Response| {
            let mut error = answer.json()["error"].clone();
            error["request_id"] = Value::Null;
            (answer.status(), error)
        };
        assert_eq!(error(&foreign), error(&missing));
        assert_eq!(foreign.status(), 404);
    }
    assert_eq!(stranger.get("/api/threads").await.unwrap().json(), json!([]));
    assert_eq!(gateway.mock.counts().calls_started, 0);
    assert_eq!(gateway.read(&thread).await["title"], "");
}

#[actix_web::test]
async fn the_next_message_goes_upstream_with_the_history() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    gateway.send(&thread, &message("first", "text@tokens=2")).await;
    gateway.send(&thread, &message("broken", "server_error@status=400")).await;
    gateway.send(&thread, &message("second", "text@tokens=2")).await;

    let sent = gateway.mock.last_call().unwrap().json();

    let said: Vec<_> = sent["messages"].as_array().unwrap().iter().map(|said| said["role"].as_str().unwrap()).collect();
    assert_eq!(said, ["user", "assistant", "user", "user"]);
    assert_eq!(sent["messages"][3]["content"], "second");
}

#[actix_web::test]
async fn calls_of_tools_that_nobody_answered_stay_out_of_the_history() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("what time is it?", "tool_call");
    body["tools"] = json!([{ "type": "function", "function": { "name": "now", "parameters": {} } }]);
    let called = gateway.send(&thread, &body).await.json();
    assert!(called["assistant_message"]["tool_calls"][0]["name"].is_string());

    gateway.send(&thread, &message("never mind", "mock")).await;

    let sent = gateway.mock.last_call().unwrap().json();
    let said: Vec<_> = sent["messages"].as_array().unwrap().iter().map(|said| said["role"].as_str().unwrap()).collect();
    assert_eq!(said, ["user", "user"]);
}

/// Checks that nothing tells or repeats this request any more.
async fn check_gone(gateway: &Gateway, thread: &str, body: &Value) {
    let request = body["request_id"].as_str().unwrap();
    for path in [format!("/api/requests/{request}"), format!("/api/requests/{request}/stream")] {
        for cursor in ["", "1-0", "1-1"] {
            let answer = gateway.client.send(Request::get(path.clone()).header("last-event-id", cursor)).await.unwrap();
            assert_eq!((answer.status(), answer.error_code().as_deref()), (404, Some("request_not_found")), "{path}");
        }
    }
    for how in ["messages", "messages/stream"] {
        let repeated = Request::post(format!("/api/threads/{thread}/{how}"), body).header("idempotency-key", "k");
        let answer = gateway.client.send(repeated).await.unwrap();
        assert_eq!((answer.status(), answer.error_code().as_deref()), (404, Some("thread_not_found")), "{how}");
    }
    let joined = gateway.client.get(&format!("/api/threads/{thread}/stream")).await.unwrap();
    assert_eq!((joined.status(), joined.error_code().as_deref()), (404, Some("thread_not_found")));
}

#[actix_web::test]
async fn a_deleted_threads_answers_are_gone_from_memory_too() {
    for is_running in [false, true] {
        let gateway = Gateway::start().await;
        let (thread, other) = (gateway.thread().await, gateway.thread().await);
        let mut body = message("hello", if is_running { "gate@after=1" } else { "mock" });
        body["request_id"] = "secret".into();
        let request = Request::post(format!("/api/threads/{thread}/messages/stream"), &body);
        let mut events = gateway.open(request.header("idempotency-key", "k")).await;
        events.next_named("delta").await;
        // The same answer in another thread stays.
        let mut shared = body.clone();
        shared["request_id"] = "kept".into();
        let mut follower = gateway.stream(&other, &shared).await;
        follower.next_named("delta").await;
        if !is_running {
            events.rest().await;
        }

        let deleted = gateway.client.send(Request::new("DELETE", format!("/api/threads/{thread}"))).await.unwrap();

        assert_eq!(deleted.status(), 204);
        check_gone(&gateway, &thread, &body).await;
        gateway.mock.open_gate();
        assert_eq!(done(&follower.rest().await)["status"], "complete");
        assert_eq!(gateway.get("/api/requests/kept").await["status"], "complete");
        // Its name and its key are free for another request.
        let again = Request::post(format!("/api/threads/{other}/messages"), &{
            let mut again = message("something else", "mock");
            again["request_id"] = "secret".into();
            again
        });
        let again = gateway.client.send(again.header("idempotency-key", "k")).await.unwrap();
        assert_eq!(again.status(), 200, "{}", again.json());
        gateway.at_rest().await;
    }
}

#[actix_web::test]
async fn images_go_upstream_as_parts() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("what is this?", "mock");
    body["attachments"] = json!([{ "type": "image/png", "url": "data:image/png;base64,AAAA" }]);

    let answer = gateway.send(&thread, &body).await;

    assert_eq!(answer.status(), 200, "{}", answer.json());
    let sent = gateway.mock.last_call().unwrap().json();
    assert_eq!(sent["messages"][0]["content"][1]["image_url"]["url"], "data:image/png;base64,AAAA");
    assert_eq!(gateway.read(&thread).await["messages"][0]["content"][0]["text"], "what is this?");
}

#[actix_web::test]
async fn a_message_that_is_not_kept_in_time_is_refused_and_leaves_nothing_running() {
    let gateway = Gateway::with_store("write_wait_max_ms = 100").await;
    let thread = gateway.thread().await;
    let other = rusqlite::Connection::open(gateway.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let refused = gateway.send(&thread, &message("hello", "silent")).await;

    assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("storage")));
    gateway.at_rest().await;
    other.execute_batch("COMMIT").unwrap();
    let path = format!("/api/threads/{thread}");
    // It was on its way, and is kept after all.
    let read = gateway.until(&path, |thread| thread["messages"][1]["status"] == "error").await;
    assert_eq!(read["messages"][1]["meta"]["error"]["code"], "storage");
    let next = gateway.send(&thread, &message("hello again", "mock")).await;
    assert_eq!(next.status(), 200, "{}", next.json());
}
