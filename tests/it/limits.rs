//! What a key may ask for: requests a minute, streams at once, tokens a day. Each limit holds wherever an answer is
//! asked for, says what it is, and is in nobody's way who only looks or stops.

use load::client::{Client, Request, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::advance;

use crate::openai::{ask, ask_streamed};
use crate::orgs::{keys, with_key};
use crate::support::done;
use crate::support::gateway::{FAST, Gateway, config, message};
use crate::support::listener::Listener;
use crate::support::virtual_weir::VirtualWeir;
use crate::survival::in_virtual_time;

const DAY_MS: u64 = 86_400_000;
const STANDINGS: &str = "/api/admin/keys";

/// The table of a key whose text is `key`.
fn key(id: &str, key: &str, more: &str) -> String {
    let sha256: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[auth.keys]]\nid = {id:?}\nsha256 = {sha256:?}\norg = \"acme\"\n{more}\n")
}

/// The keys `a` and `b` of one organisation and `ops` of all, with these limits.
async fn start(limits: &str) -> Gateway {
    let keys = keys(&[("a", "acme", "user"), ("b", "acme", "user"), ("ops", "*", "admin")]);
    Gateway::with_tables(&format!("[auth]\n{limits}\n{keys}")).await
}

async fn thread(client: &Client) -> String {
    client.post("/api/threads", &json!({})).await.unwrap().json()["id"].as_str().unwrap().to_owned()
}

/// Sends a message to a thread of its own, and waits for the whole answer.
async fn send(client: &Client, model: &str) -> Response {
    let path = format!("/api/threads/{}/messages", thread(client).await);
    client.post(&path, &message("hello", model)).await.unwrap()
}

/// A stream in a thread of its own, and the id of its request.
async fn stream(client: &Client, model: &str) -> (Listener, String) {
    let path = format!("/api/threads/{}/messages/stream", thread(client).await);
    let mut events = Listener::open(client, Request::post(path, &message("hello", model))).await;
    let request = events.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
    (events, request)
}

async fn complete(client: &Client, model: &str) -> Response {
    client.post("/v1/chat/completions", &ask(model, &json!({}))).await.unwrap()
}

/// How a key stands.
async fn standing(gateway: &Gateway, id: &str) -> Value {
    row(&with_key(gateway, "ops").get(STANDINGS).await.unwrap().json(), id)
}

fn row(standings: &Value, id: &str) -> Value {
    standings.as_array().unwrap().iter().find(|row| row["id"] == id).expect("the key is listed").clone()
}

/// Waits until so many requests of `a` run.
async fn until_streams(gateway: &Gateway, streams: u64) {
    let ops = with_key(gateway, "ops");
    crate::support::until(&ops, STANDINGS, |answer| row(&answer.json(), "a")["streams"] == streams).await;
}

/// Whether the answer refuses a request by a limit; when to come back, in milliseconds.
#[track_caller]
fn check_refused(answer: &Response, why: &str) -> u64 {
    let error = &answer.json()["error"];
    assert_eq!((answer.status(), &error["code"]), (429, &json!("rate_limited")), "{error}");
    assert_eq!((&error["type"], &error["retryable"]), (&json!("rate_limit_error"), &json!(true)));
    assert_eq!(error["message"], why);
    let retry_after_ms = error["retry_after_ms"].as_u64().expect("it says when to come back");
    let headers = ["retry-after", "retry-after-ms", "x-should-retry"].map(|name| answer.head.header(name).unwrap());
    let seconds = retry_after_ms.div_ceil(1_000).to_string();
    assert_eq!(headers, [seconds.as_str(), &retry_after_ms.to_string(), "true"]);
    retry_after_ms
}

// --- Requests a minute ------------------------------------------------------------

