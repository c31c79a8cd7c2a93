//! Plain: the chunks that most of an answer consists of, one choice with one piece of text and nothing else. They are
//! read in place, without building a tree of the chunk's JSON.
//!
//! Whatever is not exactly that is left to the [decoder](super::decode): a field that is not listed here, a value where
//! `null` is expected, an escape in an id, JSON that needs to be repaired.

use std::borrow::Cow;

use serde::Deserialize;

/// What a plain chunk says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    /// The provider's id of the answer.
    pub(super) id: Option<&'a str>,
    /// Who answers.
    pub(super) model: Option<&'a str>,
    /// The next piece of the answer's text.
    pub(super) text: Cow<'a, str>,
    /// What makes the chunk longer, so that its length says nothing of its text.
    pub(super) padding: Option<&'a str>,
}

/// Reads a plain chunk; `None` when it is another one.
pub(super) fn read(data: &str) -> Option<Plain<'_>> {
    let Chunk { id, model, choices: [choice], obfuscation: padding, .. } = serde_json::from_str(data).ok()?;
    let is_answer = choice.index.is_none_or(|index| index == 0);
    is_answer.then_some(Plain { id, model, text: choice.delta.content, padding })
}

/// A field that must be `null`, if it is there.
type Null = ();

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields without meaning are listed so that others are noticed")]
struct Chunk<'a> {
    #[serde(default)]
    id: Option<&'a str>,
    #[serde(default)]
    model: Option<&'a str>,
    #[serde(borrow)]
    choices: [Choice<'a>; 1],
    #[serde(default)]
    object: Option<Kind>,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    service_tier: Option<&'a str>,
    #[serde(default)]
    system_fingerprint: Option<&'a str>,
    #[serde(default)]
    obfuscation: Option<&'a str>,
    #[serde(default)]
    usage: Null,
}

/// The one kind of object that is plain.
#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "chat.completion.chunk")]
    Chunk,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields without meaning are listed so that others are noticed")]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow)]
    delta: Text<'a>,
    #[serde(default)]
    finish_reason: Null,
    #[serde(default)]
    native_finish_reason: Null,
    #[serde(default)]
    logprobs: Null,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields without meaning are listed so that others are noticed")]
struct Text<'a> {
    #[serde(default)]
    role: Option<&'a str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default)]
    refusal: Null,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#""id":"c1","object":"chat.completion.chunk","created":1,"model":"m""#;

    #[test]
    fn the_chunks_of_a_plain_answer_are_read_in_place() {
        let tails = [
            r#""choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]"#,
            r#""choices":[{"index":0,"delta":{"role":"assistant","content":"Hi","refusal":null},"logprobs":null,
                "finish_reason":null}],"service_tier":"default","system_fingerprint":null,"obfuscation":"x","usage":null"#,
            r#""choices":[{"delta":{"content":"Hi"},"native_finish_reason":null}]"#,
        ];

        for tail in tails {
            let chunk = format!("{{{HEAD},{tail}}}");
            let plain = read(&chunk).unwrap_or_else(|| panic!("{chunk} is plain"));
            assert_eq!((plain.id, plain.model, &*plain.text), (Some("c1"), Some("m"), "Hi"));
            assert!(matches!(plain.text, Cow::Borrowed(_)), "nothing is copied");
        }
    }

    #[test]
    fn text_with_escapes_is_unescaped() {
        let plain = read(r#"{"choices":[{"delta":{"content":"a\n\"\u00e9\ud83d\ude00"}}]}"#).unwrap();

        assert_eq!(plain.text, "a\n\"é😀");
    }

    #[test]
    fn whatever_says_more_is_not_plain() {
        let chunks = [
            r#"{"choices":[]}"#,
            r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":"a","reasoning":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":null}}]}"#,
            r#"{"choices":[{"delta":{"content":["a"]}}]}"#,
            r#"{"choices":[{"delta":{"content":"a","content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"role":"assistant"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"message":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"total_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"error":null}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"citations":["u"]}"#,
            r#"{"object":"chat.completion.done","choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"id":"\u0041","choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#,
            r#"[{"choices":[{"delta":{"content":"a"}}]}]"#,
            "[DONE]",
            "",
        ];

        for chunk in chunks {
            assert_eq!(read(chunk), None, "{chunk}");
        }
    }
}
