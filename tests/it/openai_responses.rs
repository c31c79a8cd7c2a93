//! `/v1/responses`: the events that OpenAI's clients put a response together from, and what may be asked for.

use load::client::{Arrived, Request, Response};
use load::mock::{expected_reasoning, expected_text};
use serde_json::{Value, json};

use crate::openai::answered;
use crate::support::gateway::{FAST, Gateway};

const PATH: &str = "/v1/responses";

fn ask(model: &str, more: &Value) -> Value {
    let mut body = json!({ "model": format!("mock/{model}"), "input": "hello" });
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body
}

fn ask_streamed(model: &str, more: &Value) -> Request {
    let mut body = ask(model, more);
    body["stream"] = true.into();
    Request::post(PATH, &body)
}

async fn whole(gateway: &Gateway, model: &str, more: &Value) -> Response {
    answered(gateway, Request::post(PATH, &ask(model, more))).await
}

/// The events of a stream. What holds for every stream is looked at on the way.
async fn events(gateway: &Gateway, model: &str, more: &Value) -> Vec<Value> {
    let arrived: Vec<Arrived> = gateway.open(ask_streamed(model, more)).await.rest().await;
    let events: Vec<Value> = arrived.iter().map(|arrived| arrived.event.json()).collect();
    for (number, (arrived, event)) in arrived.iter().zip(&events).enumerate() {
        assert_eq!(event["type"].as_str(), Some(&*arrived.event.name));
        assert_eq!(event["sequence_number"], number);
        assert_eq!(arrived.event.id, None);
    }
    events
}

fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.dedup();
    types
}

fn said(events: &[Value], kind: &str) -> String {
    let deltas = events.iter().filter(|event| event["type"] == kind);
    deltas.map(|event| event["delta"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn a_text_is_an_item_that_opens_grows_and_closes() {
    let gateway = Gateway::start().await;
    let model = "text@tokens=5";

    let events = events(&gateway, model, &json!({ "instructions": "be brief" })).await;

    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types(&events), expected);
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(said(&events, "response.output_text.delta"), expected_text(model, "hello"));
    let [.., text, _, item, completed] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(text["text"], expected_text(model, "hello"));
    let response = &completed["response"];
    assert_eq!(response["output"], json!([item["item"]]));
    assert_eq!((&response["status"], &response["id"]), (&json!("completed"), &events[0]["response"]["id"]));
    let facts = ["store", "previous_response_id", "error", "incomplete_details"].map(|name| &response[name]);
    assert_eq!(facts, [&json!(false), &Value::Null, &Value::Null, &Value::Null]);
    assert_eq!(response["instructions"], "be brief");
    let usage = ["input_tokens", "output_tokens", "total_tokens"].map(|name| response["usage"][name].as_u64());
    assert_eq!(usage, [Some(1), Some(5), Some(6)]);
}

#[actix_web::test]
async fn reasoning_and_calls_are_items_of_their_own() {
    let gateway = Gateway::start().await;
    let model = "reasoning@tokens=3";

    let reasoned = events(&gateway, model, &json!({})).await;
    let called = events(&gateway, "tool_call", &json!({ "tools": [{ "type": "function", "name": "forecast" }] })).await;

    assert_eq!(said(&reasoned, "response.reasoning_summary_text.delta"), expected_reasoning(model, "hello"));
    let output = &reasoned.last().unwrap()["response"]["output"];
    assert_eq!((&output[0]["type"], &output[1]["type"]), (&json!("reasoning"), &json!("message")));
    assert_eq!(output[0]["summary"][0]["text"], expected_reasoning(model, "hello"));
    let arguments = "{\"city\":\"Zürich\",\"days\":3}";
    assert_eq!(said(&called, "response.function_call_arguments.delta"), arguments);
    let response = &called.last().unwrap()["response"];
    let call = &response["output"][0];
    assert_eq!((&call["type"], &call["call_id"]), (&json!("function_call"), &json!("call_1")));
    assert_eq!((&call["arguments"], &call["status"]), (&json!(arguments), &json!("completed")));
    assert_eq!(response["tools"], json!([{ "type": "function", "name": "forecast" }]));
}

#[actix_web::test]
async fn without_streaming_the_same_items_come_whole() {
    let gateway = Gateway::start().await;
    for model in ["text@tokens=5", "reasoning@tokens=3", "tool_call"] {
        let streamed = events(&gateway, model, &json!({})).await.pop().unwrap()["response"].clone();

        let response = whole(&gateway, model, &json!({})).await;

        assert_eq!(response.status(), 200);
        let mut response = response.json();
        // Only what belongs to each request differs.
        let id = |response: &Value| response["id"].as_str().unwrap().to_owned();
        let same = streamed.to_string().replace(&id(&streamed), &id(&response));
        let same: Value = serde_json::from_str(&same).unwrap();
        response["created_at"] = same["created_at"].clone();
        assert_eq!(response, same);
    }
}

#[actix_web::test]
async fn a_failure_has_its_status_before_and_an_event_after_the_first_one() {
    let gateway = Gateway::with_provider(&format!("{FAST}\nretries_max = 0")).await;

    let refused = answered(&gateway, ask_streamed("server_error", &json!({}))).await;
    let failed = events(&gateway, "error_frame@after=2", &json!({})).await.pop().unwrap();
    let never_whole = whole(&gateway, "error_frame@after=2", &json!({})).await;

    assert_eq!((refused.status(), refused.error_code().as_deref()), (502, Some("upstream_error")));
    assert_eq!((&failed["type"], &failed["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(failed["response"]["error"]["code"], "upstream_error");
    assert_eq!(never_whole.status(), 502);
}

#[actix_web::test]
async fn an_answer_that_hit_its_limit_is_incomplete() {
    let gateway = Gateway::start().await;
    let body = json!({
        "model": "demo/demo", "input": "be fast, write 300 words", "max_output_tokens": 10, "stream": true,
    });

    let events = gateway.open(Request::post(PATH, &body)).await.rest().await;

    let last = events.last().unwrap().event.json();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({ "reason": "max_output_tokens" }));
}

#[actix_web::test]
async fn what_goes_to_a_provider_of_chat_completions_is_in_its_words() {
    let gateway = Gateway::start().await;
    let input = json!([
        { "role": "developer", "content": "speak plainly" },
        { "type": "message", "role": "user", "content": [
            { "type": "input_text", "text": "look" },
            { "type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low" },
        ] },
        { "type": "reasoning", "id": "rs_1", "summary": [] },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "a look" }] },
        { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" },
        { "type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c1", "output": "one" },
        { "type": "function_call_output", "call_id": "c2", "output": [{ "type": "input_text", "text": "two" }] },
        { "role": "user", "content": "hello" },
    ]);
    let schema = json!({ "type": "object" });
    let more = json!({
        "input": input, "instructions": "be brief", "max_output_tokens": 9, "store": true, "top_p": 0.5, "top_k": 3,
        "tools": [{ "type": "function", "name": "f", "parameters": schema, "strict": true }],
        "tool_choice": { "type": "function", "name": "f" }, "reasoning": { "effort": "low" },
        "text": { "format": { "type": "json_schema", "name": "s", "schema": schema }, "verbosity": "low" },
        "include": ["reasoning.encrypted_content"], "truncation": "auto",
    });

    let answer = whole(&gateway, "text", &more).await;

    assert_eq!(answer.status(), 200, "{}", answer.json());
    let function = json!({ "name": "f", "arguments": "{}" });
    let calls = ["c1", "c2"].map(|id| json!({ "id": id, "type": "function", "function": function }));
    let expected = json!({
        "model": "text", "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 9, "top_p": 0.5,
        "top_k": 3, "reasoning_effort": "low", "verbosity": "low",
        "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": schema } },
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": schema, "strict": true } }],
        "tool_choice": { "type": "function", "function": { "name": "f" } },
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "system", "content": "speak plainly" },
            { "role": "user", "content": [
                { "type": "text", "text": "look" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA", "detail": "low" } },
            ] },
            { "role": "assistant", "content": "a look", "tool_calls": calls },
            { "role": "tool", "tool_call_id": "c1", "content": "one" },
            { "role": "tool", "tool_call_id": "c2", "content": "two" },
            { "role": "user", "content": "hello" },
        ],
    });
    assert_eq!(gateway.mock.last_call().unwrap().json(), expected);
}

