//! Text as JSON that servers really write: valid JSON means what it means, and what was repaired is valid.

#![no_main]

use serde::de::IgnoredAny;
use serde_json::Value;
// The included file's own crate.
use weir::failure;

#[path = "../../src/providers/json.rs"]
#[expect(dead_code, reason = "the crate itself uses all of it")]
mod json;

libfuzzer_sys::fuzz_target!(|text: &str| {
    fuzz::begin();
    let parsed = json::parse(text);
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(parsed.as_ref().ok(), Some(&value));
    }
    if let Ok(value) = &parsed {
        let written = value.to_string();
        assert!(serde_json::from_str::<IgnoredAny>(&written).is_ok(), "not JSON: {written}");
        if value.is_object() || value.is_array() {
            assert!(is_closed([written.as_str()]), "a document with an open end: {written}");
        }
        let _ = (json::is_blank(value), json::count(value), json::weight(value));
    }
    let chars = text.char_indices().map(|(at, char)| &text[at..at + char.len_utf8()]);
    assert_eq!(is_closed([text]), is_closed(chars), "pieces nest otherwise than the whole");
});

fn is_closed<'t>(pieces: impl IntoIterator<Item = &'t str>) -> bool {
    let mut nesting = json::Nesting::default();
    pieces.into_iter().for_each(|piece| nesting.push(piece));
    nesting.is_closed()
}
