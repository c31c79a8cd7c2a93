//! What goes out, and what refusals mean. What comes in is tested by fixtures (`tests/fixtures`).

use serde_json::{Value, json};

use super::OpenaiResponses;
use crate::chat::{ChatMessage, ChatRequest, Content, ImageUrl, Part, ProviderName, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::providers::{Adapter, Head};

fn request(messages: Vec<ChatMessage>) -> ChatRequest {
    ChatRequest {
        provider: ProviderName::new("p"),
        model: "heron/m".into(),
        system: None,
        messages,
        temperature: None,
        max_tokens: None,
        tools: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

fn body(adapter: OpenaiResponses, request: &ChatRequest) -> Value {
    serde_json::from_slice(&adapter.encode(request).unwrap().body).unwrap()
}

fn openai(request: &ChatRequest) -> Value {
    body(OpenaiResponses::OPENAI, request)
}

fn perplexity(request: &ChatRequest) -> Value {
    body(OpenaiResponses::PERPLEXITY, request)
}

fn hi() -> ChatRequest {
    request(vec![ChatMessage::text(Role::User, "hi")])
}

fn hi_with(extra: &Value) -> ChatRequest {
    ChatRequest { extra: extra.as_object().unwrap().clone(), ..hi() }
}

fn called(name: &str, arguments: &str, opaque: Vec<Value>) -> ChatMessage {
    let call = ToolCall { index: 0, id: "c".into(), name: name.into(), arguments: arguments.into() };
    ChatMessage { tool_calls: vec![call], opaque, ..ChatMessage::text(Role::Assistant, "") }
}

fn answered(text: &str) -> ChatMessage {
    ChatMessage { tool_call_id: Some("c".into()), ..ChatMessage::text(Role::Tool, text) }
}

#[test]
fn a_request_streams_and_is_stored_nowhere() {
    let input = json!([{"type": "message", "role": "user", "content": "hi"}]);

    assert_eq!(openai(&hi()), json!({"model": "heron/m", "input": input, "stream": true, "store": false}));
    assert_eq!(perplexity(&hi()), json!({"model": "heron/m", "input": input, "stream": true}));
    assert_eq!(OpenaiResponses::OPENAI.encode(&hi()).unwrap().path, "/responses");
    assert_eq!(OpenaiResponses::PERPLEXITY.encode(&hi()).unwrap().path, "/v1/agent");
}

#[test]
fn a_conversation_keeps_its_order_parts_and_calls() {
    let image = ImageUrl { url: "https://h/i.png".into(), detail: None };
    let parts = vec![Part::Text { text: "what?".into() }, Part::ImageUrl { image_url: image }];
    let asked = ChatMessage { content: Content::Parts(parts), ..ChatMessage::text(Role::User, "") };
    let mut messages = vec![ChatMessage::text(Role::System, "be kind"), asked, called("f", "{\"x\":1}", vec![])];
    messages.extend([answered("42"), ChatMessage::text(Role::Assistant, "It is 42.")]);
    let mut request = request(messages);
    request.system = Some("be brief".into());

    let sent = openai(&request);

    let expected = json!([
        {"type": "message", "role": "system", "content": "be kind"},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "what?"},
            {"type": "input_image", "image_url": "https://h/i.png", "detail": "auto"},
        ]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"x\":1}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"type": "message", "role": "assistant", "content": "It is 42."},
    ]);
    assert_eq!((&sent["input"], &sent["instructions"]), (&expected, &json!("be brief")));
    assert_eq!(
        perplexity(&request)["input"][1]["content"][1],
        json!({"type": "input_image", "image_url": "https://h/i.png"})
    );
}

#[test]
fn arguments_that_a_limit_has_cut_do_not_go_back() {
    for cut in ["{\"x\":", ""] {
        let request = request(vec![called("f", cut, vec![])]);

        assert_eq!(openai(&request)["input"][0]["arguments"], "{}", "{cut:?}");
    }
}

#[test]
fn calls_of_custom_tools_go_back_as_such() {
    let mut request = request(vec![called("sql", "select 1", vec![]), answered("1")]);
    let grammar = json!({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}});
    request.tools = vec![json!({"type": "custom", "custom": {"name": "sql", "format": grammar}})];

    let sent = openai(&request);

    let format = json!({"type": "grammar", "syntax": "lark", "definition": "start: X"});
    assert_eq!(sent["tools"], json!([{"type": "custom", "name": "sql", "format": format}]));
    let expected = json!([
        {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
    ]);
    assert_eq!(sent["input"], expected);
}

#[test]
fn signatures_go_back_where_they_belong() {
    let item = json!({"type": "reasoning", "summary": [], "encrypted_content": "e"});
    let opaque = vec![
        json!({"reasoning_item": item}),
        json!({"thought_signature": "s", "tool_call_id": "c"}),
        json!({"reasoning_detail": {"type": "reasoning.encrypted", "data": "another dialect's"}}),
        json!("nobody's"),
    ];
    let request = request(vec![called("f", "{}", opaque), answered("42")]);
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let result = json!({"type": "function_call_output", "call_id": "c", "output": "42"});

    assert_eq!(openai(&request)["input"], json!([item, call, result]));
    let with = |item: &Value, more: Value| {
        let mut item = item.clone();
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    let signed =
        [with(&call, json!({"thought_signature": "s"})), with(&result, json!({"name": "f", "thought_signature": "s"}))];
    assert_eq!(perplexity(&request)["input"], json!(signed));
}

#[test]
fn reasoning_that_led_to_nothing_stays_away() {
    let item = json!({"reasoning_item": {"type": "reasoning", "summary": [], "encrypted_content": "e"}});
    let cut = ChatMessage { opaque: vec![item], ..ChatMessage::text(Role::Assistant, "") };

    assert_eq!(openai(&request(vec![cut]))["input"], json!([]));
}

#[test]
fn reasoning_is_asked_for_where_the_model_has_any() {
    let include = |model: &str| openai(&ChatRequest { model: model.into(), ..hi() })["include"].take();
    for reasons in ["o3", "gpt-5", "gpt-5.6-luna", "openai/gpt-6-astra"] {
        assert_eq!(include(reasons), json!(["reasoning.encrypted_content"]), "{reasons}");
    }
    for other in ["gpt-4o", "gpt-5-chat-latest", "grok-4.3", "heron/m"] {
        assert_eq!(include(other), Value::Null, "{other}");
    }
    let extra = json!({"include": ["web_search_call.action.sources"], "logprobs": true, "store": true});
    let sent = openai(&ChatRequest { model: "o3".into(), ..hi_with(&extra) });
    let all = ["web_search_call.action.sources", "message.output_text.logprobs", "reasoning.encrypted_content"];
    assert_eq!((&sent["include"], &sent["store"]), (&json!(all), &json!(true)));
    assert_eq!(perplexity(&ChatRequest { model: "openai/gpt-5".into(), ..hi() }).get("include"), None);
}

#[test]
fn tools_lose_their_wrapping_and_keep_their_meaning() {
    let mut request = hi();
    request.tools = vec![
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}),
        json!({"type": "function", "function": {"name": "g", "strict": true}}),
        json!({"type": "web_search", "filters": {"search_recency_filter": "week"}}),
    ];

    let mut expected = json!([
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": false},
        {"type": "function", "name": "g", "strict": true},
        {"type": "web_search", "filters": {"search_recency_filter": "week"}},
    ]);
    assert_eq!(openai(&request)["tools"], expected);
    expected[0].as_object_mut().unwrap().remove("strict");
    assert_eq!(perplexity(&request)["tools"], expected);
}

