//! Providers: whether each can be reached, and takes its key. Asks for something that costs nothing, once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::findings::{Findings, Verdict};
use super::local::has_network;
use crate::config::{Examined, Provider};
use crate::providers::registry;
use crate::providers::upstream::{Question, Steps, TransportError, Visit};

/// Looks at all providers that can be called or stand in the file, at the same time.
pub(super) async fn reach_all(examined: &Examined, findings: &mut Findings) {
    let Examined { config, written, .. } = examined;
    let is_meant = |provider: &&Provider| {
        let is_written = written.iter().any(|name| name == provider.name.as_str());
        has_network(provider) && (provider.available().is_ok() || is_written)
    };
    let meant: Vec<_> = config.providers.values().filter(is_meant).collect();
    let seen = join_all(meant.iter().map(|provider| reach(provider))).await;
    for (provider, Seen { verdict, says, to_do }) in meant.iter().zip(seen) {
        findings.add(format!("provider {}", provider.name), verdict, says, to_do);
    }
}

/// What was seen of one.
struct Seen {
    verdict: Verdict,
    says: String,
    to_do: Option<String>,
}

impl Seen {
    fn ok(says: String) -> Self {
        Self { verdict: Verdict::Ok, says, to_do: None }
    }

    fn warn(says: String, to_do: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, says, to_do: Some(to_do.into()) }
    }

    fn fail(says: String, to_do: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, says, to_do: Some(to_do.into()) }
    }
}

async fn reach(provider: &Provider) -> Seen {
    let adapter = registry::of(provider);
    let visit = match Visit::new(provider, &*adapter) {
        Ok(visit) => visit,
        Err(error) => return Seen::fail(error.to_string(), "put it right"),
    };
    let (steps, arrived) = visit.arrive().await;
    let so_far = in_words(&steps);
    let reached = match arrived {
        Ok(reached) => reached,
        Err(error) => return Seen::fail(format!("{so_far}{error}"), what_helps(&error)),
    };
    let so_far = format!("{so_far}HTTP/{}, ", reached.http());
    let Some(path) = adapter.warm_path() else { return Seen::ok(format!("{so_far}nothing to ask for")) };
    let question = Question { method: "GET", path: path.to_owned(), headers: adapter.warm_headers(), body: Vec::new() };
    let asked = Instant::now();
    let limit = Duration::from_millis(provider.headers_timeout_ms);
    match timeout(limit, reached.ask(&question)).await {
        Ok(Ok(opened)) => {
            let took = asked.elapsed().as_millis();
            let says = format!("{so_far}GET {path} {} in {took} ms", opened.head.status);
            judge(opened.head.status, says, provider)
        }
        Ok(Err(error)) => Seen::fail(format!("{so_far}GET {path}: {error}"), what_helps(&error)),
        Err(_) => {
            let says = format!("{so_far}GET {path}: no answer within {} ms (headers_timeout_ms)", limit.as_millis());
            Seen::fail(says, "the provider is slow, or is no such server (base_url)")
        }
    }
}

/// What the status of the answer means.
fn judge(status: u16, says: String, provider: &Provider) -> Seen {
    let variable = &provider.api_key_env;
    match (status, provider.api_key().is_some()) {
        (401 | 403, true) => Seen::fail(says, format!("the provider refuses the key in {variable}: renew it")),
        (401 | 403, false) => Seen::ok(format!("{says}: it can be reached, and wants its key")),
        (300..=399, _) => Seen::fail(says, "redirects are never followed: name the final address in base_url"),
        (404, _) => Seen::warn(says, "the path may be wrong: does base_url lack /v1, or have it twice?"),
        (429, _) => Seen::warn(says, "its rate limit is reached: lower rps"),
        (500.., _) => Seen::warn(says, "the provider's matter; look at its status page"),
        _ => Seen::ok(says),
    }
}

/// What came of each step, with its time.
pub(super) fn in_words(steps: &Steps) -> String {
    let mut words = String::new();
    if let Some(resolve) = steps.resolve {
        let plural = if steps.addresses == 1 { "" } else { "es" };
        words.push_str(&format!("{} address{plural} in {} ms, ", steps.addresses, resolve.as_millis()));
    }
    for (what, took) in [("connected", steps.connect), ("TLS", steps.handshake)] {
        if let Some(took) = took {
            words.push_str(&format!("{what} in {} ms, ", took.as_millis()));
        }
    }
    words
}

/// What helps when there was no connection.
pub(super) fn what_helps(error: &TransportError) -> &'static str {
    match error {
        TransportError::Dns => "is the name right? does this machine resolve others?",
        TransportError::Connect => "is it up, and the port right? does a firewall refuse?",
        TransportError::ConnectTimeout(_) => "does a firewall drop it? else raise connect_timeout_ms",
        TransportError::Tls(_) => "the certificate or the port; ca_file for an authority of your own",
        TransportError::Lost => "it ends connections: is it up, is it a server of this kind?",
        TransportError::Protocol => "is this the right port? does it speak the HTTP that `http` asks for?",
        TransportError::Unsendable => "base_url cannot be called",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Key, Secret};

    #[test]
    fn a_status_is_judged_by_whether_there_is_a_key() {
        let without = Config::default().providers["openai"].clone();
        let with = Provider { key: Key::Given(Secret::new("k")), ..without.clone() };
        let verdict = |status, provider: &Provider| judge(status, String::new(), provider).verdict;

        for (status, with_key, without_key) in [
            (200, Verdict::Ok, Verdict::Ok),
            (301, Verdict::Fail, Verdict::Fail),
            (400, Verdict::Ok, Verdict::Ok),
            (401, Verdict::Fail, Verdict::Ok),
            (403, Verdict::Fail, Verdict::Ok),
            (404, Verdict::Warn, Verdict::Warn),
            (429, Verdict::Warn, Verdict::Warn),
            (503, Verdict::Warn, Verdict::Warn),
        ] {
            assert_eq!((verdict(status, &with), verdict(status, &without)), (with_key, without_key), "{status}");
        }
        let refused = judge(401, String::new(), &with);
        assert!(refused.to_do.is_some_and(|to_do| to_do.contains("OPENAI_API_KEY")));
    }
}
