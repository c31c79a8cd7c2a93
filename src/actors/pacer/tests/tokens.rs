//! A provider whose tokens are limited, as its pacer's callers see it.

use super::*;
use crate::event::Usage;

fn pacer_of(tpm: u32) -> Addr<Pacer> {
    pacer(Limits { rps: 1_000.0, burst: 100, tpm, ..LIMITS })
}

/// Asks for a call of so many tokens and says that the provider has accepted it; tells how long that took.
async fn call(pacer: &Addr<Pacer>, input: u32, output_max: u32) -> (Permit, Duration) {
    let asked = Instant::now();
    let (ask, answer, _places) = ask(asker("a"));
    let ask = Acquire { weight: Weight { input, output_max: Some(output_max) }, wait_max: 60 * MINUTE, ..ask };
    let mut permit = match pacer.send(ask).await.unwrap().unwrap() {
        Admitted::Granted(permit) => permit,
        Admitted::Queued => answer.await.unwrap().unwrap(),
    };
    permit.used();
    permit.accepted(RateHint::default());
    (permit, asked.elapsed())
}

/// The call has ended and has cost so many tokens.
fn ended(mut permit: Permit, input: u64, output: u64) {
    permit.cost(Usage { input, output, ..Usage::default() });
    permit.succeeded();
}

async fn available(pacer: &Addr<Pacer>) -> i64 {
    status(pacer).await.tpm_available.unwrap()
}

#[actix::test]
async fn calls_wait_until_the_tokens_that_they_are_expected_to_cost_are_there() {
    tokio::time::pause();
    let pacer = pacer_of(6_000);

    let (_first, at_once) = call(&pacer, 1_000, 4_000).await;
    let (_second, waited) = call(&pacer, 1_000, 2_000).await;

    assert_eq!((at_once, waited.as_secs()), (Duration::ZERO, 20));
    assert_eq!(status(&pacer).await.tpm, 6_000);
}

#[actix::test]
async fn what_the_provider_counts_takes_the_place_of_the_estimate() {
    tokio::time::pause();
    let pacer = pacer_of(6_000);
    let (cheap, _) = call(&pacer, 1_000, 4_000).await;
    assert_eq!(available(&pacer).await, 1_000);

    ended(cheap, 900, 100);
    assert_eq!(available(&pacer).await, 5_000);
    let (dear, _) = call(&pacer, 100, 100).await;
    ended(dear, 1_000, 7_000);

    assert_eq!(available(&pacer).await, -3_000);
    assert_eq!(call(&pacer, 500, 500).await.1.as_secs(), 40, "the debt is paid first");
}

#[actix::test]
async fn a_call_that_was_not_accepted_costs_nothing_and_one_that_was_cut_its_estimate() {
    tokio::time::pause();
    let pacer = pacer_of(6_000);
    let (ask, _answer, _places) = ask(asker("a"));
    let ask = Acquire { weight: Weight { input: 4_000, output_max: Some(0) }, ..ask };
    let Admitted::Granted(refused) = pacer.send(ask).await.unwrap().unwrap() else { panic!("there is room") };
    assert_eq!(available(&pacer).await, 2_000);

    refused.answered();
    assert_eq!(available(&pacer).await, 6_000);
    drop(call(&pacer, 1_000, 1_000).await);

    assert_eq!(available(&pacer).await, 4_000);
}

#[actix::test]
async fn a_call_for_more_than_a_minute_passes_when_all_tokens_are_there() {
    tokio::time::pause();
    let pacer = pacer_of(6_000);
    let (_small, _) = call(&pacer, 600, 0).await;

    let (huge, waited) = call(&pacer, 50_000, 0).await;

    assert_eq!(waited.as_secs(), 6);
    ended(huge, 1_000_000, 0);
    assert_eq!(available(&pacer).await, -6_000, "nobody owes more than a minute");
}

#[actix::test]
async fn a_limit_that_is_lifted_lets_everybody_go() {
    tokio::time::pause();
    let pacer = pacer_of(60);
    let (_first, _) = call(&pacer, 1_000, 0).await;
    let change = async {
        while status(&pacer).await.queued == 0 {
            tokio::task::yield_now().await;
        }
        pacer.send(Change { tpm: Some(0), ..Change::default() }).await.unwrap()
    };

    let ((_second, waited), after) = futures_util::join!(call(&pacer, 1_000, 0), change);

    assert_eq!((waited, after.tpm, after.tpm_available), (Duration::ZERO, 0, None));
}