#[actix_web::test]
async fn a_minutes_requests_are_spent_wherever_an_answer_is_asked_for_and_nowhere_else() {
    let gateway = start("requests_per_min = 5").await;
    let (a, b) = (with_key(&gateway, "a"), with_key(&gateway, "b"));
    let path = format!("/api/threads/{}", thread(&a).await);
    let of_thread = |what: &str| format!("{path}/{what}");
    let responses = json!({ "model": "mock/mock", "input": "hello" });
    let asks: [(String, Value); 5] = [
        (of_thread("messages"), message("hello", "mock")),
        (of_thread("messages/stream"), message("again", "mock")),
        (of_thread("regenerate"), json!({})),
        ("/v1/chat/completions".to_owned(), ask("mock", &json!({}))),
        ("/v1/responses".to_owned(), responses),
    ];
    for (path, body) in &asks {
        assert_eq!(a.post(path, body).await.unwrap().status(), 200, "{path}");
    }

    for (path, body) in &asks {
        let wait_ms = check_refused(&a.post(path, body).await.unwrap(), "requests_per_min of key `a` is 5");
        assert!((1..=12_000).contains(&wait_ms), "{path}: {wait_ms}");
    }

    let read = a.get(&path).await.unwrap().json();
    assert_eq!(read["messages"].as_array().unwrap().len(), 5, "what was refused was not stored");
    let more = a.post(&path.replace("/api/threads/", "/api/threads/cancel/"), &json!({})).await.unwrap();
    assert_eq!(more.error_code().as_deref(), Some("request_not_found"), "a cancel is never refused");
    assert_eq!(a.post(&of_thread("stop"), &json!({})).await.unwrap().status(), 200);
    assert_eq!(a.get("/v1/models").await.unwrap().status(), 200);
    assert_eq!(complete(&b, "mock").await.status(), 200, "another key has requests of its own");
    let refused = json!({ "requests_per_min": 5, "streams_max": 0, "tokens_per_day": 0 });
    assert_eq!(standing(&gateway, "a").await["refused"], refused);
}

