//! Usage: Gemini counts what it has thought, and what its own tools have read, beside the answer and the prompt.

use serde_json::Value;

use crate::event::Usage;
use crate::providers::json;

/// The figures of a chunk's `usageMetadata`, which are sums over the answer so far.
pub(super) fn usage(metadata: &Value) -> Usage {
    let count = |key: &str| json::get(metadata, key).and_then(json::count).unwrap_or(0);
    let input = count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount"));
    let (answer, reasoning) = (count("candidatesTokenCount"), count("thoughtsTokenCount"));
    let total = count("totalTokenCount");
    // Some servers do include the thoughts. Their total gives them away.
    let includes = answer >= reasoning && total == input.saturating_add(answer);
    let output = if includes { answer } else { answer.saturating_add(reasoning) };
    let total = if total > 0 { total } else { input.saturating_add(output) };
    Usage {
        input,
        output,
        total,
        cached_input: count("cachedContentTokenCount"),
        reasoning,
        cost_usd: None,
        estimated: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(metadata: &Value) -> [u64; 5] {
        let Usage { input, output, total, cached_input, reasoning, .. } = usage(metadata);
        [input, output, total, cached_input, reasoning]
    }

    #[test]
    fn thoughts_are_output_and_what_tools_read_is_input() {
        let whole = json!({"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "cachedContentTokenCount": 4,
            "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "totalTokenCount": 20});
        let without_total = json!({"promptTokenCount": 15, "cachedContentTokenCount": 4, "candidatesTokenCount": 2,
            "thoughtsTokenCount": 3});
        let included = json!({"promptTokenCount": 15, "cachedContentTokenCount": 4, "candidatesTokenCount": 5,
            "thoughtsTokenCount": 3, "totalTokenCount": 20});
        for metadata in [whole, without_total, included] {
            assert_eq!(counts(&metadata), [15, 5, 20, 4, 3], "{metadata}");
        }
    }

    #[test]
    fn nonsense_counts_nothing() {
        for metadata in [json!(null), json!([1]), json!({"promptTokenCount": -1, "totalTokenCount": "many"})] {
            assert_eq!(counts(&metadata), [0; 5], "{metadata}");
        }
    }
}
