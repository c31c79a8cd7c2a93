//! Fifty identical requests are one upstream call, and everybody hears the same from the first token.

use futures_util::future::join_all;
use load::client::{Arrived, text_of};
use load::mock::expected_text;

use crate::support::gateway::{Gateway, message};
use crate::support::listener::Listener;
use crate::support::{content, done, opening};

const MODEL: &str = "gate@after=0,tokens=30";

/// Asks the same in all threads at once; the answer begins when everybody listens.
async fn answers(gateway: &Gateway, threads: &[String]) -> Vec<Vec<Arrived>> {
    let body = message("hello", MODEL);
    let mut listeners = join_all(threads.iter().map(|thread| gateway.stream(thread, &body))).await;
    gateway.mock.open_gate();
    join_all(listeners.iter_mut().map(Listener::rest)).await
}

#[actix_web::test]
async fn fifty_identical_sends_to_one_thread_are_one_call_and_one_turn() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;

    let answers = answers(&gateway, &vec![thread.clone(); 50]).await;

    assert_eq!(gateway.mock.counts().calls_started, 1);
    let first = content(&answers[0]);
    for answer in &answers {
        assert_eq!(done(answer)["status"], "complete");
        assert_eq!(text_of(answer), expected_text(MODEL, "hello"));
        assert_eq!(content(answer), first);
    }
    let leaders = answers.iter().filter(|answer| opening(answer)["role"] == "leader").count();
    assert_eq!(leaders, 1);
    let messages = gateway.read(&thread).await["messages"].as_array().unwrap().clone();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1]["content"], expected_text(MODEL, "hello"));
    let report = gateway.get("/api/metrics/performance?last_n=50").await;
    assert_eq!(report["coalesce"]["leaders"], 1);
    assert_eq!(report["coalesce"]["followers"], 49);
    assert_eq!(report["error_rate"], 0.0);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn identical_sends_to_many_threads_are_one_call_and_a_turn_in_each() {
    let gateway = Gateway::start().await;
    let threads = join_all((0..10).map(|_| gateway.thread())).await;

    let answers = answers(&gateway, &threads).await;

    assert_eq!(gateway.mock.counts().calls_started, 1);
    assert!(answers.iter().all(|answer| done(answer)["status"] == "complete"));
    for thread in &threads {
        let messages = gateway.read(thread).await["messages"].as_array().unwrap().clone();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[1]["content"], expected_text(MODEL, "hello"));
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn the_same_question_of_two_organisations_is_two_calls() {
    let gateway = Gateway::start().await;
    let ours = gateway.thread().await;
    let other = gateway.client.clone().with_header("x-org-id", "other");
    let theirs = other.post("/api/threads", &serde_json::json!({})).await.unwrap().json()["id"].clone();
    let path = format!("/api/threads/{}/messages", theirs.as_str().unwrap());

    let body = message("hello", MODEL);
    let both_run = async {
        gateway.called(|counts| counts.answers_held == 2).await;
        (0..2).for_each(|_| gateway.mock.open_gate());
    };
    let (first, second, ()) = futures_util::join!(gateway.send(&ours, &body), other.post(&path, &body), both_run);

    assert_eq!((first.status(), second.unwrap().status()), (200, 200));
    assert_eq!(gateway.mock.counts().calls_started, 2);
}