#[test]
fn limits_are_ones_that_the_provider_takes() {
    let limit = |adapter, model: &str, max_tokens| {
        body(adapter, &ChatRequest { model: model.into(), max_tokens, ..hi() })["max_output_tokens"].take()
    };
    assert_eq!(limit(OpenaiResponses::OPENAI, "m", Some(900)), 900);
    assert_eq!(limit(OpenaiResponses::OPENAI, "m", Some(5)), 16);
    assert_eq!(limit(OpenaiResponses::OPENAI, "anthropic/m", None), Value::Null);
    assert_eq!(limit(OpenaiResponses::PERPLEXITY, "perplexity/m", Some(5)), 5);
    assert_eq!(limit(OpenaiResponses::PERPLEXITY, "perplexity/m", None), Value::Null);
    assert_eq!(limit(OpenaiResponses::PERPLEXITY, "anthropic/m", None), 8_192);
    let own = ChatRequest { model: "anthropic/m".into(), ..hi_with(&json!({"max_output_tokens": 70})) };
    assert_eq!(perplexity(&own)["max_output_tokens"], 70);
}

#[test]
fn a_model_of_perplexity_without_a_maker_is_a_preset() {
    let sent = perplexity(&ChatRequest { model: "fast".into(), ..hi() });

    assert_eq!((sent.get("model"), &sent["preset"]), (None, &json!("fast")));
}

