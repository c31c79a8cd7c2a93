//! The pacer's decisions under random load, with time as a number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use proptest::prelude::*;

use super::super::schedule::{Limits, Schedule, Waiter};
use super::load::{Caller, Op, Who, limits, op, weight, who};
use super::*;
use crate::event::Usage;

/// Time is compared with this tolerance.
const GRAIN: Duration = Duration::from_micros(1);
/// User messages in a row that may go before a background call.
const PASSES_MAX: u32 = 7;

/// How often one (the first) waited while another (the second) was served.
type Overtaken<K> = HashMap<(K, K), usize>;

/// Drives a schedule as the pacer does, and watches it.
struct Watched {
    schedule: Schedule<Caller>,
    limits: Limits,
    now: Instant,
    next_id: usize,
    waiting: VecDeque<Caller>,
    left: Vec<usize>,
    running: Vec<Caller>,
    /// What was taken for the calls that run, by caller.
    charged: HashMap<usize, f64>,
    /// When the provider was called, or may yet be.
    grants: Vec<(usize, Instant)>,
    rps_max: f64,
    burst_max: u32,
    /// Nobody may be served before this.
    paused_until: Instant,
    /// How often each organisation was served while another one of its priority waited.
    orgs: Overtaken<(usize, bool)>,
    /// How often each principal was served while another one of its organisation and priority waited.
    principals: HashMap<(usize, bool), Overtaken<Who>>,
    /// User messages that were served while background calls waited.
    passes: u32,
}

/// Counts how often those who wait were overtaken by the one who is served now; nobody may be so twice.
fn count<K: Copy + Eq + Hash + std::fmt::Debug>(
    overtaken: &mut Overtaken<K>,
    served: K,
    waiting: impl Iterator<Item = K>,
) {
    let waiting: HashSet<K> = waiting.filter(|waits| *waits != served).collect();
    overtaken.retain(|(waits, _), _| waiting.contains(waits) && *waits != served);
    for waits in waiting {
        let times = overtaken.entry((waits, served)).or_default();
        *times += 1;
        assert!(*times <= 1, "{served:?} was served {times} times while {waits:?} waited");
    }
}

