//! Errors: what a server of this dialect means by one, in the stream or in place of it.
//!
//! The shapes vary (`{"error":{…}}`, `{"error":"…"}`, `[{"error":…}]`, a flat object), and so do the codes: texts,
//! numbers, OpenRouter's `error_type`. Messages are searched for a few telling words, never quoted.

use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::providers::{Head, json, moments, refused};

/// The words of `code`, `type` and their kin that say precisely what is wrong.
const PRECISE: &[(Code, &[&str])] = &[
    (
        Code::UpstreamQuota,
        &[
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_hard_limit_reached",
            "billing_not_active",
            "insufficient_credits",
            "insufficient_balance",
            "payment_required",
            "exceeded_current_quota_error",
        ],
    ),
    (
        Code::ContextLength,
        &["context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "prompt_too_long"],
    ),
    (
        Code::ContentFilter,
        &[
            "content_filter",
            "content_policy",
            "content_policy_violation",
            "moderation",
            "moderation_blocked",
            "responsibleaipolicyviolation",
            "invalid_prompt",
            "data_inspection_failed",
            "image_content_policy_violation",
            "guardrail",
            "safety",
        ],
    ),
    (
        Code::UpstreamModel,
        &[
            "model_not_found",
            "model_not_available",
            "model_not_supported",
            "deploymentnotfound",
            "unknown_model",
            "invalid_model",
        ],
    ),
    (
        Code::UpstreamAuth,
        &[
            "invalid_api_key",
            "invalid_authentication",
            "authentication_error",
            "authenticationerror",
            "authentication_required",
            "unauthorized",
            "unauthenticated",
            "permission_denied",
            "permission_error",
            "permissiondeniederror",
            "account_deactivated",
        ],
    ),
    (
        Code::UpstreamRateLimit,
        &[
            "rate_limit",
            "rate_limited",
            "rate_limit_exceeded",
            "rate_limit_error",
            "ratelimiterror",
            "rate_limit_reached_error",
            "request_rate_limit_exceeded",
            "slow_down",
            "too_many_requests",
            "resource_exhausted",
        ],
    ),
    (
        Code::UpstreamOverloaded,
        &[
            "server_is_overloaded",
            "overloaded",
            "overloaded_error",
            "engine_overloaded",
            "engine_overloaded_error",
            "provider_overloaded",
            "service_unavailable",
            "service_unavailable_error",
            "serviceunavailableerror",
            "unavailable",
            "unavailable_error",
            "service_tier_capacity_exceeded",
            "insufficient_system_resource",
        ],
    ),
    (
        Code::UpstreamTimeout,
        &[
            "timeout",
            "timeout_error",
            "request_timeout",
            "gateway_timeout",
            "upstream_timeout",
            "vector_store_timeout",
            "deadline_exceeded",
        ],
    ),
];

/// The words that tell whose fault it is, and no more.
const COARSE: &[(Code, &[&str])] = &[
    (
        Code::UpstreamRejected,
        &[
            "invalid_request_error",
            "invalid_request",
            "invalid_argument",
            "bad_request",
            "badrequesterror",
            "validation_error",
            "unprocessable_entity",
            "invalid_encrypted_content",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "invalid_base64_image",
            "unsupported_image_media_type",
            "image_too_large",
            "image_too_small",
            "image_file_too_large",
            "image_file_not_found",
            "image_parse_error",
            "empty_image_file",
            "failed_to_download_image",
        ],
    ),
    (Code::UpstreamModel, &["not_found", "not_found_error", "notfounderror"]),
];

/// What messages say where the codes say nothing.
const PHRASES: &[(Code, &[&str])] = &[
    (
        Code::ContextLength,
        &[
            "context length",
            "context window",
            "context size",
            "maximum prompt length",
            "prompt is too long",
            "input is too long",
            "reduce the length of the messages",
        ],
    ),
    (Code::UpstreamQuota, &["insufficient balance", "insufficient credit", "credit balance"]),
    (Code::ContentFilter, &["content management policy", "content policy", "was flagged"]),
];

/// Phrases that are about the model only where the message names one.
const MODEL_PHRASES: &[&str] = &["not found", "does not exist", "not a valid model", "unknown model", "no endpoints"];

/// How much of a message is searched.
const MESSAGE_SEARCHED_MAX: usize = 2_000;

/// Request fields that a failure may name; anything else in `param` stays unsaid.
const PARAMS: [&str; 12] = [
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "stop",
    "temperature",
    "tools",
    "top_p",
];

/// Where a server's name for a request field is not the one that weir's clients know.
const RENAMED_PARAMS: [(&str, &str); 3] =
    [("input", "messages"), ("max_output_tokens", "max_tokens"), ("text", "response_format")];

/// The failure of an answer that has this error in its stream.
pub(in crate::providers) fn in_stream(error: &Value) -> Failure {
    let code = code(error).unwrap_or(Code::UpstreamError);
    let mut failure = with_param(Failure::new(code, refused::sentence(code)), error);
    if matches!(code, Code::UpstreamRateLimit | Code::UpstreamOverloaded) {
        failure.retry_after_ms = asked_ms(error).and_then(refused::pause_ms);
    }
    failure
}

/// The failure of a call that was answered with something else than a stream.
pub(in crate::providers) fn refused(head: &Head, body: &[u8]) -> Failure {
    let by_status = refused::code(head.status);
    if !(400..600).contains(&head.status) {
        return refused::failure(head, by_status, None);
    }
    let text = String::from_utf8_lossy(body);
    let document = json::parse(&text).unwrap_or_default();
    let told = error_in(&document);
    let error = told.unwrap_or(&document);
    if by_status == Code::UpstreamModel && told.is_none() && precise(Some(head.status), error).is_none() {
        return refused::unknown_path(head);
    }
    let code = precise(Some(head.status), error).unwrap_or(by_status);
    with_param(refused::failure(head, code, asked_ms(error)), error)
}

/// The error in a document, if it is one that tells of an error.
pub(in crate::providers) fn error_in(document: &Value) -> Option<&Value> {
    let document = match document {
        Value::Array(items) => items.first()?,
        other => other,
    };
    if let Some(error) = json::get(document, "error").filter(|error| !json::is_blank(error)) {
        return Some(error);
    }
    let is_flat = ["type", "object"].iter().any(|key| json::text(document, key) == Some("error"));
    is_flat.then_some(document)
}

/// What an error in a stream means: what it says precisely, then its number, then its coarse words.
fn code(error: &Value) -> Option<Code> {
    let numbers = ["code", "status", "status_code"].iter().filter_map(|key| json::get(error, key));
    let mut numbers = numbers.filter_map(json::count).filter_map(|number| u16::try_from(number).ok());
    let status = numbers.find(|number| (400..600).contains(number));
    precise(status, error).or(status.map(refused::code)).or_else(|| by_word(COARSE, error))
}

/// What an error says precisely: its words first, then its message.
fn precise(status: Option<u16>, error: &Value) -> Option<Code> {
    by_word(PRECISE, error).or_else(|| by_phrase(status, error))
}

fn by_word(table: &[(Code, &[&str])], error: &Value) -> Option<Code> {
    let words = words(error);
    let mut codes = words.iter().filter_map(|word| table.iter().find(|(_, names)| names.contains(&word.as_str())));
    codes.next().map(|(code, _)| *code)
}

/// Everything in an error that may be a code, in lower case.
fn words(error: &Value) -> Vec<String> {
    let metadata = json::get(error, "metadata").and_then(|metadata| json::text(metadata, "error_type"));
    let inner = ["innererror", "inner_error"].iter().find_map(|key| json::get(error, key));
    let inner = inner.and_then(|inner| json::text(inner, "code"));
    let own = ["code", "type", "status"].iter().filter_map(|key| json::text(error, key));
    inner.into_iter().chain(metadata).chain(own).chain(error.as_str()).map(str::to_ascii_lowercase).collect()
}

fn by_phrase(status: Option<u16>, error: &Value) -> Option<Code> {
    // What a rate limit says about tokens is not about the window.
    if status == Some(429) {
        return None;
    }
    let message = message(error)?;
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let found = PHRASES.iter().find(|(_, phrases)| says(phrases)).map(|(code, _)| *code);
    found.or_else(|| (message.contains("model") && says(MODEL_PHRASES)).then_some(Code::UpstreamModel))
}

/// What an error says to people: the beginning, in lower case, to be searched and not to be quoted.
pub(in crate::providers) fn message(error: &Value) -> Option<String> {
    let message = error.as_str().or_else(|| json::text(error, "message"))?;
    Some(message.chars().take(MESSAGE_SEARCHED_MAX).map(|char| char.to_ascii_lowercase()).collect())
}

/// The pause that an error asks for.
fn asked_ms(error: &Value) -> Option<f64> {
    let seconds = |value: &Value| json::get(value, "retry_after").and_then(Value::as_f64).map(|s| s * 1_000.0);
    let delay = |detail: &Value| json::text(detail, "retryDelay").and_then(moments::duration_ms);
    seconds(error)
        .or_else(|| json::get(error, "availability").and_then(seconds))
        .or_else(|| json::items(error, "details").iter().find_map(delay))
}

fn with_param(mut failure: Failure, error: &Value) -> Failure {
    let field = json::text(error, "param").and_then(|param| param.split(['.', '[']).next());
    let field =
        RENAMED_PARAMS.into_iter().find(|(theirs, _)| Some(*theirs) == field).map_or(field, |(_, ours)| Some(ours));
    failure.param = PARAMS.into_iter().find(|known| Some(*known) == field).map(Into::into);
    failure
}
