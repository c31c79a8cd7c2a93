//! Permit: a held permission to call the provider, and what the pacer hears of the call when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::Pacer;
use super::breaker::Probe;
use crate::event::Usage;
use crate::providers::RateHint;

/// A held permission; dropping it frees the slot, on success, error, cancel and panic alike.
#[derive(Debug)]
pub struct Permit {
    pacer: Addr<Pacer>,
    count: InFlight,
    granted: Instant,
    used: bool,
    accepted: bool,
    charged: Option<f64>,
    usage: Option<Usage>,
    outcome: Outcome,
    probe: Option<Probe>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that says anything about the provider.
    Unknown,
    /// The provider refused it because there were too many, and asked for this pause.
    Throttled(Option<Duration>),
    /// The provider refused it for what it is.
    Answered,
    /// The answer is whole.
    Succeeded,
    /// The provider failed.
    Failed,
}

impl Permit {
    /// A permit that counts from now on, and the tokens that were taken for it.
    pub(super) fn new(pacer: Addr<Pacer>, count: InFlight, charged: Option<f64>, probe: Option<Probe>) -> Self {
        count.0.fetch_add(1, Ordering::Relaxed);
        let (used, accepted, usage, outcome) = (false, false, None, Outcome::Unknown);
        Self { pacer, count, granted: Instant::now(), used, accepted, charged, usage, outcome, probe }
    }

    /// Says that the provider is being called, so that the token is spent.
    pub fn used(&mut self) {
        self.used = true;
    }

    /// Says that the provider has accepted the call: it did not come too fast. `hint` is what it says of its limits.
    #[expect(clippy::disallowed_methods, reason = "one message for each call; calls are paced")]
    pub fn accepted(&mut self, hint: RateHint) {
        self.accepted = true;
        self.pacer.do_send(Accepted { granted: self.granted, hint });
    }

    /// Says that content has come: a provider that was given up is back.
    #[expect(clippy::disallowed_methods, reason = "at most one message for each call, and one call probes at a time")]
    pub fn heard(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.pacer.do_send(Heard(probe));
        }
    }

    /// Says what the provider counts for the call; without it, an accepted call costs what was expected.
    pub fn cost(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    /// Gives the permit back: the answer is whole.
    pub fn succeeded(mut self) {
        self.outcome = Outcome::Succeeded;
    }

    /// Gives the permit back: the provider refused the call for what it is.
    pub fn answered(mut self) {
        self.outcome = Outcome::Answered;
    }

    /// Gives the permit back: the provider failed.
    pub fn failed(mut self) {
        self.outcome = Outcome::Failed;
    }

    /// Gives the permit back: the provider refused the call because there were too many.
    pub fn throttled(mut self, retry_after: Option<Duration>) {
        self.outcome = Outcome::Throttled(retry_after);
    }
}

/// How many permits of a provider are out. Outlives its pacer, so that a restarted one knows.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// The number.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A dropped [`Permit`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Released {
    pub(super) granted: Instant,
    pub(super) used: bool,
    /// Whether the provider has accepted the call.
    pub(super) accepted: bool,
    /// The tokens that were taken for it.
    pub(super) charged: Option<f64>,
    /// What it has cost, where the provider has said so.
    pub(super) usage: Option<Usage>,
    pub(super) outcome: Outcome,
    pub(super) probe: Option<Probe>,
}

/// The call that finds out whether the provider is back has content.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Heard(pub(super) Probe);

/// The provider has accepted a call.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Accepted {
    pub(super) granted: Instant,
    pub(super) hint: RateHint,
}

impl Drop for Permit {
    #[expect(clippy::disallowed_methods, reason = "at most `concurrency` permits exist, and a lost release would leak")]
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::Relaxed);
        let Self { granted, used, accepted, charged, usage, outcome, .. } = *self;
        let probe = self.probe.take();
        self.pacer.do_send(Released { granted, used, accepted, charged, usage, outcome, probe });
    }
}