#[test]
fn what_the_client_adds_travels_translated_but_decides_nothing() {
    let schema = json!({"name": "s", "schema": {"type": "object"}, "strict": true});
    let extra = json!({
        "background": true, "conversation": "conv_1", "input": "other", "messages": [], "model": "other",
        "models": ["other/m"], "preset": "other", "previous_response_id": "resp_0", "stream": false,
        "stream_options": {"include_usage": false, "include_obfuscation": false},
        "seed": 7, "n": 1, "max_tokens": 50, "reasoning_effort": "low", "reasoning": {"summary": "auto"},
        "verbosity": "low", "response_format": {"type": "json_schema", "json_schema": schema},
        "tool_choice": {"type": "function", "function": {"name": "f"}}, "stop": ["x"], "top_p": 0.5,
    });
    let request = ChatRequest { temperature: Some(0.5), ..hi_with(&extra) };
    let input = json!([{"type": "message", "role": "user", "content": "hi"}]);

    let expected = json!({
        "model": "heron/m", "input": input, "stream": true, "store": false, "temperature": 0.5, "top_p": 0.5,
        "stream_options": {"include_obfuscation": false}, "max_output_tokens": 50,
        "reasoning": {"effort": "low", "summary": "auto"}, "stop": ["x"],
        "text": {"verbosity": "low", "format":
            {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": true}},
        "tool_choice": {"type": "function", "name": "f"},
    });
    assert_eq!(openai(&request), expected);
    let expected = json!({
        "model": "heron/m", "input": input, "stream": true, "temperature": 0.5, "top_p": 0.5,
        "max_output_tokens": 50, "reasoning": {"effort": "low", "summary": "auto"}, "stop": ["x"],
        "verbosity": "low", "response_format": {"type": "json_schema", "json_schema": schema},
        "tool_choice": {"type": "function", "name": "f"},
    });
    assert_eq!(perplexity(&request), expected);
}

#[test]
fn a_choice_among_tools_is_translated_to_the_last_of_them() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let extra = json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}}});

    let expected = json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]});
    assert_eq!(openai(&hi_with(&extra))["tool_choice"], expected);
    assert_eq!(openai(&hi_with(&json!({"tool_choice": "none"})))["tool_choice"], "none");
}

#[test]
fn equal_requests_have_equal_bytes() {
    let with_extra = |order: [&str; 2]| {
        let mut request = hi();
        order.iter().for_each(|key| drop(request.extra.insert((*key).into(), json!("low"))));
        OpenaiResponses::OPENAI.encode(&request).unwrap().body
    };

    assert_eq!(with_extra(["reasoning_effort", "verbosity"]), with_extra(["verbosity", "reasoning_effort"]));
}

