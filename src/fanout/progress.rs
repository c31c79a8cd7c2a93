//! Progress: what a log knows of its answer beside the frames: who makes it, where it waits, when it got how far.

use std::sync::Arc;

use tokio::time::Instant;
use utoipa::ToSchema;

use crate::chat::ProviderName;

/// When the phases of an answer were reached. Each listener counts from its own arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// The pacer gave its permit.
    pub granted: Option<Instant>,
    /// The provider's first byte came.
    pub first_byte: Option<Instant>,
    /// The first piece of content came.
    pub first_content: Option<Instant>,
    /// Time to connect, in milliseconds, once there was a connection; 0 on one that was open.
    pub connect_ms: Option<u32>,
}

/// Where an answer stands in its pacer's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, ToSchema)]
pub struct QueuePlace {
    /// 1 is next.
    pub position: u32,
    /// Until its permit, by the present rate.
    pub eta_ms: u64,
}

/// Another provider than the one that was asked: it makes the answer, because that one cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Who makes the answer.
    pub provider: ProviderName,
    /// What makes it.
    pub model: Arc<str>,
    /// Who was asked.
    pub from: ProviderName,
}

/// What the log looks like from outside, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Readers at present.
    pub listeners: usize,
    /// Events appended.
    pub events: u64,
    /// Bytes appended.
    pub bytes: u64,
    /// How many events the slowest reader is behind.
    pub slowest_lag: u64,
    /// When the phases were reached.
    pub timings: Timings,
}
