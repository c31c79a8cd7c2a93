//! `/v1/chat/completions`: what OpenAI's clients read, down to the lines.

use load::client::{Arrived, Request, Response, openai_text_of};
use load::mock::{expected_reasoning, expected_text};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::gateway::{FAST, Gateway, PATIENCE};

const PATH: &str = "/v1/chat/completions";

/// A request to the mock, as its clients write it.
pub(crate) fn ask(model: &str, more: &Value) -> Value {
    let mut body = json!({ "model": format!("mock/{model}"), "messages": [{ "role": "user", "content": "hello" }] });
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body
}

/// The same, streamed.
pub(crate) fn ask_streamed(model: &str, more: &Value) -> Request {
    let mut body = ask(model, more);
    body["stream"] = true.into();
    Request::post(PATH, &body)
}

/// The whole answer to a request, streamed or not.
pub(crate) async fn answered(gateway: &Gateway, request: Request) -> Response {
    timeout(PATIENCE, gateway.client.send(request)).await.expect("an answer in time").unwrap()
}

/// Asks without streaming.
pub(crate) async fn whole(gateway: &Gateway, model: &str, more: &Value) -> Response {
    answered(gateway, Request::post(PATH, &ask(model, more))).await
}

/// The data of a stream's events, in order.
fn data_of(events: &[Arrived]) -> Vec<String> {
    events.iter().map(|arrived| arrived.event.data.clone()).collect()
}

/// The JSON of a stream's events; `[DONE]` is a text.
fn chunks_of(events: &[Arrived]) -> Vec<Value> {
    let json = |data: String| serde_json::from_str(&data).unwrap_or(Value::String(data));
    data_of(events).into_iter().map(json).collect()
}

async fn streamed(gateway: &Gateway, model: &str, more: &Value) -> Vec<Value> {
    chunks_of(&gateway.open(ask_streamed(model, more)).await.rest().await)
}

// --- Framing ------------------------------------------------------------------

#[actix_web::test]
async fn a_stream_is_lines_of_data_with_role_text_finish_and_done() {
    let gateway = Gateway::start().await;
    let model = "text@tokens=40";

    let response = answered(&gateway, ask_streamed(model, &json!({}))).await;

    assert_eq!(response.status(), 200);
    let header = |name| response.head.header(name);
    assert_eq!(header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(header("cache-control"), Some("no-cache, no-store, no-transform"));
    assert_eq!((header("x-accel-buffering"), header("content-encoding")), (Some("no"), None));
    assert!(header("x-stream-id").is_some_and(|id| id.starts_with("s_")));
    let text = String::from_utf8(response.body.to_vec()).unwrap();
    assert!(!text.contains('\r') && text.ends_with("\n\ndata: [DONE]\n\n"), "{text}");
    assert_eq!(text.matches("[DONE]\n").count(), 1);
    for frame in text.trim_end().split("\n\n") {
        assert!(frame.starts_with("data: ") && !frame.contains('\n'), "{frame:?}");
        assert!(!frame.contains("\"error\""), "{frame:?}");
    }
    let chunks: Vec<Value> =
        text.split("\n\n").filter_map(|frame| serde_json::from_str(frame.get(6..)?).ok()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, expected_text(model, "hello"));
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]));
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"].as_str(), response.head.header("x-request-id"));
        assert_eq!((&chunk["model"], &chunk["created"]), (&chunks[0]["model"], &chunks[0]["created"]));
        assert_eq!(chunk.get("usage"), None);
    }
}

#[actix_web::test]
async fn usage_comes_last_when_it_is_asked_for() {
    let gateway = Gateway::start().await;

    let chunks = streamed(&gateway, "text@tokens=5", &json!({ "stream_options": { "include_usage": true } })).await;

    let [before @ .., usage, done] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert_eq!(done, "[DONE]");
    assert_eq!(usage["choices"], json!([]));
    let counts = ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| usage["usage"][name].as_u64());
    assert_eq!(counts, [Some(1), Some(5), Some(6)]);
    assert!(before.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)), "{before:?}");
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[actix_web::test]
async fn without_streaming_the_answer_is_one_completion() {
    let gateway = Gateway::start().await;
    let model = "text@tokens=5";

    let response = whole(&gateway, model, &json!({})).await;

    assert_eq!(response.status(), 200);
    let completion = response.json();
    assert_eq!(completion["object"], "chat.completion");
    assert_eq!(completion["id"].as_str(), response.head.header("x-request-id"));
    let choice = &completion["choices"][0];
    let message = json!({ "role": "assistant", "content": expected_text(model, "hello"), "refusal": null });
    assert_eq!((&choice["message"], &choice["finish_reason"]), (&message, &json!("stop")));
    assert_eq!(completion["usage"]["total_tokens"], 6);
    assert_eq!(completion["model"], "mock-1", "the model is the one that the provider reports");
}

