//! Calls: the tool calls of one answer. Most come whole, in one part; on request some servers send them piece by piece.

use serde_json::Value;

use super::partial::Arguments;
use crate::event::{Event, ToolCall};
use crate::failure::{Code, Failure};
use crate::providers::openai_chat::tools::{ARGUMENTS_BYTES_MAX, CALLS_MAX, piece};
use crate::providers::{Piece, json};

/// How much of an answer's id goes into the ids of its calls.
const STEM_LEN_MAX: usize = 24;

/// The calls of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    done: Vec<ToolCall>,
    /// The call whose pieces still come.
    open: Option<Open>,
    bytes: usize,
    any: bool,
    stem: String,
}

#[derive(Debug)]
struct Open {
    index: u32,
    id: String,
    name: String,
    arguments: Arguments,
}

impl Calls {
    /// Whether the answer has called a tool.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Makes the ids of calls that the server leaves without one unique, by the id of the answer.
    pub(super) fn name_after(&mut self, answer_id: &str) {
        let plain = answer_id.chars().filter(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
        self.stem = plain.take(STEM_LEN_MAX).chain(['_']).collect();
    }

    /// Takes a `functionCall`; returns the id of the call it belongs to, if there is one.
    pub(super) fn add(&mut self, call: &Value, out: &mut dyn FnMut(Piece<'_>)) -> Result<Option<String>, Failure> {
        self.weigh(call)?;
        let goes_on = call.get("willContinue") == Some(&Value::Bool(true));
        let args = json::get(call, "args");
        if let Some(name) = json::text(call, "name") {
            self.close(out);
            let begun = self.begin(json::text(call, "id"), name, args)?;
            if goes_on {
                out(piece(begun.index, &begun.id, &begun.name, ""));
            }
        } else if let (Some(open), Some(args)) = (&mut self.open, args) {
            open.arguments = Arguments::new(Some(args));
        }
        // Without an open call this is the end of one that has ended already.
        let Some(open) = &mut self.open else { return Ok(None) };
        for piece in json::items(call, "partialArgs") {
            open.arguments.put(piece).map_err(|_| {
                Failure::new(Code::UpstreamProtocol, "the arguments of a tool call cannot be put together")
            })?;
        }
        let id = open.id.clone();
        if !goes_on {
            self.close(out);
        }
        Ok(Some(id))
    }

    /// Completes every call. `cut` tells that the answer has hit its limit, so that a call in pieces is not whole.
    pub(super) fn complete(&mut self, cut: bool, out: &mut dyn FnMut(Piece<'_>)) {
        let cut = self.open.as_ref().filter(|_| cut).map(|open| open.index);
        self.close(out);
        for call in self.done.drain(..) {
            let valid = cut != Some(call.index);
            out(Piece::Event(Event::ToolCall { call, complete: true, valid }));
        }
    }

    fn begin(&mut self, id: Option<&str>, name: &str, args: Option<&Value>) -> Result<&Open, Failure> {
        let at = self.done.len();
        if at >= CALLS_MAX {
            let message = format!("the answer has more than {CALLS_MAX} tool calls");
            return Err(Failure::new(Code::ResponseTooLarge, message));
        }
        self.any = true;
        Ok(self.open.insert(Open {
            index: u32::try_from(at).expect("there are at most CALLS_MAX"),
            id: id.map_or_else(|| format!("call_{}{at}", self.stem), str::to_owned),
            name: name.to_owned(),
            arguments: Arguments::new(args),
        }))
    }

    /// Ends the open call. Only now its arguments are told: before, any part of them might still have changed.
    fn close(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        let Some(Open { index, id, name, arguments }) = self.open.take() else { return };
        let call = ToolCall { index, id, name, arguments: arguments.text() };
        out(piece(index, &call.id, &call.name, &call.arguments));
        self.done.push(call);
    }

    fn weigh(&mut self, call: &Value) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(json::weight(call));
        if self.bytes > ARGUMENTS_BYTES_MAX {
            let message = format!("the answer's tool calls exceed {ARGUMENTS_BYTES_MAX} bytes");
            return Err(Failure::new(Code::ResponseTooLarge, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The complete calls of an answer as `id name arguments`, with `!` when they are not valid. Every call's pieces
    /// must add up to its arguments.
    fn calls(parts: &[Value], cut: bool) -> Vec<String> {
        let mut calls = Calls::default();
        calls.name_after("answer/1");
        let mut pieces = Vec::<String>::new();
        let mut complete = Vec::new();
        let mut out = |piece: Piece<'_>| match piece {
            Piece::Event(Event::ToolCallPiece { index, arguments_delta, .. }) => {
                pieces.resize(pieces.len().max(index as usize + 1), String::new());
                pieces[index as usize].push_str(&arguments_delta);
            }
            Piece::Event(Event::ToolCall { call, valid, .. }) => {
                assert_eq!(pieces[call.index as usize], call.arguments);
                let mark = if valid { "" } else { " !" };
                complete.push(format!("{} {} {}{mark}", call.id, call.name, call.arguments));
            }
            other => panic!("{other:?}"),
        };
        for part in parts {
            calls.add(part, &mut out).unwrap();
        }
        calls.complete(cut, &mut out);
        complete
    }

    #[test]
    fn calls_have_the_ids_of_the_server_or_unique_ones() {
        let parts = [json!({"id": "c", "name": "f", "args": {"x": 1}}), json!({"name": "f"})];

        assert_eq!(calls(&parts, false), ["c f {\"x\":1}", "call_answer1_1 f {}"]);
    }

    #[test]
    fn a_call_in_pieces_ends_with_the_piece_that_does_not_go_on() {
        let parts = [
            json!({"name": "f", "willContinue": true}),
            json!({"partialArgs": [{"jsonPath": "$.x", "numberValue": 1}], "willContinue": true}),
            json!({}),
            json!({}),
            json!({"name": "g", "args": {"known": 1}, "willContinue": true}),
            json!({"partialArgs": [{"jsonPath": "$.y", "boolValue": true}]}),
        ];

        assert_eq!(calls(&parts, false), ["call_answer1_0 f {\"x\":1}", "call_answer1_1 g {\"known\":1,\"y\":true}"]);
    }

    #[test]
    fn a_call_that_is_never_ended_is_whole_unless_a_limit_has_cut_it() {
        let parts = [
            json!({"name": "f", "willContinue": true}),
            json!({"name": "g", "willContinue": true}),
            json!({"partialArgs": [{"jsonPath": "$.x", "stringValue": "a", "willContinue": true}],
                "willContinue": true}),
        ];

        assert_eq!(calls(&parts, false), ["call_answer1_0 f {}", "call_answer1_1 g {\"x\":\"a\"}"]);
        assert_eq!(calls(&parts, true), ["call_answer1_0 f {}", "call_answer1_1 g {\"x\":\"a\"} !"]);
    }

    #[test]
    fn calls_and_arguments_have_limits() {
        let code = |result: Result<_, Failure>| result.map(|_: Option<String>| ()).unwrap_err().code;
        let mut calls = Calls::default();
        let failed = (0..200).find_map(|_| calls.add(&json!({"name": "f"}), &mut |_| {}).err());
        assert_eq!(failed.map(|failure| failure.code), Some(Code::ResponseTooLarge));

        let large = json!({"name": "f", "args": {"x": "x".repeat(ARGUMENTS_BYTES_MAX + 1)}});
        assert_eq!(code(Calls::default().add(&large, &mut |_| {})), Code::ResponseTooLarge);
        let nowhere = json!({"name": "f", "partialArgs": [{"jsonPath": "$.x[9]", "numberValue": 1}]});
        assert_eq!(code(Calls::default().add(&nowhere, &mut |_| {})), Code::UpstreamProtocol);
    }
}
