//! A browser signs in once: its cookie stands for the key, for this server's own pages, until the session ends.

use load::client::{Client, Request, Response};
use serde_json::json;

use crate::orgs::{keys, with_key};
use crate::support::gateway::{Gateway, message};
use crate::support::listener::Listener;
use crate::support::{done, until};

const PATH: &str = "/api/session";

/// A server with two organisations, and an operator of all.
async fn start() -> Gateway {
    Gateway::with_tables(&keys(&[("a", "acme", "admin"), ("b", "rival", "user"), ("ops", "*", "admin")])).await
}

async fn sign_in(client: &Client, key: &str) -> Response {
    client.post(PATH, &json!({ "key": key })).await.unwrap()
}

/// What a browser sends back.
fn cookie(answer: &Response) -> String {
    let kept = answer.head.header("set-cookie").unwrap();
    kept.split(';').next().unwrap().to_owned()
}

/// A browser on one of the server's pages that has signed in.
async fn signed_in(gateway: &Gateway, key: &str) -> Client {
    let answer = sign_in(&gateway.client, key).await;
    assert_eq!(answer.status(), 200, "{}", answer.json());
    own_page(gateway, &cookie(&answer))
}

fn own_page(gateway: &Gateway, cookie: &str) -> Client {
    gateway.client.clone().with_header("cookie", cookie).with_header("sec-fetch-site", "same-origin")
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).await.unwrap().status()
}

#[actix_web::test]
async fn a_session_does_what_its_key_does_and_its_cookie_does_not_contain_the_key() {
    let gateway = start().await;
    let answer = sign_in(&gateway.client, "a").await;
    let kept = answer.head.header("set-cookie").unwrap();
    let (pair, attributes) = kept.split_once("; ").unwrap();
    let (name, token) = pair.split_once('=').unwrap();
    assert_eq!((name, token.len()), ("weir", 64), "{kept}");
    assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict");
    assert_eq!(answer.json(), json!({ "org": "acme", "role": "admin", "signed_in": true }));

    let page = own_page(&gateway, pair);
    let thread = page.post("/api/threads", &json!({})).await.unwrap().json()["id"].as_str().unwrap().to_owned();
    let send = Request::post(format!("/api/threads/{thread}/messages/stream"), &message("hello", "mock"));
    assert_eq!(done(&Listener::open(&page, send).await.rest().await)["status"], "complete");

    assert_eq!(page.get(PATH).await.unwrap().json(), json!({ "org": "acme", "role": "admin", "signed_in": true }));
    assert_eq!(status(&with_key(&gateway, "a"), &format!("/api/threads/{thread}")).await, 200);
    assert_eq!(status(&page, "/api/metrics/performance").await, 200);
}

#[actix_web::test]
async fn a_session_sees_its_organisation_and_may_what_its_role_may() {
    let gateway = start().await;
    let [ours, theirs, ops] =
        [signed_in(&gateway, "a").await, signed_in(&gateway, "b").await, signed_in(&gateway, "ops").await];
    let thread = ours.post("/api/threads", &json!({})).await.unwrap().json()["id"].as_str().unwrap().to_owned();

    assert_eq!(status(&theirs, &format!("/api/threads/{thread}")).await, 404);
    assert_eq!(status(&theirs, "/api/metrics/performance").await, 403);
    assert_eq!(status(&ours.clone().with_header("x-org-id", "rival"), "/api/threads").await, 403);
    assert_eq!((status(&ops, "/api/threads").await, status(&ops, "/api/admin/streams").await), (403, 200));
    assert_eq!(ops.get(PATH).await.unwrap().json()["org"], json!(null));
}

#[actix_web::test]
async fn without_a_known_key_there_is_no_session() {
    let gateway = start().await;
    for (body, expected) in [
        (json!({ "key": "wrong" }), (401, "unauthorized")),
        (json!({ "key": "" }), (401, "unauthorized")),
        (json!({}), (400, "invalid_request")),
        (json!({ "key": 1 }), (400, "invalid_request")),
        (json!({ "key": "a", "more": 1 }), (400, "invalid_request")),
    ] {
        let refused = gateway.client.post(PATH, &body).await.unwrap();
        assert_eq!((refused.status(), refused.error_code().as_deref()), (expected.0, Some(expected.1)), "{body}");
        assert!(refused.head.header("set-cookie").is_none());
    }
    assert_eq!(status(&gateway.client, PATH).await, 401);
    for invented in ["weir=", "weir=a", "weir=0000", "weir"] {
        assert_eq!(status(&own_page(&gateway, invented), "/api/threads").await, 401, "{invented}");
    }
}

#[actix_web::test]
async fn who_signs_out_is_signed_out_wherever_the_cookie_has_gone() {
    let gateway = start().await;
    let (page, other) = (signed_in(&gateway, "a").await, signed_in(&gateway, "a").await);

    let left = page.send(Request::new("DELETE", PATH)).await.unwrap();

    assert_eq!(left.status(), 204);
    assert_eq!(left.head.header("set-cookie"), Some("weir=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"));
    assert_eq!((status(&page, "/api/threads").await, status(&other, "/api/threads").await), (401, 200));
    assert_eq!(page.send(Request::new("DELETE", PATH)).await.unwrap().status(), 204, "again is no mistake");
}

