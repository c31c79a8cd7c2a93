//! Google's chunks: lines end in CRLF, and the answer with its body.

use serde_json::{Value, json};

use super::{Refusal, Said, Speech, Usage};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(in crate::mock) struct Gemini;

impl Speech for Gemini {
    fn opening(&self, call: u64) -> String {
        chunk(call, &json!({"content": {"role": "model"}, "index": 0}), None)
    }

    fn text(&self, call: u64, text: &str) -> String {
        chunk(call, &json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}), None)
    }

    fn finish(&self, call: u64, _: Said<'_>, usage: Option<Usage>) -> String {
        let content = json!({"parts": [{"text": ""}], "role": "model"});
        chunk(call, &json!({"content": content, "finishReason": "STOP", "index": 0}), usage)
    }

    fn terminator(&self, _: u64, _: Said<'_>, _: Option<Usage>) -> String {
        String::new()
    }

    fn keep_alive(&self) -> &'static str {
        ": keep-alive\r\n\r\n"
    }

    fn error_event(&self, _: u64) -> String {
        format!("data: {}\r\n\r\n", error(500, "INTERNAL", Refusal::Failed, &json!([])))
    }

    fn refusal(&self, why: Refusal) -> (u16, String) {
        let quota =
            |id: &str| json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": id}]});
        let (status, word, details) = match why {
            Refusal::Rejected | Refusal::TooLarge | Refusal::Unprocessable => {
                (why.status(), "INVALID_ARGUMENT", json!([]))
            }
            Refusal::TooLong => {
                let message =
                    "the mock counts more: the input token count exceeds the maximum number of tokens allowed";
                let error = json!({"code": 400, "message": message, "status": "INVALID_ARGUMENT"});
                return (400, json!({"error": error}).to_string());
            }
            Refusal::Auth => {
                let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"});
                (400, "INVALID_ARGUMENT", json!([info]))
            }
            Refusal::Forbidden => (403, "PERMISSION_DENIED", json!([])),
            Refusal::NoModel => (404, "NOT_FOUND", json!([])),
            Refusal::TooMany => {
                let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"});
                (429, "RESOURCE_EXHAUSTED", json!([quota("RequestsPerMinutePerProject"), retry]))
            }
            Refusal::Quota => (429, "RESOURCE_EXHAUSTED", json!([quota("RequestsPerDayPerProject")])),
            Refusal::Failed => (500, "INTERNAL", json!([])),
            Refusal::Overloaded => (503, "UNAVAILABLE", json!([])),
        };
        (status, error(status, word, why, &details))
    }
}

fn error(status: u16, word: &str, why: Refusal, details: &Value) -> String {
    json!({"error": {"code": status, "message": why.message(), "status": word, "details": details}}).to_string()
}

fn chunk(call: u64, candidate: &Value, usage: Option<Usage>) -> String {
    let mut chunk = json!({"candidates": [candidate], "modelVersion": "mock-1", "responseId": format!("r{call}")});
    if let Some(Usage { input, output }) = usage {
        let counted =
            json!({"promptTokenCount": input, "candidatesTokenCount": output, "totalTokenCount": input + output});
        chunk["usageMetadata"] = counted;
    }
    format!("data: {chunk}\r\n\r\n")
}
