//! One turn after the other: a message that may be sent is never told to come again.

use futures_util::future::join_all;
use load::client::{Request, text_of};
use load::mock::expected_text;
use serde_json::json;

use crate::support::gateway::{Gateway, message};
use crate::support::listener::Listener;
use crate::support::{content, done};

/// Rounds of a race; each lost one shows.
const ROUNDS: usize = 40;

#[actix_web::test]
async fn a_message_sent_right_after_a_stop_or_a_cancel_is_answered() {
    let gateway = Gateway::start().await;
    for round in 0..ROUNDS {
        let thread = gateway.thread().await;
        let mut stopped = gateway.stream(&thread, &message("hello", "silent")).await;
        let request = stopped.head().header("x-request-id").unwrap().to_owned();

        if round % 2 == 0 {
            gateway.client.post(&format!("/api/threads/{thread}/stop"), &json!({})).await.unwrap();
        } else {
            gateway.cancel(&request).await;
        }
        // The same words again are a new question, too: nobody wants the answer that was given up.
        let again = if round % 4 < 2 { "hello" } else { "another" };
        let mut next = gateway.stream(&thread, &message(again, "text@tokens=3,gap_ms=0")).await;

        assert_eq!(done(&next.rest().await)["status"], "complete", "round {round}");
        assert_eq!(done(&stopped.rest().await)["status"], "cancelled");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn the_same_words_right_after_a_cancel_are_asked_anew() {
    let gateway = Gateway::start().await;
    for round in 0..ROUNDS {
        let thread = gateway.thread().await;
        let body = message("hello", "gate@after=1,tokens=3");
        let mut given_up = gateway.stream(&thread, &body).await;
        given_up.next_named("delta").await;
        let request = given_up.head().header("x-request-id").unwrap().to_owned();

        gateway.cancel(&request).await;
        let mut next = gateway.stream(&thread, &body).await;
        gateway.called(|counts| counts.answers_held == 1 && counts.calls_started == 2 * (round as u64 + 1)).await;
        gateway.mock.open_gate();

        assert_eq!(done(&next.rest().await)["status"], "complete", "round {round}");
        assert_eq!(done(&given_up.rest().await)["status"], "cancelled");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn identical_messages_at_once_never_get_in_each_other_s_way_however_short_the_answer_is() {
    let gateway = Gateway::start().await;
    for round in 0..ROUNDS {
        let thread = gateway.thread().await;
        let body = message(&format!("hello {round}"), "text@tokens=1,gap_ms=0");

        let mut listeners = join_all((0..8).map(|_| gateway.stream(&thread, &body))).await;

        let answers = join_all(listeners.iter_mut().map(Listener::rest)).await;
        for answer in &answers {
            assert_eq!(done(answer)["status"], "complete", "round {round}");
            assert!(!content(answer).is_empty());
        }
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn identical_messages_at_once_all_hear_of_the_same_failure() {
    let gateway = Gateway::start().await;
    for round in 0..ROUNDS {
        let thread = gateway.thread().await;
        let body = message(&format!("hello {round}"), "auth");
        let before = gateway.mock.counts().calls_started;

        let answers = join_all((0..8).map(|_| gateway.send(&thread, &body))).await;

        for answer in answers {
            assert_eq!(answer.json()["error"]["code"], "upstream_auth", "round {round}");
        }
        assert_eq!(gateway.mock.counts().calls_started - before, 1);
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_message_sent_again_after_its_failure_is_the_same_request() {
    let gateway = Gateway::start().await;
    for model in ["auth", "drop@after=2,gap_ms=0"] {
        let thread = gateway.thread().await;
        let body = message(&format!("hello {model}"), model);
        let first = gateway.send(&thread, &body).await;
        let calls = gateway.mock.counts().calls_started;

        let again = gateway.send(&thread, &body).await;

        assert_eq!(again.json()["error"]["code"], first.json()["error"]["code"], "{model}");
        assert_eq!(gateway.mock.counts().calls_started, calls, "{model}: the failure is remembered for a while");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn what_failed_is_not_said_twice_when_it_is_sent_again() {
    let gateway = Gateway::with_tables("[coalesce]\nerror_ttl_ms = 0").await;
    let thread = gateway.thread().await;
    gateway.send(&thread, &message("hello", "text@tokens=1,gap_ms=0")).await;
    for _ in 0..2 {
        gateway.send(&thread, &message("again", "auth")).await;
    }

    gateway.send(&thread, &message("again", "text@tokens=1,gap_ms=0")).await;

    let call = gateway.mock.provider().last_call().unwrap().json();
    let said: Vec<_> = call["messages"].as_array().unwrap().iter().collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!((&said[0]["content"], &said[2]["content"]), (&json!("hello"), &json!("again")));
    gateway.at_rest().await;
}

#[actix_web::test]
async fn where_nothing_is_shared_the_same_message_runs_beside_itself() {
    for tables in ["[coalesce]\nenabled = false", "[stream]\nfanout_enabled = false"] {
        let gateway = Gateway::with_tables(tables).await;
        let thread = gateway.thread().await;
        let body = message("hello", "gate@after=0,tokens=3");

        let mut listeners = join_all((0..8).map(|_| gateway.stream(&thread, &body))).await;
        gateway.called(|counts| counts.answers_held == 8).await;
        (0..8).for_each(|_| gateway.mock.open_gate());
        let answers = join_all(listeners.iter_mut().map(Listener::rest)).await;

        assert!(answers.iter().all(|answer| done(answer)["status"] == "complete"));
        let messages = gateway.read(&thread).await["messages"].as_array().unwrap().clone();
        assert_eq!(messages.len(), 16);
        for (sequence, message) in messages.iter().enumerate() {
            assert_eq!(message["sequence"], sequence);
            assert_eq!(message["status"], "complete");
        }
        gateway.at_rest().await;
    }
}

#[actix_web::test]
async fn a_stop_ends_all_answers_of_a_thread() {
    let gateway = Gateway::with_tables("[coalesce]\nenabled = false").await;
    let thread = gateway.thread().await;
    let body = message("hello", "silent");
    let mut listeners = join_all((0..3).map(|_| gateway.stream(&thread, &body))).await;

    gateway.client.post(&format!("/api/threads/{thread}/stop"), &json!({})).await.unwrap();

    for answer in join_all(listeners.iter_mut().map(Listener::rest)).await {
        assert_eq!(done(&answer)["status"], "cancelled");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn messages_that_failed_and_were_sent_again_take_no_room_in_the_history() {
    let gateway = Gateway::with_keys("history_messages_max = 4\n[coalesce]\nerror_ttl_ms = 0").await;
    let thread = gateway.thread().await;
    gateway.send(&thread, &message("my name is Ann", "text@tokens=1,gap_ms=0")).await;
    for _ in 0..5 {
        gateway.send(&thread, &message("hello?", "auth")).await;
    }
    gateway.send(&thread, &message("hello?", "text@tokens=1,gap_ms=0")).await;

    gateway.send(&thread, &message("what is my name?", "text@tokens=1,gap_ms=0")).await;

    let call = gateway.mock.provider().last_call().unwrap().json();
    let said = call["messages"].as_array().unwrap().iter().filter(|message| message["role"] == "user");
    let said: Vec<_> = said.map(|message| message["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["my name is Ann", "hello?", "what is my name?"]);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn an_answer_is_not_made_anew_while_the_first_turn_runs() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let running = gateway.stream(&thread, &message("hello", "silent")).await;
    let request = running.head().header("x-request-id").unwrap();

    let refused = gateway.client.post(&format!("/api/threads/{thread}/regenerate"), &json!({})).await.unwrap();

    assert_eq!((refused.status(), refused.error_code().as_deref()), (409, Some("turn_in_progress")));
    assert_eq!(refused.json()["error"]["request_id"], request);
    gateway.cancel(request).await;
    gateway.at_rest().await;
}

#[actix_web::test]
async fn the_last_message_can_be_replaced_and_is_out_of_the_prompt_then() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    for text in ["first", "wrnog"] {
        gateway.send(&thread, &message(text, "text@tokens=1")).await;
    }
    let path = format!("/api/threads/{thread}/regenerate");
    let edit = json!({ "content": "right", "model": "text@tokens=2" });

    let events = gateway.open(Request::post(&path, &edit)).await.rest().await;

    assert_eq!(done(&events)["status"], "complete");
    assert_eq!(text_of(&events), expected_text("text@tokens=2", "right"));
    let said = |call: serde_json::Value| -> Vec<String> {
        let messages = call["messages"].as_array().unwrap().iter();
        messages.filter(|said| said["role"] == "user").map(|said| said["content"].to_string()).collect()
    };
    assert_eq!(said(gateway.mock.last_call().unwrap().json()), ["\"first\"", "\"right\""]);
    let messages = gateway.read(&thread).await["messages"].clone();
    assert_eq!(messages.as_array().unwrap().len(), 6, "what was replaced stays");
    assert_eq!((&messages[4]["content"], &messages[4]["meta"]["replaces"]), (&json!("right"), &messages[2]["id"]));

    gateway.open(Request::post(&path, &json!({}))).await.rest().await;
    assert_eq!(said(gateway.mock.last_call().unwrap().json()), ["\"first\"", "\"right\""], "answered anew");
    gateway.send(&thread, &message("and then?", "text@tokens=1")).await;
    assert_eq!(
        said(gateway.mock.last_call().unwrap().json()),
        ["\"first\"", "\"right\"", "\"and then?\""],
        "later prompts go on from it"
    );
}

#[actix_web::test]
async fn nothing_is_replaced_while_an_answer_runs_or_where_nothing_was_said() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let edit = async |body: serde_json::Value| {
        let path = format!("/api/threads/{thread}/regenerate");
        let answer = gateway.client.post(&path, &body).await.unwrap();
        (answer.status(), answer.json()["error"]["param"].clone())
    };
    assert_eq!(edit(json!({ "content": "hello" })).await.0, 422);

    gateway.send(&thread, &message("first", "text@tokens=1")).await;
    let mut running = gateway.stream(&thread, &message("hello", "silent")).await;
    running.next_named("meta").await;
    for text in ["hello", "another"] {
        assert_eq!(edit(json!({ "content": text, "model": "silent" })).await.0, 409, "{text}");
    }
    for wrong in [json!(""), json!(1), json!([{ "type": "sound" }])] {
        assert_eq!(edit(json!({ "content": wrong })).await.0, 400, "{wrong}");
    }
    assert_eq!(gateway.read(&thread).await["messages"].as_array().unwrap().len(), 4);
}
