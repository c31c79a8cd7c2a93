//! OpenAI's responses, and Perplexity's agents, which speak alike.

use serde_json::{Value, json};

use super::{Refusal, Said, Speech, Usage, chat};

/// The dialect's branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mock) enum Responses {
    Openai,
    Perplexity,
}

impl Speech for Responses {
    fn opening(&self, call: u64) -> String {
        let response = response(call, "in_progress", &json!({"output": []}));
        let mut events = event("response.created", &json!({"response": response}));
        events.push_str(&event("response.in_progress", &json!({"response": response})));
        let item =
            json!({"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []});
        events.push_str(&event("response.output_item.added", &json!({"output_index": 0, "item": item})));
        let part = json!({"type": "output_text", "text": "", "annotations": []});
        events.push_str(&event("response.content_part.added", &of_part(&json!({"part": part}))));
        events
    }

    fn text(&self, _: u64, text: &str) -> String {
        event("response.output_text.delta", &of_part(&json!({"delta": text, "logprobs": []})))
    }

    fn finish(&self, _: u64, said: Said<'_>, _: Option<Usage>) -> String {
        let mut events = event("response.output_text.done", &of_part(&json!({"text": said(), "logprobs": []})));
        let part = json!({"type": "output_text", "text": said(), "annotations": []});
        events.push_str(&event("response.content_part.done", &of_part(&json!({"part": part}))));
        events.push_str(&event("response.output_item.done", &json!({"output_index": 0, "item": item(&said())})));
        events
    }

    fn terminator(&self, call: u64, said: Said<'_>, usage: Option<Usage>) -> String {
        let usage = usage.map(|Usage { input, output }| {
            json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output})
        });
        let response = response(call, "completed", &json!({"output": [item(&said())], "usage": usage}));
        event("response.completed", &json!({"response": response}))
    }

    fn keep_alive(&self) -> &'static str {
        "event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n"
    }

    fn error_event(&self, call: u64) -> String {
        let error = json!({"code": "server_error", "message": Refusal::Failed.message()});
        match self {
            Responses::Openai => event("error", &json!({"error": error})),
            Responses::Perplexity => {
                let response = response(call, "failed", &json!({"output": [], "error": error}));
                event("response.failed", &json!({"response": response}))
            }
        }
    }

    fn refusal(&self, why: Refusal) -> (u16, String) {
        match self {
            Responses::Openai => (why.status(), chat::openai(why)),
            Responses::Perplexity => chat::perplexity(why),
        }
    }
}

fn item(said: &str) -> Value {
    let content = json!([{"type": "output_text", "text": said, "annotations": []}]);
    json!({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content})
}

fn response(call: u64, status: &str, fields: &Value) -> Value {
    let id = format!("resp_{call}");
    with(json!({"id": id, "object": "response", "status": status, "model": "mock-1"}), fields)
}

/// The fields of an event that is about the only text.
fn of_part(fields: &Value) -> Value {
    with(json!({"item_id": "msg_1", "output_index": 0, "content_index": 0}), fields)
}

fn event(name: &str, fields: &Value) -> String {
    let event = with(json!({"type": name}), fields);
    format!("event: {name}\ndata: {event}\n\n")
}

fn with(mut object: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}
