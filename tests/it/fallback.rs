//! When a provider cannot answer, another one does, and nobody is left in the dark about it.

use load::client::{Arrived, text_of};
use load::mock::expected_text;
use serde_json::{Value, json};

use crate::support::gateway::{FAST, Gateway, message};
use crate::support::{done, opening};

const COMPLETE: (Option<&str>, Option<&str>) = (Some("complete"), Some("complete"));

/// `mock` falls back to `backup`, the same server under another name, and then to the demo.
async fn gateway(model: &str) -> Gateway {
    let mock = load::mock::Mock::start().await;
    let backup = format!(
        "fallback = [\"backup/{model}\", \"demo\"]\nretries_max = 0\n[providers.backup]\ndialect = \"openai_chat\"\n\
         base_url = {:?}\napi_key_env = \"\"\nany_model = true\nwarm_connections = 0\nretries_max = 0\n{FAST}",
        mock.url()
    );
    Gateway::before(mock, &format!("{FAST}\n{backup}")).await
}

fn announced(events: &[Arrived]) -> Vec<Value> {
    let metas = events.iter().filter(|arrived| arrived.event.name == "meta").map(|arrived| arrived.event.json());
    metas.filter(|meta| !meta["fallback_from"].is_null()).collect()
}

#[actix_web::test]
async fn another_provider_answers_and_is_named_everywhere() {
    let gateway = gateway("text@tokens=7").await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "overloaded");
    body["request_id"] = "the-one".into();

    let events = gateway.stream(&thread, &body).await.rest().await;

    let expected = json!({ "type": "meta", "provider": "backup", "model": "text@tokens=7", "fallback_from": "mock" });
    assert_eq!(announced(&events), [expected]);
    assert_eq!((&opening(&events)["provider"], &done(&events)["status"]), (&"mock".into(), &"complete".into()));
    assert_eq!(text_of(&events), expected_text("text@tokens=7", "hello"));
    let read = gateway.read(&thread).await;
    let answer = &read["messages"][1];
    assert_eq!((&answer["provider"], &answer["model"]), (&"backup".into(), &"text@tokens=7".into()));
    assert_eq!((&answer["meta"]["fallback_from"], &read["last_provider"]), (&"mock".into(), &"backup".into()));
    let state = gateway.get("/api/requests/the-one").await;
    assert_eq!((&state["provider"], &state["fallback_from"]), (&"backup".into(), &"mock".into()));
    let report = gateway.get("/api/metrics/performance").await;
    assert_eq!((&report["fallbacks"], &report["providers"]["backup"]["fallbacks"]), (&1.into(), &1.into()));
    let metrics = gateway.client.get("/metrics").await.unwrap();
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let counts: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix("weir_fallbacks_total")).collect();
    assert_eq!(counts, [r#"{from="mock",to="backup"} 1"#, r#"{from="mock",to="demo"} 0"#]);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn who_comes_back_to_the_answer_hears_who_gives_it() {
    let gateway = gateway("gate@after=2").await;
    let thread = gateway.thread().await;
    let mut first = gateway.stream(&thread, &message("hello", "auth")).await;
    first.next_named("delta").await;

    let mut second = gateway.open(load::client::Request::get(format!("/api/threads/{thread}/stream"))).await;
    second.next_named("snapshot").await;
    gateway.mock.open_gate();

    let second = second.rest().await;
    assert_eq!(announced(&second)[0]["provider"], "backup");
    assert_eq!((done(&first.rest().await)["status"].as_str(), done(&second)["status"].as_str()), COMPLETE);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn the_last_route_is_tried_and_a_message_that_is_wrong_is_not_sent_on() {
    let gateway = gateway("overloaded").await;
    let thread = gateway.thread().await;

    let by_demo = gateway.send(&thread, &message("be fast", "overloaded")).await;
    let wrong = gateway.send(&thread, &message("be fast", "not_found")).await;

    assert_eq!((by_demo.status(), &by_demo.json()["assistant_message"]["provider"]), (200, &"demo".into()));
    assert_eq!(wrong.error_code().as_deref(), Some("upstream_model_not_found"));
    assert_eq!(gateway.mock.counts().calls_started, 3);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_cancel_reaches_the_provider_that_answers() {
    let gateway = gateway("silent").await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "overloaded");
    body["request_id"] = "the-one".into();
    let mut events = gateway.stream(&thread, &body).await;
    events.next_named("meta").await;
    gateway.called(|counts| counts.calls_started == 2).await;

    let cancel = gateway.cancel("the-one").await.json();

    assert_eq!(cancel["upstream"], "aborted");
    assert_eq!(done(&events.rest().await)["status"], "cancelled");
    gateway.at_rest().await;
}
