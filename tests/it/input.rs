//! Garbage in any field or header gets a 4xx that names it; nothing is lost and nothing is started upstream.

use load::client::Request;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, message};

/// A field, a bad value for it, the name in the error, the status.
fn bad_fields() -> Vec<(&'static str, Value, &'static str, u16)> {
    let long = "x".repeat(300_000);
    vec![
        ("content", json!(null), "content", 400),
        ("content", json!(""), "content", 400),
        ("content", json!("  \n"), "content", 400),
        ("content", json!(7), "content", 400),
        ("content", json!([]), "content", 400),
        ("content", json!([{"type": "my secret prompt"}]), "content[0]", 400),
        ("content", json!([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), "content", 400),
        ("content", json!(long.clone()), "content", 413),
        ("role", json!("system"), "role", 400),
        ("role", json!(1), "role", 400),
        ("provider", json!("none"), "provider", 400),
        ("provider", json!({}), "provider", 400),
        ("model", json!("no such?model"), "model", 400),
        ("model", json!([]), "model", 400),
        ("temperature", json!(2.5), "temperature", 400),
        ("temperature", json!("hot"), "temperature", 400),
        ("max_tokens", json!(0), "max_tokens", 400),
        ("max_tokens", json!(1.5), "max_tokens", 400),
        ("max_tokens", json!(1e30), "max_tokens", 400),
        ("tools", json!("all"), "tools", 400),
        ("tools", json!([{"type": "hammer"}]), "tools[0]", 400),
        ("request_id", json!("a b"), "request_id", 400),
        ("request_id", json!(""), "request_id", 400),
        ("coalesce", json!("yes"), "coalesce", 400),
        ("user_id", json!("u".repeat(200)), "user_id", 400),
        ("attachments", json!([{"type": "pdf", "url": "https://x"}]), "attachments[0]", 422),
        ("attachments", json!([{"url": "https://x", "mime_type": {}}]), "attachments[0]", 400),
        ("attachments", json!("x"), "attachments", 400),
        ("attachments", json!([{"url": "https://x"}, {"url": "file:///etc/passwd"}]), "attachments[1]", 400),
        ("attachments", json!([{"url": format!("data:image/png;base64,{long}")}]), "attachments", 413),
        ("use_memory", json!(3), "use_memory", 400),
        ("collaboration_mode", json!(true), "collaboration_mode", 422),
        ("temprature", json!(1), "temprature", 400),
    ]
}

#[actix_web::test]
async fn every_bad_field_of_a_message_is_named() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    for route in ["messages", "messages/stream"] {
        for (field, value, param, status) in bad_fields() {
            let mut body = message("hello", "mock");
            body[field] = value.clone();
            let answer = gateway.client.post(&format!("/api/threads/{thread}/{route}"), &body).await.unwrap();

            let error = answer.json()["error"].clone();
            assert_eq!((answer.status(), error["param"].as_str()), (status, Some(param)), "{field}: {error}");
            assert!(error["request_id"].is_string() && error["message"].is_string(), "{error}");
        }
    }
    assert_eq!(gateway.mock.counts().calls_started, 0);
    assert_eq!(gateway.read(&thread).await["messages"], json!([]));
}

#[actix_web::test]
async fn every_bad_header_is_named() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let long = "k".repeat(300);
    let headers = [
        ("x-org-id", "../other", "x-org-id", 400),
        ("x-request-id", "a b", "X-Request-Id", 400),
        ("idempotency-key", long.as_str(), "Idempotency-Key", 400),
        ("x-coalesce", "banana", "X-Coalesce", 400),
        ("content-encoding", "gzip", "Content-Encoding", 415),
    ];
    for (name, value, param, status) in headers {
        let path = format!("/api/threads/{thread}/messages");
        let request = Request::post(path, &message("hello", "mock")).header(name, value);
        let answer = gateway.client.send(request).await.unwrap();

        assert_eq!((answer.status(), answer.json()["error"]["param"].as_str()), (status, Some(param)), "{name}");
    }
    let mut body = message("hello", "mock");
    body["request_id"] = json!("good");
    let request = Request::post(format!("/api/threads/{thread}/messages"), &body).header("x-request-id", "a b");
    let answer = gateway.client.send(request).await.unwrap();
    assert_eq!(answer.json()["error"]["param"], "X-Request-Id", "also where the body has another one");
    assert_eq!(gateway.mock.counts().calls_started, 0);
}

