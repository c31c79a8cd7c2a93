//! Pacer: the decision who may call a provider, and when.

use std::time::Duration;

use tokio::time::Instant;
use weir::actors::pacer::Weight;
use weir::actors::pacer::schedule::{Limits, Schedule, Waiter};
use weir::chat::{Asker, OrgId, Principal, Priority};

use crate::Case;

const CALLS: usize = 1_000;
const ORGS: usize = 20;
const WEIGHT: Weight = Weight { input: 1_000, output_max: Some(500) };

pub(crate) fn cases() -> Vec<Case> {
    vec![free(), queued()]
}

fn asker(n: usize) -> Asker {
    let principal = Principal::new(format!("user-{}", n % 100));
    Asker { org: OrgId::new(format!("org-{}", n % ORGS)), principal, priority: Priority::User }
}

fn schedule(concurrency: usize, now: Instant) -> Schedule<usize> {
    let limits = Limits { rps: 1e9, concurrency, burst: u32::MAX, tpm: u32::MAX, queue_max: CALLS };
    Schedule::new(limits, 0, now)
}

fn waiter(who: usize, now: Instant) -> Waiter<usize> {
    Waiter { who, weight: WEIGHT, since: now, expires: now + Duration::from_secs(30) }
}

/// Nobody is in the way.
fn free() -> Case {
    let askers: Vec<_> = (0..CALLS).map(asker).collect();
    let now = Instant::now();
    let mut schedule = schedule(CALLS, now);
    Case::new("pacer/acquire_and_release", CALLS, move || {
        for (n, asker) in askers.iter().enumerate() {
            schedule.fill(now);
            schedule.enqueue(asker, waiter(n, now), now).expect("there is room");
            let granted = schedule.grant(now).expect("nobody is in the way");
            assert_eq!(granted.who, n);
            schedule.set_in_flight(0);
            schedule.settle(granted.charged.unwrap_or_default(), None, now);
            schedule.learn_hold(Duration::from_millis(900));
        }
    })
}

/// All have come before the first one is served; organisations and their principals take turns.
fn queued() -> Case {
    let askers: Vec<_> = (0..CALLS).map(asker).collect();
    let now = Instant::now();
    let mut schedule = schedule(1, now);
    Case::new("pacer/queue_and_serve", CALLS, move || {
        for (n, asker) in askers.iter().enumerate() {
            schedule.enqueue(asker, waiter(n, now), now).expect("there is room");
        }
        for _ in 0..CALLS {
            let granted = schedule.grant(now).expect("it is somebody's turn");
            schedule.set_in_flight(0);
            schedule.settle(granted.charged.unwrap_or_default(), None, now);
        }
        assert_eq!(schedule.queued(), 0);
    })
}