#[test]
fn only_a_run_at_the_server_is_cancelled_by_a_call() {
    let call = OpenaiResponses::PERPLEXITY.cancel_call("resp_5a-1").unwrap();

    assert_eq!((call.path.as_str(), call.body.as_slice()), ("/v1/agent/resp_5a-1/cancel", &b"{}"[..]));
    assert_eq!(OpenaiResponses::OPENAI.cancel_call("resp_5a-1"), None);
    for strange in ["", "a/b", "..", "a?b", "a b", "ä", &"x".repeat(129)] {
        assert_eq!(OpenaiResponses::PERPLEXITY.cancel_call(strange), None, "{strange:?}");
    }
}

fn refused(status: u16, body: &str) -> Failure {
    let headers = vec![("x-request-id".to_owned(), "req_1".to_owned()), ("retry-after".to_owned(), "2".to_owned())];
    OpenaiResponses::PERPLEXITY.failure(&Head { status, headers }, body.as_bytes())
}

#[test]
fn a_refusal_means_what_it_says_rather_than_its_status() {
    let cases = [
        (401, r#"{"error":{"message":"m","type":"forbidden","code":401}}"#, Code::UpstreamAuth),
        (403, r#"{"error":"text"}"#, Code::UpstreamAuth),
        (400, r#"{"error":{"message":"m","type":"invalid_model","code":400}}"#, Code::UpstreamModel),
        (400, r#"{"error":{"message":"m","type":"invalid_parameter","code":400}}"#, Code::UpstreamRejected),
        (400, r#"{"error":{"code":"invalid_encrypted_content"}}"#, Code::UpstreamRejected),
        (400, r#"{"error":{"code":"context_length_exceeded","param":"input"}}"#, Code::ContextLength),
        (400, r#"{"error":{"code":"image_content_policy_violation"}}"#, Code::ContentFilter),
        (422, r#"{"detail":[{"msg":"m"}]}"#, Code::UpstreamRejected),
        (404, r#"{"detail":"Not Found"}"#, Code::UpstreamRejected),
        (429, r#"{"error":{"type":"request_rate_limit_exceeded","code":429}}"#, Code::UpstreamRateLimit),
        (429, r#"{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}"#, Code::UpstreamQuota),
        (413, r#"{"error":{"type":"payload_too_large","code":413}}"#, Code::UpstreamRejected),
        (424, r#"{"error":{"type":"external_connector_error","code":424}}"#, Code::UpstreamRejected),
        (500, r#"{"error":{"type":"internal_error","code":500}}"#, Code::UpstreamError),
        (504, r#"{"error":{"type":"gateway_timeout","code":504}}"#, Code::UpstreamTimeout),
        (502, "<html>Bad Gateway</html>", Code::UpstreamError),
    ];
    for (status, body, code) in cases {
        let failure = refused(status, body);

        assert_eq!(failure.code, code, "{status} {body}");
        assert_eq!(failure.upstream_request_id.as_deref(), Some("req_1"));
    }
    assert_eq!(refused(429, "").retry_after_ms, Some(2_000));
    assert_eq!(refused(429, r#"{"error":{"code":"insufficient_quota"}}"#).retry_after_ms, None);
}

#[test]
fn the_field_to_blame_has_the_name_that_clients_know() {
    let param = |param: &str| refused(400, &json!({"error": {"message": "m", "param": param}}).to_string()).param;

    assert_eq!(param("input[0].content").as_deref(), Some("messages"));
    assert_eq!(param("max_output_tokens").as_deref(), Some("max_tokens"));
    assert_eq!(param("text.format").as_deref(), Some("response_format"));
    assert_eq!(param("stop").as_deref(), Some("stop"));
    assert_eq!(param("sk-123"), None);
}
