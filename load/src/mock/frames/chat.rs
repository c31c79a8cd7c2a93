//! OpenAI's chat completions, OpenRouter's and Sonar's.

use serde_json::{Value, json};

use super::{Refusal, Said, Speech, Usage};

const DONE: &str = "data: [DONE]\n\n";

/// A fixed time, so that the same call is answered with the same bytes.
const CREATED: u32 = 1_700_000_000;

/// The dialect's branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mock) enum Chat {
    Openai,
    Openrouter,
    Sonar,
}

impl Speech for Chat {
    fn opening(&self, call: u64) -> String {
        let role = choice(call, &json!({"role": "assistant", "content": ""}), None);
        match self {
            Chat::Openrouter => format!(": OPENROUTER PROCESSING\n\n{role}"),
            Chat::Openai | Chat::Sonar => role,
        }
    }

    fn text(&self, call: u64, text: &str) -> String {
        let delta = json!({"content": text});
        match self {
            Chat::Openai => choice(call, &delta, None),
            Chat::Openrouter => {
                let choices =
                    json!([{"index": 0, "delta": delta, "finish_reason": null, "native_finish_reason": null}]);
                event(call, &choices, &json!({"provider": "Riverside"}))
            }
            // The sources and the message so far come with every piece; here it is the piece once more.
            Chat::Sonar => {
                let message = json!({"role": "assistant", "content": text});
                let choices = json!([{"index": 0, "delta": delta, "message": message, "finish_reason": null}]);
                event(call, &choices, &json!({"citations": ["https://rivers.example/one"]}))
            }
        }
    }

    fn finish(&self, call: u64, _: Said<'_>, usage: Option<Usage>) -> String {
        let mut events = choice(call, &json!({}), Some("stop"));
        events.extend(usage.filter(|_| *self != Chat::Sonar).map(|counted| self::usage(call, counted)));
        events
    }

    fn terminator(&self, call: u64, said: Said<'_>, usage: Option<Usage>) -> String {
        if *self != Chat::Sonar {
            return DONE.to_owned();
        }
        let message = json!({"role": "assistant", "content": said()});
        let choices = json!([{"index": 0, "delta": {"content": ""}, "message": message, "finish_reason": "stop"}]);
        event(call, &choices, &json!({"object": "chat.completion.done", "usage": usage.map(counted)}))
    }

    fn error_event(&self, call: u64) -> String {
        if *self == Chat::Openrouter {
            let error = json!({"code": 502, "message": Refusal::Failed.message()});
            let choices = json!([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]);
            return event(call, &choices, &json!({"error": error})) + DONE;
        }
        let done = if *self == Chat::Sonar { "" } else { DONE };
        format!("data: {}\n\n{done}", error(Refusal::Failed.message(), "server_error", None))
    }

    fn refusal(&self, why: Refusal) -> (u16, String) {
        match self {
            Chat::Openai => (why.status(), openai(why)),
            Chat::Openrouter => {
                let status = if why == Refusal::Quota { 402 } else { why.status() };
                let metadata = json!({"provider_name": "Riverside", "raw": why.message()});
                let error = json!({"code": status, "message": why.message(), "metadata": metadata});
                (status, json!({"error": error, "user_id": "user_mock"}).to_string())
            }
            Chat::Sonar => perplexity(why),
        }
    }
}

/// One event of the answer `call`, with what its only choice adds and why it finished.
pub(in crate::mock) fn choice(call: u64, delta: &Value, finish_reason: Option<&str>) -> String {
    event(call, &json!([{"index": 0, "delta": delta, "finish_reason": finish_reason}]), &json!({}))
}

/// The event that counts the tokens.
pub(in crate::mock) fn usage(call: u64, usage: Usage) -> String {
    event(call, &json!([]), &json!({"usage": counted(usage)}))
}

/// The body of an error.
pub(in crate::mock) fn error(message: &str, kind: &str, code: Option<&str>) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

/// The body of OpenAI's refusals.
pub(super) fn openai(why: Refusal) -> String {
    let (kind, code) = match why {
        Refusal::Rejected | Refusal::TooLarge | Refusal::Unprocessable => ("invalid_request_error", None),
        Refusal::TooLong => ("invalid_request_error", Some("context_length_exceeded")),
        Refusal::Auth => ("invalid_request_error", Some("invalid_api_key")),
        Refusal::Forbidden => ("invalid_request_error", Some("unsupported_country_region_territory")),
        Refusal::NoModel => ("invalid_request_error", Some("model_not_found")),
        Refusal::TooMany => ("requests", Some("rate_limit_exceeded")),
        Refusal::Quota => ("insufficient_quota", Some("insufficient_quota")),
        Refusal::Failed => ("server_error", None),
        Refusal::Overloaded => ("server_error", Some("server_is_overloaded")),
    };
    error(why.message(), kind, code)
}

/// Perplexity's refusals. A wrong key is answered by the proxy in front, with a page.
pub(super) fn perplexity(why: Refusal) -> (u16, String) {
    let status = why.status();
    let kind = match why {
        Refusal::Auth => {
            let page =
                "<html>\r\n<head><title>401 Authorization Required</title></head>\r\n<body>mock</body>\r\n</html>";
            return (status, page.to_owned());
        }
        Refusal::NoModel => "invalid_model",
        Refusal::Quota => "insufficient_quota",
        Refusal::Failed | Refusal::Overloaded => "internal_server_error",
        _ => "invalid_request",
    };
    (status, json!({"error": {"message": why.message(), "type": kind, "code": status}}).to_string())
}

/// The answer to the question which models there are.
pub(in crate::mock) fn models(names: impl Iterator<Item = &'static str>) -> String {
    let models = names.map(|name| json!({"id": name, "object": "model", "created": CREATED, "owned_by": "mock"}));
    json!({"object": "list", "data": models.collect::<Vec<_>>()}).to_string()
}

fn counted(Usage { input, output }: Usage) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// One event, with further fields or others.
fn event(call: u64, choices: &Value, fields: &Value) -> String {
    let mut event = json!({
        "id": format!("chatcmpl-{call}"),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "mock-1",
        "choices": choices,
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    format!("data: {event}\n\n")
}
