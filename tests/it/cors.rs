//! Pages of other sites: those of listed origins may ask and read with a key, nobody acts by somebody's session.

use load::client::{Client, Head, Request, Response};
use serde_json::json;

use crate::openai::ask_streamed;
use crate::orgs::{keys, with_key};
use crate::support::done;
use crate::support::gateway::{FAST, Gateway, message};
use crate::support::listener::Listener;

const LISTED: &str = "https://app.example";
const UNLISTED: &str = "https://app.example.evil";

/// A server with the key `a`, and these origins.
async fn start(origins: &[&str]) -> Gateway {
    let keys = keys(&[("a", "acme", "user"), ("ops", "*", "admin")]);
    Gateway::with_all(&format!("cors_origins = {origins:?}"), FAST, &keys).await
}

/// A page of an origin, as its browser writes requests to another site.
fn page(client: &Client, origin: &str) -> Client {
    client.clone().with_header("origin", origin).with_header("sec-fetch-site", "cross-site")
}

async fn preflight(client: &Client, method: &str, path: &str) -> Response {
    let request = Request::new("OPTIONS", path)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,content-type,x-stainless-os");
    client.send(request).await.unwrap()
}

/// Whether pages of `origin` may read the answer, and nobody's cookie is asked for.
#[track_caller]
fn check_readable(head: &Head, origin: Option<&str>) {
    assert_eq!(head.header("access-control-allow-origin"), origin);
    assert_eq!(head.header("access-control-allow-credentials"), None);
    let exposed = head.header("access-control-expose-headers").map(|names| names.split(", ").collect::<Vec<_>>());
    assert_eq!(exposed.is_some(), origin.is_some());
    for name in ["X-Request-Id", "X-Stream-Id", "X-Next-Cursor", "Retry-After", "Server-Timing"] {
        assert!(exposed.as_ref().is_none_or(|names| names.contains(&name)), "{name}");
    }
    assert_eq!(head.header("vary"), (origin != Some("*")).then_some("Origin"));
}

#[actix_web::test]
async fn a_preflight_is_answered_without_a_key_and_names_what_the_path_has() {
    let gateway = start(&["https://other.example", LISTED]).await;
    let listed = page(&gateway.client, LISTED);
    for (path, methods) in [
        ("/v1/chat/completions", "POST"),
        ("/v1/models/mock/mock", "GET, HEAD"),
        ("/api/threads", "POST, GET, HEAD"),
        ("/api/threads/", "POST, GET, HEAD"),
        ("/api/threads/t_none", "GET, HEAD, PATCH, DELETE"),
        ("/api/threads/t_none/messages/stream", "POST"),
        ("/api/requests/r_none/stream?last_event_id=1-2", "GET"),
        ("/api/admin/pacers/mock", "PATCH"),
    ] {
        let answer = preflight(&listed, "POST", path).await;

        assert_eq!((answer.status(), answer.body.len()), (204, 0), "{path}");
        check_readable(&answer.head, Some(LISTED));
        let header = |name: &str| answer.head.header(&format!("access-control-{name}"));
        assert_eq!(header("allow-methods"), Some(methods), "{path}");
        assert_eq!(header("allow-headers"), Some("authorization,content-type,x-stainless-os"));
        assert_eq!(header("max-age"), Some("600"));
    }

    let unknown = preflight(&listed, "POST", "/api/nothing").await;
    assert_eq!(unknown.error_code().as_deref(), Some("not_found"));
    check_readable(&unknown.head, Some(LISTED));
    let no_preflight = listed.send(Request::new("OPTIONS", "/api/threads")).await.unwrap();
    assert_eq!((no_preflight.status(), no_preflight.head.header("allow")), (405, Some("POST, GET, HEAD")));
    let metrics = String::from_utf8(with_key(&gateway, "ops").get("/metrics").await.unwrap().body.to_vec()).unwrap();
    let counted = "weir_error_responses_total{code=\"method_not_allowed\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "a preflight is no error: {metrics}");
}

#[actix_web::test]
async fn who_is_not_listed_is_told_nothing() {
    let gateway = start(&[LISTED]).await;
    for origin in [UNLISTED, "http://app.example", "https://app.example:8443", "https://APP.example", "null", "*"] {
        let unlisted = page(&gateway.client, origin);
        let refused = preflight(&unlisted, "POST", "/api/threads").await;
        assert_eq!((refused.status(), refused.head.header("access-control-allow-methods")), (405, None), "{origin}");
        check_readable(&refused.head, None);
        check_readable(&unlisted.get("/health").await.unwrap().head, None);
    }
    check_readable(&gateway.client.get("/health").await.unwrap().head, None);

    let closed = Gateway::start().await;
    let answer = page(&closed.client, LISTED).get("/health").await.unwrap();
    let headers = ["access-control-allow-origin", "access-control-expose-headers", "vary"];
    assert_eq!(headers.map(|name| answer.head.header(name)), [None; 3], "nobody is listed");
    assert_eq!(preflight(&page(&closed.client, LISTED), "POST", "/api/threads").await.status(), 405);
}

