//! A provider that fails again and again, as its pacer's callers see it.

use super::*;

/// Two calls that the provider fails.
async fn break_it(pacer: &Addr<Pacer>) {
    acquire(pacer).await.failed();
    acquire(pacer).await.failed();
    assert_eq!(status(pacer).await.breaker, BreakerState::Open);
}

fn fast() -> Addr<Pacer> {
    pacer(Limits { rps: 1_000.0, burst: 100, ..LIMITS })
}

async fn refused(pacer: &Addr<Pacer>) -> Refused {
    acquire_for(pacer, "a", MINUTE).await.unwrap_err()
}

#[actix::test]
async fn an_open_breaker_refuses_newcomers_and_dismisses_those_who_wait() {
    tokio::time::pause();
    let pacer = pacer(Limits { rps: 0.1, burst: 2, ..LIMITS });
    let (first, second) = (acquire(&pacer).await, acquire(&pacer).await);
    let waiting = acquire_for(&pacer, "a", MINUTE);
    let fail = async {
        while status(&pacer).await.queued == 0 {
            tokio::task::yield_now().await;
        }
        first.failed();
        second.failed();
    };

    let (waiting, ()) = futures_util::join!(waiting, fail);

    assert!(matches!(waiting, Err(Refused::Broken(5 | 6))), "{waiting:?}");
    assert!(matches!(refused(&pacer).await, Refused::Broken(4..=6)));
    assert_eq!(status(&pacer).await.queued, 0);
}

#[actix::test]
async fn one_caller_finds_out_whether_the_provider_is_back_while_the_others_are_refused() {
    tokio::time::pause();
    let pacer = fast();
    break_it(&pacer).await;
    tokio::time::sleep(Duration::from_millis(6_300)).await;
    assert_eq!(status(&pacer).await.breaker, BreakerState::HalfOpen);

    let mut probe = acquire(&pacer).await;
    assert_eq!(refused(&pacer).await, Refused::Broken(1));
    probe.heard();

    assert_eq!(status(&pacer).await.breaker, BreakerState::Closed, "the first content closes it");
    assert!(acquire_for(&pacer, "a", MINUTE).await.is_ok());
}

#[actix::test]
async fn a_probe_that_fails_opens_it_for_longer() {
    tokio::time::pause();
    let pacer = fast();
    break_it(&pacer).await;
    tokio::time::sleep(Duration::from_millis(6_300)).await;

    acquire(&pacer).await.failed();

    assert!(matches!(refused(&pacer).await, Refused::Broken(9..=12)));
}

#[actix::test]
async fn a_probe_whose_caller_leaves_makes_room_for_the_next() {
    tokio::time::pause();
    let pacer = fast();
    break_it(&pacer).await;
    tokio::time::sleep(Duration::from_millis(6_300)).await;

    drop(acquire(&pacer).await);

    acquire(&pacer).await.succeeded();
    assert_eq!(status(&pacer).await.breaker, BreakerState::Closed);
}

#[actix::test]
async fn refusals_and_calls_that_were_left_do_not_open_it() {
    tokio::time::pause();
    let pacer = fast();
    for _ in 0..5 {
        acquire(&pacer).await.answered();
        drop(acquire(&pacer).await);
        acquire(&pacer).await.throttled(Some(Duration::from_millis(1)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    assert_eq!(status(&pacer).await.breaker, BreakerState::Closed);
}
