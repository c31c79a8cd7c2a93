//! Signatures: what must go back with the next turn so that the model keeps its train of thought.
//!
//! Two kinds are known. OpenRouter's `reasoning_details` come in pieces and go back whole; Google's `extra_content`
//! hangs on a tool call. Each is kept as `{"reasoning_detail": …}` or `{"extra_content": …, "tool_call_id": …}`.

use serde_json::{Value, json};

use crate::providers::{Piece, json};

/// What an answer's signatures may take; beyond it none is kept.
const BYTES_MAX: usize = 1024 * 1024;

/// Each piece is compared with the details so far; beyond this many none is kept.
const DETAILS_MAX: usize = 256;

/// The signatures of one answer.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    details: Vec<Value>,
    on_calls: Vec<Value>,
    bytes: usize,
}

impl Signatures {
    /// Takes a piece of `reasoning_details`.
    pub(super) fn add_detail(&mut self, piece: &Value) {
        self.bytes = self.bytes.saturating_add(json::weight(piece));
        if self.bytes > BYTES_MAX {
            self.details.clear();
            return;
        }
        if let Some(detail) = self.details.iter_mut().rfind(|detail| continues(detail, piece)) {
            merge(detail, piece);
        } else if self.details.len() < DETAILS_MAX {
            self.details.push(piece.clone());
        } else {
            // Half a train of thought is none.
            self.bytes = usize::MAX;
            self.details.clear();
        }
    }

    /// Takes what hangs on a tool call.
    pub(super) fn add_extra_content(&mut self, extra: &Value, call_id: &str) {
        self.bytes = self.bytes.saturating_add(json::weight(extra));
        if self.bytes <= BYTES_MAX {
            self.on_calls.push(json!({"extra_content": extra, "tool_call_id": call_id}));
        }
    }

    /// Hands out everything that is a signature. Details that are mere text have been told as reasoning.
    pub(super) fn tell(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        for detail in self.details.drain(..) {
            if ["signature", "data"].iter().any(|key| json::text(&detail, key).is_some()) {
                out(Piece::Opaque(json!({"reasoning_detail": detail})));
            }
        }
        for extra in self.on_calls.drain(..) {
            out(Piece::Opaque(extra));
        }
    }
}

/// The detail in a kept signature, if it is one.
pub(super) fn detail(opaque: &Value) -> Option<&Value> {
    json::get(opaque, "reasoning_detail")
}

/// What hangs on the call `call_id` by a kept signature, if it is that.
pub(super) fn extra_content<'v>(opaque: &'v Value, call_id: &str) -> Option<&'v Value> {
    let same = json::text(opaque, "tool_call_id") == Some(call_id);
    json::get(opaque, "extra_content").filter(|_| same)
}

/// Whether `piece` is more of `detail`. An id may come late, but it does not change.
fn continues(detail: &Value, piece: &Value) -> bool {
    let ids = (json::get(detail, "id"), json::get(piece, "id"));
    let same_id = !matches!(ids, (Some(one), Some(other)) if one != other);
    detail.get("type") == piece.get("type") && detail.get("index") == piece.get("index") && same_id
}

fn merge(detail: &mut Value, piece: &Value) {
    let Value::Object(detail) = detail else { return };
    for (key, value) in json::fields(piece).filter(|(_, value)| !value.is_null()) {
        match (key.as_str(), detail.get_mut(key), value) {
            ("text" | "summary", Some(Value::String(so_far)), Value::String(more)) => so_far.push_str(more),
            ("signature" | "data", _, Value::String(empty)) if empty.is_empty() => {}
            _ => drop(detail.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[Value]) -> Vec<Value> {
        let mut signatures = Signatures::default();
        pieces.iter().for_each(|piece| signatures.add_detail(piece));
        let mut told = Vec::new();
        signatures.tell(&mut |piece| match piece {
            Piece::Opaque(value) => told.push(value["reasoning_detail"].clone()),
            other => panic!("{other:?}"),
        });
        told
    }

    #[test]
    fn the_pieces_of_a_detail_become_one_with_its_signature() {
        let text = |text: &str, signature: Value| json!({"type": "reasoning.text", "index": 0, "text": text, "signature": signature});

        let told = told(&[text("a", Value::Null), text("b", json!("")), text("", json!("s")), text("", json!(""))]);

        assert_eq!(told, [text("ab", json!("s"))]);
    }

    #[test]
    fn details_of_another_index_type_or_id_are_others() {
        let encrypted =
            |id: &str, index: u32| json!({"type": "reasoning.encrypted", "id": id, "index": index, "data": "d"});
        let pieces = [encrypted("a", 0), encrypted("b", 0), encrypted("b", 1)];

        assert_eq!(told(&pieces), pieces);
    }

    #[test]
    fn text_without_a_signature_is_none() {
        assert_eq!(told(&[json!({"type": "reasoning.text", "text": "a"}), json!("x")]), Vec::<Value>::new());
    }

    #[test]
    fn signatures_beyond_the_limit_are_not_kept() {
        let data = "d".repeat(BYTES_MAX / 2);
        let detail = |index: u32| json!({"type": "reasoning.encrypted", "index": index, "data": data});

        assert_eq!(told(&[detail(0)]).len(), 1);
        assert_eq!(told(&[detail(0), detail(1), detail(2)]).len(), 0);

        let many: Vec<Value> = (0..DETAILS_MAX * 2).map(|index| json!({"index": index, "data": "d"})).collect();
        assert_eq!(told(&many[..DETAILS_MAX]), many[..DETAILS_MAX]);
        assert_eq!(told(&many), Vec::<Value>::new());
    }
}
