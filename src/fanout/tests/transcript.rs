//! The accumulated answer.

use serde_json::json;

use super::*;
use crate::event::{Citation, ToolCall};

fn tool_call(arguments: &str) -> Event<'_> {
    let call = ToolCall { index: 0, id: "c".into(), name: "f".into(), arguments: arguments.into() };
    Event::ToolCall { call, complete: true, valid: true }
}

#[test]
fn everything_that_grows_with_an_answer_counts_towards_its_size() {
    let citation = Citation { n: 1, url: "u".repeat(100), title: String::new(), snippet: None, date: None };
    let piece =
        Event::ToolCallPiece { index: 0, id: "c".into(), name: "f".into(), arguments_delta: "x".repeat(100).into() };
    let hundred = "x".repeat(100);
    let events = [
        delta(&hundred),
        Event::Refusal { delta: hundred.as_str().into() },
        Event::Citation { items: vec![citation] },
        piece,
        tool_call(&hundred),
    ];
    for event in events {
        let mut transcript = Transcript::default();
        transcript.apply(&event);
        assert!((100..=102).contains(&transcript.bytes()), "{event:?}: {}", transcript.bytes());
    }
    let mut transcript = Transcript::default();
    transcript.keep_opaque(json!("x".repeat(98)));
    assert_eq!(transcript.bytes(), 100);
}

#[test]
fn the_arguments_of_a_call_count_once_although_they_come_twice() {
    let mut transcript = Transcript::default();
    for _ in 0..4 {
        transcript.apply(&Event::ToolCallPiece {
            index: 0,
            id: "c".into(),
            name: "f".into(),
            arguments_delta: "12345".into(),
        });
    }

    transcript.apply(&tool_call(&"12345".repeat(4)));

    assert_eq!(transcript.bytes(), 22);
}

#[test]
fn only_what_can_be_read_makes_an_answer_partial() {
    let mut transcript = Transcript::default();
    transcript.apply(&tool_call("{}"));
    assert!(!transcript.has_text());

    transcript.apply(&Event::Refusal { delta: "no".into() });

    assert!(transcript.has_text());
    assert_eq!(transcript.content(), "no");
}

#[test]
fn a_reset_discards_what_was_said_and_keeps_who_says_it() {
    let mut transcript = Transcript::default();
    transcript.model = Some("m".into());
    transcript.apply(&delta("half"));
    transcript.apply(&tool_call("{}"));

    transcript.apply(&Event::Reset { reason: "fail-over".into() });

    assert_eq!((transcript.bytes(), transcript.has_text()), (0, false));
    assert!(transcript.tool_calls.is_empty());
    assert_eq!(transcript.model.as_deref(), Some("m"));
}