#[actix_web::test]
async fn what_would_need_something_kept_is_refused() {
    let gateway = Gateway::start().await;
    let input = |item: Value| json!([item]);
    let image = json!({ "type": "input_image", "image_url": "https://x", "detail": {} });
    let cases = [
        ("previous_response_id", json!("resp_1"), "previous_response_id", 400),
        ("conversation", json!("conv_1"), "conversation", 400),
        ("prompt", json!({ "id": "p" }), "prompt", 400),
        ("background", json!(true), "background", 400),
        ("input", json!(null), "input", 400),
        ("input", json!([]), "input", 400),
        ("input", input(json!({ "type": "item_reference", "id": "x" })), "input[0]", 400),
        ("input", input(json!({ "type": "computer_call" })), "input[0].type", 422),
        ("input", input(json!({ "role": "robot", "content": "x" })), "input[0].role", 400),
        ("input", input(json!({ "role": "user", "content": 1 })), "input[0].content", 400),
        (
            "input",
            input(json!({ "role": "user", "content": [{ "type": "input_file" }] })),
            "input[0].content[0].type",
            422,
        ),
        ("input", input(json!({ "role": "user", "content": [image] })), "input[0].content[0]", 400),
        ("input", input(json!({ "type": {}, "role": "user", "content": "x" })), "input[0].type", 400),
        ("input", input(json!({ "type": "function_call", "name": "f" })), "input[0]", 400),
        ("input", input(json!({ "type": "function_call_output", "output": "x" })), "input[0].call_id", 400),
        ("input", input(json!({ "type": "reasoning", "summary": [] })), "input", 400),
        ("tools", json!([{ "type": "function" }]), "tools[0]", 400),
        ("max_output_tokens", json!(0), "max_output_tokens", 400),
    ];
    for (field, value, param, status) in cases {
        let refused = whole(&gateway, "text", &json!({ field: value })).await;

        let error = &refused.json()["error"];
        assert_eq!((refused.status(), error["param"].as_str()), (status, Some(param)), "{field}: {error}");
    }
    assert_eq!(gateway.mock.counts().calls_started, 0);
}

#[actix_web::test]
async fn a_client_that_leaves_cancels_its_call() {
    let gateway = Gateway::start().await;
    let mut events = gateway.open(ask_streamed("stall@after=2", &json!({}))).await;
    events.next_named("response.output_text.delta").await;

    drop(events);

    gateway.called(|counts| counts.calls_aborted == 1).await;
    gateway.at_rest().await;
}
