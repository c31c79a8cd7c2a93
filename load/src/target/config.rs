//! Config: of a weir whose only provider that matters is the mock.

use std::path::{Path, PathBuf};

/// The provider that is as wide as can be.
pub const MOCK: &str = "mock";
/// The provider that is called once at a time.
pub const NARROW: &str = "narrow";
/// The provider for faults: with short timeouts, and a breaker of its own.
pub const FAULTY: &str = "faulty";

/// What a measurement wants to be different from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    stream: Vec<String>,
    directory: Option<PathBuf>,
}

impl Settings {
    /// The defaults, with answers that end as soon as nobody listens to them.
    pub fn cancelling() -> Self {
        Self::default().stream("on_disconnect = \"cancel\"").stream("disconnect_grace_ms = 0")
    }

    /// Adds a line to `[stream]`.
    pub fn stream(mut self, line: &str) -> Self {
        self.stream.push(line.to_owned());
        self
    }

    /// Keeps its files in this directory instead of the system's one for temporary files.
    pub fn within(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Where its files are kept, if that matters.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The configuration file, with the providers at this URL.
    pub fn config(&self, provider_url: &str) -> String {
        let stream = self.stream.join("\n");
        let wide = "rps = 100000.0\nconcurrency = 10000\nburst = 100000";
        let patient = "headers_timeout_ms = 600000\nttft_timeout_ms = 600000\nidle_timeout_ms = 600000";
        let hasty = "headers_timeout_ms = 1000\nttft_timeout_ms = 1000\nidle_timeout_ms = 1000";
        let providers = [(MOCK, wide, patient), (NARROW, NARROW_PACE, patient), (FAULTY, wide, hasty)];
        let providers = providers.map(|(name, pace, timeouts)| {
            format!(
                "[providers.{name}]\ndialect = \"openai_chat\"\nbase_url = \"{provider_url}\"\napi_key_env = \"\"\n\
                 any_model = true\nqueue_max = 10000\n{pace}\n{timeouts}\n"
            )
        });
        let providers = providers.join("\n");
        format!(
            "default_provider = \"{MOCK}\"\n\n[server]\nbind = \"127.0.0.1:0\"\n\n[store]\npath = \"weir.db\"\n\n\
             [stream]\n{stream}\n\n{providers}"
        )
    }
}

const NARROW_PACE: &str = "rps = 100000.0\nconcurrency = 1\nburst = 100000\nqueue_wait_max_ms = 600000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_provider_at_the_url_and_the_lines_asked_for() {
        let config = Settings::cancelling().stream("retain_ms = 5000").config("http://127.0.0.1:1/v1");

        assert_eq!(config.matches("base_url = \"http://127.0.0.1:1/v1\"").count(), 3);
        let stream = "[stream]\non_disconnect = \"cancel\"\ndisconnect_grace_ms = 0\nretain_ms = 5000\n";
        assert!(config.contains(stream), "{config}");
    }
}
