//! Tool calls: put together from pieces that servers number, name and cut in many ways.
//!
//! OpenAI's own way: the first piece of a call has its index, id and name, the others the index alone. Seen elsewhere:
//! indexes with gaps or without numbers at all, index 0 for every call with ids of their own, no ids, names repeated
//! (or repeated empty) in every piece, whole arguments at once, arguments as an object. Calls are numbered here from 0
//! in order of first appearance.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::event::{Event, ToolCall};
use crate::failure::{Code, Failure};
use crate::providers::{Piece, json};

/// More calls than this are no answer.
pub(in crate::providers) const CALLS_MAX: usize = 128;
/// What the arguments of all calls may take together.
pub(in crate::providers) const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;

/// The calls of one answer.
#[derive(Debug, Default)]
pub(in crate::providers) struct Calls {
    calls: Vec<Call>,
    bytes: usize,
    any: bool,
}

#[derive(Debug)]
struct Call {
    /// The server's number for it, if it gives one.
    number: Option<u64>,
    id: String,
    /// Whether the id is the server's.
    id_given: bool,
    /// Empty until it comes; nothing is told before.
    name: String,
    arguments: String,
    nesting: json::Nesting,
    told: bool,
}

/// A piece of a call, read but not understood yet.
#[derive(Debug, Default)]
pub(in crate::providers) struct Part<'v> {
    /// The server's number for the call.
    pub(in crate::providers) number: Option<u64>,
    /// The server's id of the call.
    pub(in crate::providers) id: Option<&'v str>,
    /// The tool's name.
    pub(in crate::providers) name: Option<&'v str>,
    /// The next piece of the arguments.
    pub(in crate::providers) arguments: Cow<'v, str>,
}

impl Calls {
    /// Whether the answer has called a tool.
    pub(in crate::providers) fn any(&self) -> bool {
        self.any
    }

