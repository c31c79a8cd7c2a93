//! Nothing of one organisation is visible to another, operators included.

use load::client::{Client, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::gateway::{Gateway, message};
use crate::support::listener::Listener;
use crate::support::{done, opening};

/// The tables of clients' keys: each key's text is also its id.
pub(crate) fn keys(keys: &[(&str, &str, &str)]) -> String {
    let table = |(key, org, role): &(&str, &str, &str)| {
        let sha256: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[auth.keys]]\nid = {key:?}\nsha256 = {sha256:?}\norg = {org:?}\nrole = {role:?}\n")
    };
    keys.iter().map(table).collect()
}

/// The client with this key.
pub(crate) fn with_key(gateway: &Gateway, key: &str) -> Client {
    gateway.client.clone().with_header("authorization", format!("Bearer {key}"))
}

async fn get(client: &Client, path: &str) -> Value {
    let answer = client.get(path).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}: {}", answer.json());
    answer.json()
}

async fn thread(client: &Client) -> String {
    client.post("/api/threads", &json!({})).await.unwrap().json()["id"].as_str().unwrap().to_owned()
}

/// Sends a message that is answered, or refused by the provider.
async fn send(client: &Client, model: &str) {
    let path = format!("/api/threads/{}/messages", thread(client).await);
    client.post(&path, &message("hello", model)).await.unwrap();
}

/// Opens the stream of an answer that goes on until it is stopped.
async fn running(client: &Client) -> Listener {
    let path = format!("/api/threads/{}/messages/stream", thread(client).await);
    let request = Request::post(path, &message("hello", "silent"));
    Listener::open(client, request).await
}

/// One report of the dashboard's feed.
async fn feed(client: &Client) -> Value {
    let request = Request::get("/api/admin/feed");
    let mut feed = Listener::open(client, request).await;
    feed.next_named("report").await.event.json()
}

fn count(report: &Value) -> u64 {
    report["window"]["count"].as_u64().unwrap()
}

/// What `ours`, `theirs` and `everything` see of two answers of ours and one failure of theirs, and of one running
/// answer of each.
async fn check_views(ours: &Client, theirs: &Client, everything: &Client) {
    for _ in 0..2 {
        send(ours, "mock").await;
    }
    send(theirs, "auth").await;
    let (mut our_answer, mut their_answer) = (running(ours).await, running(theirs).await);
    let our_stream = our_answer.next_named("meta").await.event.json()["stream_id"].clone();
    let their_stream = their_answer.next_named("meta").await.event.json()["stream_id"].clone();

    for (client, requests, errors, streams) in [
        (ours, 2, 0, json!([our_stream])),
        (theirs, 1, 1, json!([their_stream])),
        (everything, 3, 1, json!([our_stream, their_stream])),
    ] {
        let report = get(client, "/api/metrics/performance").await;
        assert_eq!((count(&report), &report["errors"]["total"]), (requests, &json!(errors)));
        assert_eq!(report["coalesce"]["leaders"], requests);
        let seen = feed(client).await;
        assert_eq!((count(&seen["performance"]), &seen["performance"]["errors"]["total"]), (requests, &json!(errors)));
        for rows in [&seen["streams"], &get(client, "/api/admin/streams").await] {
            let mut ids: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["stream_id"].clone()).collect();
            ids.sort_by_key(Value::to_string);
            assert_eq!(json!(ids), streams);
            let mut orgs: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["org_id"].clone()).collect();
            orgs.sort_by_key(Value::to_string);
            let all = if streams.as_array().unwrap().len() > 1 { json!(["acme", "rival"]) } else { json!([null]) };
            assert_eq!(json!(orgs), all, "told to those who see more than one");
        }
        // Pacers are everybody's: what they carry is a total.
        for rows in [&seen["pacers"], &get(client, "/api/admin/pacers").await] {
            let mock = rows.as_array().unwrap().iter().find(|row| row["provider"] == "mock").unwrap();
            assert_eq!(mock["in_flight"], 2);
        }
    }

    let stop = |stream: &Value| format!("/api/admin/streams/{}/stop", stream.as_str().unwrap());
    let foreign = ours.post(&stop(&their_stream), &json!({})).await.unwrap();
    let unknown = ours.post(&stop(&json!("s_none")), &json!({})).await.unwrap();
    let without_id = |answer: &load::client::Response| {
        let mut error = answer.json()["error"].clone();
        error["request_id"] = Value::Null;
        (answer.status(), error)
    };
    assert_eq!(without_id(&foreign), without_id(&unknown));
    assert_eq!(foreign.status(), 404);
    assert_eq!(get(theirs, "/api/admin/streams").await.as_array().unwrap().len(), 1, "it goes on");
    assert_eq!(ours.post(&stop(&our_stream), &json!({})).await.unwrap().status(), 200);
    assert_eq!(everything.post(&stop(&their_stream), &json!({})).await.unwrap().status(), 200);
    for answer in [&mut our_answer, &mut their_answer] {
        assert_eq!(done(&answer.rest().await)["status"], "cancelled");
    }
}

