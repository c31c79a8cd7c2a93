//! A provider that tells what is left of its limits, as its pacer's callers see it.

use super::*;
use crate::providers::Allowance;

fn left(remaining: u64, reset: Duration) -> RateHint {
    RateHint { requests: Allowance { remaining: Some(remaining), reset: Some(reset) }, ..RateHint::default() }
}

#[actix::test]
async fn what_is_left_is_spread_until_the_limit_is_restored() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 10.0, burst: 5, ..LIMITS });
    let began = Instant::now();
    acquire(&pacer).await.accepted(left(10, Duration::from_secs(5)));
    assert_eq!(status(&pacer).await.effective_rps, 2.0);

    let mut calls = [0; 8];
    while began.elapsed() < Duration::from_secs(8) {
        acquire(&pacer).await.answered();
        let second = usize::try_from(began.elapsed().as_secs()).unwrap();
        calls.get_mut(second).into_iter().for_each(|calls| *calls += 1);
    }

    assert!(calls[..5].iter().sum::<u32>() <= 11, "{calls:?}");
    assert!(calls[1..5].iter().all(|calls| *calls == 2), "evenly: {calls:?}");
    assert!(calls[6..].iter().all(|calls| (9..=11).contains(calls)), "and then as before: {calls:?}");
    assert_eq!(status(&pacer).await.effective_rps, 10.0);
}

#[actix::test]
async fn a_limit_that_is_restored_soon_wakes_who_waits() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 16.0, ..LIMITS });
    acquire(&pacer).await.accepted(left(0, Duration::from_millis(300)));
    let asked = Instant::now();

    let _next = acquire(&pacer).await;

    let waited = asked.elapsed().as_millis();
    assert!((300..=362).contains(&waited), "{waited} ms, not the second that the floor takes");
}
