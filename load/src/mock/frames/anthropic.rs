//! Anthropic's named events: one message, one block.

use serde_json::{Value, json};

use super::{Refusal, Said, Speech, Usage};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(in crate::mock) struct Anthropic;

impl Speech for Anthropic {
    fn opening(&self, call: u64) -> String {
        let message = json!({
            "id": format!("msg_{call}"), "type": "message", "role": "assistant", "model": "mock-1", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1},
        });
        let block = json!({"type": "text", "text": ""});
        let mut events = event("message_start", json!({"message": message}));
        events.push_str(&event("content_block_start", json!({"index": 0, "content_block": block})));
        events.push_str(self.keep_alive());
        events
    }

    fn text(&self, _: u64, text: &str) -> String {
        event("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": text}}))
    }

    fn finish(&self, _: u64, _: Said<'_>, usage: Option<Usage>) -> String {
        let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
        let usage = usage
            .map_or(Value::Null, |Usage { input, output }| json!({"input_tokens": input, "output_tokens": output}));
        let end = event("content_block_stop", json!({"index": 0}));
        end + &event("message_delta", json!({"delta": delta, "usage": usage}))
    }

    fn terminator(&self, _: u64, _: Said<'_>, _: Option<Usage>) -> String {
        event("message_stop", json!({}))
    }

    fn keep_alive(&self) -> &'static str {
        "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    }

    fn error_event(&self, _: u64) -> String {
        format!("event: error\ndata: {}\n\n", error("api_error", Refusal::Failed.message()))
    }

    fn refusal(&self, why: Refusal) -> (u16, String) {
        let (status, kind) = match why {
            Refusal::Rejected | Refusal::Unprocessable => (why.status(), "invalid_request_error"),
            Refusal::TooLong => {
                return (400, error("invalid_request_error", "prompt is too long: the mock has read enough"));
            }
            Refusal::Auth => (401, "authentication_error"),
            Refusal::Forbidden => (403, "permission_error"),
            Refusal::NoModel => (404, "not_found_error"),
            Refusal::TooLarge => (413, "request_too_large"),
            Refusal::TooMany => (429, "rate_limit_error"),
            Refusal::Quota => {
                let message = "the mock wants to be paid: your credit balance is too low";
                return (400, error("invalid_request_error", message));
            }
            Refusal::Failed => (500, "api_error"),
            Refusal::Overloaded => (529, "overloaded_error"),
        };
        (status, error(kind, why.message()))
    }
}

fn error(kind: &str, message: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_mock"}).to_string()
}

fn event(name: &str, mut fields: Value) -> String {
    fields["type"] = name.into();
    format!("event: {name}\ndata: {fields}\n\n")
}
