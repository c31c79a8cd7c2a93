//! Signatures: what must go back with the next turn so that the model keeps its train of thought.
//!
//! OpenAI's are whole items of encrypted reasoning; Perplexity's hang on calls. Each is kept as `{"reasoning_item": …}`
//! or `{"thought_signature": …, "tool_call_id": …}`.

use serde_json::{Map, Value, json};

use crate::providers::{Piece, json};

/// What an answer's signatures may take; beyond it none is kept.
const BYTES_MAX: usize = 1024 * 1024;
/// What an item of reasoning is without its id, which the server would look for among what it has stored.
const REASONING_FIELDS: [&str; 3] = ["type", "summary", "encrypted_content"];

/// The signatures of one answer.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    kept: Vec<Value>,
    bytes: usize,
}

impl Signatures {
    /// Takes a finished item of the answer.
    pub(super) fn note(&mut self, item: &Value) {
        let signature = match json::text(item, "type") {
            Some("reasoning") if json::text(item, "encrypted_content").is_some() => {
                let fields =
                    REASONING_FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), item.get(name)?.clone())));
                let mut reasoning: Map<String, Value> = fields.collect();
                reasoning.entry("summary").or_insert_with(|| json!([]));
                json!({"reasoning_item": reasoning})
            }
            Some("function_call") => {
                let (Some(signature), Some(id)) = (json::text(item, "thought_signature"), json::text(item, "call_id"))
                else {
                    return;
                };
                json!({"thought_signature": signature, "tool_call_id": id})
            }
            _ => return,
        };
        self.bytes += json::weight(&signature);
        if self.bytes > BYTES_MAX {
            self.kept.clear();
        } else {
            self.kept.push(signature);
        }
    }

    /// Hands out everything.
    pub(super) fn tell(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        self.kept.drain(..).for_each(|signature| out(Piece::Opaque(signature)));
    }
}

/// The item of reasoning in a kept signature, if it is one.
pub(super) fn reasoning(opaque: &Value) -> Option<&Value> {
    json::get(opaque, "reasoning_item")
}

/// What hangs on the call `call_id` by a kept signature, if it is that.
pub(super) fn of_call<'v>(opaque: &'v Value, call_id: &str) -> Option<&'v str> {
    let same = json::text(opaque, "tool_call_id") == Some(call_id);
    json::text(opaque, "thought_signature").filter(|_| same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(items: &[Value]) -> Vec<Value> {
        let mut signatures = Signatures::default();
        items.iter().for_each(|item| signatures.note(item));
        let mut told = Vec::new();
        signatures.tell(&mut |piece| match piece {
            Piece::Opaque(value) => told.push(value),
            other => panic!("{other:?}"),
        });
        told
    }

    #[test]
    fn reasoning_is_kept_when_it_is_encrypted_and_without_its_id() {
        let item = json!({"type": "reasoning", "id": "rs_1", "status": "completed", "encrypted_content": "e",
            "content": [{"type": "reasoning_text", "text": "t"}]});
        let plain = json!({"type": "reasoning", "id": "rs_2", "summary": []});

        let kept = json!({"reasoning_item": {"type": "reasoning", "summary": [], "encrypted_content": "e"}});
        assert_eq!(told(&[item, plain]), [kept]);
    }

    #[test]
    fn what_hangs_on_a_call_is_kept_with_its_id() {
        let call = json!({"type": "function_call", "call_id": "c", "thought_signature": "s"});
        let unsigned = json!({"type": "function_call", "call_id": "d"});

        let told = told(&[call, unsigned]);

        assert_eq!(told.iter().map(|kept| of_call(kept, "c")).collect::<Vec<_>>(), [Some("s")]);
        assert_eq!(of_call(&told[0], "d"), None);
    }

    #[test]
    fn signatures_beyond_the_limit_are_not_kept() {
        let item = json!({"type": "reasoning", "encrypted_content": "e".repeat(BYTES_MAX / 2)});

        assert_eq!(told(std::slice::from_ref(&item)).len(), 1);
        assert_eq!(told(&[item.clone(), item.clone(), item]).len(), 0);
    }
}