#[actix_web::test]
async fn calls_of_tools_come_in_pieces_and_whole() {
    let gateway = Gateway::start().await;
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "forecast", "parameters": {} } }] });

    let chunks = streamed(&gateway, "tool_call", &tools).await;
    let completion = whole(&gateway, "tool_call", &tools).await.json();

    let calls: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]).collect();
    let calls: Vec<&Value> = calls.into_iter().filter(|call| !call.is_null()).collect();
    let first = json!({
        "index": 0, "id": "call_1", "type": "function", "function": { "name": "forecast", "arguments": "" },
    });
    assert_eq!(*calls[0], first);
    assert!(calls[1..].iter().all(|call| call.get("id").is_none() && call["index"] == 0), "{calls:?}");
    let arguments: String = calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, "{\"city\":\"Zürich\",\"days\":3}");
    let finish = &chunks[chunks.len() - 2]["choices"][0]["finish_reason"];
    assert_eq!(finish, "tool_calls");
    let choice = &completion["choices"][0];
    let function = json!({ "name": "forecast", "arguments": arguments });
    let call = json!({ "id": "call_1", "type": "function", "function": function });
    assert_eq!(
        choice["message"],
        json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": [call] })
    );
    assert_eq!(choice["finish_reason"], "tool_calls");
}

#[actix_web::test]
async fn reasoning_is_told_as_reasoning_content() {
    let gateway = Gateway::start().await;
    let model = "reasoning@tokens=3";

    let chunks = streamed(&gateway, model, &json!({})).await;
    let completion = whole(&gateway, model, &json!({})).await.json();

    let delta =
        |name: &str| chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect::<String>();
    assert_eq!(delta("reasoning_content"), expected_reasoning(model, "hello"));
    assert_eq!(delta("content"), expected_text(model, "hello"));
    let message = &completion["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], expected_reasoning(model, "hello"));
}

#[actix_web::test]
async fn sources_are_told_as_citations() {
    let gateway = Gateway::start().await;
    let body = json!({
        "model": "demo/demo", "stream": true,
        "messages": [{ "role": "user", "content": "be fast, write 30 words and cite" }],
    });

    let chunks = chunks_of(&gateway.open(Request::post(PATH, &body)).await.rest().await);

    let finish = chunks.iter().find(|chunk| chunk["choices"][0]["finish_reason"] == "stop").unwrap();
    let urls = finish["citations"].as_array().unwrap();
    assert!(!urls.is_empty() && urls.iter().all(|url| url.as_str().unwrap().starts_with("https://")), "{urls:?}");
    assert_eq!(finish["search_results"].as_array().unwrap().len(), urls.len());
}

// --- Failures -----------------------------------------------------------------

#[actix_web::test]
async fn a_failure_before_the_first_event_has_its_status_and_says_when_to_try_again() {
    let model = "rate_limited@after_s=7";
    for request in [ask_streamed(model, &json!({})), Request::post(PATH, &ask(model, &json!({})))] {
        let gateway = Gateway::with_provider(&format!("{FAST}\nqueue_wait_max_ms = 500\nretries_max = 0")).await;

        let refused = answered(&gateway, request).await;

        assert_eq!(refused.status(), 429);
        let header = |name| refused.head.header(name);
        assert_eq!((header("retry-after"), header("retry-after-ms")), (Some("7"), Some("7000")));
        assert_eq!(header("x-should-retry"), Some("true"));
        let error = &refused.json()["error"];
        assert_eq!((&error["code"], &error["type"]), (&json!("upstream_rate_limit"), &json!("rate_limit_error")));
        assert_eq!(error["request_id"].as_str(), header("x-request-id"));
        gateway.at_rest().await;
    }
}

#[actix_web::test]
async fn a_failure_that_no_retry_can_help_says_so() {
    let gateway = Gateway::start().await;

    let refused = answered(&gateway, ask_streamed("quota", &json!({}))).await;

    assert_eq!((refused.status(), refused.head.header("x-should-retry")), (429, Some("false")));
    assert_eq!(refused.json()["error"]["type"], "insufficient_quota");
}

#[actix_web::test]
async fn a_failure_in_the_middle_is_an_error_event_and_no_done() {
    let gateway = Gateway::start().await;
    for (model, code) in [("error_frame@after=3", "upstream_error"), ("drop@after=3", "upstream_truncated")] {
        let events = gateway.open(ask_streamed(model, &json!({}))).await.rest().await;

        assert_eq!(openai_text_of(&events), expected_text(model, "hello"));
        let chunks = chunks_of(&events);
        let error = &chunks.last().unwrap()["error"];
        assert_eq!((&error["code"], &error["phase"]), (&json!(code), &json!("mid_stream")));
        assert!(error["message"].is_string() && error["type"].is_string());
        assert_eq!(chunks.iter().filter(|chunk| chunk.get("error").is_some()).count(), 1);
        assert!(chunks.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()), "{chunks:?}");

        let failed = whole(&gateway, model, &json!({})).await;
        assert_eq!((failed.status(), failed.error_code().as_deref()), (502, Some(code)));
    }
}

