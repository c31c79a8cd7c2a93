//! What goes out, and what refusals mean. What comes in is tested by fixtures (`tests/fixtures`).

use serde_json::{Value, json};

use super::Anthropic;
use crate::chat::{ChatMessage, ChatRequest, Content, ImageUrl, Part, ProviderName, Role};
use crate::event::ToolCall;
use crate::failure::{Code, Failure};
use crate::providers::{Adapter, Head};

fn request(messages: Vec<ChatMessage>) -> ChatRequest {
    ChatRequest {
        provider: ProviderName::new("p"),
        model: "claude-haiku-4-5".into(),
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

fn hi() -> ChatRequest {
    request(vec![said(Role::User, "hi")])
}

fn with_extra(extra: &Value) -> ChatRequest {
    ChatRequest { extra: extra.as_object().unwrap().clone(), ..hi() }
}

fn body(request: &ChatRequest) -> Value {
    serde_json::from_slice(&Anthropic.encode(request).unwrap().body).unwrap()
}

fn messages(messages: Vec<ChatMessage>) -> Value {
    body(&request(messages))["messages"].take()
}

fn called(text: &str, calls: &[(&str, &str)]) -> ChatMessage {
    let calls = (0..).zip(calls).map(|(index, (id, arguments))| ToolCall {
        index,
        id: (*id).into(),
        name: "f".into(),
        arguments: (*arguments).into(),
    });
    ChatMessage { tool_calls: calls.collect(), ..said(Role::Assistant, text) }
}

fn result(id: &str, text: &str) -> ChatMessage {
    ChatMessage { tool_call_id: Some(id.into()), ..said(Role::Tool, text) }
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn tool_use(id: &str, input: &Value) -> Value {
    json!({"type": "tool_use", "id": id, "name": "f", "input": input})
}

fn tool_result(id: &str, said: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": [text(said)]})
}

fn no_result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "(The tool gave no result.)", "is_error": true})
}

// --- The body -------------------------------------------------------------------

#[test]
fn a_request_names_its_version_its_limit_and_its_key_as_the_api_wants_them() {
    let call = Anthropic.encode(&hi()).unwrap();

    assert_eq!(call.path, "/v1/messages");
    assert!(call.headers.contains(&("anthropic-version", "2023-06-01".to_owned())));
    assert_eq!(Anthropic.authorization("k"), ("x-api-key", "k".to_owned()));
    let expected = json!({
        "model": "claude-haiku-4-5",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": true,
    });
    assert_eq!(body(&hi()), expected);
}

#[test]
fn instructions_stand_outside_the_conversation() {
    let mut request = request(vec![said(Role::System, "speak French"), said(Role::User, "hi")]);
    request.system = Some("be brief".into());

    let body = body(&request);

    assert_eq!(body["system"], "be brief\n\nspeak French");
    assert_eq!(body["messages"], json!([{"role": "user", "content": [text("hi")]}]));
}

#[test]
fn a_conversation_alternates_and_keeps_its_order_parts_calls_and_results() {
    let image = |url: &str| Part::ImageUrl { image_url: ImageUrl { url: url.into(), detail: None } };
    let parts = vec![
        Part::Text { text: "these?".into() },
        image("https://h/i.png"),
        image("data:image/webp;base64,UklG"),
        Part::Text { text: " ".into() },
    ];
    let asked = ChatMessage { content: Content::Parts(parts), ..said(Role::User, "") };
    let conversation = vec![
        asked,
        said(Role::User, "quick"),
        said(Role::Assistant, "I look."),
        called("", &[("a", "{\"x\":1}"), ("b", "{}")]),
        result("b", "two"),
        result("a", "one"),
        said(Role::User, "and?"),
    ];

    let expected = json!([
        {"role": "user", "content": [
            text("these?"),
            {"type": "image", "source": {"type": "url", "url": "https://h/i.png"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "UklG"}},
            text("quick"),
        ]},
        {"role": "assistant", "content": [text("I look."), tool_use("a", &json!({"x": 1})), tool_use("b", &json!({}))]},
        {"role": "user", "content": [tool_result("b", "two"), tool_result("a", "one"), text("and?")]},
    ]);
    assert_eq!(messages(conversation), expected);
}

#[test]
fn every_call_has_one_result_in_the_turn_after_it_and_every_result_its_call() {
    let conversation = vec![
        result("lost", "of a call that was cut off"),
        called("", &[("a", "{}"), ("b", "{")]),
        said(Role::User, "never mind"),
        result("b", "too early"),
        called("", &[("c", "[]")]),
    ];

    let expected = json!([
        {"role": "user", "content": [text("of a call that was cut off")]},
        {"role": "assistant", "content": [tool_use("a", &json!({})), tool_use("b", &json!({}))]},
        {"role": "user", "content": [tool_result("b", "too early"), no_result("a"), text("never mind")]},
        {"role": "assistant", "content": [tool_use("c", &json!({}))]},
        {"role": "user", "content": [no_result("c")]},
    ]);
    assert_eq!(messages(conversation), expected);
}

