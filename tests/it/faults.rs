//! Each way in which a provider can fail has its code, one `done`, and keeps what had come.

use load::client::text_of;
use load::mock::expected_text;

use crate::support::done;
use crate::support::gateway::{Gateway, message};

/// No second tries, and no breaker. What the mock refuses for the rate waits for a second.
const ONCE: &str = "rps = 10000.0\nconcurrency = 1000\nburst = 1000\nretries_max = 0\n\
                    queue_wait_max_ms = 1500\nbreaker_failures = 0";

/// A clock that rings within a test, and the only one: the model, the code, the phase.
const SILENCES: [(&str, &str, &str, &str); 4] = [
    ("idle_timeout_ms = 500", "stall@after=3,gap_ms=0", "upstream_stalled", "mid_stream"),
    ("idle_timeout_ms = 500", "silent", "upstream_stalled", "pre_token"),
    ("headers_timeout_ms = 500", "slow_head@hold_ms=3600000", "upstream_timeout", "headers"),
    ("ttft_timeout_ms = 500", "comments@hold_ms=3600000", "upstream_timeout", "pre_token"),
];

/// The model, the code, the phase.
const FAULTS: [(&str, &str, &str); 18] = [
    ("drop@after=3", "upstream_truncated", "mid_stream"),
    ("cut_chunk@after=3", "upstream_truncated", "mid_stream"),
    ("reset@after=3", "upstream_truncated", "mid_stream"),
    ("no_finish", "upstream_truncated", "mid_stream"),
    ("garbage@after=3", "upstream_protocol", "mid_stream"),
    ("huge_line@after=3", "upstream_protocol", "mid_stream"),
    ("error_frame@after=3", "upstream_error", "mid_stream"),
    ("rate_limited", "upstream_rate_limit", "headers"),
    ("overloaded", "upstream_overloaded", "headers"),
    ("server_error", "upstream_error", "headers"),
    ("html_error", "upstream_error", "headers"),
    ("auth", "upstream_auth", "headers"),
    ("quota", "upstream_quota", "headers"),
    ("not_found", "upstream_model_not_found", "headers"),
    ("error_in_200", "upstream_error", "pre_token"),
    ("empty_200", "upstream_protocol", "pre_token"),
    ("wrong_type", "upstream_protocol", "pre_token"),
    ("redirect", "upstream_redirect", "headers"),
];

/// One fault: its code and phase, its one `done`, and what is kept.
async fn fails(gateway: &Gateway, model: &str, code: &str, phase: &str) {
    let thread = gateway.thread().await;
    let events = gateway.stream(&thread, &message("hello", model)).await.rest().await;

    let end = done(&events);
    assert_eq!((&end["status"], &end["finish_reason"]), (&"error".into(), &"error".into()), "{model}");
    assert_eq!((&end["error"]["code"], &end["error"]["phase"]), (&code.into(), &phase.into()), "{model}: {end}");
    assert_eq!(end["error"]["provider"], "mock", "{model}");
    let expected = if phase == "mid_stream" { expected_text(model, "hello") } else { String::new() };
    assert_eq!(text_of(&events), expected, "{model}");
    let answer = &gateway.read(&thread).await["messages"][1];
    assert_eq!((&answer["status"], &answer["content"]), (&"error".into(), &expected.into()), "{model}");
    gateway.at_rest().await;
}

#[actix_web::test]
async fn every_fault_of_a_provider_has_its_code_and_one_done() {
    let gateway = Gateway::with_provider(ONCE).await;
    for (model, code, phase) in FAULTS {
        fails(&gateway, model, code, phase).await;
    }
    assert_eq!(gateway.mock.counts().strays, 0, "a redirect is not followed");
}

#[actix_web::test]
async fn every_silence_of_a_provider_has_its_clock() {
    for (clock, model, code, phase) in SILENCES {
        let gateway = Gateway::with_provider(&format!("{ONCE}\n{clock}")).await;
        fails(&gateway, model, code, phase).await;
    }
}

#[actix_web::test]
async fn what_looks_odd_but_is_whole_is_complete() {
    let gateway = Gateway::with_provider(ONCE).await;
    for model in ["mock", "split_utf8", "drip@tokens=3", "after_done", "no_done", "comments@hold_ms=300"] {
        let thread = gateway.thread().await;
        let answer = gateway.send(&thread, &message("grüße", model)).await;

        assert_eq!(answer.status(), 200, "{model}: {}", answer.json());
        let answer = answer.json();
        assert_eq!(answer["assistant_message"]["content"], expected_text(model, "grüße"), "{model}");
        assert_eq!(answer["assistant_message"]["finish_reason"], "stop", "{model}");
    }
}

#[actix_web::test]
async fn an_answer_without_end_is_cut_at_the_limit() {
    let gateway = Gateway::with_tables("[stream]\nanswer_bytes_max = 100000").await;
    let thread = gateway.thread().await;

    let events = gateway.stream(&thread, &message("hello", "endless")).await.rest().await;

    assert_eq!(done(&events)["error"]["code"], "response_too_large");
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_provider_that_is_not_there_is_named_as_such() {
    let gateway = Gateway::with("rps = 100.0\nretries_max = 0", "[providers.gone]\ndialect = \"openai_chat\"\n\
        base_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"\"\nmodels = [\"m\"]\nretries_max = 0\nwarm_connections = 0")
    .await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "m");
    body["provider"] = "gone".into();

    let answer = gateway.send(&thread, &body).await;

    assert_eq!((answer.status(), answer.error_code().as_deref()), (502, Some("upstream_connect")));
}

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
