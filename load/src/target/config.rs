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
    server: Vec<String>,
    stream: Vec<String>,
    calls: Option<usize>,
    directory: Option<PathBuf>,
}

impl Settings {
    /// The defaults, with answers that end as soon as nobody listens to them.
    pub fn cancelling() -> Self {
        Self::default().stream("on_disconnect = \"cancel\"").stream("disconnect_grace_ms = 0")
    }

    /// With room for so many listeners at once, and no more calls than one that they share needs: what calls could
    /// take, connections of clients may not.
    pub fn listeners(self, count: usize) -> Self {
        self.streams(count, FEW)
    }

    /// With room for so many connections of clients at once, and for so many calls to the provider.
    pub fn streams(mut self, clients: usize, calls: usize) -> Self {
        let clients = clients + FEW;
        self.server.push(format!("connections_max = {clients}"));
        self.stream.push(format!("streams_max = {}", calls + FEW));
        self.stream.push(format!("listeners_max = {clients}"));
        self.calls = Some(calls + FEW);
        self
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
        let (server, stream) = (self.server.join("\n"), self.stream.join("\n"));
        let pace = |calls| format!("rps = 100000.0\nconcurrency = {calls}\nburst = 100000");
        let wide = pace(self.calls.unwrap_or(CALLS));
        // Files are kept free for the calls of every provider.
        let demo = self.calls.map(|_| format!("[providers.demo]\nconcurrency = {FEW}\n\n")).unwrap_or_default();
        let faulty = pace(self.calls.map_or(CALLS, |_| FEW));
        let patient = "headers_timeout_ms = 600000\nttft_timeout_ms = 600000\nidle_timeout_ms = 600000";
        let hasty = "headers_timeout_ms = 1000\nttft_timeout_ms = 1000\nidle_timeout_ms = 1000";
        let providers = [(MOCK, &*wide, patient), (NARROW, NARROW_PACE, patient), (FAULTY, &*faulty, hasty)];
        let providers = providers.map(|(name, pace, timeouts)| {
            format!(
                "[providers.{name}]\ndialect = \"openai_chat\"\nbase_url = \"{provider_url}\"\napi_key_env = \"\"\n\
                 any_model = true\nqueue_max = 10000\n{pace}\n{timeouts}\n"
            )
        });
        let providers = providers.join("\n");
        format!(
            "default_provider = \"{MOCK}\"\n\n[server]\nbind = \"127.0.0.1:0\"\n{server}\n\n[store]\npath = \"weir.db\"\n\n\
             [stream]\n{stream}\n\n{demo}{providers}"
        )
    }
}

/// Calls at once where nothing else is wanted.
const CALLS: usize = 10_000;
/// What is enough where few are wanted, and what is added to what is counted.
const FEW: usize = 16;
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

    #[test]
    fn files_are_left_for_as_many_connections_as_are_wanted() {
        let config = Settings::default().streams(9_000, 100).config("http://127.0.0.1:1/v1");

        for line in ["connections_max = 9016", "listeners_max = 9016", "streams_max = 116", "concurrency = 116"] {
            assert_eq!(config.matches(line).count(), 1, "{line} in {config}");
        }
        assert_eq!(config.matches("concurrency = 16\n").count(), 2, "{config}");
    }
}
