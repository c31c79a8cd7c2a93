//! Sources: the citations of one answer, unique by url, in order of first appearance. Their numbers are those that the
//! provider's text uses, where it gives any, else they are counted.
//!
//! A citation is something that a reader can open: only `http` and `https` will do, since a page makes links of them.
//! What else a provider names as a source (a bucket, a file, a script) goes out as `ext`, as it is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::bounds::cut;
use super::extras::Extras;
use super::{Piece, json};
use crate::event::{Citation, Event};

/// More sources than this are not told.
const SOURCES_MAX: usize = 1_000;
/// From here on a source's `id` is no number that a text uses.
const NUMBER_END: u32 = 1_000_000;
/// A longer url is none. It cannot be cut: it would lead elsewhere.
const URL_BYTES_MAX: usize = 4096;
/// The same of what is told about a source; this is cut.
const TITLE_BYTES_MAX: usize = 512;
const SNIPPET_BYTES_MAX: usize = 4096;
const DATE_BYTES_MAX: usize = 64;

/// The sources that an answer has named so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Digests of their urls.
    seen: HashSet<u64>,
    numbers: HashSet<u32>,
    number_max: u32,
}

impl Sources {
    /// Tells the sources among `found` that are new. A source is an object with a `url`, or the bare url. Some servers
    /// repeat the whole list with every frame.
    pub(super) fn tell<'v>(
        &mut self,
        found: impl IntoIterator<Item = &'v Value>,
        extras: &Extras,
        out: &mut dyn FnMut(Piece<'_>),
    ) {
        let found: Vec<(&Value, Option<Cow<'_, str>>)> = found.into_iter().filter_map(read).collect();
        // Sources without a number of their own get one that no other is about to use.
        self.number_max = found.iter().filter_map(|(source, _)| own_number(source)).fold(self.number_max, u32::max);
        let mut items = Vec::new();
        for (source, link) in found {
            match link {
                Some(link) if self.is_new(&link) => items.push(self.citation(source, link.into_owned())),
                None if self.is_new(url(source).unwrap_or_default()) => extras.piece("citation", source, out),
                _ => {}
            }
        }
        if !items.is_empty() {
            out(Piece::Event(Event::Citation { items }));
        }
    }

    fn is_new(&mut self, url: &str) -> bool {
        let mut digest = DefaultHasher::new();
        url.hash(&mut digest);
        self.seen.len() < SOURCES_MAX && self.seen.insert(digest.finish())
    }

    fn citation(&mut self, source: &Value, url: String) -> Citation {
        let first_of = |names: &[&str], bytes_max: usize| {
            names.iter().find_map(|name| json::text(source, name)).map(|text| cut(text, bytes_max).to_owned())
        };
        Citation {
            n: self.number(source),
            url,
            title: first_of(&["title"], TITLE_BYTES_MAX).unwrap_or_default(),
            snippet: first_of(&["snippet", "content"], SNIPPET_BYTES_MAX),
            date: first_of(&["date", "last_updated"], DATE_BYTES_MAX),
        }
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

/// Whether it is a source that a reader can open.
pub(super) fn is_link(source: &Value) -> bool {
    url(source).and_then(link).is_some()
}

/// A source with its url as a link, if it is one; `None` when there is no url at all.
fn read(source: &Value) -> Option<(&Value, Option<Cow<'_, str>>)> {
    url(source).map(|url| (source, link(url)))
}

fn url(source: &Value) -> Option<&str> {
    source.as_str().filter(|url| !url.is_empty()).or_else(|| json::text(source, "url"))
}

/// A url that can be opened, without the control characters that browsers ignore in it.
fn link(url: &str) -> Option<Cow<'_, str>> {
    let url = url.trim_matches(|char: char| char.is_control() || char.is_whitespace());
    let url: Cow<'_, str> = match url.contains(char::is_control) {
        true => url.chars().filter(|char| !char.is_control()).collect(),
        false => url.into(),
    };
    let (scheme, rest) = url.split_once("://")?;
    let opens = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (opens && !rest.is_empty() && url.len() <= URL_BYTES_MAX).then_some(url)
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

    /// What is told of these, as numbers and urls; what goes out as `ext` as it is, with the number 0.
    fn told(sources: &mut Sources, found: &[Value]) -> Vec<(u32, String)> {
        let mut told = Vec::new();
        sources.tell(found, &Extras::new("here"), &mut |piece| match piece {
            Piece::Event(Event::Citation { items }) => told.extend(items.into_iter().map(|item| (item.n, item.url))),
            Piece::Event(Event::Ext { name, data }) => {
                assert_eq!(name, "here.citation");
                told.push((0, data.to_string()));
            }
            other => panic!("{other:?}"),
        });
        told
    }

    fn source(url: &str) -> Value {
        json!({ "url": format!("https://{url}.test") })
    }

    #[test]
    fn sources_are_told_once_and_numbered_as_they_appear() {
        let (a, b, c) = ("https://a.test", "http://b.test", "https://c.test");
        let mut sources = Sources::default();

        let first = [json!(a), json!({"url": b, "title": "B", "date": "2026"}), json!(a), json!({})];
        assert_eq!(told(&mut sources, &first), [(1, a.to_owned()), (2, b.to_owned())]);
        assert_eq!(told(&mut sources, &[json!(b), json!(c)]), [(3, c.to_owned())]);
        assert_eq!(told(&mut sources, &[json!(c)]), []);
    }

    #[test]
    fn a_source_keeps_the_number_that_the_text_uses_unless_it_is_taken() {
        let with_id = |url: &str, id: Value| json!({"url": format!("https://{url}.test"), "id": id});
        let found = [
            with_id("a", json!(7)),
            source("b"),
            with_id("c", json!(7)),
            with_id("a", json!(8)),
            with_id("d", json!(2)),
            with_id("e", json!("x-1")),
            with_id("f", json!(u64::MAX)),
        ];

        let numbers: Vec<u32> = told(&mut Sources::default(), &found).into_iter().map(|(n, _)| n).collect();

        assert_eq!(numbers, [7, 9, 10, 2, 11, 12]);
    }

    #[test]
    fn what_cannot_be_opened_is_no_citation_and_goes_out_as_it_is() {
        let long = format!("https://a.test/{}", "x".repeat(URL_BYTES_MAX));
        let others = [
            "javascript:alert(1)",
            "java\nscript://%0aalert(1)",
            "\u{1}JavaScript:alert(1)//https://a.test",
            "data:text/html,<script>",
            "vbscript:x",
            "file:///etc/hosts",
            "gs://bucket/file.pdf",
            "//a.test",
            "a.test",
            "https://",
            &long,
        ];
        for other in others {
            let mut sources = Sources::default();
            let found = [json!({"url": other, "title": "t"}), source("a"), json!({"url": other, "title": "t"})];

            let expected = [(0, found[0].to_string()), (1, "https://a.test".to_owned())];
            assert_eq!(told(&mut sources, &found), expected, "{other:?}");
            assert_eq!(told(&mut sources, &found), [], "{other:?}");
        }
    }

    #[test]
    fn a_url_is_told_without_what_browsers_ignore_in_it() {
        for url in ["\u{1} https://a.test/b \n", "https://a.te\tst/\r\nb", "https://a.test/b"] {
            assert_eq!(told(&mut Sources::default(), &[json!(url)]), [(1, "https://a.test/b".to_owned())], "{url:?}");
        }
        assert_eq!(told(&mut Sources::default(), &[json!("HTTPS://A.test")]), [(1, "HTTPS://A.test".to_owned())]);
    }

    #[test]
    fn what_is_told_about_a_source_is_bounded() {
        let long = "é".repeat(100_000);
        let found = [json!({"url": "https://a.test", "title": long, "snippet": long, "date": long})];

        Sources::default().tell(&found, &Extras::new("here"), &mut |piece| {
            let Piece::Event(Event::Citation { items }) = piece else { panic!("{piece:?}") };
            let Citation { title, snippet, date, .. } = &items[0];
            let lengths = [title.len(), snippet.as_ref().unwrap().len(), date.as_ref().unwrap().len()];
            assert_eq!(lengths, [TITLE_BYTES_MAX, SNIPPET_BYTES_MAX, DATE_BYTES_MAX]);
        });
    }
}
