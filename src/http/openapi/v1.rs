//! V1: the bodies and objects of OpenAI's API as weir speaks it. What is not named here travels as it is.

use serde_json::{Value, json};

use super::bodies::{IMAGE_URL, REQUEST_ID, function};
use super::operation::reference;
use super::schemas::{Body, Schemas, about, flag, number, or_null, pattern, text, whole, words};
use crate::config::Limits;
use crate::failure::FailureBody;
use crate::http::messages::{MAX_TOKENS_MAX, TEMPERATURE};

/// `POST /v1/chat/completions`
pub(super) fn completion(limits: &Limits) -> Value {
    let usage = json!({ "type": "object", "properties": { "include_usage": { "type": ["boolean", "null"] } } });
    let body = Body::new()
        .needs("messages", messages(limits))
        .may("max_tokens", whole(1, MAX_TOKENS_MAX))
        .may("max_completion_tokens", whole(1, MAX_TOKENS_MAX))
        .may("stream_options", about("`include_usage`: a last chunk says what the answer has cost.", usage))
        .may("n", about("There is one answer to a request.", json!({ "const": 1 })))
        .may("tools", tools(limits, &function()));
    body.and(common).and_others()
}

/// `POST /v1/responses`
pub(super) fn response(limits: &Limits) -> Value {
    let function = json!({ "type": "object", "required": ["type", "name"], "properties": {
        "type": { "const": "function" }, "name": { "type": "string", "minLength": 1 },
    } });
    let stateless = "Nothing is kept between calls.";
    let mut body = Body::new()
        .needs("input", input(limits))
        .may("instructions", json!({ "type": "string" }))
        .may("max_output_tokens", whole(1, MAX_TOKENS_MAX))
        .may("store", about("Nothing is stored, whatever it says.", flag()))
        .may("background", about(stateless, json!({ "const": false })))
        .may("tools", tools(limits, &function));
    for field in ["previous_response_id", "conversation", "prompt"] {
        body = body.has_no(field, stateless);
    }
    body.and(common).and_others()
}

fn common(body: Body) -> Body {
    body.needs(
        "model",
        about("`provider/model`, or a model that exactly one provider lists.", json!({ "type": "string" })),
    )
    .may("temperature", number(TEMPERATURE.0, TEMPERATURE.1))
    .may("stream", flag())
    .may("request_id", about("The request's id, if the client chooses it.", pattern(REQUEST_ID)))
    .may("coalesce", about("False: share no call with equal requests.", flag()))
}

fn tools(limits: &Limits, function: &Value) -> Value {
    let other = json!({
        "type": "object",
        "description": "Another tool, of a provider that speaks this API itself.",
        "required": ["type"],
        "properties": { "type": { "type": "string", "not": { "const": "function" } } },
    });
    json!({ "type": "array", "maxItems": limits.tools_max, "items": { "anyOf": [function, other] } })
}

fn messages(limits: &Limits) -> Value {
    let content = content(limits, &chat_part());
    let call_of = |kind: &str, said: &str| {
        json!({ "required": ["id", kind], "properties": { "id": { "type": "string" }, kind: {
            "type": "object",
            "required": ["name", said],
            "properties": { "name": { "type": "string" }, said: { "type": "string" } },
        } } })
    };
    let call = json!({ "type": "object", "anyOf": [call_of("function", "arguments"), call_of("custom", "input")] });
    let said = json!({
        "type": "object",
        "required": ["role", "content"],
        "properties": { "role": words(&["system", "developer", "user"]), "content": content, "tool_calls": { "type": "null" } },
    });
    let of_assistant = json!({
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": { "const": "assistant" },
            "content": { "anyOf": [content, { "type": "null" }] },
            "tool_calls": { "type": ["array", "null"], "items": call },
        },
    });
    let of_tool = json!({
        "type": "object",
        "required": ["role", "content", "tool_call_id"],
        "properties": {
            "role": { "const": "tool" },
            "content": content,
            "tool_call_id": { "type": "string" },
            "tool_calls": { "type": "null" },
        },
    });
    json!({
        "type": "array",
        "minItems": 1,
        "maxItems": limits.messages_max,
        "items": { "anyOf": [said, of_assistant, of_tool] },
    })
}

fn content(limits: &Limits, part: &Value) -> Value {
    json!({ "anyOf": [text(limits.content_bytes_max), { "type": "array", "items": part }] })
}

