//! What goes out, and what refusals mean. What comes in is tested by fixtures (`tests/fixtures`).

use serde_json::{Value, json};

use super::OpenaiChat;
use crate::chat::{ChatMessage, ChatRequest, Content, ImageUrl, Part, ProviderName, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::providers::{Adapter, Head};

fn request(messages: Vec<ChatMessage>) -> ChatRequest {
    ChatRequest {
        provider: ProviderName::new("p"),
        model: "m".into(),
        system: None,
        messages,
        temperature: None,
        max_tokens: None,
        tools: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

fn body(adapter: OpenaiChat, request: &ChatRequest) -> Value {
    let call = adapter.encode(request).unwrap();
    assert_eq!(call.path, "/chat/completions");
    serde_json::from_slice(&call.body).unwrap()
}

fn openai(request: &ChatRequest) -> Value {
    body(OpenaiChat::OPENAI, request)
}

fn hi() -> ChatRequest {
    request(vec![ChatMessage::text(Role::User, "hi")])
}

fn called(arguments: &str, opaque: Vec<Value>) -> ChatMessage {
    let call = ToolCall { index: 0, id: "c".into(), name: "f".into(), arguments: arguments.into() };
    ChatMessage { tool_calls: vec![call], opaque, ..ChatMessage::text(Role::Assistant, "") }
}

#[test]
fn a_request_streams_and_asks_for_usage() {
    let expected = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });

    assert_eq!(openai(&hi()), expected);
    assert_eq!(body(OpenaiChat::OPENROUTER, &hi()), expected);
}

#[test]
fn sonar_is_not_asked_for_what_it_sends_anyway() {
    assert_eq!(body(OpenaiChat::SONAR, &hi()).get("stream_options"), None);
}

#[test]
fn a_conversation_keeps_its_order_parts_and_calls() {
    let image = ImageUrl { url: "https://h/i.png".into(), detail: Some("low".into()) };
    let parts = vec![Part::Text { text: "what?".into() }, Part::ImageUrl { image_url: image }];
    let asked = ChatMessage { content: Content::Parts(parts), ..ChatMessage::text(Role::User, "") };
    let result = ChatMessage { tool_call_id: Some("c".into()), ..ChatMessage::text(Role::Tool, "42") };
    let mut request = request(vec![asked, called("{\"x\":1}", vec![]), result, ChatMessage::text(Role::User, "and?")]);
    request.system = Some("be brief".into());

    let messages = openai(&request)["messages"].take();

    let expected = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "what?"},
            {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}},
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        ]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "user", "content": "and?"},
    ]);
    assert_eq!(messages, expected);
}

#[test]
fn arguments_that_a_limit_has_cut_do_not_go_back() {
    let request = request(vec![called("{\"x\":", vec![])]);

    assert_eq!(openai(&request)["messages"][0]["tool_calls"][0]["function"]["arguments"], "{}");
}

#[test]
fn signatures_go_back_where_they_belong() {
    let detail = json!({"type": "reasoning.encrypted", "data": "d"});
    let on_call = json!({"extra_content": {"google": {"thought_signature": "s"}}, "tool_call_id": "c"});
    let foreign = json!({"type": "thinking", "signature": "another dialect's"});
    let request = request(vec![called("{}", vec![json!({"reasoning_detail": detail}), on_call, foreign])]);

    let openrouter = body(OpenaiChat::OPENROUTER, &request)["messages"][0].take();
    let openai = openai(&request)["messages"][0].take();

    assert_eq!(openrouter["reasoning_details"], json!([detail]));
    assert_eq!(openai.get("reasoning_details"), None);
    assert_eq!(openai["tool_calls"][0]["extra_content"]["google"]["thought_signature"], "s");
}

#[test]
fn the_limit_has_the_name_that_the_server_knows() {
    let names = |adapter, model: &str| {
        let body = body(adapter, &ChatRequest { model: model.into(), max_tokens: Some(9), ..hi() });
        (body.get("max_tokens").is_some(), body.get("max_completion_tokens").is_some())
    };
    for newer in ["o1", "o3-mini", "gpt-5", "gpt-5.6-luna", "gpt-12", "azure/gpt-6-astra"] {
        assert_eq!(names(OpenaiChat::OPENAI, newer), (false, true), "{newer}");
        assert_eq!(names(OpenaiChat::OPENROUTER, newer), (true, false), "{newer}");
    }
    for other in ["gpt-4o", "gpt-oss-120b", "llama3", "olmo-2", "mistral-large", "deepseek-chat", "gpt-", "o", ""] {
        assert_eq!(names(OpenaiChat::OPENAI, other), (true, false), "{other}");
    }
}

#[test]
fn what_the_client_adds_travels_but_decides_nothing() {
    let mut request = ChatRequest { max_tokens: Some(9), temperature: Some(0.5), tools: vec![json!({})], ..hi() };
    let extra = json!({"seed": 7, "max_completion_tokens": 5, "stream": false, "model": "other",
        "stream_options": {"include_obfuscation": false, "include_usage": false}});
    request.extra = extra.as_object().unwrap().clone();

    let expected = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": true,
        "stream_options": {"include_obfuscation": false, "include_usage": true},
        "seed": 7,
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "tools": [{}],
    });
    assert_eq!(openai(&request), expected);
    request.extra.insert("stream_options".into(), json!("all"));
    assert_eq!(openai(&request)["stream_options"], json!({"include_usage": true}));
}

