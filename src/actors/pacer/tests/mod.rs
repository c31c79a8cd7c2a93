//! What the pacer promises: the actor in paused time. [`schedule`] has its decisions under random load.

mod breaker;
mod headroom;
mod load;
mod schedule;
mod tokens;

use super::*;
use crate::chat::{OrgId, Principal, Priority};
use crate::providers::RateHint;

const LIMITS: Limits = Limits { rps: 1.0, concurrency: 8, burst: 1, tpm: 0, queue_max: 64 };
const BREAKER: BreakerSettings =
    BreakerSettings { failures: 2, open: Duration::from_secs(5), open_max: Duration::from_secs(60) };
const MINUTE: Duration = Duration::from_secs(60);

/// What a caller of the test got.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Full,
    Timeout,
    /// For so many seconds.
    Broken(u64),
    Gone,
}

fn pacer(limits: Limits) -> Addr<Pacer> {
    with_count(limits, &InFlight::default())
}

fn with_count(limits: Limits, count: &InFlight) -> Addr<Pacer> {
    Pacer::new(ProviderName::new("p"), limits, BREAKER, count.clone(), Link::default()).start()
}

fn asker(org: &str) -> Asker {
    Asker { org: OrgId::new(org), principal: Principal::new("p"), priority: Priority::User }
}

/// What a caller of `asker` sends, and what it listens to.
fn ask(asker: Asker) -> (Acquire, oneshot::Receiver<Result<Permit, NotGranted>>, watch::Receiver<Option<QueuePlace>>) {
    let (reply, answer) = oneshot::channel();
    let (place, places) = watch::channel(None);
    let weight = Weight::default();
    (Acquire { asker, weight, wait_max: MINUTE, line: Line::Back, reply, place }, answer, places)
}

async fn acquire_for(pacer: &Addr<Pacer>, org: &str, wait_max: Duration) -> Result<Permit, Refused> {
    let (ask, answer, _places) = ask(asker(org));
    let ask = Acquire { wait_max, ..ask };
    let refused = |reason| match reason {
        NotGranted::QueueFull { .. } => Refused::Full,
        NotGranted::QueueTimeout { .. } => Refused::Timeout,
        NotGranted::BreakerOpen { retry_after } => Refused::Broken(retry_after.as_secs()),
    };
    match pacer.send(ask).await.map_err(|_| Refused::Gone)?.map_err(refused)? {
        Admitted::Granted(permit) => Ok(permit),
        Admitted::Queued => answer.await.map_err(|_| Refused::Gone)?.map_err(refused),
    }
}

/// Acquires and says that the provider is being called.
async fn acquire(pacer: &Addr<Pacer>) -> Permit {
    let mut permit = acquire_for(pacer, "a", MINUTE).await.unwrap();
    permit.used();
    permit
}

async fn status(pacer: &Addr<Pacer>) -> Status {
    pacer.send(Snapshot).await.unwrap()
}

#[actix::test]
async fn a_full_bucket_serves_a_burst_at_once_and_the_rest_at_the_rate() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 2.0, burst: 3, ..LIMITS });
    let began = Instant::now();
    let mut at_ms = Vec::new();
    let mut permits = Vec::new();

    for _ in 0..6 {
        permits.push(acquire(&pacer).await);
        at_ms.push(began.elapsed().as_millis() / 10 * 10);
    }

    assert_eq!(at_ms, [0, 0, 0, 500, 1000, 1500]);
}

#[actix::test]
async fn no_more_calls_run_at_once_than_allowed() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 1_000.0, burst: 100, concurrency: 2, ..LIMITS });
    let (first, _second) = (acquire(&pacer).await, acquire(&pacer).await);

    assert_eq!(acquire_for(&pacer, "a", Duration::from_secs(5)).await.unwrap_err(), Refused::Timeout);
    drop(first);

    assert!(acquire_for(&pacer, "a", Duration::from_millis(1)).await.is_ok());
}

#[actix::test]
async fn a_caller_that_left_costs_no_token() {
    tokio::time::pause();
    let pacer = pacer(LIMITS);
    let _held = acquire(&pacer).await;
    let left = tokio::time::timeout(Duration::from_millis(10), acquire(&pacer)).await;
    assert!(left.is_err());
    let asked = Instant::now();

    let _next = acquire(&pacer).await;

    assert_eq!(asked.elapsed().as_millis() / 100, 9, "one refill, not two");
}

#[actix::test]
async fn a_permit_that_was_not_used_gives_its_token_back() {
    tokio::time::pause();
    let pacer = pacer(LIMITS);
    drop(acquire_for(&pacer, "a", MINUTE).await.unwrap());
    let asked = Instant::now();

    drop(acquire(&pacer).await);
    let at_once = asked.elapsed();
    drop(acquire(&pacer).await);

    assert_eq!(at_once, Duration::ZERO);
    assert!(asked.elapsed() >= Duration::from_millis(999), "a used one does not");
}

