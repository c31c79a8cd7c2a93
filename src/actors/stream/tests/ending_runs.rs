//! Answers that go on at the provider when their connection is closed, and what ends them there.

use super::support::{Plan, in_a_world, route};
use super::*;
use crate::config::OnCancel;

/// What the provider calls the answer.
const ID: Step = Step::Line(r#"{"id":"run-1"}"#);

fn text(text: &str) -> Step {
    Step::Text(text.to_owned())
}

fn endings(house: &House) -> Vec<String> {
    house.provider.endings.borrow().clone()
}

/// Plays this and cancels after half a second; says which answers were ended at the provider.
fn ended_after(plan: Plan, script: Script) -> Vec<String> {
    in_a_world(async {
        let house = House::build(plan);
        house.provider.plays([script]);
        let ask = Ask::new("hi");
        let listener = house.ask(&ask).await.unwrap();
        sleep(millis(500)).await;
        house.cancel(&ask.request).await;
        listener.heard().await;
        house.forgets_everything().await;
        endings(&house)
    })
}

fn once() -> Plan {
    let mut plan = Plan::default();
    plan.provider.retries_max = 0;
    plan
}

#[actix::test]
async fn a_cancel_ends_the_answer_at_the_provider_and_nobody_waits_for_it() {
    let house = House::paused();
    house.provider.ending_ms.set(2_000);
    house.provider.plays([Script::new([ID, text("a"), Step::Wait(60_000)])]);
    let ask = Ask::new("hi");
    let listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;
    let asked = Instant::now();

    assert_eq!(house.cancel(&ask.request).await, Cancellation::Withdrawn(Cancelled::Aborted));

    assert_eq!(listener.heard().await.status(), "cancelled");
    assert!(asked.elapsed() < millis(10), "{:?}", asked.elapsed());
    assert_eq!((house.provider.live(), house.permits.get()), (0, 0), "it takes no permit");
    sleep(millis(1)).await;
    assert_eq!(endings(&house), ["/cancel/run-1"]);
    sleep(millis(5_000)).await;
    house.forgets_everything().await;
}

#[test]
fn an_answer_that_weir_gives_up_is_ended_at_the_provider() {
    let mut plan = once();
    plan.provider.idle_timeout_ms = 300;

    assert_eq!(ended_after(plan, Script::new([ID, text("a"), Step::Wait(60_000)])), ["/cancel/run-1"]);
    assert_eq!(ended_after(once(), Script::new([ID, text("a"), Step::Lose])), ["/cancel/run-1"]);
    assert_eq!(ended_after(once(), Script::new([ID, text("a"), Step::Line("<html>")])), ["/cancel/run-1"]);
}

#[test]
fn what_has_ended_or_has_no_name_is_not_ended_again() {
    let nothing = Vec::<String>::new();

    assert_eq!(ended_after(once(), Script::new([ID, text("a"), Step::End])), nothing);
    assert_eq!(ended_after(once(), Script::new([text("a"), Step::Wait(60_000)])), nothing);
    assert_eq!(ended_after(once(), Script::new([ID, Step::Line(r#"{"error":"overloaded"}"#)])), nothing);
    assert_eq!(ended_after(once(), Script::status(503)), nothing);
}

#[actix::test]
async fn an_answer_is_ended_where_it_runs_and_under_its_own_name() {
    let mut plan = once();
    plan.provider.fallback = vec![route("second")];
    let house = House::build(plan);
    house.provider.plays([Script::new([ID, Step::Lose])]);
    house.backups[0].provider.plays([Script::new([Step::Line(r#"{"id":"run-2"}"#), Step::Wait(60_000)])]);
    let ask = Ask::new("hi");
    let _listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;

    house.cancel(&ask.request).await;
    sleep(millis(100)).await;

    assert_eq!(endings(&house), ["/cancel/run-1"]);
    assert_eq!(*house.backups[0].provider.endings.borrow(), ["/cancel/run-2"]);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_drain_that_comes_to_its_bound_is_ended_at_the_provider() {
    let mut plan = once();
    plan.provider.on_cancel = OnCancel::Drain;
    plan.provider.drain_max_ms = 1_000;
    let house = House::build(plan);
    house.provider.plays([Script::new([ID, text("a"), Step::Wait(60_000)])]);
    let ask = Ask::new("hi");
    let _listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;

    house.cancel(&ask.request).await;
    sleep(millis(900)).await;
    assert!(endings(&house).is_empty());
    sleep(millis(200)).await;

    assert_eq!(endings(&house), ["/cancel/run-1"]);
    house.forgets_everything().await;
}

#[actix::test]
async fn calls_that_end_answers_are_bounded_in_number_and_time() {
    let house = House::paused();
    house.provider.ending_ms.set(3_600_000);
    house.provider.plays((0..50).map(|_| Script::new([ID, text("a"), Step::Wait(60_000)])));
    let asks: Vec<_> = (0..50).map(|index| Ask::new(&format!("{index}"))).collect();
    let mut listeners = Vec::new();
    for ask in &asks {
        listeners.push(house.ask(ask).await.unwrap());
    }
    sleep(millis(500)).await;

    for ask in &asks {
        house.cancel(&ask.request).await;
    }
    sleep(millis(100)).await;

    assert_eq!(endings(&house).len(), 32);
    sleep(millis(5_000)).await;
    house.provider.plays([Script::new([ID, text("a"), Step::Wait(60_000)])]);
    let ask = Ask::new("one more");
    let _listener = house.ask(&ask).await.unwrap();
    sleep(millis(500)).await;
    house.cancel(&ask.request).await;
    sleep(millis(100)).await;
    assert_eq!(endings(&house).len(), 33, "those that took too long make room");
    sleep(millis(5_000)).await;
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_that_is_stopped_costs_what_it_is_likely_to_cost() {
    let house = House::paused();
    house.provider.plays([Script::new([text("12345678"), Step::Wait(60_000)]), Script::new([Step::Wait(60_000)])]);
    for (question, tokens) in [("four", (1, 2)), ("a longer one", (3, 0))] {
        let ask = Ask::new(question);
        let listener = house.ask(&ask).await.unwrap();
        sleep(millis(500)).await;
        house.cancel(&ask.request).await;

        let usage = &listener.heard().await.done["usage"];

        assert_eq!((usage["input"].as_u64(), usage["output"].as_u64()), (Some(tokens.0), Some(tokens.1)), "{question}");
        assert_eq!((&usage["estimated"], &usage["total"]), (&true.into(), &(tokens.0 + tokens.1).into()));
    }
    assert_eq!(house.report()["tokens"], serde_json::json!({ "input": 4, "output": 2 }));
    house.forgets_everything().await;
}
