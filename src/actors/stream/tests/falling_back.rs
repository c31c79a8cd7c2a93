//! Requests whose provider cannot answer them, and those that answer instead.

use super::support::{Plan, in_a_world, route};
use super::*;
use crate::actors::coalescer::Whose;
use crate::actors::pacer;
use crate::chat::{OrgId, ProviderName};
use crate::fanout::Fallback;
use crate::providers::upstream::TransportError;

const CLOSED: pacer::schedule::Limits =
    pacer::schedule::Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 0 };

/// The first provider falls back to `second`, then to `third`, and repeats nothing.
fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.provider.retries_max = 0;
    plan.provider.fallback = vec![route("second"), route("third")];
    plan
}

fn text(text: &str) -> Step {
    Step::Text(text.to_owned())
}

fn fallback_to(provider: &str) -> Fallback {
    Fallback { provider: ProviderName::new(provider), model: "demo".into(), from: ProviderName::new("demo") }
}

fn calls(house: &House) -> [usize; 3] {
    [house.provider.called(), house.backups[0].provider.called(), house.backups[1].provider.called()]
}

#[actix::test]
async fn when_the_provider_fails_another_one_answers_and_everybody_is_told() {
    let house = House::build(plan());
    house.provider.plays([Script::status(503)]);
    house.backups[0].provider.plays([Script::says(&["b"], 10)]);
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");

    let heard = house.hear(&ask).await;

    assert_eq!((heard.status(), heard.text.as_str(), calls(&house)), ("complete", "b", [1, 1, 0]));
    assert_eq!((heard.fallbacks, heard.timings), (vec![fallback_to("second")], 1));
    let message = &house.messages(&OrgId::new("org"), &thread).await[1];
    assert_eq!((message.provider.as_deref(), message.model.as_deref()), (Some("second"), Some("demo")));
    assert_eq!(message.meta["fallback_from"], "demo");
    let stored = house.stored(&ask.request).await.unwrap();
    assert_eq!((stored.provider.as_str(), &stored.facts["fallback_from"]), ("second", &Value::from("demo")));
    let report = house.report();
    assert_eq!((&report["fallbacks"], &report["providers"]["second"]["count"]), (&1.into(), &1.into()));
    assert_eq!(report["errors"]["total"], 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_provider_repeats_its_call_before_another_one_is_asked_and_that_one_is_asked_once() {
    let mut plan = plan();
    plan.provider.retries_max = 1;
    let house = House::build(plan);
    house.provider.plays([Script::status(503), Script::status(503)]);
    house.backups[0].provider.plays([Script::status(503)]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), calls(&house)), ("complete", [2, 1, 1]));
    assert_eq!(heard.fallbacks.last(), Some(&fallback_to("third")));
    house.forgets_everything().await;
}

#[test]
fn a_failure_that_is_the_requests_own_is_told_and_one_of_the_account_is_not() {
    for (status, expected) in [(400, [1, 0, 0]), (401, [1, 1, 0]), (402, [1, 1, 0]), (500, [1, 1, 0]), (429, [1, 1, 0])]
    {
        in_a_world(async {
            let mut plan = plan();
            plan.provider.queue_wait_max_ms = 1_000;
            let house = House::build(plan);
            house.provider.plays([Script::status(status).retry_after_ms(5_000)]);

            let heard = house.hear(&Ask::new("hi")).await;

            assert_eq!(calls(&house), expected, "{status}");
            assert_eq!(heard.status(), if status == 400 { "error" } else { "complete" }, "{status}");
            house.forgets_everything().await;
        });
    }
}

#[actix::test]
async fn a_pacer_that_refuses_is_passed_by_and_never_announced() {
    let house = House::build(Plan { pace: CLOSED, ..plan() });
    house.hear(&Ask::new("a")).await;

    let heard = house.hear(&Ask::new("b")).await;

    assert_eq!((heard.status(), calls(&house)), ("complete", [1, 1, 0]));
    assert_eq!(heard.fallbacks, [fallback_to("second")]);
    house.forgets_everything().await;
}

#[actix::test]
async fn two_pacers_that_refuse_are_passed_by() {
    let house = House::build(Plan { pace: CLOSED, backup_pace: CLOSED, ..plan() });
    for text in ["a", "b"] {
        house.hear(&Ask::new(text)).await;
    }
    let heard = house.hear(&Ask::new("c")).await;
    assert_eq!((heard.status(), &heard.fallbacks[..]), ("complete", &[fallback_to("third")][..]));
    house.forgets_everything().await;
}

#[actix::test]
async fn when_all_pacers_refuse_the_request_is_refused_as_by_the_first() {
    let house = House::build(Plan { pace: CLOSED, backup_pace: CLOSED, ..plan() });
    let thread = house.thread().await;
    for text in ["a", "b", "c"] {
        house.hear(&Ask::new(text)).await;
    }

    let refused = house.ask(&Ask::within(&thread, "d")).await.err().unwrap();

    assert_eq!((refused.code, refused.provider.as_deref()), (Code::ProviderBusy, Some("demo")));
    assert!(house.messages(&OrgId::new("org"), &thread).await.is_empty(), "nothing is kept");
    house.forgets_everything().await;
}

