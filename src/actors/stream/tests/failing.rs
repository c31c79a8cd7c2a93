//! Everything that a provider, the store or a defect can do to an answer.

use super::support::{Plan, in_a_world};
use super::*;
use crate::actors::pacer;
use crate::providers::upstream::TransportError;

fn plan(change: impl FnOnce(&mut crate::config::Provider)) -> Plan {
    let mut plan = Plan::default();
    change(&mut plan.provider);
    plan
}

/// Plays one answer without retries; says how it ended, in which phase, and what is kept.
async fn check(plan: Plan, script: Script, code: &str, phase: &str, kept: &str) -> Heard {
    let house = House::build(Plan { provider: crate::config::Provider { retries_max: 0, ..plan.provider }, ..plan });
    house.provider.plays([script]);
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");

    let heard = house.hear(&ask).await;

    assert_eq!((heard.status(), heard.code(), heard.text.as_str()), ("error", code, kept));
    assert_eq!(heard.done["error"]["phase"], phase);
    assert_eq!(heard.done["error"]["provider"], "demo");
    assert_eq!(heard.done["finish_reason"], "error");
    assert_eq!(house.answers(&thread).await, [("error", kept.to_owned())]);
    assert_eq!(house.stored(&ask.request).await.unwrap().status, Status::Error);
    assert_eq!(house.report()["errors"]["by_code"][code], 1);
    house.forgets_everything().await;
    heard
}

fn text(text: &str) -> Step {
    Step::Text(text.to_owned())
}

#[actix::test]
async fn an_answer_that_stops_before_its_terminator_is_truncated() {
    check(Plan::default(), Script::new([text("a")]), "upstream_truncated", "mid_stream", "a").await;
}

#[actix::test]
async fn an_empty_answer_is_a_breach_of_protocol() {
    check(Plan::default(), Script::new([]), "upstream_protocol", "pre_token", "").await;
}

#[actix::test]
async fn a_connection_lost_in_the_middle_is_truncated() {
    check(Plan::default(), Script::new([text("a"), Step::Lose]), "upstream_truncated", "mid_stream", "a").await;
}

#[actix::test]
async fn a_provider_that_falls_silent_is_stalled() {
    let script = Script::new([text("a"), Step::Wait(31_000), Step::End]);

    let heard = check(Plan::default(), script, "upstream_stalled", "mid_stream", "a").await;

    assert!((30_000..30_050).contains(&heard.done["latency_ms"].as_u64().unwrap()));
}

#[actix::test]
async fn a_provider_that_does_not_begin_is_timed_out() {
    let plan = plan(|provider| provider.headers_timeout_ms = 5_000);

    let script = Script { head_ms: 6_000, ..Script::new([]) };

    check(plan, script, "upstream_timeout", "headers", "").await;
}

