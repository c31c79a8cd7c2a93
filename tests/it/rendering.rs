//! Texts become HTML that is safe: whole answers beside their messages, growing ones block by block.

use load::client::Request;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, config, message};
use crate::support::virtual_weir::VirtualWeir;

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
