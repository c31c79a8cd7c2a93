//! Signatures: what must go back with the next turn so that the model keeps its train of thought.
//!
//! They hang on parts, and go back on the same parts: on a call, or on a piece of the text, often an empty one at its
//! end. Kept as `{"gemini_signature", "tool_call_id"}` and as `{"gemini_signature", "from", "to"}`, where the numbers
//! are bytes of the answer's text.

use serde_json::{Value, json};

use crate::providers::{Piece, json};

/// What an answer's signatures may take; beyond it none is kept.
const BYTES_MAX: usize = 1024 * 1024;

/// Google's word for a call that the model has not signed because it was not the model's: without any signature the
/// newer models refuse the whole conversation.
const UNSIGNED: &str = "skip_thought_signature_validator";

/// The signatures of one answer.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    bytes: usize,
}

impl Signatures {
    /// Keeps the signature of a call.
    pub(super) fn keep_on_call(&mut self, signature: &str, id: &str, out: &mut dyn FnMut(Piece<'_>)) {
        self.keep(json!({"gemini_signature": signature, "tool_call_id": id}), out);
    }

    /// Keeps the signature of a piece of the text.
    pub(super) fn keep_on_text(&mut self, signature: &str, from: usize, to: usize, out: &mut dyn FnMut(Piece<'_>)) {
        self.keep(json!({"gemini_signature": signature, "from": from, "to": to}), out);
    }

    fn keep(&mut self, kept: Value, out: &mut dyn FnMut(Piece<'_>)) {
        self.bytes = self.bytes.saturating_add(json::weight(&kept));
        if self.bytes <= BYTES_MAX {
            out(Piece::Opaque(kept));
        }
    }
}

/// The parts of an answer's text, cut where its signatures stood. A signature that does not fit the text is left out:
/// it belongs to another one.
pub(super) fn text_parts(text: &str, opaque: &[Value]) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut told = 0;
    for kept in opaque {
        let place = |key: &str| json::get(kept, key).and_then(json::count).and_then(|at| usize::try_from(at).ok());
        let (Some(from), Some(to)) = (place("from"), place("to")) else { continue };
        let pieces = (text.get(told..from), text.get(from..to), json::text(kept, "gemini_signature"));
        if let (Some(before), Some(piece), Some(signature)) = pieces {
            parts.extend(unsigned(before));
            parts.push(json!({"text": piece, "thoughtSignature": signature}));
            told = to;
        }
    }
    parts.extend(unsigned(&text[told..]));
    parts
}

fn unsigned(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!({"text": text}))
}

/// The signature of a call, if the model has signed it.
pub(super) fn of_call<'v>(opaque: &'v [Value], id: &str) -> Option<&'v str> {
    let mut on_it = opaque.iter().filter(|kept| json::text(kept, "tool_call_id") == Some(id));
    on_it.find_map(|kept| json::text(kept, "gemini_signature"))
}

/// What stands in for the signature of an answer's first call where a model asks for one. Generation 3 was the first
/// to do so.
pub(super) fn of_foreign_call(model: &str) -> Option<&'static str> {
    let is_gemini = model.rsplit('/').next().is_some_and(|name| name.starts_with("gemini-"));
    let asks = super::generation(model).is_none_or(|generation| generation >= 3);
    (is_gemini && asks).then_some(UNSIGNED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(from: usize, to: usize) -> Value {
        json!({"gemini_signature": "s", "from": from, "to": to})
    }

    #[test]
    fn signed_pieces_go_back_as_they_came() {
        let opaque = [signed(0, 2), signed(5, 5)];

        let parts = text_parts("onetw", &opaque);

        let text = |text: &str| json!({"text": text});
        let with_signature = |text: &str| json!({"text": text, "thoughtSignature": "s"});
        assert_eq!(parts, [with_signature("on"), text("etw"), with_signature("")]);
    }

    #[test]
    fn what_belongs_to_another_text_or_dialect_is_left_out() {
        let foreign = json!({"reasoning_detail": {"signature": "s"}});
        let opaque = [foreign, signed(1, 2), signed(0, 9), signed(2, 0)];

        assert_eq!(text_parts("é", &opaque), [json!({"text": "é"})]);
        assert_eq!(text_parts("", &opaque), Vec::<Value>::new());
    }

    #[test]
    fn signatures_beyond_the_limit_are_not_kept() {
        let mut signatures = Signatures::default();
        let mut kept = 0;
        for _ in 0..5 {
            signatures.keep_on_call(&"s".repeat(BYTES_MAX / 3), "c", &mut |_| kept += 1);
        }

        assert_eq!(kept, 2);
    }

    #[test]
    fn only_models_that_ask_for_a_signature_get_a_stand_in() {
        for asks in ["gemini-3.8-flash", "models/gemini-3-pro", "gemini-12", "gemini-flash-latest"] {
            assert_eq!(of_foreign_call(asks), Some(UNSIGNED), "{asks}");
        }
        for other in ["gemini-2.5-flash", "gemini-1.5-pro", "gemma-3-27b-it", ""] {
            assert_eq!(of_foreign_call(other), None, "{other}");
        }
    }
}