#[actix::test]
async fn signs_of_life_are_no_first_token() {
    let plan = plan(|provider| provider.ttft_timeout_ms = 5_000);
    let signs = (0..20).flat_map(|_| [Step::Wait(1_000), Step::Line(r#"{"alive":true}"#)]);

    let heard = check(plan, Script::new(signs), "upstream_timeout", "pre_token", "").await;

    assert!((5_000..5_050).contains(&heard.done["latency_ms"].as_u64().unwrap()));
}

#[actix::test]
async fn a_provider_that_searches_has_more_time_for_its_first_token() {
    let search = [Step::Wait(1_000), Step::Line(r#"{"search":"weirs"}"#)];
    let signs = (0..5).flat_map(|_| [Step::Wait(2_000), Step::Line(r#"{"alive":true}"#)]);
    let house = House::build(plan(|provider| provider.ttft_timeout_ms = 5_000));
    house.provider.plays([Script::new(search.into_iter().chain(signs).chain([text("a"), Step::End]))]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), heard.text.as_str()), ("complete", "a"));
    assert!(house.report()["ttft_ms"]["max"].as_f64().unwrap() > 10_900.0, "a search is no first token");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_provider_that_searches_and_falls_silent_is_stalled() {
    let plan = plan(|provider| {
        provider.ttft_timeout_ms = 5_000;
        provider.idle_timeout_ms = 8_000;
    });
    let script = Script::new([Step::Line(r#"{"search":"weirs"}"#), Step::Wait(20_000)]);

    check(plan, script, "upstream_stalled", "pre_token", "").await;
}

#[actix::test]
async fn an_answer_that_takes_too_long_is_cut() {
    let plan = plan(|provider| provider.total_timeout_ms = 5_000);
    let pieces = (0..20).flat_map(|_| [Step::Wait(2_000), text("a")]);

    check(plan, Script::new(pieces), "upstream_timeout", "mid_stream", "aa").await;
}

#[actix::test]
async fn a_call_that_is_made_again_has_no_more_time_than_the_first() {
    let house = House::build(plan(|provider| {
        provider.headers_timeout_ms = 3_000;
        provider.total_timeout_ms = 5_000;
        provider.retries_max = 9;
    }));
    house.provider.plays((0..10).map(|_| Script { head_ms: 6_000, ..Script::new([]) }));

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), heard.code()), ("error", "upstream_timeout"));
    assert!((5_000..5_050).contains(&heard.done["latency_ms"].as_u64().unwrap()), "{heard:?}");
    assert_eq!(house.provider.called(), 2);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_pause_that_a_provider_asks_for_is_not_waited_for_when_there_is_no_time_left_after_it() {
    let house = House::build(plan(|provider| provider.total_timeout_ms = 5_000));
    house.provider.plays([Script::status(429).retry_after_ms(6_000)]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), heard.code()), ("error", "upstream_rate_limit"));
    assert!(heard.done["latency_ms"].as_u64().unwrap() < 50, "{heard:?}");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_refusal_that_never_ends_is_read_for_as_long_as_a_provider_may_be_silent() {
    let drips = (0..100).flat_map(|_| [Step::Wait(20_000), Step::Line("refused")]);
    let refusal = Script { head: Ok(500), ..Script::new(drips) };

    let heard = check(Plan::default(), refusal, "upstream_error", "headers", "").await;

    assert!((30_000..30_050).contains(&heard.done["latency_ms"].as_u64().unwrap()), "{heard:?}");
}

#[actix::test]
async fn a_provider_that_never_pauses_cannot_outrun_the_clock() {
    let plan = plan(|provider| provider.total_timeout_ms = 5_000);

    check(plan, Script::new([text("a"), Step::Flood(r#"{"alive":true}"#)]), "upstream_timeout", "mid_stream", "a")
        .await;
}

#[actix::test]
async fn an_answer_that_is_too_large_is_cut() {
    let plan = Plan { answer_bytes_max: 3, ..Plan::default() };

    check(plan, Script::says(&["ab", "cd", "ef"], 1), "response_too_large", "mid_stream", "abcd").await;
}

#[actix::test]
async fn sources_have_the_same_bound_as_the_text() {
    let plan = Plan { answer_bytes_max: 100, ..Plan::default() };
    let script = Script::new([Step::Flood(r#"{"cite":"https://example.org"}"#)]);

    check(plan, script, "response_too_large", "pre_token", "").await;
}

#[actix::test]
async fn signatures_have_the_same_bound_as_the_text() {
    let plan = Plan { answer_bytes_max: 100, ..Plan::default() };
    let script = Script::new([text("a"), Step::Flood(r#"{"opaque":"0123456789"}"#)]);

    check(plan, script, "response_too_large", "mid_stream", "a").await;
}

#[actix::test]
async fn a_frame_that_is_none_is_a_breach_of_protocol() {
    let script = Script::new([text("a"), Step::Line("<html>")]);

    check(Plan::default(), script, "upstream_protocol", "mid_stream", "a").await;
}

#[actix::test]
async fn a_defect_of_the_transport_fails_this_answer_alone() {
    check(Plan::default(), Script::new([text("a"), Step::Panic]), "internal", "mid_stream", "a").await;
}

#[actix::test]
async fn a_defect_of_the_decoder_fails_this_answer_alone() {
    let script = Script::new([text("a"), Step::Line(r#"{"panic":true}"#)]);

    check(Plan::default(), script, "internal", "mid_stream", "a").await;
}

#[actix::test]
async fn a_refusal_is_told_in_the_stream() {
    check(Plan::default(), Script::status(400), "upstream_rejected", "headers", "").await;
}

#[actix::test]
async fn a_failure_before_the_first_token_is_tried_again_with_growing_pauses() {
    let house = House::paused();
    house.provider.plays([Script::status(503), Script::status(503)]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), heard.text.as_str()), ("complete", "Hello world"));
    let calls = house.provider.calls.borrow().clone();
    let pauses: Vec<_> = calls.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert_eq!(pauses.len(), 2);
    assert!((250..340).contains(&pauses[0]) && (500..660).contains(&pauses[1]), "{pauses:?}");
    house.forgets_everything().await;
}

#[actix::test]
async fn tries_are_bounded() {
    let house = House::paused();
    house.provider.plays((0..5).map(|_| Script::status(503)));

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), house.provider.called()), ("upstream_overloaded", 3));
    house.forgets_everything().await;
}

#[actix::test]
async fn a_provider_that_says_when_to_come_back_is_obeyed() {
    let house = House::paused();
    house.provider.plays([Script::status(429).retry_after_ms(4_000)]);

    house.hear(&Ask::new("hi")).await;

    let calls = house.provider.calls.borrow().clone();
    assert!((4_000..5_100).contains(&(calls[1] - calls[0]).as_millis()));
    house.forgets_everything().await;
}

#[actix::test]
async fn a_refusal_for_the_rate_is_no_failed_try() {
    let house = House::build(plan(|provider| provider.retries_max = 0));
    house.provider.plays((0..4).map(|_| Script::status(429).retry_after_ms(1_000)));

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.status(), heard.text.as_str(), house.provider.called()), ("complete", "Hello world", 5));
    house.forgets_everything().await;
}

#[actix::test]
async fn whoever_waits_while_the_provider_wants_a_pause_does_not_run_into_it() {
    let house = House::paused();
    house.provider.plays([Script::status(429).retry_after_ms(4_000)]);
    let first = house.ask(&Ask::new("a")).await.unwrap();
    sleep(millis(100)).await;

    let second = house.hear(&Ask::new("b")).await;

    assert_eq!((first.heard().await.status(), second.status()), ("complete", "complete"));
    assert_eq!(house.provider.called(), 3);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_refusal_for_the_rate_is_told_when_patience_ends() {
    let house = House::build(plan(|provider| provider.queue_wait_max_ms = 3_500));
    house.provider.plays((0..9).map(|_| Script::status(429).retry_after_ms(1_000)));

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), house.provider.called()), ("upstream_rate_limit", 4));
    assert_eq!(heard.done["error"]["retry_after_ms"], 1_000);
    house.forgets_everything().await;
}

#[actix::test]
async fn however_often_a_call_is_repeated_it_waits_no_longer_in_all_than_it_may() {
    let mut plan = plan(|provider| {
        provider.queue_wait_max_ms = 5_000;
        provider.retries_max = 9;
        provider.breaker_failures = 0;
    });
    plan.pace.rps = 0.25;
    plan.pace.burst = 1;
    let house = House::build(plan);
    house.provider.plays((0..9).map(|_| Script::status(503)));

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), house.provider.called()), ("upstream_overloaded", 2));
    assert!((5_000..7_000).contains(&heard.done["latency_ms"].as_u64().unwrap()), "{}", heard.done);
    assert!(heard.done["error"]["retry_after_ms"].as_u64().unwrap() > 0, "the queue knows when");
    house.forgets_everything().await;
}

#[actix::test]
async fn refusals_that_name_no_pause_end_with_patience_too() {
    let house = House::build(plan(|provider| {
        provider.queue_wait_max_ms = 5_000;
        provider.retries_max = 9;
    }));
    let wait = |status| Script { head_ms: 100, ..Script::status(status) };
    house.provider.plays((0..99).map(|at| wait(if at == 1 { 503 } else { 429 })));

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!(heard.code(), "upstream_rate_limit");
    assert!((3_000..=5_200).contains(&heard.done["latency_ms"].as_u64().unwrap()), "{}", heard.done);
    assert!(heard.done["error"]["retry_after_ms"].as_u64().unwrap() > 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_provider_that_wants_to_be_left_alone_for_long_is() {
    let house = House::paused();
    house.provider.plays([Script::status(429).retry_after_ms(3_600_000)]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!((heard.code(), house.provider.called()), ("upstream_rate_limit", 1));
    assert_eq!(heard.done["error"]["retry_after_ms"], 3_600_000);
    house.forgets_everything().await;
}

#[actix::test]
async fn nothing_is_tried_again_once_content_has_been_heard() {
    let house = House::paused();
    house.provider.plays([Script::new([text("a"), Step::Lose])]);

    assert_eq!(house.hear(&Ask::new("hi")).await.code(), "upstream_truncated");
    assert_eq!(house.provider.called(), 1);
    house.forgets_everything().await;
}

#[actix::test]
async fn what_is_no_content_forbids_no_retry_and_is_heard_once() {
    let house = House::paused();
    let preface = Step::Line(r#"{"cite":"https://example.org"}"#);
    house.provider.plays([
        Script::new([preface.clone(), Step::Line(r#"{"opaque":"old"}"#), Step::Lose]),
        Script::new([preface, Step::Line(r#"{"opaque":"new"}"#), text("a"), Step::End]),
    ]);
    let listener = house.ask(&Ask::new("hi")).await.unwrap();
    let log = listener.attachment.as_ref().unwrap().subscription().log.clone();

    let heard = listener.heard().await;

    assert_eq!((heard.status(), heard.text.as_str(), house.provider.called()), ("complete", "a", 2));
    let frames = String::from_utf8(heard.frames).unwrap();
    assert_eq!((frames.matches("event: citation").count(), frames.matches("event: delta").count()), (1, 1));
    assert!(frames.find("citation") < frames.find("delta"), "in the order of the answer");
    let transcript = log.transcript();
    assert_eq!((transcript.citations.len(), transcript.opaque), (1, vec![Value::from("new")]));
    house.forgets_everything().await;
}

#[actix::test]
async fn what_came_before_a_final_failure_is_not_lost() {
    let house = House::build(plan(|provider| provider.retries_max = 0));
    house.provider.plays([Script::new([Step::Line(r#"{"cite":"https://example.org"}"#), Step::Lose])]);

    let heard = house.hear(&Ask::new("hi")).await;

    assert_eq!(heard.code(), "upstream_truncated");
    assert!(String::from_utf8(heard.frames).unwrap().contains("https://example.org"));
    house.forgets_everything().await;
}

#[test]
fn a_request_with_tools_that_may_have_been_heard_is_not_repeated() {
    for (error, calls) in [(TransportError::Lost, 1), (TransportError::Connect, 2), (TransportError::Dns, 2)] {
        in_a_world(async {
            let house = House::paused();
            house.provider.plays([Script { head: Err(error.clone()), ..Script::new([]) }]);
            house.hear(&Ask { has_tools: true, shares: false, ..Ask::new("hi") }).await;
            assert_eq!(house.provider.called(), calls, "{error:?}");
        });
    }
}

#[actix::test]
async fn a_failure_answers_identical_requests_for_a_while() {
    let house = House::paused();
    house.provider.plays([Script::status(400)]);
    assert_eq!(house.hear(&Ask::new("hi")).await.code(), "upstream_rejected");

    let soon = house.ask(&Ask::new("hi")).await.err().unwrap();
    let other = house.hear(&Ask::new("ho")).await;
    sleep(millis(2_000)).await;
    let later = house.hear(&Ask::new("hi")).await;

    assert_eq!(soon.code, Code::UpstreamRejected);
    assert_eq!((other.status(), later.status(), house.provider.called()), ("complete", "complete", 3));
    house.forgets_everything().await;
}

#[actix::test]
async fn what_is_shed_says_nothing_about_the_next_request() {
    let none = pacer::schedule::Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 0 };
    let house = House::build(Plan { pace: none, ..Plan::default() });
    house.hear(&Ask::new("a")).await;
    let shed = house.ask(&Ask::new("b")).await.err().unwrap();
    assert_eq!(shed.code, Code::ProviderBusy);
    assert!((1..=1_000).contains(&shed.retry_after_ms.unwrap()));
    sleep(millis(1_000)).await;

    assert_eq!(house.hear(&Ask::new("b")).await.status(), "complete");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_full_queue_refuses_all_who_asked_the_same_and_keeps_nothing() {
    let none = pacer::schedule::Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 0 };
    let house = House::build(Plan { pace: none, ..Plan::default() });
    let (one, two) = (house.thread().await, house.thread().await);
    house.hear(&Ask::new("a")).await;
    let asks = [Ask::within(&one, "b"), Ask::within(&one, "b"), Ask::within(&two, "b"), Ask::new("b")];

    let answers = futures_util::future::join_all(asks.iter().map(|ask| house.ask(ask))).await;

    for answer in answers {
        assert_eq!(answer.err().unwrap().code, Code::ProviderBusy);
    }
    assert!(house.messages(&crate::chat::OrgId::new("org"), &one).await.is_empty());
    assert_eq!(house.stored(&asks[0].request).await, None);
    sleep(millis(2_000)).await;
    assert_eq!(house.hear(&asks[0]).await.status(), "complete", "the very same request may be sent again");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_wait_in_the_queue_has_an_end() {
    let slow = pacer::schedule::Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 8 };
    let mut plan = plan(|provider| provider.queue_wait_max_ms = 3_000);
    plan.pace = slow;
    let house = House::build(plan);
    house.provider.plays([Script::says(&["a"], 10_000)]);
    let running = house.ask(&Ask::new("a")).await.unwrap();

    let heard = house.hear(&Ask::new("b")).await;

    assert_eq!((heard.code(), &heard.done["error"]["phase"]), ("queue_timeout", &Value::from("queue")));
    assert_eq!(running.heard().await.status(), "complete");
    house.forgets_everything().await;
}

#[actix::test]
async fn what_a_dialect_cannot_say_is_refused_before_the_stream() {
    let house = House::paused();

    let refused = house.ask(&Ask { unspeakable: true, ..Ask::new("hi") }).await.err().unwrap();

    assert_eq!((refused.code, house.provider.called()), (Code::Unprocessable, 0));
    house.forgets_everything().await;
}

#[actix::test]
async fn a_store_that_takes_no_message_refuses_the_request_and_calls_nobody_for_it() {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let (reply, answer) = oneshot::channel();
    let join = house.join(&ask, reply).await;
    house.store.close().await;

    house.coalescer.send(join).await.unwrap();

    let Err(NotJoined::Failed(failure)) = answer.await.unwrap() else { panic!("joined") };
    assert_eq!(failure.code, Code::Storage);
    house.forgets_everything().await;
}

#[actix::test]
async fn an_end_that_cannot_be_kept_is_told_and_says_so() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b"], 100)]);
    let thread = house.thread().await;
    let listener = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
    sleep(millis(150)).await;

    house.store.close().await;

    let heard = listener.heard().await;
    assert_eq!((heard.status(), heard.text.as_str(), &heard.done["saved"]), ("complete", "ab", &Value::Bool(false)));
    house.forgets_everything().await;
}