#[actix::test]
async fn a_permit_that_nobody_was_left_to_take_comes_back_whole() {
    tokio::time::pause();
    let pacer = pacer(Limits { concurrency: 1, ..LIMITS });
    let held = acquire(&pacer).await;
    let (ask, answer, _places) = ask(asker("a"));
    pacer.send(ask).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    drop(held);
    while answer.is_empty() {
        tokio::task::yield_now().await;
    }

    drop(answer); // The permit lies in the channel; its caller goes without having looked.

    let asked = Instant::now();
    drop(acquire(&pacer).await);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(status(&pacer).await.in_flight, 0);
}

#[actix::test]
async fn a_call_that_panics_gives_its_slot_back() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 1_000.0, concurrency: 1, ..LIMITS });
    let permit = acquire(&pacer).await;

    let panicked = tokio::task::spawn_local(async move {
        let _permit = permit;
        panic!("on purpose");
    });

    assert!(panicked.await.unwrap_err().is_panic());
    drop(acquire(&pacer).await);
    assert_eq!(status(&pacer).await.in_flight, 0);
}

#[actix::test]
async fn a_refused_call_makes_everybody_wait_and_comes_again_before_them() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 10.0, burst: 5, ..LIMITS });
    let refused = acquire(&pacer).await;
    let began = Instant::now();
    refused.throttled(Some(Duration::from_secs(3)));
    assert_eq!(status(&pacer).await.paused_ms, 3_000);
    let (waiting, answer, _places) = ask(asker("a"));
    assert!(matches!(pacer.send(waiting).await.unwrap(), Ok(Admitted::Queued)));
    let (back, again, _places) = ask(asker("a"));
    let back = Acquire { line: Line::Front, ..back };
    assert!(matches!(pacer.send(back).await.unwrap(), Ok(Admitted::Queued)));

    let (again, at) = (again.await.unwrap(), began.elapsed());
    let (next, then) = (answer.await.unwrap(), began.elapsed());

    assert!(again.is_ok() && next.is_ok());
    assert_eq!((at.as_millis() / 10, then.as_millis() / 10), (300, 320), "at half the rate, one by one");
    assert_eq!(status(&pacer).await.effective_rps, 5.0);
}

#[actix::test]
async fn accepted_calls_restore_the_rate() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 10.0, ..LIMITS });
    acquire(&pacer).await.throttled(None);
    assert_eq!(status(&pacer).await.effective_rps, 5.0);

    for _ in 0..600 {
        acquire(&pacer).await.accepted(RateHint::default());
    }

    assert_eq!(status(&pacer).await.effective_rps, 10.0);
}

#[actix::test]
async fn the_queue_is_bounded_and_says_when_to_come_back() {
    tokio::time::pause();
    let pacer = pacer(Limits { queue_max: 2, ..LIMITS });
    let _held = acquire(&pacer).await;
    let (one, two) = (acquire_for(&pacer, "a", MINUTE), acquire_for(&pacer, "b", MINUTE));
    let third = async {
        while status(&pacer).await.queued < 2 {
            tokio::task::yield_now().await;
        }
        let (ask, _answer, _places) = ask(asker("c"));
        pacer.send(ask).await.unwrap()
    };

    let (one, two, third) = futures_util::join!(one, two, third);

    let NotGranted::QueueFull { retry_after } = third.unwrap_err() else { panic!("not full") };
    assert!((900..=1_000).contains(&retry_after.as_millis()), "{retry_after:?}");
    assert!(one.is_ok() && two.is_ok());
}

#[actix::test]
async fn whoever_fills_the_queue_makes_room_for_others() {
    tokio::time::pause();
    let pacer = pacer(Limits { queue_max: 3, ..LIMITS });
    let _held = acquire(&pacer).await;
    let mut flood = Vec::new();
    for _ in 0..3 {
        let (ask, answer, places) = ask(asker("flood"));
        pacer.send(ask).await.unwrap().unwrap();
        flood.push((answer, places));
    }

    let (ask, other, _places) = ask(asker("other"));
    assert!(matches!(pacer.send(ask).await.unwrap(), Ok(Admitted::Queued)));

    let (newest, _places) = flood.pop().unwrap();
    let Err(NotGranted::QueueFull { retry_after }) = newest.await.unwrap() else { panic!("it kept its place") };
    assert!((3_900..=4_000).contains(&retry_after.as_millis()), "behind three: {retry_after:?}");
    let (first, _places) = flood.remove(0);
    assert!(first.await.unwrap().is_ok() && other.await.unwrap().is_ok());
}