#[actix_web::test]
async fn a_request_may_say_twice_that_it_shares_no_call() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "mock");
    body["coalesce"] = json!(false);
    let request = Request::post(format!("/api/threads/{thread}/messages"), &body).header("x-coalesce", "off");

    let answer = gateway.client.send(request).await.unwrap();

    assert_eq!(answer.status(), 200, "{}", answer.json());
}

#[actix_web::test]
async fn attachments_come_with_a_content_and_none_are_the_same_as_nothing() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/regenerate");
    let ask = async |attachments: Value| {
        let answer = gateway.client.post(&path, &json!({ "attachments": attachments })).await.unwrap();
        let error = answer.json()["error"].clone();
        (answer.status(), error["param"].as_str().map(str::to_owned))
    };

    // The thread has nothing that could be answered anew.
    assert_eq!(ask(json!(null)).await, (422, None));
    assert_eq!(ask(json!([])).await, (422, None));
    assert_eq!(ask(json!([{ "url": "https://x" }])).await, (400, Some("content".to_owned())));
}

#[actix_web::test]
async fn a_body_that_is_not_what_it_should_be_is_refused() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = || format!("/api/threads/{thread}/messages");
    let json =
        |body: &str| Request::new("POST", path()).header("content-type", "application/json").body(body.to_owned());
    let cases = [
        (json("{\"content\": "), 400, "invalid_json"),
        (json("[]"), 400, "invalid_request"),
        (json("\u{0}"), 400, "invalid_json"),
        (json(&format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000))), 400, "invalid_json"),
        (json(&format!("{{\"content\": \"{}\"}}", "x".repeat(2_000_000))), 413, "too_large"),
        (Request::new("POST", path()).header("content-type", "text/plain").body("{}"), 415, "unsupported_media_type"),
    ];
    for (request, status, code) in cases {
        let answer = gateway.client.send(request).await.unwrap();

        assert_eq!((answer.status(), answer.error_code().as_deref()), (status, Some(code)));
    }
}

#[actix_web::test]
async fn unknown_paths_methods_and_things_are_told_apart() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let cases = [
        (Request::get("/nowhere"), 404, "not_found"),
        (Request::new("PUT", "/api/threads"), 405, "method_not_allowed"),
        (Request::get("/api/threads/t_none"), 404, "thread_not_found"),
        (Request::post("/api/threads/t_none/messages", &message("hello", "mock")), 404, "thread_not_found"),
        (Request::post("/api/threads/t_none/stop", &json!({})), 404, "thread_not_found"),
        (Request::new("DELETE", "/api/threads/t_none"), 404, "thread_not_found"),
        (Request::get("/api/threads?limit=0"), 400, "invalid_request"),
        (Request::get("/api/threads?before=x"), 400, "invalid_request"),
        (Request::get("/api/metrics/performance?last_n=-1"), 400, "invalid_request"),
        (Request::get(format!("/api/threads/{thread}?limit=x")), 400, "invalid_request"),
        (Request::get(format!("/api/threads/{}", "x".repeat(9_000))), 414, "uri_too_long"),
        (Request::get("/health").header("x-long", "x".repeat(20_000)), 431, "headers_too_large"),
    ];
    for (request, status, code) in cases {
        let answer = gateway.client.send(request.clone()).await.unwrap();

        assert_eq!((answer.status(), answer.error_code().as_deref()), (status, Some(code)), "{request:?}");
        assert!(answer.head.header("x-request-id").is_some());
    }
}

#[actix_web::test]
async fn a_trailing_slash_changes_nothing() {
    let gateway = Gateway::start().await;

    assert_eq!(gateway.client.get("/health/").await.unwrap().status(), 200);
    assert_eq!(gateway.client.post("/api/threads/", &json!({})).await.unwrap().status(), 201);
}
