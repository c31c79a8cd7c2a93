//! Thinking: the signed blocks that must go back with the next turn, unchanged and in their places.
//!
//! An answer's blocks are text, calls of tools and thinking, in any order. The first two are kept as one text and a
//! list, so a block of thinking is kept with what had been said before it:
//! `{"thinking_block": …, "model": …, "text_before": <bytes>, "calls_before": <number>}`.

use serde_json::{Value, json};

use super::{models, turns};
use crate::providers::{Piece, json};

/// What an answer's thinking may take, in bytes; beyond it none is kept.
const BYTES_MAX: usize = 1024 * 1024;

/// What has been said before a block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Bytes of text.
    pub(super) text: usize,
    /// Calls of the client's tools.
    pub(super) calls: usize,
}

/// The thinking of one answer.
#[derive(Debug, Default)]
pub(super) struct Thinking {
    kept: Vec<Kept>,
    bytes: usize,
    spoilt: bool,
}

#[derive(Debug)]
struct Kept {
    /// The API's number for the block.
    number: u64,
    place: Place,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Open { thinking: String, signature: String },
    Redacted { data: String },
}

impl Thinking {
    /// A block of thinking begins.
    pub(super) fn begin(&mut self, number: u64, place: Place) {
        self.keep(Kept { number, place, body: Body::Open { thinking: String::new(), signature: String::new() } }, 64);
    }

    /// A whole block that only the provider can read.
    pub(super) fn redacted(&mut self, number: u64, place: Place, data: &str) {
        self.keep(Kept { number, place, body: Body::Redacted { data: data.to_owned() } }, 64 + data.len());
    }

    /// More of the thinking of a block.
    pub(super) fn think(&mut self, number: u64, more: &str) {
        if let Some((thinking, _)) = self.open(number, more.len()) {
            thinking.push_str(more);
        }
    }

    /// The signature of a block. It comes whole.
    pub(super) fn sign(&mut self, number: u64, whole: &str) {
        if let Some((_, signature)) = self.open(number, whole.len()) {
            whole.clone_into(signature);
        }
    }

    /// The answer has parts that are not kept, so its thinking has lost its places. Without any of it the API goes on;
    /// with some of it in another order it may not.
    pub(super) fn spoil(&mut self) {
        self.spoilt = true;
        self.kept.clear();
    }

    /// Hands out what has to go back to `model`.
    pub(super) fn tell(&mut self, model: &str, out: &mut dyn FnMut(Piece<'_>)) {
        for Kept { place, body, .. } in self.kept.drain(..) {
            let block = match body {
                Body::Open { signature, .. } if signature.is_empty() => continue,
                Body::Open { thinking, signature } => {
                    json!({"type": "thinking", "thinking": thinking, "signature": signature})
                }
                Body::Redacted { data } => json!({"type": "redacted_thinking", "data": data}),
            };
            let Place { text, calls } = place;
            let kept = json!({"thinking_block": block, "model": model, "text_before": text, "calls_before": calls});
            out(Piece::Opaque(kept));
        }
    }

    fn keep(&mut self, kept: Kept, len: usize) {
        if self.fits(len) {
            self.kept.push(kept);
        }
    }

    fn open(&mut self, number: u64, len: usize) -> Option<(&mut String, &mut String)> {
        if !self.fits(len) {
            return None;
        }
        let kept = self.kept.iter_mut().rfind(|kept| kept.number == number)?;
        match &mut kept.body {
            Body::Open { thinking, signature } => Some((thinking, signature)),
            Body::Redacted { .. } => None,
        }
    }

    fn fits(&mut self, len: usize) -> bool {
        self.bytes = self.bytes.saturating_add(len);
        if self.bytes > BYTES_MAX {
            self.spoil();
        }
        !self.spoilt
    }
}

/// The blocks of an answer of earlier: its text and its calls, with the thinking among `opaque` where it was. Thinking
/// of another model stays away: nobody else can read it. An answer cannot end in thinking.
pub(super) fn interleaved(text: &str, calls: Vec<Value>, opaque: &[Value], model: &str) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut thinks = 0;
    let mut calls = calls.into_iter();
    let mut told = Place::default();
    for kept in opaque {
        let Some((block, place)) = thought(kept, model) else { continue };
        if let Some(more) = text.get(told.text..place.text) {
            blocks.extend(turns::text_block(more));
            told.text = place.text;
        }
        blocks.extend(calls.by_ref().take(place.calls.saturating_sub(told.calls)));
        told.calls = told.calls.max(place.calls);
        blocks.push(block.clone());
        thinks = blocks.len();
    }
    blocks.extend(text.get(told.text..).and_then(turns::text_block));
    blocks.extend(calls);
    if thinks == blocks.len() {
        let is_thinking = |block: &Value| json::text(block, "type").is_some_and(|kind| kind.ends_with("thinking"));
        let end = blocks.iter().rposition(|block| !is_thinking(block)).map_or(0, |last| last + 1);
        blocks.truncate(end);
    }
    blocks
}

/// The block in a kept piece and its place, if it is one and of this model.
fn thought<'v>(kept: &'v Value, model: &str) -> Option<(&'v Value, Place)> {
    let block = json::get(kept, "thinking_block").filter(|block| block.is_object())?;
    let before = |key: &str| json::get(kept, key).and_then(json::count).and_then(|count| usize::try_from(count).ok());
    let place = Place { text: before("text_before")?, calls: before("calls_before")? };
    let made_by = json::text(kept, "model").unwrap_or_default();
    models::same(made_by, model).then_some((block, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(thinking: &mut Thinking) -> usize {
        let mut told = 0;
        thinking.tell("m", &mut |_| told += 1);
        told
    }

    #[test]
    fn thinking_beyond_the_limit_is_not_kept_at_all() {
        let half = "x".repeat(BYTES_MAX / 2);
        let mut thinking = Thinking::default();
        for number in 0..2 {
            thinking.begin(number, Place::default());
            thinking.think(number, &half);
            thinking.sign(number, "s");
        }
        thinking.redacted(2, Place::default(), "d");

        assert_eq!(told(&mut thinking), 0);
    }

    #[test]
    fn the_pieces_of_a_block_go_to_that_block() {
        let mut thinking = Thinking::default();
        thinking.begin(0, Place::default());
        thinking.sign(7, "nobody's");
        thinking.begin(1, Place::default());
        thinking.sign(0, "s");

        assert_eq!(told(&mut thinking), 1);
    }
}