#[actix_web::test]
async fn an_operators_key_shows_its_organisation_or_all() {
    let keys = keys(&[("a", "acme", "admin"), ("b", "rival", "admin"), ("ops", "*", "admin")]);
    let gateway = Gateway::with_tables(&keys).await;
    let [ours, theirs, everything] = ["a", "b", "ops"].map(|key| with_key(&gateway, key));

    check_views(&ours, &theirs, &everything).await;

    // An operator of all may look at one.
    let narrow = everything.clone().with_header("x-org-id", "rival");
    let report = async |client| {
        let mut report = get(client, "/api/metrics/performance").await;
        // They are of the moment at which they are asked for.
        report["rates"].take();
        report
    };
    assert_eq!(report(&narrow).await, report(&theirs).await);
}

#[actix_web::test]
async fn without_keys_the_header_says_what_is_shown_and_no_header_is_all() {
    let gateway = Gateway::start().await;
    let [ours, theirs] = ["acme", "rival"].map(|org| gateway.client.clone().with_header("x-org-id", org));

    check_views(&ours, &theirs, &gateway.client).await;
}

#[actix_web::test]
async fn an_operator_of_all_organisations_belongs_to_none() {
    let gateway = Gateway::with_tables(&keys(&[("a", "acme", "user"), ("ops", "*", "admin")])).await;
    let thread = thread(&with_key(&gateway, "a")).await;
    let ops = with_key(&gateway, "ops");

    for client in [ops.clone(), ops.clone().with_header("x-org-id", "acme")] {
        for path in ["/api/threads".to_owned(), format!("/api/threads/{thread}"), "/api/requests/r".to_owned()] {
            let refused = client.get(&path).await.unwrap();
            assert_eq!((refused.status(), refused.error_code().as_deref()), (403, Some("forbidden")), "{path}");
            let why = refused.json()["error"]["message"].to_string();
            assert!(why.contains("belongs to no organisation"), "{why}");
        }
    }
    assert!(!get(&ops, "/api/providers").await.as_array().unwrap().is_empty());
}

#[actix_web::test]
async fn a_key_and_the_one_that_replaces_it_are_one_client() {
    let tables =
        keys(&[("chat-ui", "acme", "user"), ("new", "acme", "user")]).replace("id = \"new\"", "id = \"chat-ui\"");
    let gateway = Gateway::with_tables(&tables).await;
    let body = message("hello", "gate@after=0");
    let mut answers = Vec::new();
    for key in ["chat-ui", "new"] {
        let client = with_key(&gateway, key);
        let path = format!("/api/threads/{}/messages/stream", thread(&client).await);
        answers.push(Listener::open(&client, Request::post(path, &body)).await);
    }

    gateway.mock.open_gate();

    let mut roles = Vec::new();
    for answer in &mut answers {
        roles.push(opening(&answer.rest().await)["role"].clone());
    }
    assert_eq!(roles, ["leader", "follower"], "what they ask is shared");
    assert_eq!(gateway.mock.counts().calls_started, 1);
}
