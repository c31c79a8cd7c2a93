//! A random load: who asks for what, what becomes of it, and what the provider says.

use proptest::prelude::*;

use super::super::schedule::{Limits, Waiter};
use super::*;
use crate::providers::Allowance;

/// Somebody who asks: an organisation, one of its principals, and whether nobody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) org: usize,
    pub(super) principal: usize,
    pub(super) is_background: bool,
}

impl Who {
    pub(super) fn asker(self) -> Asker {
        Asker {
            org: OrgId::new(["a", "b", "c", "d"][self.org]),
            principal: Principal::new(["p", "q"][self.principal]),
            priority: if self.is_background { Priority::Background } else { Priority::User },
        }
    }

    pub(super) fn org(self) -> (usize, bool) {
        (self.org, self.is_background)
    }
}

pub(super) fn who() -> impl Strategy<Value = Who> {
    let one_of = (0_usize..4, prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    one_of.prop_map(|(org, other, is_background)| Who { org, principal: usize::from(other), is_background })
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Enqueue {
        who: Who,
        weight: Weight,
        wait_ms: u64,
    },
    /// The caller at this place among those who wait has left.
    Leave(usize),
    /// The call at this place among those that run ends.
    Return {
        which: usize,
        used: bool,
        output: u64,
    },
    Change {
        rps: f64,
        concurrency: usize,
        burst: u32,
        tpm: u32,
    },
    Pass {
        ms: u64,
    },
    /// The provider tells what is left of its limits.
    Tell(RateHint),
    /// The provider refuses the call at this place among those that run, and its caller comes again.
    Throttle {
        which: usize,
        pause_ms: Option<u64>,
    },
    /// The provider accepts the call at this place among those that run.
    Accept(usize),
    /// Time passes to the very moment at which the schedule wants to be looked at.
    Wake,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (who(), weight(), 1_u64..5_000)
            .prop_map(|(who, weight, wait_ms)| Op::Enqueue { who, weight, wait_ms }),
        1 => (0_usize..16).prop_map(Op::Leave),
        4 => (0_usize..16, prop::bool::weighted(0.8), 0_u64..3_000)
            .prop_map(|(which, used, output)| Op::Return { which, used, output }),
        1 => (rps(), 1_usize..6, 1_u32..6, tpm())
            .prop_map(|(rps, concurrency, burst, tpm)| Op::Change { rps, concurrency, burst, tpm }),
        2 => (0_u64..2_000).prop_map(|ms| Op::Pass { ms }),
        1 => (allowance(), allowance()).prop_map(|(requests, tokens)| Op::Tell(RateHint { requests, tokens })),
        6 => Just(Op::Wake),
        1 => (0_usize..16, prop::option::of(1_u64..4_000))
            .prop_map(|(which, pause_ms)| Op::Throttle { which, pause_ms }),
        2 => (0_usize..16).prop_map(Op::Accept),
    ]
}

pub(super) fn rps() -> impl Strategy<Value = f64> {
    prop_oneof![0.1_f64..50.0, Just(1e-6), Just(1e6), Just(1.0 / 3.0)]
}

/// Mostly no limit, so that it does not hide the others.
pub(super) fn tpm() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => 1_u32..200_000, 1 => Just(1_000_000_000)]
}

pub(super) fn allowance() -> impl Strategy<Value = Allowance> {
    let reset = prop::option::of((0_u64..20_000).prop_map(Duration::from_millis));
    (prop::option::of(0_u64..100), reset).prop_map(|(remaining, reset)| Allowance { remaining, reset })
}

pub(super) fn weight() -> impl Strategy<Value = Weight> {
    (0_u32..5_000, prop::option::of(0_u32..3_000)).prop_map(|(input, output_max)| Weight { input, output_max })
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Caller {
    pub(super) id: usize,
    pub(super) who: Who,
    pub(super) weight: Weight,
    pub(super) expires: Instant,
}

impl Caller {
    pub(super) fn waits(&self, now: Instant) -> Waiter<Caller> {
        Waiter { who: self.clone(), weight: self.weight, since: now, expires: self.expires }
    }
}

pub(super) fn limits() -> impl Strategy<Value = Limits> {
    (rps(), 1_usize..5, 1_u32..5, tpm(), 1_usize..12).prop_map(|(rps, concurrency, burst, tpm, queue_max)| Limits {
        rps,
        concurrency,
        burst,
        tpm,
        queue_max,
    })
}