#[actix_web::test]
async fn who_signs_in_again_has_one_session() {
    let gateway = start().await;
    let first = signed_in(&gateway, "a").await;

    let second = own_page(&gateway, &cookie(&sign_in(&first, "b").await));

    assert_eq!((status(&first, "/api/threads").await, status(&second, "/api/threads").await), (401, 200));
}

#[actix_web::test]
async fn a_session_ends_by_itself() {
    let tables = format!("[auth]\nsession_ms = 1000\n{}", keys(&[("a", "acme", "user")]));
    let gateway = Gateway::with_tables(&tables).await;
    let answer = sign_in(&gateway.client, "a").await;
    assert!(answer.head.header("set-cookie").unwrap().contains("; Max-Age=1;"));
    let page = own_page(&gateway, &cookie(&answer));

    until(&page, "/api/threads", |answer| answer.status() == 401).await;
}

#[actix_web::test]
async fn a_key_in_the_header_wins_over_a_session_even_a_wrong_one() {
    let gateway = start().await;
    let page = signed_in(&gateway, "a").await;
    let with = |authorization: &str| page.clone().with_header("authorization", authorization);

    let known = with("Bearer b").get(PATH).await.unwrap().json();
    assert_eq!(known, json!({ "org": "rival", "role": "user", "signed_in": false }));
    for wrong in ["Bearer wrong", "Basic a", ""] {
        assert_eq!(status(&with(wrong), "/api/threads").await, 401, "{wrong}");
    }
    // A key is nothing that a browser adds by itself.
    let elsewhere = with_key(&gateway, "a").with_header("sec-fetch-site", "cross-site");
    assert_eq!(elsewhere.post("/api/threads", &json!({})).await.unwrap().status(), 201);
}

#[actix_web::test]
async fn other_pages_cannot_use_a_session() {
    let gateway = start().await;
    let cookie = cookie(&sign_in(&gateway.client, "a").await);
    let from = |headers: &[(&str, &str)]| {
        let client = gateway.client.clone().with_header("cookie", &cookie);
        headers.iter().fold(client, |client, (name, value)| client.with_header(*name, *value))
    };
    let own = format!("http://{}", gateway.address());
    let other_port = "http://127.0.0.1:1";
    // Where from, whether it may read, whether it may write.
    for (headers, reads, writes) in [
        (&[("sec-fetch-site", "same-origin")] as &[_], true, true),
        (&[("origin", own.as_str())], true, true),
        (&[("sec-fetch-site", "none")], true, false),
        (&[], true, false),
        (&[("sec-fetch-site", "same-site"), ("origin", other_port)], false, false),
        (&[("sec-fetch-site", "cross-site"), ("origin", own.as_str())], false, false),
        (&[("origin", other_port)], false, false),
        (&[("origin", "null")], false, false),
    ] {
        let page = from(headers);
        let read = page.get("/api/threads").await.unwrap();
        assert_eq!(read.status(), if reads { 200 } else { 403 }, "{headers:?}");
        let wrote = page.post("/api/threads", &json!({})).await.unwrap();
        assert_eq!(wrote.status(), if writes { 201 } else { 403 }, "{headers:?}");
        if !writes {
            assert_eq!(page.send(Request::new("DELETE", PATH)).await.unwrap().status(), 403, "{headers:?}");
            let patch = Request::new("PATCH", "/api/admin/pacers/mock").json(&json!({ "rps": 1.0 }));
            assert_eq!(page.send(patch).await.unwrap().status(), 403, "{headers:?}");
        }
    }
    let elsewhere = gateway.client.clone().with_header("origin", other_port);
    assert_eq!(sign_in(&elsewhere, "a").await.status(), 403, "nobody is signed in by another page");
    assert_eq!(status(&own_page(&gateway, &cookie), "/api/threads").await, 200, "it lives on");
}

#[actix_web::test]
async fn behind_https_the_cookie_is_for_https_alone() {
    let gateway = start().await;
    let proxied = gateway.client.clone().with_header("x-forwarded-proto", "https");

    let answer = sign_in(&proxied, "a").await;

    let kept = answer.head.header("set-cookie").unwrap();
    assert!(kept.starts_with("__Host-weir=") && kept.ends_with("; SameSite=Strict; Secure"), "{kept}");
    let page = own_page(&gateway, &cookie(&answer));
    assert_eq!(status(&page, "/api/threads").await, 401, "not without it");
    assert_eq!(status(&page.with_header("x-forwarded-proto", "https"), "/api/threads").await, 200);
}

#[actix_web::test]
async fn without_keys_everybody_is_told_what_they_are_and_nobody_can_sign_in() {
    let gateway = Gateway::start().await;

    assert_eq!(gateway.get(PATH).await, json!({ "org": "org_demo", "role": "admin", "signed_in": false }));
    assert_eq!(sign_in(&gateway.client, "a").await.status(), 401);
}
