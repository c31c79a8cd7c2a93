//! Usage: token counts under all their names, in one meaning: input includes what was cached, output what was reasoned.

use serde_json::Value;

use crate::event::{Event, Usage};
use crate::providers::json;

/// What has been said about an answer's cost.
#[derive(Debug, Default)]
pub(in crate::providers) struct Ledger {
    last: Usage,
    told: Usage,
}

impl Ledger {
    /// Takes a chunk's figures, wherever they are in it.
    pub(in crate::providers) fn note(&mut self, chunk: &Value) {
        let groq = json::get(chunk, "x_groq").and_then(|groq| json::get(groq, "usage"));
        let usage = json::get(chunk, "usage").or(groq).map(usage);
        if let Some(usage) = usage.filter(|usage| *usage != Usage::default()) {
            self.last = usage;
        }
    }

    /// The event for figures that have not been told yet. Some servers count along with every chunk; telling each of
    /// these would double the events, so this is asked for only when the answer has found its end.
    pub(in crate::providers) fn news(&mut self) -> Option<Event<'static>> {
        if self.last == self.told {
            return None;
        }
        self.told = self.last;
        Some(Event::Usage { usage: self.last })
    }
}

fn usage(value: &Value) -> Usage {
    let count = |key: &str| json::get(value, key).and_then(json::count);
    let detail = |group: &str, key: &str| json::get(json::get(value, group)?, key).and_then(json::count);
    let cached_input = detail("prompt_tokens_details", "cached_tokens")
        .or_else(|| detail("input_tokens_details", "cached_tokens"))
        .or_else(|| count("prompt_cache_hit_tokens"))
        .or_else(|| count("cached_tokens"))
        .unwrap_or(0);
    let reasoning = detail("completion_tokens_details", "reasoning_tokens")
        .or_else(|| detail("output_tokens_details", "reasoning_tokens"))
        .or_else(|| count("reasoning_tokens"))
        .unwrap_or(0);
    let missed = || count("prompt_cache_miss_tokens").map(|missed| missed.saturating_add(cached_input));
    let input = count("prompt_tokens").or_else(|| count("input_tokens")).or_else(missed).unwrap_or(0);
    let mut output = count("completion_tokens").or_else(|| count("output_tokens")).unwrap_or(0);
    let total = count("total_tokens").filter(|total| *total > 0);
    // Some servers count reasoning beside the answer. Their total gives them away.
    let beside = input.saturating_add(output).saturating_add(reasoning);
    if reasoning > 0 && total.map_or(output < reasoning, |total| total == beside) {
        output = output.saturating_add(reasoning);
    }
    let total = total.unwrap_or(input.saturating_add(output));
    Usage { input, output, total, cached_input, reasoning, cost_usd: cost_usd(value), estimated: false }
}

/// The price, which is a number or an object with the sum in it.
fn cost_usd(usage: &Value) -> Option<f64> {
    let cost = json::get(usage, "cost")?;
    let cost = cost.as_f64().or_else(|| json::get(cost, "total_cost")?.as_f64());
    cost.filter(|cost| cost.is_finite() && *cost >= 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(value: &Value) -> [u64; 5] {
        let Usage { input, output, total, cached_input, reasoning, .. } = usage(value);
        [input, output, total, cached_input, reasoning]
    }

    #[test]
    fn input_includes_cached_and_output_includes_reasoning_whatever_the_names() {
        let openai = json!({"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 5}});
        let deepseek = json!({"completion_tokens": 7, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6,
            "completion_tokens_details": {"reasoning_tokens": 5}});
        let beside = json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 17, "reasoning_tokens": 5,
            "cached_tokens": 4});
        let responses = json!({"input_tokens": "10", "output_tokens": 7.0, "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 5}});
        for value in [openai, deepseek, beside, responses] {
            assert_eq!(counts(&value), [10, 7, 17, 4, 5], "{value}");
        }
    }

    #[test]
    fn nonsense_counts_nothing() {
        for value in [json!(null), json!("many"), json!([1]), json!({"prompt_tokens": -1, "prompt_tokens_details": 3})]
        {
            assert_eq!(counts(&value), [0; 5], "{value}");
        }
        assert_eq!(counts(&json!({"prompt_tokens": 9e15, "completion_tokens": 1}))[0], 9_000_000_000_000_000);
    }

    #[test]
    fn the_price_is_a_number_or_a_sum() {
        assert_eq!(cost_usd(&json!({"cost": 0.25})), Some(0.25));
        assert_eq!(cost_usd(&json!({"cost": {"request_cost": 0.1, "total_cost": 0.5}})), Some(0.5));
        assert_eq!(cost_usd(&json!({"cost": "free"})), None);
        assert_eq!(cost_usd(&json!({"cost": -1})), None);
    }

    #[test]
    fn figures_are_told_once_and_zeros_take_nothing_back() {
        let mut ledger = Ledger::default();
        ledger.note(&json!({"x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}}));

        assert!(ledger.news().is_some());
        ledger.note(&json!({"usage": {"prompt_tokens": 0}}));
        assert!(ledger.news().is_none());
    }
}
