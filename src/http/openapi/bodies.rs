//! Bodies: what threads, sessions and pacers take, with the bounds that are in effect.

use serde_json::{Value, json};

use super::schemas::{Body, about, array, flag, number, or_null, pattern, text, whole, words};
use crate::config::Limits;
use crate::http::admin;
use crate::http::messages::{MAX_TOKENS_MAX, TEMPERATURE};

/// What a request may be called.
pub(super) const REQUEST_ID: &str = "^[A-Za-z0-9_-]{1,64}$";
/// Where images may be.
pub(super) const IMAGE_URL: &str = "^(https://|data:image/)";
/// Something is said: not only spaces.
const SAYS_SOMETHING: &str = "\\S";

/// `POST /api/session`
pub(super) fn key() -> Value {
    Body::new()
        .needs("key", about("The key, as in `Authorization: Bearer`.", json!({ "type": "string" })))
        .and_nothing_else()
}

/// `POST /api/threads`
pub(super) fn new_thread(limits: &Limits) -> Value {
    Body::new()
        .may("title", text(limits.title_chars_max))
        .may("description", text(limits.description_chars_max))
        .may("user_id", text(limits.user_id_chars_max))
        .and_nothing_else()
}

/// `PATCH /api/threads/{thread}`
pub(super) fn thread_changes(limits: &Limits) -> Value {
    Body::new().may("title", text(limits.title_chars_max)).may("pinned", flag()).and_nothing_else()
}

/// `POST …/messages` and `…/messages/stream`
pub(super) fn message(limits: &Limits) -> Value {
    let content = about("A text, or parts as OpenAI writes them.", content(limits));
    let body = Body::new().needs("content", content).may("role", words(&["user"]));
    body.and(|body| answer_options(body, limits)).and_nothing_else()
}

/// `POST …/regenerate`
pub(super) fn regenerate(limits: &Limits) -> Value {
    let about_content = "Said in the place of the last user message; without it, that one is answered anew.";
    let body = Body::new().may("content", about(about_content, content(limits)));
    let mut schema = body.and(|body| answer_options(body, limits)).and_nothing_else();
    // Attachments come with a content.
    schema["anyOf"] = json!([
        { "required": ["content"], "properties": { "content": { "not": { "type": "null" } } } },
        { "properties": { "attachments": { "maxItems": 0 } } },
    ]);
    schema
}

/// `PATCH /api/admin/pacers/{provider}`
pub(super) fn pace() -> Value {
    let (rps, concurrency, burst, tpm) = (admin::RPS, admin::CONCURRENCY, admin::BURST, admin::TPM);
    Body::new()
        .may("rps", about("Calls a second.", number(rps.0, rps.1)))
        .may("concurrency", about("Calls at the same time.", whole(concurrency.0, concurrency.1)))
        .may("burst", about("Calls at once after a quiet time.", whole(burst.0, burst.1)))
        .may("tpm", about("Tokens a minute; 0: as many as one likes.", whole(tpm.0, tpm.1)))
        .and_nothing_else()
}

/// What a message and a new answer have in common.
fn answer_options(body: Body, limits: &Limits) -> Body {
    let kept = "Kept with the message.";
    body.may("provider", about("Who answers; else the default provider.", json!({ "type": "string" })))
        .may("model", about("What answers; else the provider's default.", json!({ "type": "string" })))
        .may("temperature", number(TEMPERATURE.0, TEMPERATURE.1))
        .may("max_tokens", whole(1, MAX_TOKENS_MAX))
        .may("tools", tools(limits))
        .may("user_id", text(limits.user_id_chars_max))
        .may("request_id", about("The request's id, if the client chooses it.", pattern(REQUEST_ID)))
        .may("coalesce", about("False: share no call with equal requests.", flag()))
        .may("reason", about(kept, text(limits.title_chars_max)))
        .may("scope", about(kept, text(limits.title_chars_max)))
        .may("attachments", about("Images, which become parts.", array(&attachment())))
        .may("use_memory", about("Changes nothing.", flag()))
        .may("collaboration_mode", about("Several models cannot answer together.", json!({ "const": false })))
}

fn content(limits: &Limits) -> Value {
    // In bytes the limit is the same; a character has one at least.
    let chars_max = limits.content_bytes_max;
    json!({ "anyOf": [
        { "type": "string", "pattern": SAYS_SOMETHING, "maxLength": chars_max },
        { "type": "array", "items": part(chars_max), "contains": says_something() },
    ] })
}

fn part(chars_max: usize) -> Value {
    let image = json!({
        "type": "object",
        "required": ["url"],
        "properties": {
            "url": { "type": "string", "pattern": IMAGE_URL, "maxLength": chars_max },
            "detail": { "type": ["string", "null"], "enum": ["low", "high", "auto", null] },
        },
        "additionalProperties": false,
    });
    json!({ "anyOf": [part_of("text", &text(chars_max)), part_of("image_url", &image)] })
}

fn part_of(kind: &str, inside: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["type", kind],
        "properties": { "type": { "const": kind }, kind: inside },
        "additionalProperties": false,
    })
}

fn says_something() -> Value {
    json!({ "anyOf": [
        { "properties": { "type": { "const": "image_url" } } },
        { "properties": { "text": { "pattern": SAYS_SOMETHING } } },
    ] })
}

fn attachment() -> Value {
    json!({
        "type": "object",
        "required": ["url"],
        "properties": {
            "url": pattern(IMAGE_URL),
            "mime_type": about("Of an image.", or_null(pattern("^image"))),
        },
    })
}

/// Functions that the model may call, as OpenAI writes them.
fn tools(limits: &Limits) -> Value {
    json!({ "type": "array", "maxItems": limits.tools_max, "items": function() })
}

/// One of them.
pub(super) fn function() -> Value {
    json!({
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": { "const": "function" },
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": { "name": { "type": "string", "minLength": 1 } },
            },
        },
    })
}