impl Watched {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            schedule: Schedule::new(limits, 0, now),
            limits,
            now,
            next_id: 0,
            waiting: VecDeque::new(),
            left: Vec::new(),
            running: Vec::new(),
            charged: HashMap::new(),
            grants: Vec::new(),
            rps_max: limits.rps,
            burst_max: limits.burst,
            paused_until: now,
            orgs: HashMap::new(),
            principals: HashMap::new(),
            passes: 0,
        }
    }

    /// Looks at the schedule; tells how much happened.
    fn advance(&mut self) -> usize {
        let before = self.schedule.queued();
        let left = self.left.clone();
        let expired = self.schedule.expire(self.now, |caller| left.contains(&caller.id));
        for caller in &expired {
            assert!(caller.expires <= self.now, "dismissed {:?} too early", caller);
        }
        let now = self.now;
        self.waiting.retain(|caller| !left.contains(&caller.id) && caller.expires > now);
        while let Some(granted) = self.schedule.grant(self.now) {
            self.check_grant(&granted.who);
            self.check_tokens(granted.charged);
            self.charged.extend(granted.charged.map(|charged| (granted.who.id, charged)));
            self.running.push(granted.who);
        }
        assert_eq!(self.schedule.queued(), self.waiting.len());
        before - self.schedule.queued()
    }

    fn check_grant(&mut self, caller: &Caller) {
        assert!(caller.expires > self.now, "served after its deadline");
        assert!(self.now >= self.paused_until, "served although the provider wants a pause");
        let first = self.waiting.iter().position(|waiting| waiting.who == caller.who).unwrap();
        assert_eq!(self.waiting.remove(first).as_ref(), Some(caller), "first come, first served");
        assert!(self.running.len() < self.limits.concurrency, "more calls than allowed");
        let who = caller.who;
        let alike = self.alike(who);
        count(&mut self.orgs, who.org(), alike.iter().map(|waits| waits.org()));
        let siblings = alike.into_iter().filter(|waits| waits.org == who.org);
        count(self.principals.entry(who.org()).or_default(), who, siblings);
        self.check_priority(who);
        self.grants.push((caller.id, self.now));
    }

    /// What was taken was there, or the bucket was full; nobody owes more than a minute.
    fn check_tokens(&self, charged: Option<f64>) {
        let (Some(charged), Some(after)) = (charged, self.schedule.tokens()) else {
            assert_eq!((self.limits.tpm, charged), (0, None));
            return;
        };
        let tpm = f64::from(self.limits.tpm);
        assert!(after + charged >= charged.min(tpm) - 1e-6 * tpm, "{charged} tokens were taken, {after} are left");
        assert!((-tpm - 1e-6..=tpm).contains(&after), "{after} of {tpm} tokens");
    }

    fn check_applied(&self) {
        let applied = self.schedule.applied().rps;
        assert!(applied >= self.limits.rps / 16.0 * (1.0 - 1e-9), "below the floor");
        assert!(applied <= self.limits.rps, "above what is configured");
    }

    /// Those who wait with the same priority.
    fn alike(&self, who: Who) -> Vec<Who> {
        let alike = self.waiting.iter().map(|waits| waits.who);
        alike.filter(|waits| waits.is_background == who.is_background).collect()
    }

    fn check_priority(&mut self, served: Who) {
        let others = self.waiting.iter().filter(|waits| waits.who.is_background != served.is_background).count();
        if served.is_background {
            assert!(others == 0 || self.passes == PASSES_MAX, "a background call went before a user message");
            self.passes = 0;
        } else if others > 0 {
            self.passes += 1;
            assert!(self.passes <= PASSES_MAX, "a background call waits for ever");
        } else {
            self.passes = 0;
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Enqueue { who, weight, wait_ms } => self.enqueue(who, weight, wait_ms),
            Op::Leave(which) => {
                if let Some(caller) = self.waiting.get(which) {
                    self.left.push(caller.id);
                }
            }
            Op::Return { which, used, output } => self.give_back(which, used, output),
            Op::Change { rps, concurrency, burst, tpm } => {
                self.limits = Limits { rps, concurrency, burst, tpm, ..self.limits };
                self.rps_max = self.rps_max.max(rps);
                self.burst_max = self.burst_max.max(burst);
                self.schedule.set_limits(self.limits, self.now);
            }
            Op::Throttle { which, pause_ms } => self.throttle(which, pause_ms),
            Op::Accept(which) => {
                if let Some(caller) = self.running.get(which) {
                    let granted = self.granted(caller.id);
                    self.schedule.accepted(granted, self.now);
                }
            }
            Op::Tell(hint) => {
                self.schedule.told(&hint, self.now);
                self.check_applied();
            }
            Op::Pass { ms } => self.now += Duration::from_millis(ms),
            Op::Wake => return self.wake(),
        }
        self.advance();
        self.check_places();
    }

    fn enqueue(&mut self, who: Who, weight: Weight, wait_ms: u64) {
        self.advance();
        let caller = Caller { id: self.next_id, who, weight, expires: self.now + Duration::from_millis(wait_ms) };
        self.next_id += 1;
        let was_full = self.schedule.queued() >= self.limits.queue_max;
        let taken = self.schedule.enqueue(&who.asker(), caller.waits(self.now), self.now);
        match taken {
            Ok(Some(displaced)) => self.check_displaced(&displaced, who),
            Ok(None) => assert!(!was_full),
            Err(_) => {
                assert!(was_full);
                let displaceable = self.waiting.iter().find(|waits| self.has_more(waits.who, who));
                assert_eq!(displaceable, None, "{who:?} was turned away");
                return;
            }
        }
        self.newcomer(who);
        self.waiting.push_back(caller);
    }

    /// Whether one of `waits` makes room for a newcomer.
    fn has_more(&self, waits: Who, newcomer: Who) -> bool {
        let alike = self.alike(newcomer);
        let of_org = |org| alike.iter().filter(|who| who.org == org).count();
        let of_one = |one| alike.iter().filter(|who| **who == one).count();
        match (waits.is_background, newcomer.is_background) {
            (true, false) => true,
            (false, true) => false,
            _ if waits.org == newcomer.org => of_one(waits) >= of_one(newcomer) + 2,
            _ => of_org(waits.org) >= of_org(newcomer.org) + 2,
        }
    }

    fn check_displaced(&mut self, displaced: &Caller, newcomer: Who) {
        assert!(self.has_more(displaced.who, newcomer), "{:?} made room for {newcomer:?}", displaced.who);
        let last = self.waiting.iter().rposition(|waits| waits.who == displaced.who).unwrap();
        assert_eq!(self.waiting.remove(last).as_ref(), Some(displaced), "who came last goes first");
    }

    fn granted(&self, id: usize) -> Instant {
        self.grants.iter().find(|(granted, _)| *granted == id).unwrap().1
    }

    fn throttle(&mut self, which: usize, pause_ms: Option<u64>) {
        if which >= self.running.len() {
            return;
        }
        let refused = self.running.swap_remove(which);
        self.schedule.set_in_flight(self.running.len());
        let pause = pause_ms.map(Duration::from_millis);
        self.settle(refused.id, None);
        self.schedule.throttled(self.granted(refused.id), pause, self.now);
        self.paused_until = self.paused_until.max(self.now + pause.unwrap_or_default());
        self.check_applied();
        let caller = Caller { id: self.next_id, ..refused };
        self.next_id += 1;
        self.schedule.put_back(&caller.who.asker(), caller.waits(self.now));
        self.newcomer(caller.who);
        // It goes before the other principals of its organisation once more.
        self.principals.entry(caller.who.org()).or_default().retain(|(_, served), _| *served != caller.who);
        self.waiting.push_front(caller);
    }

    /// Who had nobody that waits has somebody now.
    fn newcomer(&mut self, who: Who) {
        let alike = self.alike(who);
        if alike.iter().all(|waits| waits.org != who.org) {
            self.orgs.retain(|(waits, _), _| *waits != who.org());
        }
        if !alike.contains(&who) {
            self.principals.entry(who.org()).or_default().retain(|(waits, _), _| *waits != who);
        }
        if who.is_background && alike.is_empty() {
            self.passes = 0;
        }
    }

    fn settle(&mut self, id: usize, usage: Option<Usage>) {
        if let Some(charged) = self.charged.remove(&id) {
            self.schedule.settle(charged, usage.as_ref(), self.now);
        }
    }

    fn give_back(&mut self, which: usize, used: bool, output: u64) {
        if which >= self.running.len() {
            return;
        }
        let caller = self.running.swap_remove(which);
        self.schedule.set_in_flight(self.running.len());
        if used {
            self.schedule.learn_hold(Duration::from_secs(1));
            let usage = Usage { input: u64::from(caller.weight.input), output, ..Usage::default() };
            self.schedule.learn_usage(&usage);
            self.settle(caller.id, Some(usage));
        } else {
            self.settle(caller.id, None);
            let granted = self.grants.iter().position(|(id, _)| *id == caller.id).unwrap();
            let (_, granted) = self.grants.remove(granted);
            self.schedule.refund(granted, self.now);
        }
    }

    /// Jumps to the moment that the schedule names: not before it and not after it there is something to do.
    fn wake(&mut self) {
        self.advance();
        let Some(wake_at) = self.schedule.wake_at(self.now) else {
            assert_eq!(self.waiting.len(), 0, "somebody waits and nothing will wake them");
            return;
        };
        assert!(wake_at > self.now, "it wants to be woken although nothing has changed");
        // The schedule takes a token as there when all but the billionth part of it is.
        let just_before = wake_at - GRAIN - Duration::from_secs_f64(2e-9 / self.schedule.applied().rps);
        if just_before > self.now {
            self.now = just_before;
            assert!(self.schedule.grant(self.now).is_none(), "it could have served somebody earlier");
        }
        self.now = wake_at;
        assert!(self.advance() > 0 || self.limits.rps > 1e5, "it was woken for nothing");
    }

    fn check_places(&mut self) {
        let queued = self.schedule.queued();
        let places = self.schedule.places(self.now);
        assert_eq!(places.len(), queued);
        for ((_, place), position) in places.iter().zip(1_u32..) {
            assert_eq!(place.position, position);
        }
        assert!(places.is_sorted_by_key(|(_, place)| place.eta_ms), "who stands further behind waits longer");
    }

    fn check_rate(&self) {
        for (index, (_, from)) in self.grants.iter().enumerate() {
            for (count, (_, to)) in self.grants.iter().skip(index).enumerate() {
                let allowed = f64::from(self.burst_max) + self.rps_max * (*to - *from).as_secs_f64();
                assert!((count + 1) as f64 <= allowed + 1e-3, "{} grants within {:?}", count + 1, *to - *from);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_schedule_keeps_its_limits_and_is_fair_under_any_load(
        limits in limits(),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut watched = Watched::new(limits);
        for op in &ops {
            watched.apply(op);
        }
        watched.check_rate();
    }

    #[test]
    fn whoever_waits_is_served_or_dismissed_by_waking_alone(
        limits in limits(),
        waits in prop::collection::vec((who(), weight(), 1_u64..5_000), 1..40),
    ) {
        let mut watched = Watched::new(limits);
        for (who, weight, wait_ms) in waits {
            watched.apply(&Op::Enqueue { who, weight, wait_ms });
        }
        let mut wakes = 0;
        while watched.schedule.queued() > 0 {
            watched.wake();
            wakes += 1;
            prop_assert!(wakes < 200, "it is woken again and again for nothing");
        }
    }

    #[test]
    fn the_predicted_order_is_the_order_of_service(
        askers in prop::collection::vec(who(), 1..40),
    ) {
        let mut watched = Watched::new(Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 64 });
        for who in askers {
            watched.apply(&Op::Enqueue { who, weight: Weight::default(), wait_ms: 1_000_000 });
        }
        let now = watched.now;
        let predicted: Vec<_> = watched.schedule.places(now).iter().map(|(caller, _)| caller.id).collect();
        watched.grants.clear();
        while watched.schedule.queued() > 0 {
            watched.apply(&Op::Return { which: 0, used: true, output: 0 });
            watched.now += Duration::from_secs(1);
            watched.advance();
        }
        let served: Vec<_> = watched.grants.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(served, predicted);
    }
}

fn waits(who: u32, now: Instant) -> Waiter<u32> {
    Waiter { who, weight: Weight::default(), since: now, expires: now + MINUTE }
}

#[test]
fn without_a_queue_a_caller_is_served_at_once_or_refused() {
    let now = Instant::now();
    let limits = Limits { rps: 1.0, concurrency: 8, burst: 1, tpm: 0, queue_max: 0 };
    let mut schedule = Schedule::new(limits, 0, now);

    assert!(schedule.enqueue(&asker("a"), waits(1, now), now).is_ok());
    assert_eq!(schedule.grant(now).map(|granted| granted.who), Some(1));
    let full = schedule.enqueue(&asker("a"), waits(2, now), now).unwrap_err();
    assert!((999..=1_001).contains(&full.retry_after.as_millis()));
}

#[test]
fn an_estimate_follows_the_slower_one_of_tokens_and_slots() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Limits { rps: 10.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 8 }, 1, now);
    (0..40).for_each(|_| schedule.learn_hold(Duration::from_secs(4)));
    for id in 0..2 {
        schedule.enqueue(&asker("a"), waits(id, now), now).unwrap();
    }

    let etas: Vec<_> = schedule.places(now).iter().map(|(_, place)| place.eta_ms / 100).collect();

    assert_eq!(etas, [39, 79]);
}