#[test]
fn ids_of_calls_are_plain_and_come_once() {
    let conversation = vec![
        said(Role::User, "hi"),
        called("", &[("call_0", "{}"), ("functions.f:1", "{}"), ("", "{}")]),
        result("call_0", "first"),
        result("functions.f:1", "odd"),
        called("", &[("call_0", "{}")]),
        result("call_0", "second"),
    ];

    let sent = messages(conversation);

    let ids: Vec<_> = sent.as_array().unwrap().iter().flat_map(|turn| turn["content"].as_array().unwrap()).collect();
    let ids: Vec<_> = ids.iter().filter_map(|block| block.get("id").or(block.get("tool_use_id"))).collect();
    assert_eq!(ids, ["call_0", "functions_f_1", "call", "call_0", "functions_f_1", "call", "call_0_2", "call_0_2"]);
}

#[test]
fn a_conversation_begins_with_the_user_and_blank_messages_are_left_out() {
    let cut = vec![said(Role::Assistant, "so I said"), said(Role::User, "what?")];
    let blank = vec![said(Role::User, "hi"), said(Role::Assistant, "\n"), said(Role::User, "there?")];

    let expected = json!([
        {"role": "user", "content": "(The conversation began earlier.)"},
        {"role": "assistant", "content": [text("so I said")]},
        {"role": "user", "content": [text("what?")]},
    ]);
    assert_eq!(messages(cut), expected);
    assert_eq!(messages(blank), json!([{"role": "user", "content": [text("hi"), text("there?")]}]));
}

#[test]
fn an_image_that_the_api_does_not_take_is_refused_here() {
    for url in ["data:image/tiff;base64,SUkq", "data:image/png,raw", "ftp://h/i.png"] {
        let image = Part::ImageUrl { image_url: ImageUrl { url: url.into(), detail: None } };
        let asked = ChatMessage { content: Content::Parts(vec![image]), ..said(Role::User, "") };

        let failure = Anthropic.encode(&request(vec![asked])).unwrap_err();

        assert_eq!((failure.code, failure.param.as_deref()), (Code::Unprocessable, Some("content")), "{url}");
    }
}

#[test]
fn thinking_goes_back_unchanged_and_in_its_place() {
    let block = |text: &str| json!({"type": "thinking", "thinking": text, "signature": "c2ln"});
    let kept = |block: Value, text: usize, calls: usize| json!({"thinking_block": block, "model": "claude-haiku-4-5-20251001", "text_before": text, "calls_before": calls});
    let redacted = json!({"type": "redacted_thinking", "data": "b3Bh"});
    let opaque = vec![kept(block("1"), 0, 0), kept(redacted.clone(), "Ich prüfe. ".len(), 0), kept(block("2"), 15, 1)];
    let answer = ChatMessage { opaque, ..called("Ich prüfe. Ja.", &[("a", "{}"), ("b", "{}")]) };

    let sent = messages(vec![said(Role::User, "hi"), answer]);

    let expected = json!([
        block("1"),
        text("Ich prüfe. "),
        redacted,
        text("Ja."),
        tool_use("a", &json!({})),
        block("2"),
        tool_use("b", &json!({})),
    ]);
    assert_eq!(sent[1]["content"], expected);
}

#[test]
fn thinking_that_nobody_can_take_stays_here() {
    let block = json!({"type": "thinking", "thinking": "1", "signature": "c2ln"});
    let kept = |model: &str, text: usize| json!({"thinking_block": block, "model": model, "text_before": text, "calls_before": 0});
    let foreign = json!({"reasoning_detail": {"type": "reasoning.text", "signature": "c2ln"}});
    let other_model = kept("claude-opus-4-8", 0);
    let without_place = json!({"thinking_block": block, "model": "claude-haiku-4-5"});
    let at_the_end = kept("claude-haiku-4-5", 3);
    let opaque = vec![foreign, other_model, without_place, at_the_end];
    let answer = ChatMessage { opaque, ..said(Role::Assistant, "Yes") };

    let sent = messages(vec![said(Role::User, "hi"), answer, said(Role::User, "so?")]);

    assert_eq!(sent[1]["content"], json!([text("Yes")]));
}

