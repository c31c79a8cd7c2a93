//! Usage: counts that begin with the answer, grow with it, and are whole only beside its finish reason.

use serde_json::Value;

use crate::event::{Event, Usage};
use crate::providers::json;

/// What has been said about an answer's cost.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Without what went to or came from the cache.
    fresh_input: u64,
    cache_write: u64,
    cache_read: u64,
    output: u64,
    thinking: u64,
    cost_usd: Option<f64>,
    is_final: bool,
    told: Option<Usage>,
}

impl Ledger {
    /// Takes figures. Each replaces the one before it; a missing or zero one takes nothing back.
    pub(super) fn note(&mut self, usage: &Value) {
        let take = |slot: &mut u64, value: Option<&Value>| {
            if let Some(count) = value.and_then(json::count).filter(|count| *count > 0) {
                *slot = count;
            }
        };
        take(&mut self.fresh_input, usage.get("input_tokens"));
        take(&mut self.cache_write, usage.get("cache_creation_input_tokens"));
        take(&mut self.cache_read, usage.get("cache_read_input_tokens"));
        take(&mut self.output, usage.get("output_tokens"));
        take(&mut self.thinking, json::get(usage, "output_tokens_details").and_then(|it| it.get("thinking_tokens")));
        let cost = usage.get("cost").and_then(Value::as_f64);
        self.cost_usd = cost.filter(|cost| cost.is_finite() && *cost >= 0.0).or(self.cost_usd);
    }

    /// The figures are those of the end from now on.
    pub(super) fn finish(&mut self) {
        self.is_final = true;
    }

    /// Whether the figures of the end have come. Those of the beginning say nothing about the answer.
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }

    /// The event for figures that have not been told yet.
    pub(super) fn news(&mut self) -> Option<Event<'static>> {
        let input = self.fresh_input.saturating_add(self.cache_write).saturating_add(self.cache_read);
        let usage = Usage {
            input,
            output: self.output,
            total: input.saturating_add(self.output),
            cached_input: self.cache_read,
            reasoning: self.thinking,
            cost_usd: self.cost_usd,
            estimated: false,
        };
        if usage == Usage::default() || self.told == Some(usage) {
            return None;
        }
        self.told = Some(usage);
        Some(Event::Usage { usage })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage(ledger: &mut Ledger) -> Option<Usage> {
        match ledger.news() {
            Some(Event::Usage { usage }) => Some(usage),
            _ => None,
        }
    }

    #[test]
    fn input_is_the_sum_of_fresh_written_and_read() {
        let mut ledger = Ledger::default();
        ledger.note(&json!({"input_tokens": 10, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 3000,
            "output_tokens": 1}));
        ledger.note(&json!({"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 25}}));

        let expected =
            Usage { input: 3210, output: 40, total: 3250, cached_input: 3000, reasoning: 25, ..Usage::default() };
        assert_eq!(usage(&mut ledger), Some(expected));
        assert_eq!(usage(&mut ledger), None);
    }

    #[test]
    fn later_figures_replace_earlier_ones_but_nothing_takes_none_back() {
        let mut ledger = Ledger::default();
        ledger.note(&json!({"input_tokens": 43, "output_tokens": 1}));
        ledger.note(&json!({"input_tokens": 61, "output_tokens": 2, "cache_read_input_tokens": null}));
        ledger.note(&json!({"input_tokens": 0, "output_tokens": -5}));

        let usage = usage(&mut ledger).unwrap();
        assert_eq!((usage.input, usage.output), (61, 2));
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        let mut ledger = Ledger::default();
        ledger.note(&json!({"input_tokens": 0, "cost": "free"}));

        assert_eq!(usage(&mut ledger), None);
    }
}