#[actix_web::test]
async fn a_listed_page_reads_every_answer_errors_and_streams_included() {
    let gateway = start(&[LISTED]).await;
    let nobody = page(&gateway.client, LISTED);
    let a = nobody.clone().with_header("authorization", "Bearer a");
    let made = a.post("/api/threads", &json!({})).await.unwrap();
    let path = format!("/api/threads/{}", made.json()["id"].as_str().unwrap());
    let send = |model: &str| Request::post(format!("{path}/messages"), &message("hello", model));
    let answers = [
        (nobody.get("/health").await, 200),
        (Ok(made), 201),
        (a.send(send("mock")).await, 200),
        (a.send(send("auth")).await, 502),
        (a.get("/v1/models").await, 200),
        (nobody.get("/api/threads").await, 401),
        (a.get("/api/threads/t_none").await, 404),
        (a.get("/api/threads?limit=x").await, 400),
        (a.get("/api/admin/streams").await, 403),
        (a.send(Request::new("PUT", path.as_str())).await, 405),
        (a.get(&format!("/{}", "x".repeat(9_000))).await, 414),
        (a.send(Request::new("DELETE", path.as_str())).await, 204),
    ];
    for (answer, status) in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), status);
        check_readable(&answer.head, Some(LISTED));
    }

    let thread = a.post("/api/threads", &json!({})).await.unwrap().json()["id"].as_str().unwrap().to_owned();
    let ask = Request::post(format!("/api/threads/{thread}/messages/stream"), &message("hello", "mock"));
    let mut events = Listener::open(&a, ask).await;
    check_readable(events.head(), Some(LISTED));
    assert_eq!(done(&events.rest().await)["status"], "complete");
    let mut chunks = Listener::open(&a, ask_streamed("mock", &json!({}))).await;
    check_readable(chunks.head(), Some(LISTED));
    assert_eq!(chunks.rest().await.last().unwrap().event.data, "[DONE]");
}

#[actix_web::test]
async fn with_keys_pages_of_everybody_may_be_let_in() {
    let gateway = start(&[LISTED, "*"]).await;
    let a = page(&with_key(&gateway, "a"), UNLISTED);

    check_readable(&preflight(&a, "POST", "/v1/chat/completions").await.head, Some("*"));
    check_readable(&a.get("/v1/models").await.unwrap().head, Some("*"));
    check_readable(&page(&gateway.client, UNLISTED).get("/v1/models").await.unwrap().head, Some("*"));
}

#[actix_web::test]
async fn no_page_of_another_site_acts_by_a_session() {
    for origins in [&[LISTED] as &[_], &["*"]] {
        let gateway = start(origins).await;
        let signed_in = gateway.client.post("/api/session", &json!({ "key": "a" })).await.unwrap();
        let cookie = signed_in.head.header("set-cookie").unwrap().split(';').next().unwrap();
        for site in ["cross-site", "same-site"] {
            let elsewhere = gateway.client.clone().with_header("origin", LISTED).with_header("sec-fetch-site", site);
            let with_cookie = elsewhere.clone().with_header("cookie", cookie);

            assert_eq!(with_cookie.get("/api/threads").await.unwrap().status(), 403);
            assert_eq!(with_cookie.post("/api/threads", &json!({})).await.unwrap().status(), 403);
            assert_eq!(with_cookie.send(Request::new("DELETE", "/api/session")).await.unwrap().status(), 403);
            let begun = elsewhere.post("/api/session", &json!({ "key": "a" })).await.unwrap();
            assert_eq!((begun.status(), begun.head.header("set-cookie")), (403, None), "nobody is signed in there");
            let with_key = with_cookie.with_header("authorization", "Bearer a");
            assert_eq!(with_key.post("/api/threads", &json!({})).await.unwrap().status(), 201, "a key is its own");
        }
    }
}

#[actix_web::test]
async fn without_keys_a_listed_page_may_write_and_no_other() {
    let gateway = Gateway::with_server(&format!("cors_origins = [{LISTED:?}]")).await;
    let write = async |client: Client| client.post("/api/threads", &json!({})).await.unwrap();

    let wrote = write(page(&gateway.client, LISTED)).await;
    assert_eq!(wrote.status(), 201);
    check_readable(&wrote.head, Some(LISTED));
    assert_eq!(write(gateway.client.clone().with_header("origin", LISTED)).await.status(), 201);
    for unlisted in [page(&gateway.client, UNLISTED), gateway.client.clone().with_header("origin", UNLISTED)] {
        let refused = write(unlisted).await;
        assert_eq!(refused.status(), 403);
        check_readable(&refused.head, None);
    }
    let unsaid = gateway.client.clone().with_header("sec-fetch-site", "cross-site");
    assert_eq!(write(unsaid).await.status(), 403, "who does not say where from");
}

#[actix_web::test]
async fn an_origin_that_is_listed_no_more_is_not_let_in_after_a_reload() {
    let gateway = start(&[LISTED]).await;
    let (listed, ops) = (page(&with_key(&gateway, "a"), LISTED), with_key(&gateway, "ops"));
    check_readable(&listed.get("/v1/models").await.unwrap().head, Some(LISTED));

    gateway.edit(LISTED, "https://new.example");
    let told = ops.post("/api/admin/reload", &json!({})).await.unwrap().json();

    assert_eq!(told["changed"], json!(["server.cors_origins"]));
    check_readable(&listed.get("/v1/models").await.unwrap().head, None);
    assert_eq!(preflight(&listed, "GET", "/v1/models").await.status(), 405);
}
