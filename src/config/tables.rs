//! Tables: the plain parts of the configuration. Each key stands here once, with its meaning, default and range.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::section::Table;

/// How long any wait may be configured to last: a millisecond to a day.
pub(super) const WAIT_MS: RangeInclusive<u64> = 1..=DAY_MS;
const DAY_MS: u64 = 86_400_000;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// Declares tables: the struct, its `Default`, and the check of its ranges, so that none of them can disagree.
macro_rules! tables {
    ($($(#[$about:meta])* $table:ident {
        $($(#[$attr:meta])* $key:ident: $type:ty = $default:expr $(=> $range:expr)?;)*
    })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $table {
            $($(#[$attr])* pub $key: $type,)*
        }

        impl Default for $table {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl Table for $table {
            fn check(&self, wrong: &mut dyn FnMut(&'static str, String)) {
                $($(check_range(stringify!($key), &$range, Some(&self.$key), wrong);)?)*
            }
        }
    )*};
}

/// Tells `wrong` the key if a value is given and not within the range. A number that is not one is within none.
pub(super) fn check_range<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    range: &RangeInclusive<T>,
    value: Option<impl std::borrow::Borrow<T>>,
    wrong: &mut dyn FnMut(&'static str, String),
) {
    let Some(value) = value else { return };
    let value = value.borrow();
    if !range.contains(value) {
        let (least, most) = (range.start(), range.end());
        wrong(key, format!("{value} is out of range: {least} to {most} are allowed"));
    }
}

tables! {
    /// `[server]`: what weir listens on, and what it accepts there.
    Server {
        /// The address of the API.
        bind: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        /// The address of metrics and administration; `""`: they share `bind`.
        #[serde(with = "maybe_address")]
        admin_bind: Option<SocketAddr> = None;
        /// Threads that serve; the first one has the actors, too. 0: one less than there are cores.
        workers: usize = 0 => 0..=512;
        /// Silence on a stream after which a comment is sent, in milliseconds.
        ping_interval_ms: u64 = 15_000 => WAIT_MS;
        /// The same before the first piece of an answer, when listeners are least patient.
        ping_early_ms: u64 = 1_500 => WAIT_MS;
        /// How long `/v1` streams hold their status line for the provider's first event, in milliseconds.
        openai_hold_ms: u64 = 10_000 => WAIT_MS;
        /// How long a request's head may take to arrive, in milliseconds; also what is left of a refused body.
        head_timeout_ms: u64 = 5_000 => WAIT_MS;
        /// How long a request's body may take to arrive, in milliseconds.
        body_timeout_ms: u64 = 10_000 => WAIT_MS;
        /// How long an idle connection is kept, in milliseconds; 0: one request a connection.
        keep_alive_ms: u64 = 75_000 => 0..=DAY_MS;
        /// Connections at once, over all threads; on a few more, health checks are answered and others refused.
        connections_max: usize = 10_000 => 1..=1_000_000;
        /// Texts that are rendered as HTML at once for `/api/render`; more are answered with `overloaded`.
        renderings_max: usize = 16 => 1..=1_024;
        /// The largest body of a request, in bytes.
        body_bytes_max: usize = MIB => KIB..=GIB;
        /// The largest head of a request, in bytes.
        head_bytes_max: usize = 16 * KIB => KIB..=128 * KIB;
        /// The longest request target, in bytes.
        uri_bytes_max: usize = 8 * KIB => 256..=64 * KIB;
        /// How long running streams may go on after the signal to stop, in milliseconds.
        drain_timeout_ms: u64 = 30_000 => 0..=DAY_MS;
        /// The `Host` names that requests may use, without port; empty: any.
        allowed_hosts: Vec<String> = Vec::new();
        /// The origins of other sites whose pages may ask and read; `"*"`: any, where there are keys.
        cors_origins: Vec<String> = Vec::new();
    }

    /// `[store]`: where threads and messages are kept.
    Store {
        /// The database file. Relative paths start at the working directory.
        path: PathBuf = PathBuf::from("weir.db");
        /// Writes that may wait at once; more are answered with `storage`.
        queue_max: usize = 4_096 => 1..=1_000_000;
        /// How long a new message may take to be kept; then it is refused with `storage`, in milliseconds.
        write_wait_max_ms: u64 = 10_000 => WAIT_MS;
        /// Connections that only read.
        readers: usize = 2 => 1..=64;
        /// What a finished write survives.
        durability: Durability = Durability::Full;
        /// How often a growing answer is saved, in milliseconds.
        checkpoint_interval_ms: u64 = 1_000 => 10..=3_600_000;
        /// How long an `Idempotency-Key` is remembered, in milliseconds.
        idempotency_ms: u64 = DAY_MS => 1_000..=30 * DAY_MS;
    }

    /// `[coalesce]`: when identical requests share one upstream call.
    Coalesce {
        /// Whether they ever do. Environment: `COALESCE_ENABLED`.
        enabled: bool = true;
        /// Who may share with whom.
        scope: ShareScope = ShareScope::Principal;
        /// How long a failure answers identical requests without a new call, in milliseconds.
        error_ttl_ms: u64 = 2_000 => 0..=3_600_000;
        /// Which requests on `/v1` share.
        openai_api: OpenaiSharing = OpenaiSharing::Deterministic;
    }

    /// `[stream]`: running answers and their listeners.
    Stream {
        /// Whether streams are shared; calls without streaming still are. Environment: `STREAM_FANOUT_ENABLED`.
        fanout_enabled: bool = true;
        /// What happens to a thread's answer that nobody listens to any more.
        on_disconnect: OnDisconnect = OnDisconnect::Continue;
        /// How long `"cancel"` waits for somebody to come back, in milliseconds.
        disconnect_grace_ms: u64 = 15_000 => 0..=DAY_MS;
        /// How long a listener may take nothing while there is something to take, in milliseconds.
        slow_reader_timeout_ms: u64 = 30_000 => WAIT_MS;
        /// What one stream keeps for late and slow listeners, in bytes.
        log_bytes_max: usize = MIB => 64 * KIB..=GIB;
        /// The longest answer, in bytes of text, reasoning and tool arguments.
        answer_bytes_max: usize = 16 * MIB => KIB..=GIB;
        /// How long an ended stream can be resumed, in milliseconds.
        retain_ms: u64 = 600_000 => 0..=DAY_MS;
        /// What ended streams may hold together until then, in bytes; the oldest go first.
        retained_bytes_max: usize = 256 * MIB => MIB..=64 * GIB;
        /// Running streams at once.
        streams_max: usize = 10_000 => 1..=1_000_000;
        /// Listeners attached to one stream at once: bodies that send it, and calls that wait for its end.
        listeners_max: usize = 20_000 => 1..=1_000_000;
        /// Requests that are remembered, running and ended.
        requests_max: usize = 100_000 => 1..=10_000_000;
        /// How long a message waits until its thread's answer before, which has ended, is kept, in milliseconds.
        turn_wait_max_ms: u64 = 5_000 => WAIT_MS;
        /// How long the cancel of a request that has not arrived yet is remembered, in milliseconds.
        cancel_intent_ms: u64 = 10_000 => 0..=600_000;
    }

    /// `[metrics]`: what weir measures of itself.
    Metrics {
        /// Finished requests that percentiles are taken over.
        window_max: usize = 10_000 => 100..=1_000_000;
        /// Failed requests that operators are told of one by one.
        failures_max: usize = 100 => 0..=10_000;
        /// `[metrics.alerts]`.
        alerts: Alerts = Alerts::default();
    }

    /// `[metrics.alerts]`: what is worth an alarm.
    Alerts {
        /// The slowest acceptable first token at the 95th percentile, in milliseconds.
        ttft_p95_ms: u64 = 1_500 => WAIT_MS;
        /// The acceptable share of failed requests, 0 to 1.
        error_rate: f64 = 0.01 => 0.0..=1.0;
        /// The requests that `error_rate` is taken over, newest first.
        error_window: usize = 100 => 1..=1_000_000;
        /// The longest acceptable wait for a permit at the 95th percentile, in milliseconds.
        queue_wait_p95_ms: u64 = 1_000 => WAIT_MS;
        /// How long a percentile must be exceeded, and for how long a burst is told of, in milliseconds.
        hold_ms: u64 = 300_000 => 0..=DAY_MS;
        /// The fewest followers for each leader under burst.
        coalesce_ratio_min: f64 = 10.0 => 0.0..=1_000_000.0;
        /// Leaders and followers at once from which on it is a burst.
        coalesce_burst_min: usize = 20 => 2..=1_000_000;
    }

    /// `[limits]`: what one request may ask for.
    Limits {
        /// The largest content of one message, in bytes.
        content_bytes_max: usize = 256 * KIB => 1..=GIB;
        /// Messages in one `/v1` request.
        messages_max: usize = 256 => 1..=100_000;
        /// Tools in one request.
        tools_max: usize = 128 => 0..=10_000;
        /// A thread's title, in characters.
        title_chars_max: usize = 200 => 1..=10_000;
        /// A thread's description, in characters.
        description_chars_max: usize = 2_000 => 1..=100_000;
        /// A `user_id`, in characters.
        user_id_chars_max: usize = 128 => 1..=1_024;
        /// Threads in one page of the list.
        page_max: usize = 200 => 1..=10_000;
    }
}

/// Declares the words that a key allows.
macro_rules! words {
    ($($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $word,)*
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$word),*];

            /// The word as it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
pub(super) use words;

words! {
    /// What a finished write survives.
    Durability {
        /// A power cut: every commit is flushed to the disk.
        Full = "full",
        /// A crash of the process; a power cut may take the last writes.
        Normal = "normal",
    }

    /// Who may share an upstream call.
    ShareScope {
        /// The same key and user.
        Principal = "principal",
        /// Everybody of an organisation. Users can then find out by timing what others ask.
        Org = "org",
    }

    /// Which requests of the OpenAI-compatible API share.
    OpenaiSharing {
        /// Those with `temperature: 0` or a `seed`.
        Deterministic = "deterministic",
        /// All that may.
        Always = "always",
        /// None.
        Never = "never",
    }

    /// What happens to an answer that nobody listens to any more.
    OnDisconnect {
        /// It goes on and is kept.
        Continue = "continue",
        /// It is cancelled after a grace time.
        Cancel = "cancel",
    }
}

/// An address, or `""` for none.
mod maybe_address {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(address: &Option<SocketAddr>, out: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => out.collect_str(address),
            None => out.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(input)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| D::Error::custom("invalid socket address syntax"))
    }
}
