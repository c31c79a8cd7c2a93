//! Activities: what the provider does by itself. Items of their own, events about them, and the events by which
//! Perplexity's agents tell what they look for.

use serde_json::{Map, Value};

use crate::event::{ActivityKind, Event};
use crate::providers::json;

/// Items that the provider works on while they are part of the answer.
const RUN: [(&str, ActivityKind); 6] = [
    ("web_search_call", ActivityKind::Search),
    ("file_search_call", ActivityKind::Search),
    ("code_interpreter_call", ActivityKind::Code),
    ("mcp_list_tools", ActivityKind::Mcp),
    ("mcp_call", ActivityKind::Mcp),
    ("image_generation_call", ActivityKind::Image),
];
/// What Perplexity's agents do. Items and events have these names with `_results` or `_queries` behind them.
const AGENT: [(&str, ActivityKind); 5] = [
    ("search", ActivityKind::Search),
    ("people_search", ActivityKind::Search),
    ("finance", ActivityKind::Search),
    ("fetch_url", ActivityKind::Fetch),
    ("sandbox", ActivityKind::Code),
];
/// What events say that the item itself says better: its begin, its end, and the pieces and previews of what it holds.
const REPEATED: [&str; 5] = ["in_progress", "completed", "delta", "done", "partial_image"];
/// What is about the event rather than in it.
const ENVELOPE: [&str; 3] = ["type", "sequence_number", "output_index"];
/// What is told in another way, or not at all: a whole answer repeats the request with the operator's instructions.
const APART: [&str; 2] = ["response", "usage"];
/// Results that events have told and items have not repeated yet; more of them are not remembered.
const PENDING_MAX: usize = 256;

/// What an event of another kind than text means.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// It is about what the provider does.
    Activity(ActivityKind, &'static str),
    /// It is about that, in the provider's own word.
    Progress(ActivityKind),
    /// Nothing that is not told elsewhere.
    Nothing,
    /// Something else.
    Unknown,
}

/// What the event called `name` (without `response.`) means.
pub(super) fn meaning(name: &str) -> Meaning {
    if let Some(step) = name.strip_prefix("reasoning.") {
        let step = |end, state| Some(Meaning::Activity(agent(step.strip_suffix(end)?)?, state));
        return step("_queries", "start").or_else(|| step("_results", "result")).unwrap_or(Meaning::Unknown);
    }
    let Some((stem, state)) = name.split_once('.') else { return Meaning::Unknown };
    // `mcp_call_arguments` and its like are about the item of the name's beginning.
    match RUN.iter().find(|(item, _)| stem.starts_with(item)) {
        Some(_) if REPEATED.contains(&state) => Meaning::Nothing,
        Some((_, kind)) => Meaning::Progress(*kind),
        None => Meaning::Unknown,
    }
}

fn agent(stem: &str) -> Option<ActivityKind> {
    AGENT.iter().find(|(name, _)| *name == stem).map(|(_, kind)| *kind)
}

/// Whether an item of this type is something that the provider works on.
pub(super) fn is_run(item: &str) -> Option<ActivityKind> {
    RUN.iter().find(|(name, _)| *name == item).map(|(_, kind)| *kind)
}

/// Whether an item of this type holds what an agent has found.
pub(super) fn is_found(item: &str) -> Option<ActivityKind> {
    agent(item.strip_suffix("_results")?)
}

/// The activities of one answer.
#[derive(Debug, Default)]
pub(super) struct Activities {
    pending: Vec<ActivityKind>,
}

impl Activities {
    /// The event for results that came by an event; their item will repeat them.
    pub(super) fn found(&mut self, kind: ActivityKind, event: &Value, cited: bool) -> Event<'static> {
        if self.pending.len() < PENDING_MAX {
            self.pending.push(kind);
        }
        result(kind, event, cited)
    }

    /// The event for results that came as an item; `None` when an event has told them.
    pub(super) fn found_item(&mut self, kind: ActivityKind, item: &Value, cited: bool) -> Option<Event<'static>> {
        if let Some(at) = self.pending.iter().position(|pending| *pending == kind) {
            self.pending.swap_remove(at);
            return None;
        }
        let mut event = result(kind, item, cited);
        if let Event::Activity { detail, .. } = &mut event {
            detail["type"] = item["type"].clone();
        }
        Some(event)
    }
}

/// Results that are citations are told as such.
fn result(kind: ActivityKind, found: &Value, cited: bool) -> Event<'static> {
    let mut detail = detail(found);
    if let (Value::Object(detail), true) = (&mut detail, cited) {
        detail.remove("results");
    }
    Event::Activity { kind, state: "result".into(), detail }
}

/// What an event says, as far as it is nobody else's to tell.
pub(super) fn detail(event: &Value) -> Value {
    let is_said = |name: &str| !ENVELOPE.contains(&name) && !APART.contains(&name);
    let said = json::fields(event).filter(|(name, _)| is_said(name));
    Value::Object(said.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_events_tell_what_is_done() {
        use ActivityKind::{Code, Fetch, Image, Mcp, Search};
        let cases = [
            ("reasoning.search_queries", Meaning::Activity(Search, "start")),
            ("reasoning.fetch_url_results", Meaning::Activity(Fetch, "result")),
            ("reasoning.started", Meaning::Unknown),
            ("reasoning.dance_queries", Meaning::Unknown),
            ("web_search_call.searching", Meaning::Progress(Search)),
            ("web_search_call.completed", Meaning::Nothing),
            ("code_interpreter_call.interpreting", Meaning::Progress(Code)),
            ("code_interpreter_call_code.delta", Meaning::Nothing),
            ("mcp_call_arguments.done", Meaning::Nothing),
            ("mcp_call.failed", Meaning::Progress(Mcp)),
            ("image_generation_call.generating", Meaning::Progress(Image)),
            ("image_generation_call.partial_image", Meaning::Nothing),
            ("shell_call_command.delta", Meaning::Unknown),
            ("unknown", Meaning::Unknown),
        ];
        for (name, expected) in cases {
            assert_eq!(meaning(name), expected, "{name}");
        }
    }
}