#[test]
fn a_place_that_fits_no_text_costs_the_text_nothing() {
    let block = json!({"type": "thinking", "thinking": "1", "signature": "c2ln"});
    let kept = |text: usize| json!({"thinking_block": block, "model": "claude-haiku-4-5", "text_before": text, "calls_before": 7});
    for place in [1, 99] {
        let answer = ChatMessage { opaque: vec![kept(place)], ..called("é!", &[("a", "{}")]) };

        let sent = messages(vec![said(Role::User, "hi"), answer]);

        let expected = json!([tool_use("a", &json!({})), block, text("é!")]);
        assert_eq!(sent[1]["content"], expected, "{place}");
    }
}

#[test]
fn tools_are_described_as_the_api_wants_them() {
    let parameters = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
    let function = json!({"name": "f", "description": "d", "strict": true, "parameters": parameters});
    let own = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3});
    let tools = vec![
        json!({"type": "function", "function": function}),
        json!({"type": "function", "function": {"name": "g"}}),
        own.clone(),
    ];

    let body = body(&ChatRequest { tools, ..hi() });

    let expected = json!([
        {"name": "f", "description": "d", "input_schema": parameters},
        {"name": "g", "input_schema": {"type": "object"}},
        own,
    ]);
    assert_eq!(body["tools"], expected);
}

#[test]
fn the_choice_of_tools_is_translated() {
    let choice =
        |extra: Value| body(&ChatRequest { tools: vec![json!({})], ..with_extra(&extra) })["tool_choice"].take();
    let one = json!({"type": "function", "function": {"name": "f"}});

    assert_eq!(choice(json!({"tool_choice": "auto"})), json!({"type": "auto"}));
    assert_eq!(choice(json!({"tool_choice": "none", "parallel_tool_calls": false})), json!({"type": "none"}));
    assert_eq!(choice(json!({"tool_choice": "required"})), json!({"type": "any"}));
    assert_eq!(choice(json!({"tool_choice": one})), json!({"type": "tool", "name": "f"}));
    assert_eq!(choice(json!({"tool_choice": {"type": "any"}})), json!({"type": "any"}));
    assert_eq!(
        choice(json!({"parallel_tool_calls": false})),
        json!({"type": "auto", "disable_parallel_tool_use": true})
    );
    for nothing in [json!({}), json!({"tool_choice": "some"}), json!({"tool_choice": {"type": "allowed_tools"}})] {
        assert_eq!(choice(nothing), Value::Null);
    }
    assert_eq!(body(&with_extra(&json!({"tool_choice": "auto"}))).get("tool_choice"), None);
}

#[test]
fn temperature_goes_only_where_it_is_taken() {
    let temperature = |model: &str, extra: Value| {
        let request = ChatRequest { model: model.into(), temperature: Some(1.5), ..with_extra(&extra) };
        let body = body(&request);
        ["temperature", "top_p", "top_k"].map(|name| body.get(name).cloned().unwrap_or_default())
    };
    let sampling = json!({"top_p": 0.5, "top_k": 9});
    let thinking = |kind: &str| json!({"top_p": 0.5, "top_k": 9, "thinking": {"type": kind}});
    let nothing = [Value::Null, Value::Null, Value::Null];

    assert_eq!(temperature("claude-haiku-4-5", sampling.clone()), [json!(1.0), Value::Null, json!(9)]);
    assert_eq!(temperature("claude-haiku-4-5", thinking("disabled")), [json!(1.0), Value::Null, json!(9)]);
    assert_eq!(temperature("claude-haiku-4-5", thinking("enabled")), nothing);
    assert_eq!(temperature("claude-sonnet-5", sampling), nothing);
    assert_eq!(body(&with_extra(&json!({"top_p": 0.5})))["top_p"], 0.5);
}

#[test]
fn what_the_client_adds_goes_under_names_that_the_api_knows_or_not_at_all() {
    let extra = json!({
        "stop": "END", "user": "u", "service_tier": "flex", "seed": 7, "logprobs": true, "model": "other",
        "max_tokens": 1, "stream": false, "messages": [], "system": "other", "metadata": {"team": "x"},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"},
    });

    let expected = json!({
        "model": "claude-haiku-4-5",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [text("hi")]}],
        "stream": true,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "thinking": {"type": "adaptive"},
        "cache_control": {"type": "ephemeral"},
    });
    assert_eq!(body(&with_extra(&extra)), expected);
    let own = json!({"stop": ["a"], "stop_sequences": ["b"], "service_tier": "auto", "metadata": {"user_id": "v"}});
    let body = body(&with_extra(&own));
    assert_eq!(body["stop_sequences"], json!(["b"]));
    assert_eq!((&body["service_tier"], &body["metadata"]), (&json!("auto"), &json!({"user_id": "v"})));
}

