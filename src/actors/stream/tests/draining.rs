//! Cancelled answers that are read on to learn what they cost, and what ends them.

use super::support::{Plan, route};
use super::*;
use crate::actors::coalescer::Whose;
use crate::actors::pacer;
use crate::chat::OrgId;
use crate::config::OnCancel;
use crate::event::Usage;

const DRAINED: Cancellation = Cancellation::Withdrawn(Cancelled::Drained);
const ABORTED: Cancellation = Cancellation::Withdrawn(Cancelled::Aborted);
const COST: Step = Step::Line(r#"{"usage":42}"#);

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.provider.on_cancel = OnCancel::Drain;
    plan.provider.drain_max_ms = 10_000;
    plan
}

/// With so many permits.
fn with_permits(concurrency: usize) -> Plan {
    let mut plan = plan();
    plan.pace.concurrency = concurrency;
    plan.provider.pace.concurrency = concurrency;
    plan
}

fn text(text: &str) -> Step {
    Step::Text(text.to_owned())
}

/// A piece, and much later the rest and the cost.
fn long(wait_ms: u64) -> Script {
    Script::new([text("abcd"), Step::Wait(wait_ms), text("efgh"), COST, Step::End])
}

/// Asks in a thread and cancels after half a second.
async fn cancelled(house: &House, ask: &Ask) -> Heard {
    let listener = house.ask(ask).await.unwrap();
    sleep(millis(500)).await;
    assert_eq!(house.cancel(&ask.request).await, DRAINED);
    let asked = Instant::now();
    let heard = listener.heard().await;
    assert!(asked.elapsed() < millis(50), "nobody waits for a drain");
    assert_eq!((heard.status(), heard.text.as_str()), ("cancelled", "abcd"));
    heard
}

async fn usage_of(house: &House, thread: &ThreadId) -> Usage {
    house.messages(&OrgId::new("org"), thread).await[1].usage.unwrap()
}

#[actix::test]
async fn the_cost_of_a_cancelled_answer_is_learned_and_kept() {
    let house = House::build(plan());
    house.provider.plays([long(2_000)]);
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");

    let heard = cancelled(&house, &ask).await;

    assert_eq!(heard.done["usage"]["estimated"], true);
    assert!(usage_of(&house, &thread).await.estimated);
    assert_eq!((house.provider.live(), house.permits.get()), (1, 1), "the call goes on under its permit");
    let next = house.hear(&Ask::within(&thread, "ho")).await;
    assert_eq!(next.status(), "complete", "its thread is free");
    sleep(millis(2_000)).await;
    let expected = Usage { output: 42, total: 42, ..Usage::default() };
    assert_eq!(usage_of(&house, &thread).await, expected);
    assert_eq!(house.stored(&ask.request).await.unwrap().facts["usage"], serde_json::to_value(expected).unwrap());
    let spent = 42 + next.done["usage"]["output"].as_u64().unwrap();
    assert_eq!(house.report()["tokens"]["output"], spent);
    assert_eq!(house.tokens_spent(), spent, "each answer is counted once");
    let answers = house.answers(&thread).await;
    assert_eq!(answers[0], ("cancelled", "abcd".to_owned()), "what nobody heard is not kept");
    assert_eq!((house.provider.recycled.get(), house.permits.get()), (2, 0), "its connection serves on");
    house.forgets_everything().await;
}

