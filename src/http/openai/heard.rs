//! Heard: what an answer has said, read back from the frames of its log, for listeners who get it in other words.
//!
//! The frames are weir's own: three lines, an empty one, and JSON without line ends. What a reader has missed because
//! it fell out of the log is made up for from the answer so far, so that nothing is lost or doubled; only the places
//! of the pieces differ.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use crate::event::Citation;
use crate::fanout::Transcript;

/// What an answer says next.
#[derive(Debug, PartialEq)]
pub(super) enum Said<'a> {
    /// Text.
    Text(&'a str),
    /// Visible reasoning.
    Reasoning(&'a str),
    /// A refusal.
    Refusal(&'a str),
    /// A call of one of the client's tools begins.
    CallBegins { index: u32, id: &'a str, name: &'a str },
    /// More of its arguments.
    CallArguments { index: u32, delta: &'a str },
    /// It is complete.
    CallEnds { index: u32, arguments: &'a str },
    /// New sources.
    Citations(Vec<Citation>),
    /// How likely the tokens were, as servers of chat completions say it.
    Logprobs(Value),
    /// What was said so far does not count.
    Reset,
}

/// How much has been heard: see the module.
#[derive(Debug, Default)]
pub(super) struct Heard {
    text_len: usize,
    reasoning_len: usize,
    refusal_len: usize,
    /// The calls by their index.
    calls: Vec<Call>,
    /// Pieces of calls have been missed: calls are told whole from now on.
    lost_pieces: bool,
    /// How many sources were told.
    citations_len: usize,
    /// The places of the sources that were told ahead, when some had been missed.
    told_ahead: HashSet<String>,
}

#[derive(Debug, Default)]
struct Call {
    has_begun: bool,
    arguments_len: usize,
    has_ended: bool,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    delta: Cow<'a, str>,
}

/// A piece of a call, or a whole one.
#[derive(Deserialize)]
struct CallFrame<'a> {
    index: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments_delta: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct CitationFrame {
    items: Vec<Citation>,
}

#[derive(Deserialize)]
struct ExtFrame<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    data: Value,
}

/// More calls than any adapter lets through.
const CALLS_MAX: usize = 1_024;

/// The `ext` events that carry logprobs as chat completions have them.
const LOGPROBS: [&str; 3] = ["openai_chat.logprobs", "openrouter.logprobs", "perplexity_sonar.logprobs"];

impl Heard {
    /// Reads whole frames.
    pub(super) fn frames(&mut self, frames: &[u8], say: &mut dyn FnMut(Said<'_>)) {
        let frames = str::from_utf8(frames).unwrap_or_default();
        let mut name = "";
        for line in frames.split('\n') {
            if let Some(found) = line.strip_prefix("event: ") {
                name = found;
            } else if let Some(data) = line.strip_prefix("data: ") {
                let read = self.event(name, data, say);
                debug_assert!(read.is_ok(), "an event that was written here can be read here: {read:?}");
            }
        }
    }

    fn event(&mut self, name: &str, data: &str, say: &mut dyn FnMut(Said<'_>)) -> serde_json::Result<()> {
        match name {
            "delta" => {
                let Delta { delta } = serde_json::from_str(data)?;
                self.text_len += delta.len();
                say(Said::Text(&delta));
            }
            "reasoning" => {
                let Delta { delta } = serde_json::from_str(data)?;
                self.reasoning_len += delta.len();
                say(Said::Reasoning(&delta));
            }
            "refusal" => {
                let Delta { delta } = serde_json::from_str(data)?;
                self.refusal_len += delta.len();
                say(Said::Refusal(&delta));
            }
            "tool_call" => self.call(&serde_json::from_str(data)?, say),
            "citation" => {
                let CitationFrame { mut items } = serde_json::from_str(data)?;
                items.retain(|item| !self.told_ahead.contains(&item.url));
                if !items.is_empty() {
                    self.citations_len += items.len();
                    say(Said::Citations(items));
                }
            }
            "ext" => {
                let ExtFrame { name, data } = serde_json::from_str(data)?;
                if LOGPROBS.contains(&&*name) {
                    say(Said::Logprobs(data));
                }
            }
            "reset" => {
                *self = Self::default();
                say(Said::Reset);
            }
            // What the provider does meanwhile, and what it says besides, has no place in this API; usage comes last.
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, frame: &CallFrame<'_>, say: &mut dyn FnMut(Said<'_>)) {
        if let Some(arguments) = &frame.arguments {
            self.whole_call(frame.index, &frame.id, &frame.name, arguments, say);
        } else if !self.lost_pieces {
            self.piece(frame.index, &frame.id, &frame.name, &frame.arguments_delta, say);
        }
    }

    fn piece(&mut self, index: u32, id: &str, name: &str, delta: &str, say: &mut dyn FnMut(Said<'_>)) {
        let Some(call) = self.call_mut(index) else { return };
        if !std::mem::replace(&mut call.has_begun, true) {
            say(Said::CallBegins { index, id, name });
        }
        if !delta.is_empty() {
            call.arguments_len += delta.len();
            say(Said::CallArguments { index, delta });
        }
    }

    /// Tells what is missing of a call that has ended, and its end, once.
    fn whole_call(&mut self, index: u32, id: &str, name: &str, arguments: &str, say: &mut dyn FnMut(Said<'_>)) {
        let Some(call) = self.call_mut(index) else { return };
        if std::mem::replace(&mut call.has_ended, true) {
            return;
        }
        let rest = arguments.get(call.arguments_len..).unwrap_or_default();
        self.piece(index, id, name, rest, say);
        say(Said::CallEnds { index, arguments });
    }

    fn call_mut(&mut self, index: u32) -> Option<&mut Call> {
        let index = usize::try_from(index).ok().filter(|index| *index < CALLS_MAX)?;
        if index >= self.calls.len() {
            self.calls.resize_with(index + 1, Call::default);
        }
        self.calls.get_mut(index)
    }

    /// Tells what has been missed. `text` and `reasoning` are those that the answer had where the reader goes on.
    pub(super) fn gap(&mut self, text: &str, reasoning: &str, answer: &Transcript, say: &mut dyn FnMut(Said<'_>)) {
        let mut rest = |whole: &str, known_len: &mut usize, said: fn(&str) -> Said<'_>| {
            if let Some(rest) = whole.get(*known_len..).filter(|rest| !rest.is_empty()) {
                *known_len = whole.len();
                say(said(rest));
            }
        };
        rest(reasoning, &mut self.reasoning_len, |text| Said::Reasoning(text));
        // A refusal is the text of an answer that has no other.
        if answer.text.is_empty() {
            rest(text, &mut self.refusal_len, |text| Said::Refusal(text));
        } else {
            rest(text, &mut self.text_len, |text| Said::Text(text));
        }
        self.lost_pieces = true;
        for call in &answer.tool_calls {
            self.whole_call(call.index, &call.id, &call.name, &call.arguments, say);
        }
        if let Some(missed) = answer.citations.get(self.citations_len..).filter(|missed| !missed.is_empty()) {
            self.citations_len = answer.citations.len();
            self.told_ahead.extend(missed.iter().map(|citation| citation.url.clone()));
            say(Said::Citations(missed.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Event, ReasoningKind, ToolCall};

    /// What a listener has put together.
    #[derive(Debug, Default, PartialEq)]
    struct Together {
        text: String,
        reasoning: String,
        refusal: String,
        calls: Vec<(String, String, bool)>,
        citations: Vec<Citation>,
    }

    impl Together {
        fn take(&mut self, said: Said<'_>) {
            match said {
                Said::Text(text) => self.text.push_str(text),
                Said::Reasoning(text) => self.reasoning.push_str(text),
                Said::Refusal(text) => self.refusal.push_str(text),
                Said::CallBegins { index, name, .. } => {
                    assert_eq!(index as usize, self.calls.len(), "calls begin once, in order");
                    self.calls.push((name.to_owned(), String::new(), false));
                }
                Said::CallArguments { index, delta } => self.calls[index as usize].1.push_str(delta),
                Said::CallEnds { index, arguments } => {
                    let call = &mut self.calls[index as usize];
                    assert!(!call.2, "a call ends once");
                    assert_eq!(call.1, arguments, "it has been told whole");
                    call.2 = true;
                }
                Said::Citations(items) => self.citations.extend(items),
                Said::Logprobs(_) | Said::Reset => {}
            }
        }
    }

    fn citation(n: u32) -> Citation {
        Citation { n, url: format!("https://h/{n}"), title: String::new(), snippet: None, date: None }
    }

    /// An answer with everything in it: text in `pieces`, two calls in pieces, sources.
    fn answer(pieces: &[String]) -> Vec<Event<'static>> {
        let mut events = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            events.push(Event::Reasoning { delta: piece.clone().into(), kind: ReasoningKind::Text });
            events.push(Event::Delta { delta: piece.clone().into() });
            if at % 3 == 0 {
                events.push(Event::Citation { items: vec![citation(u32::try_from(at).unwrap())] });
            }
        }
        for index in 0..2 {
            for piece in pieces {
                let (id, name) = (format!("c{index}").into(), format!("f{index}").into());
                events.push(Event::ToolCallPiece { index, id, name, arguments_delta: piece.clone().into() });
            }
            let (id, name) = (format!("c{index}"), format!("f{index}"));
            let call = ToolCall { index, id, name, arguments: pieces.concat() };
            events.push(Event::ToolCall { call, complete: true, valid: false });
        }
        events
    }

    fn frames(events: &[Event<'_>]) -> BytesMut {
        let mut out = BytesMut::new();
        (1..).zip(events).for_each(|(seq, event)| event.write_frame(1, seq, &mut out));
        out
    }

    fn transcript(events: &[Event<'_>]) -> Transcript {
        let mut transcript = Transcript::default();
        events.iter().for_each(|event| transcript.apply(event));
        transcript
    }

    fn heard(events: &[Event<'_>]) -> Together {
        let mut together = Together::default();
        Heard::default().frames(&frames(events), &mut |said| together.take(said));
        together
    }

    #[test]
    fn a_text_is_read_back_as_it_was_written() {
        let text = "a\nb\r\nevent: done\ndata: {}\u{2028}\0\"\\é🦀";

        let together = heard(&[Event::Delta { delta: text.into() }]);

        assert_eq!(together.text, text);
    }

    #[test]
    fn a_refusal_that_was_missed_is_no_text() {
        let events = [Event::Refusal { delta: "no".into() }];
        let mut together = Together::default();

        let answer = transcript(&events);
        Heard::default().gap(answer.content(), "", &answer, &mut |said| together.take(said));

        assert_eq!((&*together.text, &*together.refusal), ("", "no"));
    }

    proptest! {
        #[test]
        fn whoever_misses_a_part_still_hears_everything_once(
            pieces in prop::collection::vec("[a-z\"\\\\\né]{0,5}", 1..8),
            from in 0_usize..60,
            missed in 0_usize..60,
        ) {
            let events = answer(&pieces);
            let from = from.min(events.len());
            let to = (from + missed).min(events.len());
            let mut hearing = Heard::default();
            let mut together = Together::default();

            hearing.frames(&frames(&events[..from]), &mut |said| together.take(said));
            // The answer has gone on since the place that the reader is set to.
            let (then, now) = (transcript(&events[..to]), transcript(&events[..to.max(events.len() / 2)]));
            hearing.gap(then.content(), &then.reasoning, &now, &mut |said| together.take(said));
            hearing.frames(&frames(&events[to..]), &mut |said| together.take(said));

            prop_assert_eq!(together, heard(&events));
        }
    }
}
