//! Sources: the citations of one answer, unique by url, in order of first appearance. Their numbers are those that the
//! provider's text uses, where it gives any, else they are counted.

use std::collections::HashSet;

use serde_json::Value;

use super::json;
use crate::event::{Citation, Event};

/// More sources than this are not told.
const SOURCES_MAX: usize = 1_000;
/// From here on a source's `id` is no number that a text uses.
const NUMBER_END: u32 = 1_000_000;

/// The sources that an answer has named so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    seen: HashSet<String>,
    numbers: HashSet<u32>,
    number_max: u32,
}

impl Sources {
    /// The event for the sources among `found` that are new; `None` if there is none. A source is an object with a
    /// `url`, or the bare url. Some servers repeat the whole list with every frame.
    pub(super) fn add<'v>(&mut self, found: impl IntoIterator<Item = &'v Value>) -> Option<Event<'static>> {
        let found: Vec<&Value> = found.into_iter().collect();
        // Sources without a number of their own get one that no other is about to use.
        self.number_max = found.iter().filter_map(|source| own_number(source)).fold(self.number_max, u32::max);
        let items: Vec<Citation> = found.into_iter().filter_map(|source| self.new_one(source)).collect();
        (!items.is_empty()).then_some(Event::Citation { items })
    }

    fn new_one(&mut self, source: &Value) -> Option<Citation> {
        let url = source.as_str().filter(|url| !url.is_empty()).or_else(|| json::text(source, "url"))?;
        if self.seen.len() >= SOURCES_MAX || self.seen.contains(url) {
            return None;
        }
        self.seen.insert(url.to_owned());
        let first_of = |names: &[&str]| names.iter().find_map(|name| json::text(source, name)).map(str::to_owned);
        Some(Citation {
            n: self.number(source),
            url: url.to_owned(),
            title: first_of(&["title"]).unwrap_or_default(),
            snippet: first_of(&["snippet", "content"]),
            date: first_of(&["date", "last_updated"]),
        })
    }

    /// The source's own number, unless another source has it already; else the next one.
    fn number(&mut self, source: &Value) -> u32 {
        let free = own_number(source).filter(|number| !self.numbers.contains(number));
        let number = free.unwrap_or(self.number_max + 1);
        self.numbers.insert(number);
        self.number_max = self.number_max.max(number);
        number
    }
}

/// The number that the provider's text uses for a source.
fn own_number(source: &Value) -> Option<u32> {
    let number = json::get(source, "id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    number.filter(|number| (1..NUMBER_END).contains(number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_are_told_once_and_numbered_as_they_appear() {
        let mut sources = Sources::default();

        let first =
            sources.add(&[json!("a"), json!({"url": "b", "title": "B", "date": "2026"}), json!("a"), json!({})]);
        let second = sources.add(&[json!("b"), json!("c")]);
        let third = sources.add(&[json!("c")]);

        let numbered = |event: Option<Event<'_>>| match event {
            Some(Event::Citation { items }) => items.into_iter().map(|item| (item.n, item.url)).collect(),
            _ => vec![],
        };
        assert_eq!(numbered(first), [(1, "a".to_owned()), (2, "b".to_owned())]);
        assert_eq!(numbered(second), [(3, "c".to_owned())]);
        assert_eq!(third, None);
    }

    #[test]
    fn a_source_keeps_the_number_that_the_text_uses_unless_it_is_taken() {
        let mut sources = Sources::default();
        let found = [
            json!({"url": "a", "id": 7}),
            json!({"url": "b"}),
            json!({"url": "c", "id": 7}),
            json!({"url": "a", "id": 8}),
            json!({"url": "d", "id": 2}),
            json!({"url": "e", "id": "x-1"}),
            json!({"url": "f", "id": u64::MAX}),
        ];

        let Some(Event::Citation { items }) = sources.add(&found) else { panic!("there are sources") };

        assert_eq!(items.iter().map(|item| item.n).collect::<Vec<_>>(), [7, 9, 10, 2, 11, 12]);
    }
}
