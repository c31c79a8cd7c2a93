//! What goes out, and what refusals mean. What comes in is tested by fixtures (`tests/fixtures`).

use serde_json::{Value, json};

use super::Gemini;
use crate::chat::{ChatMessage, ChatRequest, Content, ImageUrl, Part, ProviderName, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::providers::{Adapter, Head};

fn request(messages: Vec<ChatMessage>) -> ChatRequest {
    ChatRequest {
        provider: ProviderName::new("p"),
        model: "gemini-3.8-flash".into(),
        system: None,
        messages,
        temperature: None,
        max_tokens: None,
        tools: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

fn user(text: &str) -> ChatMessage {
    ChatMessage::text(Role::User, text)
}

fn hi() -> ChatRequest {
    request(vec![user("hi")])
}

fn with_extra(extra: &Value) -> ChatRequest {
    ChatRequest { extra: extra.as_object().unwrap().clone(), ..hi() }
}

fn body(request: &ChatRequest) -> Value {
    serde_json::from_slice(&Gemini.encode(request).unwrap().body).unwrap()
}

/// An answer that calls the function `f` once for every id.
fn called(text: &str, ids: &[&str], opaque: Vec<Value>) -> ChatMessage {
    let call = |(at, id): (usize, &&str)| ToolCall {
        index: at as u32,
        id: (*id).to_owned(),
        name: "f".to_owned(),
        arguments: format!("{{\"at\":{at}}}"),
    };
    let tool_calls = ids.iter().enumerate().map(call).collect();
    ChatMessage { tool_calls, opaque, ..ChatMessage::text(Role::Assistant, text) }
}

fn result(id: &str, text: &str) -> ChatMessage {
    ChatMessage { tool_call_id: Some(id.into()), ..ChatMessage::text(Role::Tool, text) }
}

fn sent_call(id: &str, at: u32) -> Value {
    json!({"functionCall": {"id": id, "name": "f", "args": {"at": at}}})
}

fn sent_result(id: &str, response: &Value) -> Value {
    json!({"functionResponse": {"id": id, "name": "f", "response": response}})
}

fn signed(mut part: Value, signature: &str) -> Value {
    part["thoughtSignature"] = json!(signature);
    part
}

#[test]
fn a_request_streams_events_and_carries_its_key_in_a_header() {
    let call = Gemini.encode(&hi()).unwrap();

    assert_eq!(call.path, "/models/gemini-3.8-flash:streamGenerateContent?alt=sse");
    assert_eq!(body(&hi()), json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}));
    assert_eq!(Gemini.authorization("k"), ("x-goog-api-key", "k".to_owned()));
}

#[test]
fn a_model_may_have_its_full_name() {
    for (model, path) in [("models/m", "/models/m"), ("tunedModels/m", "/tunedModels/m"), ("m", "/models/m")] {
        let call = Gemini.encode(&ChatRequest { model: model.into(), ..hi() }).unwrap();

        assert_eq!(call.path, format!("{path}:streamGenerateContent?alt=sse"));
    }
}

#[test]
fn a_conversation_keeps_its_order_parts_and_calls() {
    let conversation = vec![
        user("what?"),
        called("Let me see.", &["a", "b"], vec![]),
        result("b", "42"),
        result("a", "{\"depth\":7}"),
        ChatMessage::text(Role::System, "be kind"),
        ChatMessage::text(Role::Assistant, "Seven."),
        user("and?"),
    ];
    let request =
        ChatRequest { system: Some("be brief".into()), model: "gemini-2.5-pro".into(), ..request(conversation) };

    let expected = json!({
        "systemInstruction": {"parts": [{"text": "be brief"}, {"text": "be kind"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "what?"}]},
            {"role": "model", "parts": [{"text": "Let me see."}, sent_call("a", 0), sent_call("b", 1)]},
            {"role": "user", "parts": [
                sent_result("a", &json!({"depth": 7})),
                sent_result("b", &json!({"output": "42"})),
            ]},
            {"role": "model", "parts": [{"text": "Seven."}]},
            {"role": "user", "parts": [{"text": "and?"}]},
        ],
    });
    assert_eq!(body(&request), expected);
}

