//! What goes out, and what refusals mean. What comes in is tested by fixtures (`tests/fixtures`).

use serde_json::{Value, json};

use super::Ollama;
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

fn said(role: Role, text: &str) -> ChatMessage {
    ChatMessage::text(role, text)
}

fn with_extra(extra: &Value) -> ChatRequest {
    ChatRequest { extra: extra.as_object().unwrap().clone(), ..request(vec![said(Role::User, "hi")]) }
}

fn body(request: &ChatRequest) -> Value {
    serde_json::from_slice(&Ollama.encode(request).unwrap().body).unwrap()
}

fn looking_at(url: &str) -> ChatMessage {
    let image = Part::ImageUrl { image_url: ImageUrl { url: url.into(), detail: Some("low".into()) } };
    ChatMessage { content: Content::Parts(vec![Part::Text { text: "what?".into() }, image]), ..said(Role::User, "") }
}

fn called(id: &str, name: &str, arguments: &str) -> ChatMessage {
    let call = ToolCall { index: 0, id: id.into(), name: name.into(), arguments: arguments.into() };
    ChatMessage { tool_calls: vec![call], opaque: vec![json!({"foreign": 1})], ..said(Role::Assistant, "") }
}

fn result(id: &str, text: &str) -> ChatMessage {
    ChatMessage { tool_call_id: Some(id.into()), ..said(Role::Tool, text) }
}

#[test]
fn a_conversation_has_images_beside_the_text_and_arguments_as_objects() {
    let conversation = vec![
        looking_at("data:image/png;base64,iVBO"),
        called("call_0", "f", "{\"x\":1}"),
        result("call_0", "42"),
        called("call_0", "g", "{\"x\":"),
        result("call_0", "43"),
        result("lost", "44"),
    ];
    let mut request = request(conversation);
    request.system = Some("be brief".into());

    let expected = json!({"model": "m", "stream": true, "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what?", "images": ["iVBO"]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call_0", "function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "42", "tool_call_id": "call_0", "tool_name": "f"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call_0", "function": {"name": "g", "arguments": {}}}]},
        {"role": "tool", "content": "43", "tool_call_id": "call_0", "tool_name": "g"},
        {"role": "tool", "content": "44", "tool_call_id": "lost"},
    ]});
    assert_eq!(Ollama.encode(&request).unwrap().path, "/api/chat");
    assert_eq!(body(&request), expected);
}

#[test]
fn an_image_that_would_have_to_be_fetched_is_refused_here() {
    let failure = Ollama.encode(&request(vec![looking_at("https://h/i.png")])).unwrap_err();

    assert_eq!((failure.code, failure.param.as_deref()), (Code::Unprocessable, Some("content")));
}

#[test]
fn numbers_are_options_and_tools_stay_as_they_are() {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let extra =
        json!({"options": {"num_ctx": 8192, "seed": 1, "num_predict": 1}, "seed": 7, "stop": "END", "top_p": 0.5});
    let request =
        ChatRequest { temperature: Some(0.5), max_tokens: Some(9), tools: vec![tool.clone()], ..with_extra(&extra) };

    let body = body(&request);

    let options =
        json!({"num_ctx": 8192, "seed": 1, "stop": ["END"], "top_p": 0.5, "temperature": 0.5, "num_predict": 9});
    assert_eq!((&body["options"], &body["tools"]), (&options, &json!([tool])));
}

#[test]
fn what_the_client_adds_goes_under_names_that_the_api_knows_or_not_at_all() {
    let schema = json!({"type": "object"});
    let extra = json!({"reasoning_effort": "low", "keep_alive": "10m", "user": "u", "model": "other", "stream": false,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
    let expected = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}],
        "think": "low", "keep_alive": "10m", "format": schema});
    assert_eq!(body(&with_extra(&extra)), expected);

    let field = |extra: Value, name: &str| body(&with_extra(&extra))[name].take();
    assert_eq!(field(json!({"reasoning_effort": "none"}), "think"), false);
    assert_eq!(field(json!({"reasoning_effort": "low", "think": true}), "think"), true);
    assert_eq!(field(json!({"response_format": {"type": "json_object"}}), "format"), "json");
    assert_eq!(field(json!({"response_format": {"type": "text"}}), "format"), Value::Null);
}

fn refused(status: u16, body: &str) -> Failure {
    let headers = vec![("retry-after".to_owned(), "2".to_owned())];
    Ollama.failure(&Head { status, headers }, body.as_bytes())
}

#[test]
fn a_refusal_means_what_it_says_rather_than_its_status() {
    let cases = [
        (400, r#"{"error":"m does not support tools"}"#, Code::UpstreamRejected),
        (400, r#"{"error":"the input length exceeds the context length"}"#, Code::ContextLength),
        (400, r#"{"error":"prompt too long; exceeded max context length by 9 tokens"}"#, Code::ContextLength),
        (401, r#"{"error":"unauthorized"}"#, Code::UpstreamAuth),
        (404, r#"{"error":"model 'm' not found"}"#, Code::UpstreamModel),
        (400, r#"{"error":"model \"m\" not found, try pulling it first"}"#, Code::UpstreamModel),
        (404, "404 page not found", Code::UpstreamRejected),
        (429, r#"{"error":"you (x) have reached your session usage limit"}"#, Code::UpstreamQuota),
        (429, r#"{"error":"too many requests"}"#, Code::UpstreamRateLimit),
        (500, r#"{"error":"model requires more system memory"}"#, Code::UpstreamError),
        (500, r#"{"error":"server busy, please try again"}"#, Code::UpstreamOverloaded),
        (503, r#"{"error":"server busy, please try again"}"#, Code::UpstreamOverloaded),
        (200, r#"{"error":"server busy"}"#, Code::UpstreamProtocol),
    ];
    for (status, body, code) in cases {
        let failure = refused(status, body);

        assert_eq!(failure.code, code, "{status} {body}");
        assert!(!failure.message.contains("busy"), "{}", failure.message);
    }
}

#[test]
fn only_what_is_over_later_says_when() {
    assert_eq!(refused(503, r#"{"error":"server busy"}"#).retry_after_ms, Some(2_000));
    assert_eq!(refused(429, r#"{"error":"usage limit"}"#).retry_after_ms, None);
}
