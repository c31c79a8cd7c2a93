//! The configuration is read again while weir runs: what can change does, at once and for new requests alone.

use load::client::{Client, Request, Response};
use load::mock::Mock;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::operating::{send, stream, until_logged, weir};
use crate::orgs::{keys, with_key};
use crate::support::done;
use crate::support::gateway::{FAST, Gateway, PATIENCE, message};
use crate::support::listener::Listener;

async fn reload(client: &Client) -> Response {
    client.post("/api/admin/reload", &json!({})).await.unwrap()
}

/// Reloads what can be reloaded: the keys that have changed, and those that wait.
async fn reloaded(client: &Client) -> (Value, Value) {
    let answer = reload(client).await;
    assert_eq!(answer.status(), 200, "{}", answer.json());
    let answer = answer.json();
    assert_eq!(answer["status"], "reloaded");
    (answer["changed"].clone(), answer["needs_restart"].clone())
}

async fn pacer(gateway: &Gateway) -> Value {
    let pacers = gateway.get("/api/admin/pacers").await;
    pacers.as_array().unwrap().iter().find(|pacer| pacer["provider"] == "mock").unwrap().clone()
}

#[actix_web::test]
async fn changes_apply_to_new_requests_while_a_stream_runs_on() {
    let gateway = Gateway::start().await;
    let (running, thread) = (gateway.thread().await, gateway.thread().await);
    let mut events = gateway.stream(&running, &message("a question", "gate@after=1")).await;
    events.next_named("delta").await;

    gateway.edit("[server]", "[limits]\ncontent_bytes_max = 5\n[server]");
    assert_eq!(gateway.send(&thread, &message("a question", "mock")).await.status(), 200, "not before the reload");
    let told = reloaded(&gateway.client).await;

    assert_eq!(told, (json!(["limits.content_bytes_max"]), json!([])));
    assert_eq!(gateway.send(&thread, &message("a question", "mock")).await.status(), 413);
    gateway.mock.open_gate();
    assert_eq!(done(&events.rest().await)["status"], "complete");
}

#[actix_web::test]
async fn a_pacer_takes_the_limits_that_the_file_has_changed_and_keeps_what_an_operator_has() {
    let gateway = Gateway::with_provider(&format!("{FAST}\nqueue_max = 0")).await;
    let patch = Request::new("PATCH", "/api/admin/pacers/mock").json(&json!({ "burst": 7, "rps": 70.0 }));
    assert_eq!(gateway.client.send(patch).await.unwrap().status(), 200);
    let thread = gateway.thread().await;
    let mut events = gateway.stream(&thread, &message("hello", "gate@after=1")).await;
    events.next_named("delta").await;

    gateway.edit("concurrency = 1000", "concurrency = 1");
    gateway.edit("rps = 10000.0", "rps = 500.0");
    let told = reloaded(&gateway.client).await;

    assert_eq!(told.0, json!(["providers.mock.concurrency", "providers.mock.rps"]));
    let now = pacer(&gateway).await;
    assert_eq!((&now["rps"], &now["concurrency"], &now["burst"]), (&json!(500.0), &json!(1), &json!(7)));
    let other = gateway.thread().await;
    let refused = gateway.send(&other, &message("more", "mock")).await;
    assert_eq!(refused.error_code().as_deref(), Some("provider_busy"), "no slot, and no place to wait");
    gateway.edit("queue_max = 0", "queue_max = 9");
    assert_eq!(reloaded(&gateway.client).await.0, json!(["providers.mock.queue_max"]));
    let mut waiting = gateway.stream(&other, &message("more", "mock")).await;
    gateway.until("/api/admin/pacers", |pacers| pacers.as_array().unwrap().iter().any(|row| row["queued"] == 1)).await;
    gateway.mock.open_gate();
    for events in [events.rest().await, waiting.rest().await] {
        assert_eq!(done(&events)["status"], "complete");
    }
}

#[actix_web::test]
async fn a_profile_that_was_added_can_be_switched_to() {
    let gateway = Gateway::start().await;
    gateway.edit("[server]", "[profiles.slow.providers.mock]\nrps = 2.0\n[server]");
    let switch = async || gateway.client.post("/api/admin/profile/slow", &json!({})).await.unwrap().status();
    assert_eq!(switch().await, 404);

    assert_eq!(reloaded(&gateway.client).await.0, json!(["profiles.slow"]));

    assert_eq!(switch().await, 200);
    assert_eq!(pacer(&gateway).await["rps"], 2.0);
}