#[test]
fn calls_go_out_with_their_results_or_not_at_all() {
    let conversation = vec![
        result("from a turn that is gone", "1"),
        called("", &["a"], vec![]),
        user("never mind"),
        result("a", "too late"),
        called("", &["b", "c"], vec![]),
        result("c", "3"),
        result("c", "again"),
    ];

    let contents = body(&request(conversation))["contents"].take();

    let expected = json!([
        {"role": "user", "parts": [{"text": "never mind"}]},
        {"role": "model", "parts": [signed(sent_call("c", 1), "skip_thought_signature_validator")]},
        {"role": "user", "parts": [sent_result("c", &json!({"output": "3"}))]},
    ]);
    assert_eq!(contents, expected);
}

#[test]
fn signatures_go_back_where_they_belong() {
    let on_call = json!({"gemini_signature": "s", "tool_call_id": "a"});
    let on_text = json!({"gemini_signature": "t", "from": 3, "to": 3});
    let foreign = json!({"extra_content": {"google": {}}, "tool_call_id": "a"});
    let conversation =
        vec![called("One", &["a", "b"], vec![foreign, on_text, on_call]), result("a", "1"), result("b", "2")];

    let parts = body(&request(conversation))["contents"][0]["parts"].take();

    let empty = signed(json!({"text": ""}), "t");
    assert_eq!(parts, json!([{"text": "One"}, empty, signed(sent_call("a", 0), "s"), sent_call("b", 1)]));
}

#[test]
fn arguments_that_a_limit_has_cut_do_not_go_back() {
    let mut cut = called("", &["a"], vec![]);
    cut.tool_calls[0].arguments = "{\"at\":".into();

    let contents = body(&request(vec![cut, result("a", "1")]))["contents"].take();

    assert_eq!(contents[0]["parts"][0]["functionCall"]["args"], json!({}));
}

fn with_images(urls: &[&str]) -> ChatRequest {
    let image = |url: &&str| Part::ImageUrl { image_url: ImageUrl { url: (*url).to_owned(), detail: None } };
    let texts = ["", "look"].map(|text| Part::Text { text: text.to_owned() });
    let parts = texts.into_iter().chain(urls.iter().map(image)).collect();
    request(vec![ChatMessage { content: Content::Parts(parts), ..user("") }])
}

#[test]
fn images_are_sent_as_bytes_or_as_places() {
    let urls = [
        "data:image/png;name=a.png;base64,iVBO",
        "DATA:image/gif;base64,R0lG",
        "https://h/a.b/i.JPG?w=1#x",
        "https://h/i",
    ];

    let parts = body(&with_images(&urls))["contents"][0]["parts"].take();

    let expected = json!([
        {"text": "look"},
        {"inlineData": {"mimeType": "image/png", "data": "iVBO"}},
        {"inlineData": {"mimeType": "image/gif", "data": "R0lG"}},
        {"fileData": {"fileUri": "https://h/a.b/i.JPG?w=1#x", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://h/i"}},
    ]);
    assert_eq!(parts, expected);
}

#[test]
fn an_image_that_cannot_be_sent_is_the_clients_mistake() {
    for url in ["data:image/svg+xml,<svg/>", "data:;base64,AAAA", "data:", "data:text;base64"] {
        let failure = Gemini.encode(&with_images(&[url])).unwrap_err();

        assert_eq!((failure.code, failure.param.as_deref()), (Code::Unprocessable, Some("content")), "{url}");
    }
}

#[test]
fn functions_are_declared_together_and_other_tools_travel_as_they_are() {
    let schema = json!({"type": "object", "additionalProperties": false});
    let tools = vec![
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": true}}),
        json!({"googleSearch": {}}),
        json!({"type": "function", "name": "g", "parameters": null}),
    ];

    let sent = body(&ChatRequest { tools, ..hi() })["tools"].take();

    let f = json!({"name": "f", "description": "d", "parametersJsonSchema": schema});
    assert_eq!(sent, json!([{"functionDeclarations": [f, {"name": "g"}]}, {"googleSearch": {}}]));
}

#[test]
fn a_choice_of_tools_is_a_mode() {
    let config = |choice: Value| body(&with_extra(&json!({"tool_choice": choice})))["toolConfig"].take();
    let mode = |mode: &str| json!({"functionCallingConfig": {"mode": mode}});

    assert_eq!(config(json!("auto")), mode("AUTO"));
    assert_eq!(config(json!("none")), mode("NONE"));
    assert_eq!(config(json!("required")), mode("ANY"));
    assert_eq!(
        config(json!({"type": "function", "function": {"name": "f"}})),
        json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}),
    );
    assert_eq!(config(json!("perhaps")), Value::Null);
}

