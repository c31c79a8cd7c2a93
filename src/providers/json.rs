//! JSON as providers really write it: parsed leniently, repaired where it is nearly right, read without surprises.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::failure::{Code, Failure};

/// Parses a frame. What serde_json rejects but servers write (lone surrogates, `NaN`, raw control characters in
/// strings) is repaired first.
pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    let parsed = serde_json::from_str(text).or_else(|_| serde_json::from_str(&repaired(text)));
    parsed.map_err(|_| Failure::new(Code::UpstreamProtocol, "a frame of the provider's answer is not JSON"))
}

/// The text with lone surrogates as U+FFFD, control characters escaped and numbers that JSON does not have as `null`.
fn repaired(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        push_outside(&mut fixed, &rest[..quote]);
        rest = &rest[quote + 1..];
        fixed.push('"');
        rest = push_string(&mut fixed, rest);
    }
    push_outside(&mut fixed, rest);
    fixed
}

/// Copies what is no string, without the numbers that JSON does not have.
fn push_outside(fixed: &mut String, text: &str) {
    let mut text = Cow::Borrowed(text);
    for word in ["-Infinity", "Infinity", "NaN"] {
        if text.contains(word) {
            text = text.replace(word, "null").into();
        }
    }
    fixed.push_str(&text);
}

/// Copies the rest of a string up to and including its closing quote; returns what follows it.
fn push_string<'t>(fixed: &mut String, text: &'t str) -> &'t str {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                fixed.push('"');
                return &text[at + 1..];
            }
            '\\' => {
                let tail = &text[at..];
                let len = escape_len(fixed, tail);
                for _ in 1..tail[..len].chars().count() {
                    chars.next();
                }
            }
            control if control < ' ' => fixed.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => fixed.push(plain),
        }
    }
    ""
}

/// Copies the escape that `text` begins with and returns its length; a surrogate without its partner becomes U+FFFD.
fn escape_len(fixed: &mut String, text: &str) -> usize {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (copied, len) = match unit(text) {
        None => {
            let len = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
            (&text[..len], len)
        }
        Some(0xD800..=0xDBFF) if matches!(text.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => (&text[..12], 12),
        Some(0xD800..=0xDFFF) => ("\\ufffd", 6),
        Some(_) => (&text[..6], 6),
    };
    fixed.push_str(copied);
    len
}

/// The value under `key`, unless it is missing or `null`.
pub(super) fn get<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    value.get(key).filter(|value| !value.is_null())
}

/// The text under `key`, unless it is missing, empty or something else.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The elements of the array under `key`; none when there is no array.
pub(super) fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The fields of the object `value`; none when it is no object.
pub(super) fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A count, also when it was written as `10.0` or `"10"`.
pub(super) fn count(value: &Value) -> Option<u64> {
    let float = |float: f64| (0.0..=9e15).contains(&float).then_some(float as u64);
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(float)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Whether the value says nothing: `null`, `false`, or empty.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// About how much memory a value takes, in bytes.
pub(super) fn weight(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| size_of_val(key) + key.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of_val(value) + inside
}

/// How far the text of a JSON document has come, without parsing it: cheap enough to ask after every piece.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes the next piece of the text.
    pub(super) fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    /// Whether a bracket was opened and all of them are closed again.
    pub(super) fn is_closed(&self) -> bool {
        self.begun && self.depth == 0
    }

    fn byte(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => {
                self.begun = true;
                self.depth += 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        let value = parse(r#"{"a":"x\ud83dy","b":"\ude00","c":"\ud83d\ude00","d":"\ud83d\ud83d\ude00","e":"\\ud83d"}"#);

        let expected = json!({"a": "x\u{fffd}y", "b": "\u{fffd}", "c": "😀", "d": "\u{fffd}😀", "e": "\\ud83d"});
        assert_eq!(value.unwrap(), expected);
    }

    #[test]
    fn numbers_that_json_does_not_have_are_null() {
        let value = parse(r#"{"a":NaN,"b":-Infinity,"c":[Infinity],"d":"NaN\ud800"}"#).unwrap();

        assert_eq!(value, json!({"a": null, "b": null, "c": [null], "d": "NaN\u{fffd}"}));
    }

    #[test]
    fn raw_control_characters_are_escaped() {
        assert_eq!(parse("{\"a\":\"1\n2\t\"}").unwrap(), json!({"a": "1\n2\t"}));
    }

    #[test]
    fn what_is_no_json_fails_without_quoting_it() {
        let failure = parse("the prompt").unwrap_err();

        assert_eq!(failure.code, Code::UpstreamProtocol);
        assert!(!failure.message.contains("prompt"));
    }

    #[test]
    fn counts_may_be_floats_or_texts() {
        let counts = json!([10, 10.0, "10", -1, "x", null, 1e300]);

        let counts: Vec<_> = counts.as_array().unwrap().iter().map(count).collect();
        assert_eq!(counts, [Some(10), Some(10), Some(10), None, None, None, None]);
    }

    #[test]
    fn what_is_empty_weighs_something_too() {
        let many = |value: Value| weight(&Value::Array(vec![value; 1_000]));

        for empty in [json!([]), json!({}), json!(""), json!(null)] {
            assert!(many(empty.clone()) >= 1_000 * size_of::<Value>(), "{empty}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_repair(text in r#"[\\"ud8def0-9N\{\}:,é\n ]{0,40}"#) {
            let _ = parse(&text);
        }

        #[test]
        fn the_repair_leaves_good_json_alone(text: String) {
            let good = json!({ "a": text }).to_string();

            prop_assert_eq!(repaired(&good), good);
        }
    }
}
