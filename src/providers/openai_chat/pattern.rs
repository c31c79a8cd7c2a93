//! Pattern: the last plain chunk, for those that follow. Most servers send the same bytes again and again, with another
//! text each time, and some with another padding; their text is found without reading the rest once more.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;
use serde::Deserialize;

use super::plain::{self, Plain};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// A plain chunk; empty when there is none.
    chunk: String,
    /// Where its text is.
    text: Range<usize>,
    /// Where its padding is, after the text; empty, and at the end, when it has none.
    padding: Range<usize>,
}

impl Pattern {
    /// Reads a plain chunk; `None` when it is another one. What the last one has said of its id and its model is not
    /// said again.
    pub(super) fn read<'a>(&mut self, data: &'a str) -> Option<Plain<'a>> {
        if let Some(text) = self.text_of(data) {
            return Some(Plain { id: None, model: None, text, padding: None });
        }
        let plain = plain::read(data);
        match &plain {
            Some(plain) => self.learn(data, plain),
            None => self.chunk.clear(),
        }
        plain
    }

    /// The text of a chunk that differs from the last one in nothing else that counts: where that has strings, it has
    /// strings as well.
    fn text_of<'a>(&self, data: &'a str) -> Option<Cow<'a, str>> {
        if self.chunk.is_empty() {
            return None;
        }
        let (head, after_text) = (&self.chunk[..self.text.start], &self.chunk[self.text.end..self.padding.start]);
        let rest = data.strip_prefix(head)?.strip_suffix(&self.chunk[self.padding.end..])?;
        // What follows the text begins with the quote that ends it.
        let (raw, rest) = rest.split_at(string_len(rest)?);
        let padding = rest.strip_prefix(after_text)?;
        let is_padded = !self.padding.is_empty() || padding.is_empty();
        let is_alike = is_padded && needs_no_reading(padding);
        is_alike.then(|| text_in(raw, &data[head.len() - 1..=head.len() + raw.len()]))?
    }

    /// Remembers where the strings of a chunk are that are likely to be others in the next.
    fn learn(&mut self, data: &str, Plain { text, padding, .. }: &Plain<'_>) {
        self.chunk.clear();
        let Cow::Borrowed(text) = text else { return };
        let text = range_in(data, text);
        let padding = padding.map_or(data.len()..data.len(), |padding| range_in(data, padding));
        if text.end < padding.start {
            self.chunk.push_str(data);
            (self.text, self.padding) = (text, padding);
        }
    }
}

/// Where a part of a text is in it.
fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// How long a JSON string is that has begun, up to the quote that ends it.
fn string_len(rest: &str) -> Option<usize> {
    let mut len = 0;
    loop {
        len += memchr2(b'"', b'\\', rest.as_bytes().get(len..)?)?;
        if rest.as_bytes()[len] == b'"' {
            return Some(len);
        }
        // Whatever is escaped ends nothing.
        len += 2;
    }
}

/// What a JSON string says, without its quotes and with them.
fn text_in<'a>(raw: &'a str, quoted: &'a str) -> Option<Cow<'a, str>> {
    if needs_no_reading(raw) {
        return Some(Cow::Borrowed(raw));
    }
    serde_json::from_str::<Text<'_>>(quoted).ok().map(|Text(text)| text)
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whether this can stand between the quotes of a JSON string, and means itself there.
fn needs_no_reading(text: &str) -> bool {
    !text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(text: &str) -> String {
        format!(
            r#"{{"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}]}}"#
        )
    }

    fn padded(text: &str, padding: &str) -> String {
        let mut chunk = chunk(text);
        chunk.pop();
        format!(r#"{chunk},"usage":null,"obfuscation":"{padding}"}}"#)
    }

    /// Reads one chunk after another; the text of the latter, and whether the pattern has found it.
    fn after(first: &str, second: &str) -> (Option<String>, bool) {
        let mut pattern = Pattern::default();
        pattern.read(first);
        let is_found = pattern.text_of(second).is_some();
        (pattern.read(second).map(|plain| plain.text.into_owned()), is_found)
    }

    #[test]
    fn a_chunk_like_the_last_one_is_found_by_its_pattern() {
        let pairs = [
            (chunk("a"), chunk("Hi there, é😀"), "Hi there, é😀"),
            (chunk("a"), chunk(""), ""),
            (padded("a", "x"), padded("b", "yyy"), "b"),
            (padded("a", "x"), padded("", "y"), ""),
            (chunk("a"), chunk(r#"b\n\"\\\u00e9"#), "b\n\"\\é"),
            (padded("a", "x"), padded(r#"\""#, "y"), "\""),
        ];

        for (first, second, text) in pairs {
            assert_eq!(after(&first, &second), (Some(text.to_owned()), true), "{second}");
        }
    }

    #[test]
    fn whatever_else_differs_is_read_as_a_whole() {
        let another = chunk("b").replace("\"m\"", "\"n\"");
        let finished = chunk("b").replace("\"finish_reason\":null", "\"finish_reason\":\"stop\"");
        let two = chunk(r#"b"},"index":1,"delta":{"content":"c"#);
        let pairs = [
            (chunk("a"), another, Some("b")),
            (chunk("a"), finished, None),
            (chunk("a"), two, None),
            (chunk("a"), chunk(r"\ud83d"), None),
            (chunk("a"), chunk(r"b\"), None),
            (chunk("a"), chunk("b\nc"), None),
            (chunk("a"), padded("b", "x"), Some("b")),
            (padded("a", "x"), chunk("b"), Some("b")),
            (padded("a", "x"), padded("b", "x\",\"error\":\"e"), None),
            (chunk(""), chunk("\"}}]}"), None),
        ];

        for (first, second, text) in pairs {
            assert_eq!(after(&first, &second), (text.map(str::to_owned), false), "{second}");
        }
    }

    #[test]
    fn a_chunk_that_is_not_plain_is_no_pattern_and_ends_the_one_before() {
        let mut pattern = Pattern::default();
        assert!(pattern.read(&chunk("a")).is_some());

        assert_eq!(pattern.read(r#"{"model":"n","choices":[]}"#), None);

        let plain = chunk("b");
        assert_eq!(pattern.read(&plain).and_then(|plain| plain.model), Some("m"), "it is said again");
    }

    proptest! {
        #[test]
        fn a_pattern_finds_what_reading_finds(
            texts in prop::collection::vec(r#"[a"\\\n:,{}\[\] é]{0,6}"#, 2..6),
            are_padded in prop::collection::vec(any::<bool>(), 6),
        ) {
            let mut pattern = Pattern::default();
            for (text, is_padded) in texts.iter().zip(are_padded) {
                let data = if is_padded { padded(text, text) } else { chunk(text) };
                let whole = plain::read(&data).map(|plain| plain.text.into_owned());

                let found = pattern.read(&data).map(|plain| plain.text.into_owned());

                prop_assert_eq!(found, whole, "{}", data);
            }
        }
    }
}
