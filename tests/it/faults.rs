//! What weir makes of failures beyond telling them: second tries, and answers for those who ask the same.

use crate::support::gateway::{Gateway, message};

/// No second tries, and no breaker. What the mock refuses for the rate waits for a second.
const ONCE: &str = "rps = 10000.0\nconcurrency = 1000\nburst = 1000\nretries_max = 0\n\
                    queue_wait_max_ms = 1500\nbreaker_failures = 0";

#[actix_web::test]
async fn a_call_that_fails_before_any_content_is_tried_again() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let answer = gateway.send(&thread, &message("hello", "flaky@k=2")).await;

    assert_eq!(answer.status(), 200, "{}", answer.json());
    assert_eq!(gateway.mock.counts().calls_started, 3);
}

#[actix_web::test]
async fn a_failure_answers_identical_requests_for_a_while() {
    let gateway = Gateway::with(ONCE, "[coalesce]\nerror_ttl_ms = 60000").await;
    let (first, second) = (gateway.thread().await, gateway.thread().await);
    let body = message("hello", "server_error");

    let failed = gateway.send(&first, &body).await;
    let again = gateway.send(&second, &body).await;

    assert_eq!((failed.status(), again.status()), (502, 502));
    assert_eq!(again.error_code().as_deref(), Some("upstream_error"));
    assert_eq!(gateway.mock.counts().calls_started, 1);
}

#[actix_web::test]
async fn usage_and_reasoning_are_kept() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let answer = gateway.send(&thread, &message("hello", "reasoning")).await.json();

    let answer = &answer["assistant_message"];
    assert_eq!(answer["reasoning"], load::mock::expected_reasoning("reasoning", "hello"));
    assert!(answer["usage"]["output"].as_u64().unwrap() > 0);
    assert_eq!(answer["usage"]["estimated"], false);
}