#[actix::test]
async fn an_open_breaker_sends_requests_on_at_once() {
    let mut plan = plan();
    plan.provider.breaker_failures = 1;
    let house = House::build(plan);
    house.provider.plays([Script::status(503)]);
    house.hear(&Ask::new("a")).await;

    let heard = house.hear(&Ask::new("b")).await;

    assert_eq!((heard.status(), calls(&house)), ("complete", [1, 2, 0]));
    house.forgets_everything().await;
}

#[actix::test]
async fn a_wait_that_takes_too_long_ends_at_another_provider() {
    let mut plan = plan();
    plan.provider.queue_wait_max_ms = 2_000;
    plan.pace = pacer::schedule::Limits { queue_max: 8, ..CLOSED };
    let house = House::build(plan);
    house.provider.plays([Script::says(&["a"], 10_000)]);
    let running = house.ask(&Ask::new("a")).await.unwrap();

    let heard = house.hear(&Ask::new("b")).await;

    assert_eq!((heard.status(), calls(&house)), ("complete", [1, 1, 0]));
    assert!((2_000..2_200).contains(&heard.done["latency_ms"].as_u64().unwrap()));
    assert_eq!(running.heard().await.status(), "complete");
    house.forgets_everything().await;
}

#[actix::test]
async fn when_everybody_fails_the_client_hears_what_is_the_matter_with_the_one_it_asked() {
    let house = House::build(plan());
    house.provider.plays([Script::new([Step::Line(r#"{"cite":"https://example.org"}"#), Step::Lose])]);
    house.backups[0].provider.plays([Script::status(400)]);
    house.backups[1].provider.plays([Script::status(503)]);
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");

    let heard = house.hear(&ask).await;

    assert_eq!((heard.code(), calls(&house)), ("upstream_truncated", [1, 1, 1]));
    assert_eq!(
        (&heard.done["error"]["provider"], &heard.done["error"]["phase"]),
        (&"demo".into(), &"pre_token".into())
    );
    let message = &house.messages(&OrgId::new("org"), &thread).await[1];
    assert_eq!((message.status, message.provider.as_deref()), (Status::Error, Some("demo")));
    assert_eq!(house.report()["fallbacks"], 0, "nobody has answered in another one's place");
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_that_another_provider_has_begun_ends_with_its_failure() {
    let house = House::build(plan());
    house.provider.plays([Script::status(503)]);
    house.backups[0].provider.plays([Script::new([text("b"), Step::Lose])]);
    let thread = house.thread().await;

    let heard = house.hear(&Ask::within(&thread, "hi")).await;

    assert_eq!((heard.code(), heard.text.as_str(), calls(&house)), ("upstream_truncated", "b", [1, 1, 0]));
    assert_eq!(heard.done["error"]["provider"], "second");
    let message = &house.messages(&OrgId::new("org"), &thread).await[1];
    assert_eq!((message.provider.as_deref(), &*message.content.text()), (Some("second"), "b"));
    house.forgets_everything().await;
}

#[actix::test]
async fn nobody_answers_instead_once_content_has_been_heard() {
    let house = House::build(plan());
    house.provider.plays([Script::new([text("a"), Step::Lose])]);

    assert_eq!(house.hear(&Ask::new("hi")).await.code(), "upstream_truncated");

    assert_eq!(calls(&house), [1, 0, 0]);
    house.forgets_everything().await;
}

#[test]
fn a_request_with_tools_goes_elsewhere_only_if_nothing_can_have_been_done() {
    let lost = Script { head: Err(TransportError::Lost), ..Script::new([]) };
    let unconnected = Script { head: Err(TransportError::Connect), ..Script::new([]) };
    for (script, expected) in [(lost, [1, 0, 0]), (unconnected, [1, 1, 0]), (Script::status(401), [1, 1, 0])] {
        in_a_world(async {
            let house = House::build(plan());
            house.provider.plays([script]);
            house.hear(&Ask { has_tools: true, shares: false, ..Ask::new("hi") }).await;
            assert_eq!(calls(&house), expected);
            house.forgets_everything().await;
        });
    }
}

#[actix::test]
async fn the_time_for_the_whole_answer_bounds_those_who_stand_in() {
    let mut plan = plan();
    plan.provider.total_timeout_ms = 5_000;
    plan.provider.headers_timeout_ms = 4_000;
    let house = House::build(plan);
    house.provider.plays([Script { head_ms: 60_000, ..Script::new([]) }]);
    house.backups[0].provider.plays([Script::new((0..20).flat_map(|_| [Step::Wait(400), text("b")]))]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), heard.text.as_str()), ("upstream_timeout", "bb"));
    assert!((5_000..5_050).contains(&heard.done["latency_ms"].as_u64().unwrap()));
    house.forgets_everything().await;
}

#[actix::test]
async fn the_first_permit_is_back_before_another_provider_is_asked() {
    let one = pacer::schedule::Limits { queue_max: 8, rps: 100.0, ..CLOSED };
    let house = House::build(Plan { pace: one, backup_pace: one, ..plan() });
    house.provider.plays([Script::status(503), Script::status(503)]);
    house.backups[0].provider.plays([Script::says(&["b"], 1_000)]);
    let (first, second) = (house.ask(&Ask::new("a")).await.unwrap(), house.ask(&Ask::new("b")).await.unwrap());
    sleep(millis(500)).await;

    assert_eq!((house.permits.get(), house.backups[0].permits.get()), (0, 1));

    let second = second.heard().await;
    assert_eq!((first.heard().await.status(), second.status()), ("complete", "complete"));
    assert!(second.places > 0, "whoever waits for the other provider is told its place there");
    house.forgets_everything().await;
}

#[actix::test]
async fn identical_requests_share_the_answer_whoever_gives_it() {
    let house = House::build(plan());
    house.provider.plays([Script { head_ms: 500, ..Script::status(503) }]);
    house.backups[0].provider.plays([Script::says(&["a", "b"], 500)]);
    let (one, two) = (house.thread().await, house.thread().await);
    let first = house.ask(&Ask::within(&one, "hi")).await.unwrap();
    sleep(millis(800)).await;

    let late = house.hear(&Ask::within(&two, "hi")).await;

    let first = first.heard().await;
    assert_eq!((first.frames, &first.fallbacks), (late.frames, &late.fallbacks));
    assert_eq!((late.fallbacks.len(), calls(&house)), (1, [1, 1, 0]));
    assert_eq!(house.messages(&OrgId::new("org"), &two).await[1].provider.as_deref(), Some("second"));
    house.forgets_everything().await;
}

/// Cancels at this time; everything is given back at once, wherever the request is.
async fn check_cancel(at_ms: u64, expected: Cancelled) {
    let mut plan = plan();
    plan.backup_pace = pacer::schedule::Limits { queue_max: 8, rps: 100.0, ..CLOSED };
    let house = House::build(plan);
    house.provider.plays([Script::status(503), Script { head_ms: 200, ..Script::status(503) }]);
    // Somebody else is at the other provider until 600 ms.
    house.backups[0].provider.plays([
        Script { head_ms: 590, ..Script::new([Step::End]) },
        Script { head_ms: 200, ..Script::says(&["b", "b"], 200) },
    ]);
    let other = house.ask(&Ask::new("other")).await.unwrap();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let listener = house.ask(&ask).await.unwrap();
    sleep(millis(at_ms)).await;

    assert_eq!(house.cancel(&ask.request).await, Cancellation::Withdrawn(expected), "at {at_ms} ms");

    let heard = listener.heard().await;
    assert_eq!(heard.status(), "cancelled", "at {at_ms} ms");
    house.all_is_settled(&[&thread], &[&ask]).await;
    assert_eq!(other.heard().await.status(), "complete");
    sleep(millis(5_000)).await;
    assert_eq!(house.backups[1].provider.called(), 0, "nothing goes on behind its back");
    house.forgets_everything().await;
}

#[test]
fn a_cancel_works_wherever_the_request_is() {
    let phases = [
        (100, Cancelled::Aborted),    // at the first provider
        (300, Cancelled::NotStarted), // in the line of the second one
        (700, Cancelled::Aborted),    // before the head of its answer
        (900, Cancelled::Aborted),    // before its first piece
        (1_100, Cancelled::Aborted),  // in its middle
    ];
    for (at_ms, expected) in phases {
        in_a_world(check_cancel(at_ms, expected));
    }
}

#[actix::test]
async fn the_end_of_the_server_interrupts_an_answer_of_another_provider() {
    let house = House::build(plan());
    house.provider.plays([Script::status(503)]);
    house.backups[0].provider.plays([Script::says(&["b", "b"], 500)]);
    let thread = house.thread().await;
    let listener = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
    sleep(millis(700)).await;

    assert_eq!(house.stop(Whose::Everybody, Status::Interrupted).await, 1);

    assert_eq!((listener.heard().await.status(), house.backups[0].provider.live()), ("interrupted", 0));
    assert_eq!(house.answers(&thread).await, [("interrupted", "b".to_owned())]);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_defect_at_another_provider_names_that_one() {
    let house = House::build(plan());
    house.provider.plays([Script::status(503)]);
    house.backups[0].provider.plays([Script::new([text("b"), Step::Panic])]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), &heard.done["error"]["provider"]), ("internal", &Value::from("second")));
    house.forgets_everything().await;
}

#[actix::test]
async fn routes_that_lead_back_or_nowhere_are_left_out() {
    let mut plan = plan();
    plan.provider.fallback = ["demo", "gone", "second", "second"].map(route).into();
    let house = House::build(plan);
    house.provider.plays([Script::status(503)]);
    house.backups[0].provider.plays([Script::status(503)]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), calls(&house)), ("upstream_overloaded", [1, 1, 0]));
    house.forgets_everything().await;
}