#[test]
fn equal_requests_have_equal_bytes() {
    let with_extra = |order: [&str; 2]| {
        let mut request = hi();
        order.iter().for_each(|key| drop(request.extra.insert((*key).into(), json!(1))));
        OpenaiChat::OPENAI.encode(&request).unwrap().body
    };

    assert_eq!(with_extra(["seed", "top_k"]), with_extra(["top_k", "seed"]));
}

fn refused(status: u16, body: &str) -> Failure {
    let headers = vec![("x-request-id".to_owned(), "req_1".to_owned()), ("retry-after".to_owned(), "2".to_owned())];
    OpenaiChat::OPENAI.failure(&Head { status, headers }, body.as_bytes())
}

#[test]
fn a_refusal_means_what_it_says_rather_than_its_status() {
    let cases = [
        (
            401,
            r#"{"error":{"message":"m","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            Code::UpstreamAuth,
        ),
        (403, r#"{"error":{"code":403,"message":"your input was flagged"}}"#, Code::ContentFilter),
        (403, r#"{"error":{"code":"model_not_found"}}"#, Code::UpstreamModel),
        (402, r#"{"error":{"code":402,"message":"m"}}"#, Code::UpstreamQuota),
        (429, r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#, Code::UpstreamQuota),
        (429, r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#, Code::UpstreamRateLimit),
        (429, r#"{"error":{"message":"too large for the model's context window"}}"#, Code::UpstreamRateLimit),
        (429, r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]"#, Code::UpstreamRateLimit),
        (400, r#"{"error":{"code":"model_not_found"}}"#, Code::UpstreamModel),
        (400, r#"{"error":{"message":"x/y is not a valid model ID","code":400}}"#, Code::UpstreamModel),
        (404, r#"{"error":{"message":"m","type":"api_error"}}"#, Code::UpstreamModel),
        (404, r#"{"detail":"Not Found"}"#, Code::UpstreamRejected),
        (404, "<html>nothing here</html>", Code::UpstreamRejected),
        (400, r#"{"error":{"code":"context_length_exceeded","param":"messages"}}"#, Code::ContextLength),
        (400, r#"{"error":{"code":400,"type":"exceed_context_size_error"}}"#, Code::ContextLength),
        (
            400,
            r#"{"object":"error","message":"the maximum context length is 9 tokens","code":400}"#,
            Code::ContextLength,
        ),
        (500, r#"{"error":{"code":500,"message":"exceeds the available context size"}}"#, Code::ContextLength),
        (400, r#"{"error":{"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#, Code::ContentFilter),
        (400, r#"{"error":{"code":"content_filter"}}"#, Code::ContentFilter),
        (422, r#"{"detail":[{"msg":"m"}]}"#, Code::UpstreamRejected),
        (400, "not json", Code::UpstreamRejected),
        (408, "", Code::UpstreamTimeout),
        (500, r#"{"error":"text"}"#, Code::UpstreamError),
        (502, "<html>Bad Gateway</html>", Code::UpstreamError),
        (503, r#"{"error":{"code":503,"type":"unavailable_error"}}"#, Code::UpstreamOverloaded),
        (502, r#"{"error":{"code":502,"metadata":{"error_type":"provider_overloaded"}}}"#, Code::UpstreamOverloaded),
        (504, "", Code::UpstreamTimeout),
        (529, "", Code::UpstreamOverloaded),
        (302, "", Code::UpstreamRedirect),
        (103, "", Code::UpstreamProtocol),
        (204, "", Code::UpstreamProtocol),
        (200, "<html></html>", Code::UpstreamProtocol),
        (0, "", Code::UpstreamProtocol),
        (999, "", Code::UpstreamProtocol),
    ];
    for (status, body, code) in cases {
        let failure = refused(status, body);

        assert_eq!(failure.code, code, "{status} {body}");
        assert_eq!(failure.upstream_request_id.as_deref(), Some("req_1"));
    }
}

#[test]
fn only_what_is_over_later_says_when() {
    assert_eq!(refused(429, "").retry_after_ms, Some(2_000));
    assert_eq!(refused(429, r#"{"error":{"code":"insufficient_quota"}}"#).retry_after_ms, None);
    assert_eq!(refused(500, "").retry_after_ms, None);
}

#[test]
fn a_pause_may_stand_in_the_body() {
    let head = Head { status: 429, headers: vec![] };
    let pause = |body: Value| OpenaiChat::OPENAI.failure(&head, body.to_string().as_bytes()).retry_after_ms;

    assert_eq!(pause(json!([{"error": {"details": [{}, {"retryDelay": "34.4s"}]}}])), Some(34_400));
    assert_eq!(pause(json!({"error": {"availability": {"retry_after": 3}}})), Some(3_000));
    assert_eq!(pause(json!({"error": {"retry_after": 1e9}})), Some(60_000));
}

#[test]
fn a_failure_names_the_field_but_quotes_nothing() {
    let body = r#"{"error":{"message":"the secret prompt sk-123","param":"messages[0].content","code":"sk-123"}}"#;
    let failure = refused(400, body);

    assert_eq!(failure.param.as_deref(), Some("messages"));
    assert!(!format!("{failure:?}").contains("sk-123") && !failure.message.contains("prompt"), "{failure:?}");
    assert_eq!(refused(400, r#"{"error":{"param":"sk-123"}}"#).param, None);
}