#[actix_web::test]
async fn the_status_waits_for_the_provider_only_so_long() {
    let gateway = Gateway::with_server("openai_hold_ms = 20\n").await;

    let mut events = gateway.open(ask_streamed("gate@after=0,tokens=3", &json!({}))).await;
    gateway.called(|counts| counts.answers_held == 1).await;
    gateway.mock.open_gate();
    let events = events.rest().await;

    assert_eq!(data_of(&events).last().unwrap(), "[DONE]");
    let failed = answered(&gateway, ask_streamed("slow_head@hold_ms=400,tokens=0", &json!({}))).await;
    assert!(failed.body.starts_with(b": keep-alive\n\n"), "{:?}", failed.body);
}

#[actix_web::test]
async fn a_cancel_by_the_id_of_a_chunk_ends_the_stream_with_an_error() {
    let gateway = Gateway::start().await;
    let mut events = gateway.open(ask_streamed("stall@after=2", &json!({}))).await;
    let first = events.next().await.unwrap().unwrap().event.json();

    let cancel = gateway.cancel(first["id"].as_str().unwrap()).await;

    assert_eq!(cancel.json()["upstream"], "aborted");
    let chunks = chunks_of(&events.rest().await);
    assert_eq!(chunks.last().unwrap()["error"]["code"], "cancelled");
    gateway.at_rest().await;
}

// --- Leaving ------------------------------------------------------------------

#[actix_web::test]
async fn a_client_that_leaves_cancels_its_call_in_every_phase() {
    for (model, has_begun) in [("silent", false), ("slow_head@hold_ms=60000", false), ("stall@after=2", true)] {
        let gateway = Gateway::start().await;
        let mut connection = gateway.client.connect().await.unwrap();
        connection.write(&gateway.client.complete(ask_streamed(model, &json!({})))).await.unwrap();
        gateway.called(|counts| counts.calls_started == 1).await;
        if has_begun {
            assert_eq!(connection.read_head(false).await.unwrap().status, 200);
        }

        drop(connection);

        gateway.called(|counts| counts.calls_aborted == 1).await;
        gateway.at_rest().await;
    }
}

#[actix_web::test]
async fn a_client_that_leaves_while_it_waits_for_a_whole_answer_cancels_its_call() {
    let gateway = Gateway::start().await;
    let mut connection = gateway.client.connect().await.unwrap();
    connection.write(&gateway.client.complete(Request::post(PATH, &ask("stall@after=2", &json!({}))))).await.unwrap();
    gateway.called(|counts| counts.calls_started == 1).await;

    drop(connection);

    gateway.called(|counts| counts.calls_aborted == 1).await;
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_client_that_leaves_a_shared_answer_leaves_it_to_the_others() {
    let gateway = Gateway::start().await;
    let model = "gate@after=1";
    let mut first = gateway.open(ask_streamed(model, &json!({ "temperature": 0 }))).await;
    first.next().await.unwrap();
    let mut second = gateway.open(ask_streamed(model, &json!({ "temperature": 0 }))).await;
    second.next().await.unwrap();

    drop(first);
    gateway.until_listeners(1).await;
    gateway.mock.open_gate();

    assert_eq!(openai_text_of(&second.rest().await), expected_text(model, "hello"));
    assert_eq!(gateway.mock.counts().calls_started, 1);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn nothing_is_kept_in_threads() {
    let gateway = Gateway::start().await;

    whole(&gateway, "text", &json!({})).await;
    answered(&gateway, ask_streamed("text", &json!({}))).await;

    assert_eq!(gateway.get("/api/threads").await, json!([]));
    let report = gateway.get("/api/metrics/performance").await;
    assert_eq!(report["window"]["count"], 2);
}
