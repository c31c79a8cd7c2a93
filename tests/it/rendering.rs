//! Texts become HTML that is safe: whole answers beside their messages, growing ones block by block.

use std::pin::pin;
use std::time::Duration;

use load::client::Request;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::gateway::{Gateway, config, message};
use crate::support::virtual_weir::VirtualWeir;
use crate::survival::in_virtual_time;

async fn render(gateway: &Gateway, body: &Value) -> (u16, Value) {
    let response = gateway.client.post("/api/render", body).await.unwrap();
    (response.status(), response.json())
}

#[actix_web::test]
async fn a_growing_text_is_rendered_up_to_where_it_is_settled_and_the_rest_beside() {
    let gateway = Gateway::start().await;

    let (status, rendered) = render(&gateway, &json!({ "text": "**Grüße** 🌊\n\n- one\n- **tw" })).await;

    assert_eq!(status, 200);
    // Browsers count the wave as two.
    assert_eq!(rendered["settled"], 14);
    assert_eq!(rendered["html"], "<p><strong>Grüße</strong> 🌊</p>\n");
    assert_eq!(rendered["rest"], "<ul>\n<li>one</li>\n<li><strong>tw</strong></li>\n</ul>\n");
}

#[actix_web::test]
async fn what_cannot_be_rendered_is_refused_by_its_field() {
    let gateway = Gateway::with_server("body_bytes_max = 2097152").await;
    let cases = [
        (json!({}), 400, "text"),
        (json!({ "text": 1 }), 400, "text"),
        (json!({ "text": "a", "html": true }), 400, "html"),
        (json!({ "text": "a".repeat(512 * 1024 + 1) }), 413, "text"),
    ];
    for (body, status, param) in cases {
        let (answered, error) = render(&gateway, &body).await;
        assert_eq!((answered, &error["error"]["param"]), (status, &json!(param)));
    }
}

#[actix_web::test]
async fn texts_beyond_those_that_may_be_rendered_at_once_are_refused_for_a_moment() {
    let weir = VirtualWeir::start(&config("http://127.0.0.1:1/v1", "unused", "", "")).await;
    let place = weir.api.renderings.acquire().await.unwrap();

    let refused = weir.send(Request::post("/api/render", &json!({ "text": "a" }))).await;

    assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("overloaded")));
    assert_eq!(refused.head.header("retry-after"), Some("1"));
    drop(place);
    assert_eq!(weir.send(Request::post("/api/render", &json!({ "text": "a" }))).await.status(), 200);
}

#[test]
fn stored_answers_wait_for_their_place_to_be_rendered_but_not_for_long() {
    in_virtual_time(async {
        let weir = VirtualWeir::start(&config("http://127.0.0.1:1/v1", "unused", "", "")).await;
        let thread = weir.send(Request::post("/api/threads", &json!({}))).await.json();
        let path = format!("/api/threads/{}", thread["id"].as_str().unwrap());
        weir.send(Request::post(format!("{path}/messages"), &message("hello", "mock"))).await;
        let rendered = || weir.send(Request::get(format!("{path}?render=html")));
        let place = weir.api.renderings.acquire().await.unwrap();

        let refused = rendered().await;
        let plain = weir.send(Request::get(path.clone())).await;
        let mut waiting = pin!(rendered());
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "it waits");
        drop(place);
        let shown = waiting.await;

        assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("overloaded")));
        assert_eq!((plain.status(), shown.status()), (200, 200));
        assert!(shown.json()["messages"][1]["html"].as_str().unwrap().starts_with("<p>"));
    });
}

#[actix_web::test]
async fn an_answer_that_has_ended_has_its_html_beside_it() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let answer = gateway.send(&thread, &message("hello", "mock")).await.json();
    let id = answer["assistant_message"]["id"].as_str().unwrap();

    let shown = gateway.get(&format!("/api/threads/{thread}/messages/{id}?render=html")).await;

    assert!(shown["html"].as_str().unwrap().starts_with("<p>"));
    assert_eq!(gateway.get(&format!("/api/threads/{thread}/messages/{id}")).await["html"], Value::Null);
}
