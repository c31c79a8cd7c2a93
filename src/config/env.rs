//! Env: what the environment says; it wins over the file. An empty variable counts as not set.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::Config;
use super::pace::PaceTable;
use super::provider::{Key, Provider};
use super::report::Report;
use super::secret::Secret;
use super::section::Table;

/// The variables that are set.
pub(super) struct Env(BTreeMap<String, String>);

impl Env {
    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// Puts what the environment says into the configuration.
    pub(super) fn apply(&self, config: &mut Config, report: &mut Report<'_>) {
        if let Some(enabled) = self.switch("COALESCE_ENABLED", report) {
            config.coalesce.enabled = enabled;
        }
        if let Some(enabled) = self.switch("STREAM_FANOUT_ENABLED", report) {
            config.stream.fanout_enabled = enabled;
        }
        for provider in config.providers.values_mut() {
            provider.pace = self.pace(&provider.env_prefix(), report).over(provider.pace);
            self.find_key(provider, report);
        }
    }

    fn pace(&self, prefix: &str, report: &mut Report<'_>) -> PaceTable {
        let variable = |key: &str| format!("{prefix}_{}", key.to_ascii_uppercase());
        let pace = PaceTable {
            rps: self.parsed(&variable("rps"), "a number", report),
            concurrency: self.parsed(&variable("concurrency"), "a whole number", report),
            burst: self.parsed(&variable("burst"), "a whole number", report),
            tpm: self.parsed(&variable("tpm"), "a whole number", report),
        };
        pace.check(&mut |key, what| report.variable(&variable(key), what));
        pace
    }

    /// Looks the provider's key up. What is wrong with a key is told without the key.
    fn find_key(&self, provider: &mut Provider, report: &mut Report<'_>) {
        if provider.key == Key::NotNeeded {
            return;
        }
        match self.0.get(&provider.api_key_env) {
            Some(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                provider.key = Key::Given(Secret::new(key));
            }
            Some(_) => report.variable(
                &provider.api_key_env,
                "contains characters that no key has: a space, a line break or something beyond ASCII",
            ),
            None => {}
        }
    }

    fn switch(&self, name: &str, report: &mut Report<'_>) -> Option<bool> {
        match self.0.get(name)?.to_ascii_lowercase().as_str() {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => {
                report.variable(name, "expected 1, 0, true or false");
                None
            }
        }
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str, report: &mut Report<'_>) -> Option<T> {
        let parsed = self.0.get(name)?.parse().ok();
        if parsed.is_none() {
            report.variable(name, format_args!("expected {expected}"));
        }
        parsed
    }
}
