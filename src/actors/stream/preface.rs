//! Preface: what an answer says before its first content: what it costs, sources, the provider's own remarks.
//!
//! It is held back until content comes, because a call that fails before that is made again, and says it again. What a
//! provider does meanwhile (a search, say) is shown at once: when the call is repeated, it really is done twice.

use crate::event::Event;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Preface {
    events: Vec<Event<'static>>,
}

impl Preface {
    /// Keeps the event; says how many bytes that takes. `None` when it is not to be held back.
    pub(super) fn hold(&mut self, event: &Event<'_>) -> Option<usize> {
        let held = match event {
            Event::Usage { usage } => Event::Usage { usage: *usage },
            Event::Citation { items } => Event::Citation { items: items.clone() },
            Event::Ext { name, data } => Event::Ext { name: name.to_string().into(), data: data.clone() },
            _ => return None,
        };
        let bytes = serde_json::to_string(&held).map_or(0, |json| json.len());
        self.events.push(held);
        Some(bytes)
    }

    /// Gives it out, in order.
    pub(super) fn take(&mut self) -> Vec<Event<'static>> {
        std::mem::take(&mut self.events)
    }
}
