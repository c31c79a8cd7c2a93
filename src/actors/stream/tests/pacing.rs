//! What the pacer hears of a call, and what a call tells it.

use super::support::Plan;
use super::*;
use crate::actors::pacer;

async fn status(house: &House) -> pacer::Status {
    house.pacer.send(pacer::Snapshot).await.unwrap()
}

#[actix::test]
async fn what_an_answer_says_of_the_providers_limits_slows_the_pacer() {
    let mut plan = Plan::default();
    plan.pace.rps = 10.0;
    let house = House::build(plan);
    let headers = [("x-ratelimit-remaining-requests", "60"), ("x-ratelimit-reset-requests", "1m0s")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    house.provider.plays([Script { headers, ..Script::says(&["a"], 1) }]);

    house.hear(&Ask::new("hi")).await;

    assert_eq!(status(&house).await.effective_rps, 1.0);
    sleep(millis(60_000)).await;
    assert_eq!(status(&house).await.effective_rps, 10.0);
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_costs_what_the_provider_counts_and_a_refusal_nothing() {
    let mut plan = Plan::default();
    plan.pace.tpm = 60_000;
    plan.provider.retries_max = 0;
    let house = House::build(plan);
    let counted = Script::new([Step::Text("a".into()), Step::Line(r#"{"usage":30000}"#), Step::End]);
    house.provider.plays([Script::status(400), counted]);

    house.hear(&Ask::new("refused")).await;
    assert_eq!(status(&house).await.tpm_available, Some(60_000));
    house.hear(&Ask::new("hi")).await;

    let available = status(&house).await.tpm_available.unwrap();
    assert!((30_000..30_100).contains(&available), "{available}");
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_that_is_cut_costs_what_was_expected() {
    let mut plan = Plan::default();
    plan.pace.tpm = 60_000;
    plan.provider.retries_max = 0;
    let house = House::build(plan);
    house.provider.plays([Script::new([Step::Text("a".into()), Step::Line(r#"{"usage":1}"#), Step::Lose])]);

    house.hear(&Ask::new("hi")).await;

    let available = status(&house).await.tpm_available.unwrap();
    assert!((59_500..59_600).contains(&available), "an answer of the usual length: {available}");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_call_is_not_made_again_when_its_turn_comes_after_the_answer_s_time() {
    let mut plan = Plan::default();
    plan.pace.rps = 0.1;
    plan.pace.burst = 1;
    plan.provider.total_timeout_ms = 5_000;
    let house = House::build(plan);
    house.provider.plays([Script { head_ms: 1_000, ..Script::status(503) }]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), heard.code()), ("error", "upstream_overloaded"));
    assert!((4_990..5_050).contains(&heard.done["latency_ms"].as_u64().unwrap()), "{heard:?}");
    assert_eq!(house.provider.called(), 1);
    house.forgets_everything().await;
}