#[test]
fn the_limit_leaves_room_beside_a_budget_for_thinking() {
    let limit = |max_tokens, budget: u32| {
        let extra = json!({"thinking": {"type": "enabled", "budget_tokens": budget}});
        body(&ChatRequest { max_tokens, ..with_extra(&extra) })["max_tokens"].as_u64()
    };

    assert_eq!(limit(None, 2_000), Some(32_000));
    assert_eq!(limit(None, 40_000), Some(72_000));
    assert_eq!(limit(None, u32::MAX), Some(u64::from(u32::MAX)));
    assert_eq!(limit(Some(9), 2_000), Some(9));
}

// --- Refusals -------------------------------------------------------------------

fn refused(status: u16, headers: &[(&str, &str)], body: &str) -> Failure {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Anthropic.failure(&Head { status, headers }, body.as_bytes())
}

fn error(kind: &str, message: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_9"}).to_string()
}

#[test]
fn a_refusal_means_what_it_says_rather_than_its_status() {
    let spend = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "m",
        "details": {"error_code": "enforced_spend_limit_reached"}}});
    let cases = [
        (400, error("invalid_request_error", "max_tokens: 9 > 8"), Code::UpstreamRejected),
        (400, error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), Code::ContextLength),
        (
            400,
            error("invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 8 > 10"),
            Code::ContextLength,
        ),
        (400, error("invalid_request_error", "Your credit balance is too low"), Code::UpstreamQuota),
        (400, error("invalid_request_error", "You have reached your specified API usage limits."), Code::UpstreamQuota),
        (400, error("invalid_request_error", "Output blocked by content filtering policy"), Code::ContentFilter),
        (401, error("authentication_error", "invalid x-api-key"), Code::UpstreamAuth),
        (402, error("billing_error", "m"), Code::UpstreamQuota),
        (403, error("permission_error", "m"), Code::UpstreamAuth),
        (404, error("not_found_error", "model: claude-none"), Code::UpstreamModel),
        (404, "{\"detail\":\"Not Found\"}".to_owned(), Code::UpstreamRejected),
        (413, error("request_too_large", "m"), Code::UpstreamRejected),
        (429, error("rate_limit_error", "m"), Code::UpstreamRateLimit),
        (429, spend.to_string(), Code::UpstreamQuota),
        (500, error("api_error", "m"), Code::UpstreamError),
        (504, error("timeout_error", "m"), Code::UpstreamTimeout),
        (529, error("overloaded_error", "m"), Code::UpstreamOverloaded),
        (529, "<html></html>".to_owned(), Code::UpstreamOverloaded),
        (200, error("api_error", "api usage limits"), Code::UpstreamProtocol),
        (302, error("billing_error", "m"), Code::UpstreamRedirect),
    ];
    for (status, body, code) in cases {
        assert_eq!(refused(status, &[], &body).code, code, "{status} {body}");
    }
}

#[test]
fn the_pause_is_read_from_the_header_or_from_the_limits_that_are_exhausted() {
    let date = ("date", "Tue, 24 Nov 2026 14:00:00 GMT");
    let requests = [
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2026-11-24T14:00:04Z"),
        ("anthropic-ratelimit-tokens-remaining", "0"),
        ("anthropic-ratelimit-tokens-reset", "2026-11-24T14:00:07Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "1000"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-11-24T14:00:50Z"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&requests[..], more].concat();
    let pause = |status, headers: &[(&str, &str)]| refused(status, headers, "").retry_after_ms;

    assert_eq!(pause(429, &with(&[date, ("retry-after", "3")])), Some(3_000));
    assert_eq!(pause(429, &with(&[date])), Some(7_000));
    assert_eq!(pause(429, &with(&[])), None);
    assert_eq!(pause(200, &with(&[date, ("retry-after", "36")])), None);
    assert_eq!(pause(500, &with(&[date, ("retry-after", "36")])), None);
    assert_eq!(refused(429, &with(&[date, ("retry-after", "3")]), &error("billing_error", "m")).retry_after_ms, None);
}

#[test]
fn a_failure_names_the_field_and_the_call_but_quotes_nothing() {
    let secret = error("invalid_request_error", "messages.1.content.0: the secret prompt sk-123");
    let failure = refused(400, &[], &secret);
    assert_eq!((failure.param.as_deref(), failure.upstream_request_id.as_deref()), (Some("messages"), Some("req_9")));
    assert!(!format!("{failure:?}").contains("sk-123") && !failure.message.contains("prompt"), "{failure:?}");

    let field = |message: &str| refused(400, &[], &error("invalid_request_error", message)).param;
    assert_eq!(field("`temperature` is deprecated for this model.").as_deref(), Some("temperature"));
    assert_eq!(field("sk-123: no"), None);
    let headers = [("request-id", "req_1")];
    assert_eq!(refused(400, &headers, &secret).upstream_request_id.as_deref(), Some("req_1"));
    let odd = json!({"error": {"type": "api_error"}, "request_id": "no id"}).to_string();
    assert_eq!(refused(500, &[], &odd).upstream_request_id, None);
}
