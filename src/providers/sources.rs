//! Sources: the citations of one answer, unique by url and numbered in order of first appearance.

use std::collections::HashSet;

use serde_json::Value;

use super::json;
use crate::event::{Citation, Event};

/// More sources than this are not told.
const SOURCES_MAX: usize = 1_000;

/// The sources that an answer has named so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    seen: HashSet<String>,
}

impl Sources {
    /// The event for the sources among `found` that are new; `None` if there is none. A source is an object with a
    /// `url`, or the bare url. Some servers repeat the whole list with every frame.
    pub(super) fn add<'v>(&mut self, found: impl IntoIterator<Item = &'v Value>) -> Option<Event<'static>> {
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
            n: u32::try_from(self.seen.len()).expect("there are at most SOURCES_MAX"),
            url: url.to_owned(),
            title: first_of(&["title"]).unwrap_or_default(),
            snippet: first_of(&["snippet", "content"]),
            date: first_of(&["date", "last_updated"]),
        })
    }
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
}