#[test]
fn what_means_the_same_is_renamed_and_what_means_nothing_here_stays_away() {
    let request = ChatRequest {
        temperature: Some(0.5),
        max_tokens: Some(9),
        ..with_extra(&json!({"top_p": 0.9, "top_k": 40, "seed": 7, "stop": "END", "presence_penalty": 1,
            "frequency_penalty": null, "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 5, "user": "u",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            "stream": false, "contents": [], "model": "other"}))
    };

    let expected = json!({"temperature": 0.5, "maxOutputTokens": 9, "topP": 0.9, "topK": 40, "seed": 7,
        "stopSequences": ["END"], "presencePenalty": 1, "responseLogprobs": true, "logprobs": 2,
        "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}});
    let contents = json!([{"role": "user", "parts": [{"text": "hi"}]}]);
    assert_eq!(body(&request), json!({"contents": contents, "generationConfig": expected}));
    assert_eq!(body(&with_extra(&json!({"response_format": {"type": "text"}}))), json!({"contents": contents}));
}

#[test]
fn geminis_own_fields_travel_as_they_are() {
    let settings = json!([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]);
    let own = json!({"generationConfig": {"topP": 0.1, "candidateCount": 1}, "safetySettings": settings,
        "cachedContent": "cachedContents/c", "toolConfig": {"retrievalConfig": {}}, "top_p": 0.9,
        "tool_choice": "auto"});

    let sent = body(&ChatRequest { temperature: Some(1.0), ..with_extra(&own) });

    assert_eq!(sent["generationConfig"], json!({"topP": 0.1, "candidateCount": 1, "temperature": 1.0}));
    assert_eq!(sent["safetySettings"], settings);
    assert_eq!(sent["cachedContent"], "cachedContents/c");
    assert_eq!(sent["toolConfig"], json!({"retrievalConfig": {}}));
}

#[test]
fn an_effort_is_a_level_or_a_number_of_tokens() {
    let thinking = |model: &str, effort: &str| {
        let request = ChatRequest { model: model.into(), ..with_extra(&json!({"reasoning_effort": effort})) };
        body(&request)["generationConfig"]["thinkingConfig"].take()
    };

    let levels = |level: &str, shown: bool| json!({"thinkingLevel": level, "includeThoughts": shown});
    assert_eq!(thinking("gemini-3.8-flash", "none"), levels("minimal", false));
    assert_eq!(thinking("gemini-flash-latest", "low"), levels("low", true));
    assert_eq!(thinking("models/gemini-3.1-pro-preview", "xhigh"), levels("high", true));
    let tokens = |tokens: u32, shown: bool| json!({"thinkingBudget": tokens, "includeThoughts": shown});
    assert_eq!(thinking("gemini-2.5-flash", "none"), tokens(0, false));
    assert_eq!(thinking("gemini-2.5-pro", "medium"), tokens(8_192, true));
}

#[test]
fn equal_requests_have_equal_bytes() {
    let bytes = |order: [&str; 2]| {
        let mut request = hi();
        order.iter().for_each(|key| drop(request.extra.insert((*key).into(), json!(1))));
        Gemini.encode(&request).unwrap().body
    };

    assert_eq!(bytes(["seed", "top_k"]), bytes(["top_k", "seed"]));
}

fn refused(status: u16, body: &str) -> Failure {
    Gemini.failure(&Head { status, headers: vec![] }, body.as_bytes())
}

fn error(code: u16, status: &str, message: &str, details: &Value) -> String {
    json!({"error": {"code": code, "message": message, "status": status, "details": details}}).to_string()
}

fn quota(violation: &Value) -> Value {
    json!([{"violations": [violation]}, {"retryDelay": "34.4s"}])
}

#[test]
fn a_refusal_means_what_its_details_say_rather_than_its_status() {
    let none = json!([]);
    let reason = |reason: &str| json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]);
    let minute = quota(&json!({"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}));
    let day = quota(&json!({"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}));
    let old_day = quota(&json!({"quotaMetric": "x.googleapis.com/generate_requests_per_model_per_day"}));
    let never = quota(&json!({"quotaId": "PerMinute", "quotaValue": "0"}));
    let too_long = "The input token count (9) exceeds the maximum number of tokens allowed (8).";
    let cases = [
        (400, "INVALID_ARGUMENT", "m", &reason("API_KEY_INVALID"), Code::UpstreamAuth),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass one.", &none, Code::UpstreamAuth),
        (400, "INVALID_ARGUMENT", too_long, &none, Code::ContextLength),
        (400, "INVALID_ARGUMENT", "m", &none, Code::UpstreamRejected),
        (400, "FAILED_PRECONDITION", "m", &none, Code::UpstreamRejected),
        (401, "UNAUTHENTICATED", "m", &reason("CREDENTIALS_MISSING"), Code::UpstreamAuth),
        (403, "PERMISSION_DENIED", "m", &reason("SERVICE_DISABLED"), Code::UpstreamAuth),
        (403, "PERMISSION_DENIED", "m", &reason("BILLING_DISABLED"), Code::UpstreamQuota),
        (403, "PERMISSION_DENIED", "Your API key was reported as leaked.", &none, Code::UpstreamAuth),
        (404, "NOT_FOUND", "models/m is not found", &none, Code::UpstreamModel),
        (429, "RESOURCE_EXHAUSTED", "m", &none, Code::UpstreamRateLimit),
        (429, "RESOURCE_EXHAUSTED", "m", &minute, Code::UpstreamRateLimit),
        (429, "RESOURCE_EXHAUSTED", "m", &day, Code::UpstreamQuota),
        (429, "RESOURCE_EXHAUSTED", "m", &old_day, Code::UpstreamQuota),
        (429, "RESOURCE_EXHAUSTED", "m", &never, Code::UpstreamQuota),
        (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", &none, Code::UpstreamQuota),
        (499, "CANCELLED", "m", &none, Code::UpstreamError),
        (500, "INTERNAL", "m", &none, Code::UpstreamError),
        (501, "UNIMPLEMENTED", "m", &none, Code::UpstreamRejected),
        (503, "UNAVAILABLE", "m", &none, Code::UpstreamOverloaded),
        (504, "DEADLINE_EXCEEDED", "m", &none, Code::UpstreamTimeout),
        (503, "SOMETHING_NEW", "m", &none, Code::UpstreamOverloaded),
    ];
    for (status, word, message, details, code) in cases {
        let body = error(status, word, message, details);

        assert_eq!(refused(status, &body).code, code, "{body}");
        assert_eq!(refused(status, &format!("[{body}]")).code, code, "{body}");
        assert_eq!(refused(status, &format!("data: {body}\r\n\r\n")).code, code, "{body}");
    }
}

#[test]
fn what_is_no_error_of_googles_means_what_its_status_says() {
    let cases = [
        (404, "<html>nothing here</html>", Code::UpstreamRejected),
        (404, "", Code::UpstreamRejected),
        (400, "not json", Code::UpstreamRejected),
        (502, "<html>Bad Gateway</html>", Code::UpstreamError),
        (500, r#"{"error":"text"}"#, Code::UpstreamError),
        (429, r#"{"error":null}"#, Code::UpstreamRateLimit),
        (302, "", Code::UpstreamRedirect),
        (200, "<html></html>", Code::UpstreamProtocol),
    ];
    for (status, body, code) in cases {
        assert_eq!(refused(status, body).code, code, "{status} {body}");
    }
}

#[test]
fn the_pause_stands_in_the_details_and_an_exhausted_quota_has_none() {
    let pause = |status: u16, details: &Value| refused(status, &error(status, "", "m", details)).retry_after_ms;

    assert_eq!(pause(429, &quota(&json!({"quotaId": "PerMinute"}))), Some(34_400));
    assert_eq!(pause(503, &json!([{}, {"retryDelay": {"seconds": 2, "nanos": 500_000_000}}])), Some(2_500));
    assert_eq!(pause(429, &json!([{"retryDelay": "86400s"}])), Some(60_000));
    assert_eq!(pause(429, &quota(&json!({"quotaId": "PerDay"}))), None);
    for none in [json!("0s"), json!("soon"), json!({}), json!(3)] {
        assert_eq!(pause(429, &json!([{"retryDelay": none}])), None, "{none}");
    }
}

#[test]
fn a_failure_names_the_field_but_quotes_nothing() {
    let field = |field: &str| {
        let details = json!([{"fieldViolations": [{"field": field, "description": "the secret prompt"}]}]);
        refused(400, &error(400, "INVALID_ARGUMENT", "the secret prompt sk-123", &details))
    };
    let failure = field("generation_config.temperature");

    assert_eq!(failure.param.as_deref(), Some("temperature"));
    assert!(!format!("{failure:?}").contains("secret") && !failure.message.contains("sk-123"), "{failure:?}");
    assert_eq!(field("contents[0].parts[0]").param.as_deref(), Some("messages"));
    assert_eq!(field("sk-123").param, None);
}