#[actix_web::test]
async fn a_bad_file_changes_nothing_and_is_named_with_its_lines() {
    let gateway = Gateway::start().await;
    gateway.edit("rps = 10000.0", "rps = 5.0\nrsp = 6.0");
    gateway.edit("default_provider", "system_prompt = 7\n[limits]\ncontent_bytes_max = 1\n[unused]\ndefault_provider");

    let refused = reload(&gateway.client).await;

    assert_eq!((refused.status(), refused.error_code().as_deref()), (422, Some("unprocessable")));
    let why = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let lines: Vec<_> = why.lines().collect();
    assert!(lines[0].contains("config.toml:1: system_prompt"), "{why}");
    assert!(lines.iter().any(|line| line.contains(": providers.mock.rsp: unknown key")), "{why}");
    assert_eq!(pacer(&gateway).await["rps"], 10_000.0);
    let thread = gateway.thread().await;
    assert_eq!(gateway.send(&thread, &message("a question", "mock")).await.status(), 200);
}

#[actix_web::test]
async fn what_cannot_change_while_it_runs_is_told() {
    let gateway = Gateway::start().await;
    gateway.edit("workers = 2", "workers = 3\nallowed_hosts = [\"127.0.0.1\"]");
    gateway.edit("[server]", "[providers.other]\ndialect = \"ollama\"\nmodels = [\"a\"]\n[server]");

    for (changed, turn) in [(json!(["server.allowed_hosts"]), "first"), (json!([]), "again")] {
        let told = reloaded(&gateway.client).await;

        assert_eq!(told, (changed, json!(["providers.other", "server.workers"])), "{turn}");
    }
    let providers = gateway.get("/api/providers").await;
    assert!(providers.as_array().unwrap().iter().all(|provider| provider["name"] != "other"), "{providers}");
}

#[actix_web::test]
async fn a_key_is_replaced_while_its_stream_runs_on() {
    let clients = |key: &str| keys(&[(key, "acme", "user"), ("ops", "*", "admin")]);
    let gateway = Gateway::with_tables(&clients("old")).await;
    let (old, new, ops) = (with_key(&gateway, "old"), with_key(&gateway, "new"), with_key(&gateway, "ops"));
    let made = old.post("/api/threads", &json!({})).await.unwrap().json();
    let path = format!("/api/threads/{}", made["id"].as_str().unwrap());
    let ask = Request::post(format!("{path}/messages/stream"), &message("hello", "gate@after=1"));
    let mut events = Listener::open(&old, ask).await;
    events.next_named("delta").await;
    let statuses = async || [old.get(&path).await.unwrap().status(), new.get(&path).await.unwrap().status()];
    assert_eq!(statuses().await, [200, 401]);

    gateway.edit(&clients("old"), &clients("new"));
    assert_eq!(reloaded(&ops).await, (json!(["auth.keys"]), json!([])));

    assert_eq!(statuses().await, [401, 200]);
    gateway.mock.open_gate();
    assert_eq!(done(&events.rest().await)["status"], "complete");

    gateway.edit(&clients("new"), "");
    assert_eq!(reloaded(&ops).await, (json!([]), json!(["auth.keys"])), "it does not become open");
    assert_eq!(statuses().await, [401, 200]);
    assert_eq!(gateway.client.get(&path).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_hangup_reads_the_file_again_and_ends_nothing() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let mut events = stream(&weir).await;
    let file = weir.directory().join("config.toml");
    let toml = std::fs::read_to_string(&file).unwrap();

    std::fs::write(&file, format!("{toml}\n[limits]\ncontent_bytes_max = \"5\"")).unwrap();
    send(&weir, Signal::HUP);
    until_logged(&weir, "the configuration is refused and stays as it was: config.toml:").await;
    assert!(weir.log().contains(": limits.content_bytes_max: expected a whole number"), "{}", weir.log());
    std::fs::write(&file, format!("{toml}\n[limits]\ncontent_bytes_max = 5")).unwrap();
    send(&weir, Signal::HUP);
    until_logged(&weir, "the configuration has been read again").await;

    let client = weir.client();
    let made = client.post("/api/threads", &json!({})).await.unwrap().json();
    let path = format!("/api/threads/{}/messages", made["id"].as_str().unwrap());
    assert_eq!(client.post(&path, &message("a question", "mock")).await.unwrap().status(), 413);
    mock.open_gate();
    assert_eq!(done(&events.rest().await)["status"], "complete");
    assert!(weir.terminate(PATIENCE).await.unwrap().unwrap().success());
}
