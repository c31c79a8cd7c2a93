//! Ollama's lines: the last one says that it is.

use serde_json::{Value, json};

use super::{Refusal, Said, Speech, Usage};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(in crate::mock) struct Ollama;

impl Speech for Ollama {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn opening(&self, _: u64) -> String {
        line("", json!({"done": false}))
    }

    fn text(&self, _: u64, text: &str) -> String {
        line(text, json!({"done": false}))
    }

    fn finish(&self, _: u64, _: Said<'_>, _: Option<Usage>) -> String {
        String::new()
    }

    fn terminator(&self, _: u64, _: Said<'_>, usage: Option<Usage>) -> String {
        let mut last = json!({"done": true, "done_reason": "stop", "total_duration": 1_000_000});
        if let Some(Usage { input, output }) = usage {
            last["prompt_eval_count"] = input.into();
            last["eval_count"] = output.into();
        }
        line("", last)
    }

    fn keep_alive(&self) -> &'static str {
        "\n"
    }

    fn error_event(&self, _: u64) -> String {
        json!({"error": Refusal::Failed.message()}).to_string() + "\n"
    }

    fn refusal(&self, why: Refusal) -> (u16, String) {
        let message = match why {
            Refusal::NoModel => "the mock's model is not found, try pulling it first",
            Refusal::Quota => "the mock has had enough: you have reached your weekly usage limit",
            Refusal::Overloaded => "the mock's server busy, please try again",
            why => why.message(),
        };
        (why.status(), json!({"error": message}).to_string())
    }
}

fn line(text: &str, mut fields: Value) -> String {
    fields["model"] = "mock-1".into();
    fields["created_at"] = "2026-01-01T00:00:00Z".into();
    fields["message"] = json!({"role": "assistant", "content": text});
    format!("{fields}\n")
}