#[actix::test]
async fn who_has_waited_too_long_hears_when_it_would_be_its_turn() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 0.1, ..LIMITS });
    let _held = acquire(&pacer).await;
    let (brief, hurried, _places) = ask(asker("a"));
    pacer.send(Acquire { wait_max: Duration::from_secs(4), ..brief }).await.unwrap().unwrap();
    let (patient, _patient, _places) = ask(asker("b"));
    pacer.send(patient).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(status(&pacer).await.oldest_wait_ms / 10, 300);

    let Err(NotGranted::QueueTimeout { retry_after }) = hurried.await.unwrap() else { panic!("not out of time") };

    assert!((15_900..=16_000).contains(&retry_after.as_millis()), "behind the other one: {retry_after:?}");
}

#[actix::test]
async fn who_waits_hears_its_place_at_once_and_then_at_most_twice_a_second() {
    tokio::time::pause();
    let pacer = pacer(LIMITS);
    let _held = acquire(&pacer).await;
    let mut callers = Vec::new();
    for _ in 0..3 {
        let (ask, answer, places) = ask(asker("a"));
        pacer.send(ask).await.unwrap().unwrap();
        callers.push((answer, places));
    }
    let (answer, mut places) = callers.pop().unwrap();
    let began = Instant::now();
    let mut seen = Vec::new();

    while places.has_changed().is_ok_and(|changed| changed) || places.changed().await.is_ok() {
        seen.push((places.borrow_and_update().unwrap().position, began.elapsed()));
    }

    assert!(answer.await.unwrap().is_ok());
    assert_eq!(seen.first().map(|(position, at)| (*position, *at)), Some((3, Duration::ZERO)));
    assert_eq!(seen.last().unwrap().0, 1);
    assert!(seen.len() <= 7, "{seen:?}");
    assert!(seen.is_sorted_by(|a, b| a.0 >= b.0 && b.1 >= a.1 + Duration::from_millis(499)), "{seen:?}");
}

#[actix::test]
async fn new_limits_serve_those_who_wait() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 0.001, concurrency: 1, ..LIMITS });
    let _held = acquire(&pacer).await;
    let waiting = acquire_for(&pacer, "a", MINUTE);
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let faster = Change { rps: Some(10.0), concurrency: Some(5), ..Change::default() };
        pacer.send(faster).await.unwrap()
    };
    let asked = Instant::now();

    let (permit, after) = futures_util::join!(waiting, change);

    assert!(permit.is_ok());
    assert!(asked.elapsed() < Duration::from_millis(1_200), "{:?}", asked.elapsed());
    assert_eq!((after.rps, after.concurrency, after.burst), (10.0, 5, 1));
}

#[actix::test]
async fn what_is_no_limit_at_all_changes_nothing() {
    let pacer = pacer(LIMITS);
    for rps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let nonsense = Change { rps: Some(rps), concurrency: Some(0), burst: Some(0), ..Change::default() };

        let after = pacer.send(nonsense).await.unwrap();

        assert_eq!((after.rps, after.concurrency, after.burst), (1.0, 8, 1), "{rps}");
    }
}

#[actix::test]
async fn a_restarted_pacer_knows_the_permits_of_the_one_before() {
    tokio::time::pause();
    let count = InFlight::default();
    let before = with_count(Limits { rps: 1_000.0, concurrency: 1, ..LIMITS }, &count);
    let held = acquire(&before).await;

    let after = with_count(Limits { rps: 1_000.0, concurrency: 1, ..LIMITS }, &count);

    assert_eq!(status(&after).await.in_flight, 1);
    assert_eq!(acquire_for(&after, "a", Duration::from_secs(1)).await.unwrap_err(), Refused::Timeout);
    let waiting = acquire_for(&after, "a", MINUTE);
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(held); // Told to the old pacer, noticed by the new one.
    };
    let asked = Instant::now();
    let (permit, ()) = futures_util::join!(waiting, release);
    assert!(permit.is_ok());
    assert!(asked.elapsed() <= Duration::from_millis(1_501), "{:?}", asked.elapsed());
}

#[actix::test]
async fn callers_of_a_pacer_that_dies_are_not_left_waiting() {
    tokio::time::pause();
    let pacer = pacer(LIMITS);
    let _held = acquire(&pacer).await;
    let waiting = acquire_for(&pacer, "a", MINUTE);
    let end = async {
        while status(&pacer).await.queued == 0 {
            tokio::task::yield_now().await;
        }
        pacer.send(Break).await
    };

    let (waiting, _) = futures_util::join!(waiting, end);

    assert_eq!(waiting.unwrap_err(), Refused::Gone);
}

/// Makes a pacer panic.
#[derive(Message)]
#[rtype(result = "()")]
struct Break;

impl Handler<Break> for Pacer {
    type Result = ();

    fn handle(&mut self, _: Break, _: &mut Context<Self>) {
        panic!("on purpose");
    }
}
