//! Models: what a request must know of a model before it is sent, read from its name.
//!
//! Names come as `claude-opus-4-8`, `claude-3-5-haiku-20241022`, `anthropic/claude-haiku-4.5`,
//! `us.anthropic.claude-sonnet-4-20250514-v1:0`. Whoever is no Claude is somebody else's model behind a gateway.

/// The limit of an answer when nobody has chosen one, in tokens; the API insists on a number. No more than every model
/// of its age takes, since a larger one is refused.
pub(super) fn max_tokens_default(model: &str) -> u32 {
    match Claude::of(model) {
        Some(claude) if claude.version >= (4, 0) => 32_000,
        Some(claude) if claude.version < (3, 5) => 4_096,
        _ => 8_192,
    }
}

/// Whether the model lets its temperature be chosen. Newer ones refuse a request that tries.
pub(super) fn takes_sampling(model: &str) -> bool {
    let Some(claude) = Claude::of(model) else { return true };
    let first_without = match claude.family {
        "opus" => (4, 7),
        "haiku" => (5, 5),
        _ => (5, 0),
    };
    claude.version < first_without
}

/// Whether two names may stand for one model: they differ in a gateway's prefix, a date, or a dot.
pub(super) fn same(one: &str, other: &str) -> bool {
    let (one, other) = (plain(one), plain(other));
    one.starts_with(&other) || other.starts_with(&one)
}

fn plain(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.to_ascii_lowercase().replace('.', "-")
}

/// A model of Anthropic's own.
#[derive(Debug, PartialEq, Eq)]
struct Claude<'m> {
    /// `opus`, `sonnet`, `haiku`, or what comes after them.
    family: &'m str,
    version: (u32, u32),
}

impl<'m> Claude<'m> {
    fn of(model: &'m str) -> Option<Self> {
        let (_, name) = model.split_once("claude-")?;
        let words = || name.split(['-', '.', '@', ':']);
        let family = words().find(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase()));
        // Longer numbers are dates.
        let mut numbers = words().filter(|word| word.len() <= 2).filter_map(|word| word.parse::<u32>().ok());
        let version = (numbers.next()?, numbers.next().unwrap_or(0));
        Some(Self { family: family.unwrap_or_default(), version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_every_spelling_of_a_name() {
        let cases = [
            ("claude-sonnet-5", "sonnet", (5, 0)),
            ("claude-opus-4-8", "opus", (4, 8)),
            ("claude-haiku-4-5-20251001", "haiku", (4, 5)),
            ("claude-sonnet-4-20250514", "sonnet", (4, 0)),
            ("claude-3-5-haiku-20241022", "haiku", (3, 5)),
            ("claude-3-opus-20240229", "opus", (3, 0)),
            ("anthropic/claude-haiku-4.5", "haiku", (4, 5)),
            ("us.anthropic.claude-opus-4-7-v1:0", "opus", (4, 7)),
            ("claude-opus-4-8@20260301", "opus", (4, 8)),
        ];
        for (model, family, version) in cases {
            assert_eq!(Claude::of(model), Some(Claude { family, version }), "{model}");
        }
        for other in ["deepseek-chat", "claude", "claude-", "claude-next", ""] {
            assert_eq!(Claude::of(other), None, "{other}");
        }
    }

    #[test]
    fn newer_models_choose_their_own_temperature() {
        for newer in ["claude-sonnet-5", "claude-opus-4-8", "claude-opus-5", "claude-fable-5", "claude-haiku-5-5"] {
            assert!(!takes_sampling(newer), "{newer}");
        }
        for older in ["claude-haiku-4-5", "claude-opus-4-6", "claude-sonnet-4-6", "claude-3-opus-20240229", "glm-5"] {
            assert!(takes_sampling(older), "{older}");
        }
    }

    #[test]
    fn the_limit_by_default_is_one_that_the_model_takes() {
        let limits = ["claude-haiku-4-5", "claude-3-5-sonnet-20241022", "claude-3-haiku-20240307", "kimi-k3"];

        assert_eq!(limits.map(max_tokens_default), [32_000, 8_192, 4_096, 8_192]);
    }

    #[test]
    fn a_model_is_the_same_under_its_dated_and_its_prefixed_name() {
        assert!(same("claude-haiku-4-5", "claude-haiku-4-5-20251001"));
        assert!(same("claude-haiku-4-5-20251001", "anthropic/claude-haiku-4.5"));
        assert!(!same("claude-haiku-4-5", "claude-opus-4-8"));
    }
}