    /// Takes one element of `tool_calls`, or a `function_call` of old; returns the id of the call it belongs to.
    pub(in crate::providers) fn add(&mut self, value: &Value, out: &mut dyn FnMut(Piece<'_>)) -> Result<&str, Failure> {
        self.add_part(&Part::of(value), out)
    }

    /// Takes a part whose arguments are the whole ones: what has come of them before is not told again.
    pub(in crate::providers) fn add_whole(
        &mut self,
        mut part: Part<'_>,
        out: &mut dyn FnMut(Piece<'_>),
    ) -> Result<&str, Failure> {
        if let Some(at) = self.find(&part) {
            let rest = part.arguments.strip_prefix(self.calls[at].arguments.as_str()).unwrap_or_default();
            part.arguments = rest.to_owned().into();
        }
        self.add_part(&part, out)
    }

    /// Takes a part of a call; returns the id of the call it belongs to.
    pub(in crate::providers) fn add_part(
        &mut self,
        part: &Part<'_>,
        out: &mut dyn FnMut(Piece<'_>),
    ) -> Result<&str, Failure> {
        self.bytes += part.arguments.len();
        if self.bytes > ARGUMENTS_BYTES_MAX {
            let message = format!("the answer's tool calls exceed {ARGUMENTS_BYTES_MAX} bytes");
            return Err(Failure::new(Code::ResponseTooLarge, message));
        }
        let at = match self.find(part) {
            Some(at) => at,
            None => self.begin(part)?,
        };
        let call = &mut self.calls[at];
        call.take(part);
        call.tell(index(at), &part.arguments, out);
        Ok(&self.calls[at].id)
    }

    /// Completes every call. `cut` tells that the answer has hit its limit, so that missing arguments are not "none".
    pub(in crate::providers) fn complete(&mut self, cut: bool, out: &mut dyn FnMut(Piece<'_>)) {
        for (at, mut call) in self.calls.drain(..).enumerate() {
            let index = index(at);
            let mut rest = String::new();
            if call.arguments.trim().is_empty() && !cut {
                "{}".clone_into(&mut call.arguments);
                "{}".clone_into(&mut rest);
            }
            if !call.told || !rest.is_empty() {
                let rest = if call.told { &rest } else { &call.arguments };
                out(piece(index, &call.id, &call.name, rest));
            }
            let valid = serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok();
            let call = ToolCall { index, id: call.id, name: call.name, arguments: call.arguments };
            out(Piece::Event(Event::ToolCall { call, complete: true, valid }));
        }
    }

    /// The call that `part` is more of; `None` when it begins a new one.
    fn find(&self, part: &Part<'_>) -> Option<usize> {
        let by_id = || part.id.and_then(|id| self.calls.iter().rposition(|call| call.id_given && call.id == id));
        let candidate = match (part.number, part.id) {
            (Some(number), _) => self.calls.iter().rposition(|call| call.number == Some(number)).or_else(by_id),
            (None, Some(_)) => by_id(),
            (None, None) => self.calls.len().checked_sub(1),
        };
        candidate.filter(|at| self.calls[*at].goes_on_with(part))
    }

    fn begin(&mut self, part: &Part<'_>) -> Result<usize, Failure> {
        let at = self.calls.len();
        if at >= CALLS_MAX {
            let message = format!("the answer has more than {CALLS_MAX} tool calls");
            return Err(Failure::new(Code::ResponseTooLarge, message));
        }
        self.any = true;
        self.calls.push(Call {
            number: part.number,
            id: part.id.map_or_else(|| format!("call_{at}"), str::to_owned),
            id_given: part.id.is_some(),
            name: String::new(),
            arguments: String::new(),
            nesting: json::Nesting::default(),
            told: false,
        });
        Ok(at)
    }
}

impl Call {
    fn goes_on_with(&self, part: &Part<'_>) -> bool {
        if let (Some(id), true) = (part.id, self.id_given) {
            return id == self.id;
        }
        let Some(name) = part.name.filter(|_| !self.name.is_empty()) else { return true };
        // Without ids only the name can tell: another one begins another call, and so does the same one when the
        // arguments were whole already.
        name == self.name && (part.arguments.is_empty() || !self.nesting.is_closed())
    }

    fn take(&mut self, part: &Part<'_>) {
        if let (Some(id), false, false) = (part.id, self.id_given, self.told) {
            id.clone_into(&mut self.id);
            self.id_given = true;
        }
        if let (Some(name), true) = (part.name, self.name.is_empty()) {
            name.clone_into(&mut self.name);
        }
        self.arguments.push_str(&part.arguments);
        self.nesting.push(&part.arguments);
    }

    /// Tells what has come. The first time that is everything so far, since the name may have come late.
    fn tell(&mut self, index: u32, news: &str, out: &mut dyn FnMut(Piece<'_>)) {
        if self.name.is_empty() || (self.told && news.is_empty()) {
            return;
        }
        let news = if self.told { news } else { &self.arguments };
        out(piece(index, &self.id, &self.name, news));
        self.told = true;
    }
}

impl<'v> Part<'v> {
    fn of(value: &'v Value) -> Self {
        // `custom` tools take any text as input; a `function_call` of old is its own function.
        let function = json::get(value, "function").or_else(|| json::get(value, "custom")).unwrap_or(value);
        let arguments = json::get(function, "arguments").or_else(|| json::get(function, "input"));
        Self {
            number: json::get(value, "index").and_then(json::count),
            id: json::text(value, "id"),
            name: json::text(function, "name"),
            arguments: match arguments {
                None => "".into(),
                Some(Value::String(text)) => text.as_str().into(),
                Some(object) => object.to_string().into(),
            },
        }
    }
}

/// A piece of a call, as clients are told it.
pub(in crate::providers) fn piece<'a>(index: u32, id: &'a str, name: &'a str, news: &'a str) -> Piece<'a> {
    let (id, name, arguments_delta) = (id.into(), name.into(), news.into());
    Piece::Event(Event::ToolCallPiece { index, id, name, arguments_delta })
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("there are at most CALLS_MAX")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The complete calls of an answer as `id name arguments`, with `!` when they are not valid. Every call's pieces
    /// must add up to its arguments.
    fn calls(parts: &[Value], cut: bool) -> Vec<String> {
        let mut calls = Calls::default();
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

    fn part(index: Option<u32>, id: &str, name: &str, arguments: &str) -> Value {
        json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    #[test]
    fn pieces_belong_to_the_call_of_their_index_even_when_they_alternate() {
        let parts = [
            part(Some(1), "a", "f", ""),
            part(Some(3), "b", "g", "{"),
            part(Some(1), "", "", "{\"x\":"),
            part(Some(3), "", "", "}"),
            part(Some(1), "", "", "1}"),
        ];

        assert_eq!(calls(&parts, false), ["a f {\"x\":1}", "b g {}"]);
    }

    #[test]
    fn another_id_at_the_same_index_is_another_call() {
        let parts = [part(Some(0), "a", "f", "{\"x\":1}"), part(Some(0), "b", "f", "{\"x\":2}")];

        assert_eq!(calls(&parts, false), ["a f {\"x\":1}", "b f {\"x\":2}"]);
    }

    #[test]
    fn ids_and_names_may_be_repeated_in_every_piece() {
        let parts = [part(Some(0), "a", "f", "{\"x\""), part(Some(0), "a", "f", ":1"), part(Some(0), "a", "", "}")];
        let without_index = [part(None, "a", "f", "{"), part(None, "b", "g", "{"), part(None, "a", "f", "}")];

        assert_eq!(calls(&parts, false), ["a f {\"x\":1}"]);
        assert_eq!(calls(&without_index, true), ["a f {}", "b g { !"]);
    }

    #[test]
    fn without_ids_the_names_tell_calls_apart() {
        let parts = [part(None, "", "f", "{}"), part(None, "", "f", "{\"x\":"), part(None, "", "", "1}")];
        let same_index = [part(Some(0), "", "f", "{"), part(Some(0), "", "f", "}"), part(Some(0), "", "g", "{}")];

        assert_eq!(calls(&parts, false), ["call_0 f {}", "call_1 f {\"x\":1}"]);
        assert_eq!(calls(&same_index, false), ["call_0 f {}", "call_1 g {}"]);
    }

    #[test]
    fn a_name_that_comes_late_is_waited_for() {
        let parts = [part(Some(0), "a", "", "{"), part(Some(0), "", "f", "}")];
        let never = [part(Some(0), "a", "", "{}")];

        assert_eq!(calls(&parts, false), ["a f {}"]);
        assert_eq!(calls(&never, false), ["a  {}"]);
    }

    #[test]
    fn arguments_may_be_an_object_or_missing() {
        let object = json!({"function": {"name": "f", "arguments": {"x": 1}}});
        let missing = json!({"id": "a", "function": {"name": "f"}});

        assert_eq!(calls(&[object], false), ["call_0 f {\"x\":1}"]);
        assert_eq!(calls(std::slice::from_ref(&missing), false), ["a f {}"]);
        assert_eq!(calls(&[missing], true), ["a f  !"]);
    }

    #[test]
    fn the_function_call_of_old_is_a_tool_call() {
        let parts =
            [json!({"name": "f", "arguments": ""}), json!({"arguments": "{\"x\":"}), json!({"arguments": "1}"})];

        assert_eq!(calls(&parts, false), ["call_0 f {\"x\":1}"]);
    }

    #[test]
    fn whole_arguments_tell_what_their_pieces_have_not() {
        let mut calls = Calls::default();
        let mut told = Vec::new();
        let mut out = |piece: Piece<'_>| match piece {
            Piece::Event(Event::ToolCallPiece { id, arguments_delta, .. }) => {
                told.push(format!("{id} {arguments_delta}"));
            }
            other => panic!("{other:?}"),
        };
        let piece = |text: &'static str| Part { number: Some(2), arguments: text.into(), ..Part::default() };
        let whole = || Part { id: Some("a"), name: Some("f"), ..piece("{\"x\":1}") };

        calls.add_part(&piece("{\"x"), &mut out).unwrap();
        calls.add_whole(whole(), &mut out).unwrap();
        calls.add_whole(whole(), &mut out).unwrap();
        calls.add_whole(Part { id: Some("b"), ..whole() }, &mut out).unwrap();

        assert_eq!(told, ["a {\"x\":1}", "b {\"x\":1}"]);
    }

    #[test]
    fn calls_and_arguments_have_limits() {
        let mut calls = Calls::default();
        let failed = (0..200).find_map(|at| calls.add(&part(Some(at), "", "f", ""), &mut |_| {}).err());
        assert_eq!(failed.map(|failure| failure.code), Some(Code::ResponseTooLarge));

        let mut calls = Calls::default();
        let large = part(Some(0), "", "f", &"x".repeat(ARGUMENTS_BYTES_MAX + 1));
        assert_eq!(calls.add(&large, &mut |_| {}).unwrap_err().code, Code::ResponseTooLarge);
    }
}
