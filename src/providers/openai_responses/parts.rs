//! Parts: the texts of an answer, each told once although the dialect says it up to four times: in pieces, at its end,
//! in its item and in the whole answer.

use std::collections::HashSet;

use serde_json::Value;

use crate::event::{Event, ReasoningKind};
use crate::failure::{Code, Failure};
use crate::providers::{Piece, json};

/// More parts than this are no answer.
const PARTS_MAX: usize = 10_000;

/// What kind of text a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Text,
    Refusal,
    Reasoning,
    Summary,
}

/// A part: its kind, its item's place in the answer, its own place in the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) item: u64,
    pub(super) index: u64,
}

impl Part {
    /// The part that an event is about.
    pub(super) fn of(kind: Kind, event: &Value) -> Self {
        let count = |name: &str| json::get(event, name).and_then(json::count).unwrap_or(0);
        let index = if kind == Kind::Summary { "summary_index" } else { "content_index" };
        Self { kind, item: count("output_index"), index: count(index) }
    }
}

/// What has been told of an answer.
#[derive(Debug, Default)]
pub(super) struct Told {
    parts: HashSet<Part>,
    thought: Option<Part>,
}

impl Told {
    /// Whether anything of this kind has been told.
    pub(super) fn any(&self, kind: Kind) -> bool {
        self.parts.iter().any(|part| part.kind == kind)
    }

    /// Whether anything at all has been told.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Tells the next piece of a part.
    pub(super) fn piece(&mut self, part: Part, text: &str, out: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        if self.parts.insert(part) && self.parts.len() > PARTS_MAX {
            return Err(Failure::new(Code::ResponseTooLarge, format!("the answer has more than {PARTS_MAX} parts")));
        }
        let delta = text.into();
        let event = match part.kind {
            Kind::Text => Event::Delta { delta },
            Kind::Refusal => Event::Refusal { delta },
            Kind::Reasoning => Event::Reasoning { delta, kind: ReasoningKind::Text },
            Kind::Summary => Event::Reasoning { delta, kind: ReasoningKind::Summary },
        };
        if let Event::Reasoning { kind, .. } = event {
            self.separate(part, kind, out);
        }
        out(Piece::Event(event));
        Ok(())
    }

    /// Tells a whole part, unless its pieces have been told.
    pub(super) fn whole(&mut self, part: Part, text: &str, out: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        if self.parts.contains(&part) {
            return Ok(());
        }
        self.piece(part, text, out)
    }

    /// Each part of the reasoning is a paragraph: nothing in its text says so.
    fn separate(&mut self, part: Part, kind: ReasoningKind, out: &mut dyn FnMut(Piece<'_>)) {
        if self.thought.replace(part).is_some_and(|last| last != part) {
            out(Piece::Event(Event::Reasoning { delta: "\n\n".into(), kind }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: Kind, index: u64) -> Part {
        Part { kind, item: 0, index }
    }

    /// The texts of the events that `tell` makes.
    fn texts(tell: impl FnOnce(&mut Told, &mut dyn FnMut(Piece<'_>))) -> Vec<String> {
        let mut texts = Vec::new();
        tell(&mut Told::default(), &mut |piece| match piece {
            Piece::Event(Event::Delta { delta } | Event::Refusal { delta } | Event::Reasoning { delta, .. }) => {
                texts.push(delta.into_owned());
            }
            other => panic!("{other:?}"),
        });
        texts
    }

    #[test]
    fn a_whole_part_counts_only_where_there_were_no_pieces() {
        let texts = texts(|told, out| {
            told.piece(part(Kind::Text, 0), "a", out).unwrap();
            told.whole(part(Kind::Text, 0), "ab", out).unwrap();
            told.piece(part(Kind::Text, 1), "", out).unwrap();
            told.whole(part(Kind::Text, 1), "c", out).unwrap();
            told.whole(part(Kind::Refusal, 1), "d", out).unwrap();
        });

        assert_eq!(texts, ["a", "c", "d"]);
    }

    #[test]
    fn parts_of_the_reasoning_are_paragraphs_and_parts_of_the_text_are_not() {
        let texts = texts(|told, out| {
            for (kind, index) in [(Kind::Summary, 0), (Kind::Summary, 0), (Kind::Text, 0), (Kind::Text, 1)] {
                told.piece(part(kind, index), "x", out).unwrap();
            }
            told.piece(part(Kind::Summary, 1), "y", out).unwrap();
        });

        assert_eq!(texts, ["x", "x", "x", "x", "\n\n", "y"]);
    }

    #[test]
    fn parts_have_a_limit() {
        let mut told = Told::default();
        let mut tell = |index| told.piece(part(Kind::Text, index), "x", &mut |_| {});

        let failed = (0..=PARTS_MAX as u64).find_map(|index| tell(index).err());

        assert_eq!(failed.map(|failure| failure.code), Some(Code::ResponseTooLarge));
    }
}