#[test]
fn who_waits_as_long_as_told_is_let_in_and_not_before() {
    in_virtual_time(async {
        let tables = format!("[auth]\nrequests_per_min = 7\n{}", key("a", "a", ""));
        let weir = VirtualWeir::start(&config("http://127.0.0.1:1/v1", "unused", FAST, &tables)).await;
        let ask = async || {
            let body = ask("mock", &json!({}));
            weir.send(Request::post("/v1/chat/completions", &body).header("authorization", "Bearer a")).await
        };
        let mut wait_ms = 0;
        for turn in 0..20 {
            if turn > 7 {
                advance(std::time::Duration::from_millis(wait_ms - 1)).await;
                assert_eq!(check_refused(&ask().await, "requests_per_min of key `a` is 7"), 1, "not before");
                advance(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(ask().await.status(), if turn == 7 { 429 } else { 200 }, "{turn}");
            if turn >= 7 {
                wait_ms = check_refused(&ask().await, "requests_per_min of key `a` is 7");
            }
        }
    });
}

// --- Streams at once --------------------------------------------------------------

#[actix_web::test]
async fn streams_are_counted_over_threads_and_v1_and_over_both_keys_of_an_id() {
    let clients = [key("a", "old", "streams_max = 2"), key("a", "new", "streams_max = 2")].concat();
    let gateway = Gateway::with_tables(&format!("{clients}{}", keys(&[("ops", "*", "admin")]))).await;
    let (old, new) = (with_key(&gateway, "old"), with_key(&gateway, "new"));
    let (mut first, request) = stream(&old, "gate@after=1").await;
    let second = Listener::open(&new, ask_streamed("gate@after=1", &json!({}))).await;

    for client in [&old, &new] {
        assert_eq!(check_refused(&send(client, "mock").await, "streams_max of key `a` is 2"), 1_000);
        check_refused(&complete(client, "mock").await, "streams_max of key `a` is 2");
        let streamed = client.send(ask_streamed("mock", &json!({}))).await.unwrap();
        check_refused(&streamed, "streams_max of key `a` is 2");
        let resumed = client.open(Request::get(format!("/api/requests/{request}/stream"))).await;
        assert!(resumed.is_ok(), "coming back is no new stream");
    }
    assert_eq!(standing(&gateway, "a").await["streams"], 2);
    assert_eq!(standing(&gateway, "a").await["refused"]["streams_max"], 6);

    let cancel = format!("/api/threads/cancel/{request}");
    assert_eq!(old.post(&cancel, &json!({})).await.unwrap().status(), 200, "cancels are never refused");
    assert_eq!(send(&new, "mock").await.status(), 200, "its place is free as soon as that is answered");
    assert_eq!(done(&first.rest().await)["status"], "cancelled");
    drop(second);
    until_streams(&gateway, 0).await;
}

#[actix_web::test]
async fn a_place_comes_back_however_an_answer_ends() {
    let gateway = start("streams_max = 1\n[coalesce]\nerror_ttl_ms = 0").await;
    let a = with_key(&gateway, "a");
    for round in 0..2 {
        assert_eq!(send(&a, "mock").await.status(), 200, "{round}");
        let (mut events, _) = stream(&a, "mock").await;
        assert_eq!(done(&events.rest().await)["status"], "complete", "{round}");
        assert_eq!(send(&a, "auth").await.status(), 502, "the provider refuses");
        assert_eq!(complete(&a, "auth").await.status(), 502);
        let (mut events, _) = stream(&a, "drop@after=2").await;
        assert_eq!(done(&events.rest().await)["status"], "error", "the provider breaks off");
        let nowhere = a.post("/api/threads/t_none/messages", &message("hello", "mock")).await.unwrap();
        assert_eq!(nowhere.error_code().as_deref(), Some("thread_not_found"));
        let (mut events, request) = stream(&a, "silent").await;
        a.post(&format!("/api/threads/cancel/{request}"), &json!({})).await.unwrap();
        assert_eq!(complete(&a, "mock").await.status(), 200);
        assert_eq!(done(&events.rest().await)["status"], "cancelled");
        assert_eq!(standing(&gateway, "a").await["streams"], 0);
    }
}

#[actix_web::test]
async fn a_client_that_leaves_gives_its_place_back_with_its_answer() {
    let gateway = start("streams_max = 1").await;
    let a = with_key(&gateway, "a");
    let leaves = Listener::open(&a, ask_streamed("gate@after=1", &json!({}))).await;
    until_streams(&gateway, 1).await;
    drop(leaves);
    until_streams(&gateway, 0).await;

    let (mut leaves, _) = stream(&a, "gate@after=1").await;
    leaves.next_named("delta").await;
    drop(leaves);
    gateway.called(|counts| counts.calls_started == 2).await;
    crate::support::until(&with_key(&gateway, "ops"), "/api/admin/streams", |streams| {
        streams.json().as_array().unwrap().iter().all(|row| row["listeners"] == 0)
    })
    .await;
    check_refused(&complete(&a, "mock").await, "streams_max of key `a` is 1");
    gateway.mock.open_gate();
    until_streams(&gateway, 0).await;
    assert_eq!(complete(&a, "mock").await.status(), 200, "the answer went on without listeners, and has ended");
}

#[actix_web::test]
async fn a_message_that_is_sent_again_needs_no_second_place() {
    let gateway = start("streams_max = 1").await;
    let a = with_key(&gateway, "a");
    let path = format!("/api/threads/{}/messages/stream", thread(&a).await);
    let send = || Request::post(&path, &message("hello", "gate@after=1")).header("idempotency-key", "k");
    let mut first = Listener::open(&a, send()).await;
    first.next_named("delta").await;

    let mut again = Listener::open(&a, send()).await;
    again.next_named("delta").await;
    assert_eq!(standing(&gateway, "a").await["refused"]["streams_max"], 0);
    let other = a.post(&path, &message("hello", "gate@after=1")).await.unwrap();
    check_refused(&other, "streams_max of key `a` is 1");

    gateway.mock.open_gate();
    for events in [&mut first, &mut again] {
        assert_eq!(done(&events.rest().await)["status"], "complete");
    }
    let mut ended = Listener::open(&a, send()).await;
    assert_eq!(done(&ended.rest().await)["status"], "complete");
}

#[actix_web::test]
async fn a_message_that_waits_for_the_turn_before_it_takes_the_place_of_that() {
    let gateway = start("streams_max = 1").await;
    let a = with_key(&gateway, "a");
    let path = format!("/api/threads/{}", thread(&a).await);
    let send = |text: &str| Request::post(format!("{path}/messages/stream"), &message(text, "gate@after=1"));
    for round in 0..5 {
        let mut events = Listener::open(&a, send(&format!("question {round}"))).await;
        events.next_named("delta").await;
        assert_eq!(a.post(&format!("{path}/stop"), &json!({})).await.unwrap().status(), 200);
    }
}

// --- Tokens a day -----------------------------------------------------------------

#[actix_web::test]
async fn what_answers_cost_is_counted_until_the_days_tokens_are_used_up() {
    let gateway = start("tokens_per_day = 1").await;
    let (a, b) = (with_key(&gateway, "a"), with_key(&gateway, "b"));
    let (mut events, request) = stream(&a, "mock").await;
    let usage = done(&events.rest().await)["usage"].clone();
    let cost = usage["input"].as_u64().unwrap() + usage["output"].as_u64().unwrap();
    assert!(cost > 1, "{usage}");
    assert_eq!(standing(&gateway, "a").await["tokens_today"], cost, "before its client reads `done`");

    for refused in [send(&a, "mock").await, complete(&a, "mock").await] {
        let wait_ms = check_refused(&refused, "tokens_per_day of key `a` is 1");
        let unix_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let until_midnight_ms = DAY_MS - u64::try_from(unix_ms).unwrap() % DAY_MS;
        assert!(wait_ms.abs_diff(until_midnight_ms) < 60_000, "{wait_ms} {until_midnight_ms}");
    }

    let resumed = a.get(&format!("/api/requests/{request}/stream")).await.unwrap();
    assert_eq!(resumed.status(), 200, "what was paid for can be read");
    assert_eq!(complete(&b, "mock").await.status(), 200);
    assert!(standing(&gateway, "b").await["tokens_today"].as_u64().unwrap() > 0, "answers of /v1 cost something, too");
}

#[actix_web::test]
async fn an_answer_is_paid_for_once_by_the_key_that_has_begun_it_also_when_that_leaves() {
    let keys = keys(&[("a", "acme", "user"), ("b", "acme", "user"), ("ops", "*", "admin")]);
    let gateway = Gateway::with_tables(&format!("[coalesce]\nscope = \"org\"\n{keys}")).await;
    let (a, b) = (with_key(&gateway, "a"), with_key(&gateway, "b"));
    let (mut leader, request) = stream(&a, "gate@after=1").await;
    leader.next_named("delta").await;
    let (mut follower, _) = stream(&b, "gate@after=1").await;
    follower.next_named("delta").await;
    assert_eq!(standing(&gateway, "b").await["streams"], 1, "who shares an answer has a stream, too");

    let cancelled = a.post(&format!("/api/threads/cancel/{request}"), &json!({})).await.unwrap().json();
    assert_eq!(cancelled["upstream"], "shared");
    done(&leader.rest().await);
    assert_eq!(standing(&gateway, "a").await["streams"], 0, "who has left has no stream");
    gateway.mock.open_gate();
    let usage = done(&follower.rest().await)["usage"].clone();

    let cost = usage["input"].as_u64().unwrap() + usage["output"].as_u64().unwrap();
    let tokens = [standing(&gateway, "a").await, standing(&gateway, "b").await].map(|row| row["tokens_today"].clone());
    assert_eq!(tokens, [json!(cost), json!(0)]);
    assert_eq!(gateway.mock.counts().calls_started, 1);
}

#[actix_web::test]
async fn what_a_drain_learns_takes_the_place_of_the_estimate() {
    let drain = format!("{FAST}\non_cancel = \"drain\"");
    let gateway = Gateway::with(&drain, &keys(&[("a", "acme", "user"), ("ops", "*", "admin")])).await;
    let (a, ops) = (with_key(&gateway, "a"), with_key(&gateway, "ops"));
    let (mut events, request) = stream(&a, "gate@after=1").await;
    events.next_named("delta").await;
    let cancelled = a.post(&format!("/api/threads/cancel/{request}"), &json!({})).await.unwrap().json();
    assert_eq!(cancelled["upstream"], "drained");
    let estimated = done(&events.rest().await)["usage"].clone();
    assert_eq!(estimated["estimated"], true);

    gateway.mock.open_gate();

    let state = crate::support::until(&a, &format!("/api/requests/{request}"), |state| {
        state.json()["usage"]["estimated"] == false
    })
    .await
    .json();
    let cost = state["usage"]["input"].as_u64().unwrap() + state["usage"]["output"].as_u64().unwrap();
    assert_eq!(row(&ops.get(STANDINGS).await.unwrap().json(), "a")["tokens_today"], cost);
}

// --- Operations -------------------------------------------------------------------

#[actix_web::test]
async fn a_reload_changes_what_is_allowed_and_no_count() {
    let gateway = start("requests_per_min = 0").await;
    let (a, ops) = (with_key(&gateway, "a"), with_key(&gateway, "ops"));
    assert_eq!(send(&a, "mock").await.status(), 200);
    let (_events, _) = stream(&a, "silent").await;
    let before = standing(&gateway, "a").await;
    let reload = async |from: &str, to: &str| {
        gateway.edit(from, to);
        let told = ops.post("/api/admin/reload", &json!({})).await.unwrap().json();
        assert_eq!(told["needs_restart"], json!([]), "{told}");
    };

    reload("requests_per_min = 0", "requests_per_min = 0\nstreams_max = 1").await;
    check_refused(&send(&a, "mock").await, "streams_max of key `a` is 1");
    reload("streams_max = 1", "tokens_per_day = 1").await;
    check_refused(&send(&a, "mock").await, "tokens_per_day of key `a` is 1");
    let after = standing(&gateway, "a").await;
    for count in ["streams", "tokens_today"] {
        assert_eq!(after[count], before[count], "{count}");
    }
    assert_eq!(after["refused"], json!({ "requests_per_min": 0, "streams_max": 1, "tokens_per_day": 1 }));
    assert_eq!(after["limits"], json!({ "requests_per_min": 0, "streams_max": 0, "tokens_per_day": 1 }));
    reload("id = \"a\"", "id = \"a\"\ntokens_per_day = 0").await;

    assert_eq!(send(&a, "mock").await.status(), 200, "its own table goes before the usual");
    reload("id = \"a\"", "id = \"c\"").await;
    assert_eq!(standing(&gateway, "c").await["tokens_today"], 0, "another id is another client");
}

#[actix_web::test]
async fn operators_see_the_keys_that_their_view_shows_and_prometheus_all() {
    let keys = keys(&[("a", "acme", "user"), ("own", "acme", "admin"), ("b", "rival", "user"), ("ops", "*", "admin")]);
    let gateway = Gateway::with_tables(&format!("[auth]\nstreams_max = 1\n{keys}")).await;
    let (a, own, ops) = (with_key(&gateway, "a"), with_key(&gateway, "own"), with_key(&gateway, "ops"));
    assert_eq!(send(&a, "mock").await.status(), 200);
    let (_events, _) = stream(&a, "silent").await;
    check_refused(&send(&a, "mock").await, "streams_max of key `a` is 1");
    let seen = async |client: &Client| {
        let rows = client.get(STANDINGS).await.unwrap().json();
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    assert_eq!(seen(&ops).await, ["a", "own", "b", "ops"]);
    assert_eq!(seen(&own).await, ["a", "own"]);
    assert_eq!(seen(&ops.clone().with_header("x-org-id", "rival")).await, ["b"]);
    let of_a = standing(&gateway, "a").await;
    let tokens = of_a["tokens_today"].as_u64().unwrap();
    let refused = json!({ "requests_per_min": 0, "streams_max": 1, "tokens_per_day": 0 });
    let limits = json!({ "requests_per_min": 0, "streams_max": 1, "tokens_per_day": 0 });
    let expected = json!({ "id": "a", "org": "acme", "role": "user", "limits": limits, "streams": 1,
                           "tokens_today": tokens, "refused": refused });
    assert_eq!(of_a, expected);
    let metrics = String::from_utf8(ops.get("/metrics").await.unwrap().body.to_vec()).unwrap();
    for line in [
        r#"weir_key_streams{key="a"} 1"#,
        &format!(r#"weir_key_tokens_today{{key="a"}} {tokens}"#),
        r#"weir_key_refused_total{key="a",limit="streams_max"} 1"#,
        r#"weir_key_refused_total{key="b",limit="streams_max"} 0"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\nis not in\n{metrics}");
    }
}

#[actix_web::test]
async fn limits_are_for_keys_so_an_open_server_has_none() {
    let gateway = Gateway::with_tables("[auth]\nrequests_per_min = 1\nstreams_max = 1\ntokens_per_day = 1").await;
    let (_events, _) = stream(&gateway.client, "silent").await;

    for _ in 0..3 {
        assert_eq!(send(&gateway.client, "mock").await.status(), 200);
    }
    assert_eq!(gateway.get(STANDINGS).await, json!([]));
}