fn chat_part() -> Value {
    let image = json!({ "type": "object", "required": ["url"], "properties": {
        "url": pattern(IMAGE_URL), "detail": detail(),
    } });
    let other = json!({
        "type": "object",
        "description": "Another part, of a provider that speaks this API itself.",
        "required": ["type"],
        "properties": { "type": { "type": "string", "not": { "enum": ["text", "refusal", "image_url"] } } },
    });
    let text = json!({ "type": "string" });
    json!({ "anyOf": [part("text", "text", &text), part("refusal", "refusal", &text), part("image_url", "image_url", &image), other] })
}

fn input(limits: &Limits) -> Value {
    let text = json!({ "type": "string" });
    let image = json!({
        "type": "object",
        "required": ["type", "image_url"],
        "properties": { "type": { "const": "input_image" }, "image_url": pattern(IMAGE_URL), "detail": detail() },
    });
    let said = json!({
        "type": "object", "required": ["type", "text"],
        "properties": { "type": words(&["input_text", "output_text", "text"]), "text": text },
    });
    let content = content(limits, &json!({ "anyOf": [said, part("refusal", "refusal", &text), image] }));
    let message = json!({
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "type": or_null(words(&["message"])),
            "role": words(&["system", "developer", "user", "assistant"]),
            "content": content,
        },
    });
    let call = json!({
        "type": "object",
        "required": ["type", "call_id", "name", "arguments"],
        "properties": { "type": { "const": "function_call" }, "call_id": text, "name": text, "arguments": text },
    });
    let output = json!({
        "type": "object",
        "required": ["type", "call_id", "output"],
        "properties": { "type": { "const": "function_call_output" }, "call_id": text, "output": content },
    });
    let reasoning = json!({
        "type": "object",
        "description": "Skipped.",
        "required": ["type"],
        "properties": { "type": { "const": "reasoning" } },
    });
    let says_something = json!({ "not": { "properties": { "type": { "const": "reasoning" } }, "required": ["type"] } });
    json!({ "anyOf": [
        { "type": "string", "maxLength": limits.content_bytes_max },
        {
            "type": "array",
            "minItems": 1,
            "maxItems": limits.messages_max,
            "items": { "anyOf": [message, call, output, reasoning] },
            "contains": says_something,
        },
    ] })
}

fn part(kind: &str, field: &str, inside: &Value) -> Value {
    json!({ "type": "object", "required": ["type", field], "properties": { "type": { "const": kind }, field: inside } })
}

fn detail() -> Value {
    json!({ "type": ["string", "null"], "enum": ["low", "high", "auto", null] })
}

/// A response, whole or as an event of its stream tells it.
pub(super) fn objects(schemas: &mut Schemas) -> Value {
    let error = schemas.of::<FailureBody<'_>>();
    let item = json!({
        "type": "object",
        "required": ["id", "type"],
        "properties": {
            "id": { "type": "string" },
            "type": words(&["reasoning", "message", "function_call"]),
            "status": words(&["in_progress", "completed"]),
            "role": { "const": "assistant" },
            "content": { "type": "array", "items": { "type": "object" } },
            "summary": { "type": "array", "items": { "type": "object" } },
            "call_id": { "type": "string" },
            "name": { "type": "string" },
            "arguments": { "type": "string" },
        },
    });
    let item = schemas.named("ResponseItem", item);
    let tokens = json!({ "type": "integer", "minimum": 0 });
    let usage = json!({
        "type": ["object", "null"],
        "required": ["input_tokens", "output_tokens", "total_tokens"],
        "properties": { "input_tokens": tokens, "output_tokens": tokens, "total_tokens": tokens },
    });
    let response = json!({
        "type": "object",
        "description": "Beside these fields it repeats some of its request.",
        "required": ["id", "object", "created_at", "status", "error", "incomplete_details", "model", "output", "usage"],
        "properties": {
            "id": { "type": "string" },
            "object": { "const": "response" },
            "created_at": { "type": "integer" },
            "status": words(&["in_progress", "completed", "incomplete", "failed"]),
            "error": { "anyOf": [error, { "type": "null" }] },
            "incomplete_details": { "type": ["object", "null"] },
            "model": { "type": "string" },
            "output": { "type": "array", "items": item },
            "store": { "const": false },
            "usage": usage,
        },
    });
    let response = schemas.named("Response", response);
    let data = json!({
        "type": "object",
        "required": ["type", "sequence_number"],
        "properties": {
            "type": pattern("^response\\."),
            "sequence_number": { "type": "integer", "minimum": 0 },
            "response": reference("schemas", "Response"),
            "item": item,
            "item_id": { "type": "string" },
            "output_index": { "type": "integer", "minimum": 0 },
            "delta": { "type": "string" },
        },
    });
    schemas.named("ResponseData", data);
    response
}