#[actix::test]
async fn the_pacer_hears_what_a_cancelled_answer_has_cost() {
    let mut plan = plan();
    plan.pace.tpm = 60_000;
    let house = House::build(plan);
    house.provider.plays([Script::new([text("a"), Step::Wait(2_000), Step::Line(r#"{"usage":30000}"#), Step::End])]);
    let ask = Ask::new("hi");
    let _listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;
    assert_eq!(house.cancel(&ask.request).await, DRAINED);

    sleep(millis(2_000)).await;

    let available = house.pacer.send(pacer::Snapshot).await.unwrap().tpm_available.unwrap();
    assert!((30_000..32_000).contains(&available), "{available}");
    house.forgets_everything().await;
}

/// Plays this, cancels after half a second; the call must be closed after so many milliseconds more.
async fn check_bound(plan: Plan, script: Script, ends_ms: u64) {
    let house = House::build(plan);
    house.provider.plays([script]);
    let thread = house.thread().await;
    cancelled(&house, &Ask::within(&thread, "hi")).await;

    sleep(millis(ends_ms - 20)).await;
    assert_eq!(house.provider.live(), 1);
    sleep(millis(40)).await;

    assert_eq!((house.provider.live(), house.permits.get(), house.provider.called()), (0, 0, 1));
    let usage = usage_of(&house, &thread).await;
    assert!(usage.estimated);
    assert_eq!(house.tokens_spent(), usage.output);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_drain_is_bounded_in_time() {
    let mut plan = plan();
    plan.provider.drain_max_ms = 3_000;
    let drip = (0..100).flat_map(|_| [Step::Wait(700), text("x")]);

    check_bound(plan, Script::new([text("abcd")].into_iter().chain(drip)), 3_000).await;
}

#[actix::test]
async fn a_drain_is_bounded_in_bytes() {
    let mut plan = plan();
    plan.provider.drain_bytes_max = 1_024;
    let long = text(&"x".repeat(400));

    // The third piece is too much.
    let pieces = (0..100).flat_map(|_| [Step::Wait(1_000), long.clone()]);

    check_bound(plan, Script::new([text("abcd")].into_iter().chain(pieces)), 2_500).await;
}

#[actix::test]
async fn a_drain_of_a_provider_that_never_pauses_ends_in_time_too() {
    let mut plan = plan();
    plan.provider.drain_max_ms = 1_000;
    plan.provider.drain_bytes_max = 1 << 30;
    let house = House::build(plan);
    house.provider.plays([Script::new([text("abcd"), Step::Wait(600), Step::Flood(r#"{"alive":true}"#)])]);

    cancelled(&house, &Ask::new("hi")).await;
    sleep(millis(1_100)).await;

    assert_eq!(house.provider.live(), 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_drain_ends_when_the_provider_falls_silent() {
    let mut plan = plan();
    plan.provider.idle_timeout_ms = 2_000;

    check_bound(plan, long(60_000), 2_000).await;
}

#[actix::test]
async fn nothing_is_read_on_before_the_provider_has_begun() {
    let house = House::build(plan());
    house.provider.plays([Script { head_ms: 1_000, ..long(10) }]);
    let ask = Ask::new("hi");
    let _listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;

    assert_eq!(house.cancel(&ask.request).await, ABORTED);
    sleep(millis(1)).await;

    assert_eq!(house.provider.live(), 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_drain_that_fails_is_neither_repeated_nor_sent_elsewhere() {
    let mut plan = plan();
    plan.provider.fallback = vec![route("second")];
    let house = House::build(plan);
    let cite = Step::Line(r#"{"cite":"https://example.org"}"#);
    house.provider.plays([Script::new([cite, Step::Wait(1_000), Step::Lose])]);
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;

    assert_eq!(house.cancel(&ask.request).await, DRAINED);

    assert!(listener.heard().await.frames.is_empty());
    sleep(millis(5_000)).await;
    assert_eq!((house.provider.called(), house.backups[0].provider.called()), (1, 0));
    assert_eq!(house.answers(&thread).await, [("cancelled", String::new())]);
    house.forgets_everything().await;
}

#[actix::test]
async fn whoever_has_to_wait_for_the_provider_ends_the_oldest_drain() {
    let house = House::build(with_permits(4));
    house.provider.plays([long(8_000), long(8_000), long(8_000), long(8_000)]);
    let (one, two) = (house.thread().await, house.thread().await);
    cancelled(&house, &Ask::within(&one, "a")).await;
    cancelled(&house, &Ask::within(&two, "b")).await;
    let others = [Ask::new("c"), Ask::new("d")];
    let _running = [house.ask(&others[0]).await.unwrap(), house.ask(&others[1]).await.unwrap()];
    assert_eq!(house.permits.get(), 4);

    let waited = house.hear(&Ask::new("e")).await;

    assert_eq!(waited.status(), "complete");
    assert!(waited.done["latency_ms"].as_u64().unwrap() < 200, "{}", waited.done);
    assert_eq!(house.provider.live(), 3, "one drain goes on");
    sleep(millis(8_000)).await;
    assert!(usage_of(&house, &one).await.estimated);
    assert_eq!(usage_of(&house, &two).await.output, 42);
    house.forgets_everything().await;
}

#[actix::test]
async fn whoever_finds_the_queue_full_ends_the_oldest_drain_too() {
    let mut plan = with_permits(1);
    plan.pace.queue_max = 0;
    let house = House::build(plan);
    house.provider.plays([long(8_000)]);
    cancelled(&house, &Ask::new("a")).await;

    let refused = house.ask(&Ask::new("b")).await.err().unwrap();

    assert_eq!(refused.code, Code::ProviderBusy);
    sleep(millis(10)).await;
    assert_eq!(house.hear(&Ask::new("b")).await.status(), "complete");
    house.forgets_everything().await;
}

#[actix::test]
async fn no_drain_begins_while_somebody_waits_and_never_more_than_half_of_the_permits_are_drains() {
    let house = House::build(with_permits(2));
    house.provider.plays([long(8_000), long(8_000), long(8_000)]);
    let asks = [Ask::new("a"), Ask::new("b"), Ask::new("c")];
    cancelled(&house, &asks[0]).await;
    let running = house.ask(&asks[1]).await.unwrap();
    sleep(millis(500)).await;
    assert_eq!(house.cancel(&asks[1].request).await, ABORTED, "half of them are drains already");
    drop(running);
    let running = house.ask(&asks[2]).await.unwrap();
    let other = Ask::new("d");
    let waiting = house.ask(&other).await.unwrap();
    sleep(millis(500)).await;
    assert_eq!(waiting.heard().await.status(), "complete", "the drain has made way");

    let queued = [house.ask(&Ask::new("e")).await.unwrap(), house.ask(&Ask::new("f")).await.unwrap()];
    assert_eq!(house.cancel(&asks[2].request).await, ABORTED, "somebody waits");

    drop(running);
    for queued in queued {
        assert_eq!(queued.heard().await.status(), "complete");
    }
    house.forgets_everything().await;
}

#[actix::test]
async fn the_end_of_the_server_ends_drains() {
    let house = House::build(plan());
    house.provider.plays([long(8_000)]);
    cancelled(&house, &Ask::new("a")).await;

    house.stop(Whose::Everybody, Status::Interrupted).await;
    sleep(millis(1)).await;

    assert_eq!((house.provider.live(), house.permits.get()), (0, 0));
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_is_read_on_when_the_last_of_its_listeners_has_left() {
    let house = House::build(plan());
    house.provider.plays([long(2_000)]);
    let (one, two) = (house.thread().await, house.thread().await);
    let asks = [Ask::within(&one, "hi"), Ask::within(&two, "hi")];
    for ask in &asks {
        house.ask(ask).await.unwrap().attachment.take();
    }
    sleep(millis(500)).await;

    let first = house.cancel(&asks[0].request).await;
    assert_eq!(first, Cancellation::Withdrawn(Cancelled::Shared));
    assert_eq!(house.cancel(&asks[1].request).await, DRAINED);

    sleep(millis(2_000)).await;
    assert!(usage_of(&house, &one).await.estimated, "its turn had ended before");
    assert_eq!(usage_of(&house, &two).await.output, 42);
    assert_eq!(house.report()["tokens"]["output"], 42, "the first one has begun the call");
    house.forgets_everything().await;
}
