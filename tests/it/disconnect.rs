//! A client that leaves is noticed at once, and what happens then is what is configured.

use load::client::Request;
use serde_json::Value;

use crate::support::gateway::{Gateway, message};

const CANCEL_AT_ONCE: &str = "[stream]\non_disconnect = \"cancel\"\ndisconnect_grace_ms = 0";

/// The last listener leaves in a phase; the provider must see it.
async fn last_listener_leaves(model: &str, after: &str) {
    let gateway = Gateway::with_tables(CANCEL_AT_ONCE).await;
    let thread = gateway.thread().await;
    let mut events = gateway.stream(&thread, &message("hello", model)).await;
    events.next_named(after).await;
    gateway.called(|counts| counts.calls_started == 1).await;

    drop(events);

    gateway.called(|counts| counts.calls_aborted == 1 && counts.connections_live == 0).await;
    gateway.at_rest().await;
    let is_settled = |thread: &Value| thread["messages"][1]["status"] != "streaming";
    let kept = gateway.until(&format!("/api/threads/{thread}"), is_settled).await;
    assert_eq!(kept["messages"][1]["status"], "cancelled");
}

#[actix_web::test]
async fn a_closed_client_is_noticed_although_the_stream_is_silent_before_the_head() {
    last_listener_leaves("slow_head@hold_ms=60000", "meta").await;
}

#[actix_web::test]
async fn a_closed_client_is_noticed_although_the_stream_is_silent_before_the_first_byte() {
    last_listener_leaves("silent", "meta").await;
}

#[actix_web::test]
async fn a_closed_client_is_noticed_although_the_stream_has_fallen_silent() {
    last_listener_leaves("stall@after=2", "delta").await;
}

#[actix_web::test]
async fn a_closed_client_is_noticed_in_the_middle_of_a_fast_answer() {
    last_listener_leaves("text@tokens=100000,gap_ms=1", "delta").await;
}

#[actix_web::test]
async fn the_answer_goes_on_as_long_as_somebody_listens() {
    let gateway = Gateway::with_tables(CANCEL_AT_ONCE).await;
    let thread = gateway.thread().await;
    let body = message("hello", "gate@after=0");
    let mut leader = gateway.stream(&thread, &body).await;
    leader.next_named("meta").await;
    let mut follower = gateway.stream(&thread, &body).await;
    follower.next_named("meta").await;

    drop(leader);
    gateway.until_listeners(1).await;
    gateway.mock.open_gate();

    assert_eq!(crate::support::done(&follower.rest().await)["status"], "complete");
    assert_eq!(gateway.mock.counts().calls_aborted, 0);
}

#[actix_web::test]
async fn who_comes_back_within_the_grace_finds_the_answer() {
    let tables = "[stream]\non_disconnect = \"cancel\"\ndisconnect_grace_ms = 60000";
    let gateway = Gateway::with_tables(tables).await;
    let thread = gateway.thread().await;
    let mut events = gateway.stream(&thread, &message("hello", "gate@after=0")).await;
    events.next_named("meta").await;
    drop(events);
    gateway.until_listeners(0).await;

    let mut again = gateway.open(Request::get(format!("/api/threads/{thread}/stream"))).await;
    gateway.mock.open_gate();

    assert_eq!(crate::support::done(&again.rest().await)["status"], "complete");
}

#[actix_web::test]
async fn a_client_that_waits_for_the_whole_answer_is_noticed_too() {
    let gateway = Gateway::with_tables(CANCEL_AT_ONCE).await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/messages");
    let mut connection = gateway.client.connect().await.unwrap();
    let request = gateway.client.complete(Request::post(path, &message("hello", "silent")));
    let waiting = async {
        let _ = connection.send(&request).await;
    };
    tokio::select! {
        () = waiting => panic!("nothing is answered"),
        _ = gateway.called(|counts| counts.calls_started == 1) => {}
    }

    drop(connection);

    gateway.called(|counts| counts.calls_aborted == 1).await;
    gateway.at_rest().await;
}
