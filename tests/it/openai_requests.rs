//! `/v1`: what clients may ask for, what of it travels, and who shares an answer.

use futures_util::future::join_all;
use load::client::{Client, Request};
use serde_json::{Value, json};

use crate::openai::{answered, ask, ask_streamed, whole};
use crate::support::gateway::{FAST, Gateway};

// --- What travels ---------------------------------------------------------------

#[actix_web::test]
async fn what_weir_does_not_know_travels_as_it_is() {
    let gateway = Gateway::start().await;
    let messages = json!([
        { "role": "developer", "content": [{ "type": "text", "text": "be brief", "cache_control": { "type": "x" } }] },
        { "role": "user", "content": "weather?", "name": "ann" },
        { "role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
        ] },
        { "role": "tool", "tool_call_id": "c1", "content": "sunny" },
        { "role": "user", "content": [
            { "type": "text", "text": "hello" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA", "detail": "low" } },
            { "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } },
        ] },
    ]);
    let more = json!({
        "messages": messages, "top_k": 5, "logit_bias": { "1": 2 }, "n": 1, "max_completion_tokens": 9,
        "stream_options": { "include_obfuscation": false }, "tool_choice": "auto", "seed": 4, "user": "ann",
        "temperature": 0.5, "metadata": null, "coalesce": false, "request_id": "mine",
    });

    let answer = whole(&gateway, "text", &more).await;

    assert_eq!((answer.status(), answer.head.header("x-request-id")), (200, Some("mine")));
    let sent = gateway.mock.last_call().unwrap().json();
    let expected = json!({
        "model": "text", "messages": messages, "stream": true, "top_k": 5, "logit_bias": { "1": 2 }, "n": 1,
        "max_completion_tokens": 9, "stream_options": { "include_obfuscation": false, "include_usage": true },
        "tool_choice": "auto", "seed": 4, "user": "ann", "temperature": 0.5, "metadata": null,
    });
    assert_eq!(sent, expected);
}

#[actix_web::test]
async fn the_conversation_is_the_clients_alone() {
    let gateway = Gateway::with_keys("system_prompt = \"for threads\"").await;

    whole(&gateway, "text", &json!({})).await;

    let sent = gateway.mock.last_call().unwrap().json();
    assert_eq!(sent["messages"], json!([{ "role": "user", "content": "hello" }]));
}

#[actix_web::test]
async fn what_cannot_be_is_refused_with_its_name() {
    let gateway = Gateway::with_tables("[limits]\nmessages_max = 3\ncontent_bytes_max = 1000").await;
    let user = |content: Value| json!([{ "role": "user", "content": content }]);
    let image = |url: &str| user(json!([{ "type": "image_url", "image_url": { "url": url } }]));
    let detailed =
        |detail| user(json!([{ "type": "image_url", "image_url": { "url": "https://x", "detail": detail } }]));
    let cases = [
        ("n", json!(2), "n", 422),
        ("modalities", json!(["text", "audio"]), "modalities", 422),
        ("audio", json!({ "voice": "x" }), "modalities", 422),
        ("model", json!(null), "model", 400),
        ("model", json!(7), "model", 400),
        ("stream", json!("yes"), "stream", 400),
        ("stream_options", json!(true), "stream_options", 400),
        ("stream_options", json!({ "include_usage": 1 }), "stream_options.include_usage", 400),
        ("temperature", json!(3), "temperature", 400),
        ("max_tokens", json!(0), "max_tokens", 400),
        ("max_completion_tokens", json!("many"), "max_completion_tokens", 400),
        ("tools", json!([{ "type": "function" }]), "tools[0]", 400),
        ("messages", json!(null), "messages", 400),
        ("messages", json!([]), "messages", 400),
        ("messages", json!("hello"), "messages", 400),
        ("messages", json!([1, 2, 3, 4]), "messages", 400),
        ("messages", json!([1]), "messages[0].role", 400),
        ("messages", json!([{ "role": "robot", "content": "x" }]), "messages[0].role", 400),
        ("messages", json!([{ "role": "user" }]), "messages[0].content", 400),
        ("messages", user(json!(["x"])), "messages[0].content[0]", 400),
        ("messages", user(json!([{ "type": "text" }])), "messages[0].content[0]", 400),
        ("messages", user(json!("x".repeat(1001))), "messages[0].content", 413),
        ("messages", image("file:///etc/passwd"), "messages[0].content[0]", 400),
        ("messages", detailed(json!({})), "messages[0].content[0]", 400),
        ("messages", detailed(json!("much")), "messages[0].content[0]", 400),
        ("messages", json!([{ "role": "tool", "content": "x" }]), "messages[0].tool_call_id", 400),
        ("messages", json!([{ "role": "user", "content": "x", "tool_calls": [] }]), "messages[0].tool_calls", 400),
        ("messages", json!([{ "role": "assistant", "tool_calls": [{}] }]), "messages[0].tool_calls[0]", 400),
    ];
    for (field, value, param, status) in cases {
        let refused = whole(&gateway, "text", &json!({ field: value })).await;

        let error = &refused.json()["error"];
        assert_eq!((refused.status(), error["param"].as_str()), (status, Some(param)), "{field}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(gateway.mock.counts().calls_started, 0);
}

#[actix_web::test]
async fn other_dialects_refuse_parts_that_they_would_lose() {
    let tables = "[providers.other]\ndialect = \"ollama\"\nbase_url = \"http://127.0.0.1:9\"\nmodels = [\"o\"]";
    let gateway = Gateway::with_tables(tables).await;
    let audio = json!([{ "type": "input_audio", "input_audio": { "data": "AAAA" } }]);
    let cases = [
        (json!({ "messages": [{ "role": "user", "content": audio }] }), "messages[0].content[0].type"),
        (json!({ "functions": [{ "name": "f" }] }), "functions"),
        (json!({ "tools": [{ "type": "custom", "custom": { "name": "f" } }] }), "tools[0].type"),
    ];
    for (more, param) in cases {
        let mut body = ask("text", &more);
        body["model"] = "other/o".into();
        let refused = answered(&gateway, Request::post("/v1/chat/completions", &body)).await;

        let error = &refused.json()["error"];
        assert_eq!((refused.status(), error["param"].as_str()), (422, Some(param)), "{error}");
    }
}

// --- Models -----------------------------------------------------------------------

const TWO_MORE: &str = "[providers.a]\ndialect = \"openai_chat\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                        api_key_env = \"\"\nmodels = [\"shared\", \"a-only\"]\n\
                        [providers.b]\ndialect = \"openai_chat\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                        api_key_env = \"\"\nmodels = [\"shared\"]\n";

#[actix_web::test]
async fn models_have_names_that_requests_can_use() {
    let gateway = Gateway::with_tables(TWO_MORE).await;

    let list = gateway.get("/v1/models").await;

    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a/shared", "a/a-only", "b/shared", "demo/demo", "mock/mock"]);
    for path in ["/v1/models/a/a-only", "/v1/models/a%2Fa-only", "/v1/models/a-only", "/v1/models/a-only/"] {
        let model = gateway.get(path).await;
        assert_eq!(model, json!({ "id": "a/a-only", "object": "model", "created": 0, "owned_by": "a" }));
    }
    assert_eq!(gateway.get("/v1/models/mock/any@thing=1").await["id"], "mock/any@thing=1");
}

#[actix_web::test]
async fn a_name_that_means_no_model_or_several_is_not_found() {
    let gateway = Gateway::with_tables(TWO_MORE).await;
    for name in ["shared", "nothing", "a/nothing", "nobody/shared", "text@tokens=1", "a/", "/"] {
        let refused = whole(&gateway, "x", &json!({ "model": name })).await;

        let error = &refused.json()["error"];
        assert_eq!((refused.status(), &error["code"]), (404, &json!("model_not_found")), "{name}: {error}");
        assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &json!("model")));
    }
    let ambiguous = whole(&gateway, "x", &json!({ "model": "shared" })).await.json();
    assert!(ambiguous["error"]["message"].as_str().unwrap().contains("a/shared, b/shared"), "{ambiguous}");
    let unknown = gateway.client.get("/v1/models/nothing").await.unwrap();
    assert_eq!((unknown.status(), unknown.error_code().as_deref()), (404, Some("model_not_found")));
    assert_eq!(whole(&gateway, "x", &json!({ "model": "mock" })).await.status(), 200);
}

#[actix_web::test]
async fn a_provider_without_its_key_is_named() {
    let gateway = Gateway::start().await;

    let refused = whole(&gateway, "x", &json!({ "model": "openai/gpt-5.6-luna" })).await;

    assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("provider_unavailable")));
    assert_eq!(refused.head.header("x-should-retry"), Some("false"));
}

// --- Keys and ids -------------------------------------------------------------------

#[actix_web::test]
async fn without_keys_any_bearer_is_fine() {
    let gateway = Gateway::start().await;

    let request = Request::post("/v1/chat/completions", &ask("text", &json!({}))).header("authorization", "Bearer x");

    assert_eq!(answered(&gateway, request).await.status(), 200);
}

#[actix_web::test]
async fn with_keys_a_wrong_one_is_refused() {
    // The digest of "sk-test".
    let key = "[[auth.keys]]\nid = \"sdk\"\norg = \"acme\"\nrole = \"user\"\n\
               sha256 = \"f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0\"";
    let gateway = Gateway::with_tables(key).await;
    let with = |key: &str| {
        let client = Client::new(&format!("http://{}", gateway.address())).unwrap();
        client.with_header("authorization", format!("Bearer {key}"))
    };

    let wrong = with("sk-wrong").send(ask_streamed("text", &json!({}))).await.unwrap();
    let models = with("sk-wrong").get("/v1/models").await.unwrap();
    let right = with("sk-test").send(ask_streamed("text", &json!({}))).await.unwrap();

    assert_eq!((wrong.status(), models.status(), right.status()), (401, 401, 200));
    assert_eq!(wrong.json()["error"]["type"], "authentication_error");
}

#[actix_web::test]
async fn a_request_that_has_failed_can_be_sent_again_under_its_id() {
    let gateway = Gateway::with_provider(&format!("{FAST}\nretries_max = 0")).await;
    let request = || ask_streamed("flaky@k=1,status=500", &json!({})).header("x-request-id", "mine");

    let failed = answered(&gateway, request()).await;
    let again = answered(&gateway, request()).await;

    assert_eq!((failed.status(), failed.head.header("x-request-id")), (502, Some("mine")));
    assert_eq!(again.status(), 200);
    assert_eq!(gateway.mock.counts().calls_started, 2);
}

/// Its client knows no other id.
#[actix_web::test]
async fn a_request_that_is_sent_again_after_a_failure_is_cancelled_and_looked_at_by_its_id() {
    let gateway = Gateway::with_provider(&format!("{FAST}\nretries_max = 0")).await;
    let request =
        |more: &Value| ask_streamed("flaky@k=1,status=500,gap_ms=100000", more).header("x-request-id", "mine");
    assert_eq!(answered(&gateway, request(&json!({}))).await.status(), 502);

    let mut again = gateway.open(request(&json!({}))).await;
    let other = answered(&gateway, request(&json!({ "seed": 1 }))).await;
    let running = gateway.get("/api/requests/mine").await;
    let cancel = gateway.cancel("mine").await;
    let rest = again.rest().await;
    let ended = gateway.get("/api/requests/mine").await;

    assert_eq!(again.head().header("x-request-id"), Some("mine"));
    assert_eq!((other.status(), other.error_code().as_deref()), (409, Some("request_id_in_use")));
    assert_eq!((&running["status"], &ended["status"]), (&json!("streaming"), &json!("cancelled")));
    assert_eq!((cancel.status(), &cancel.json()["upstream"]), (200, &json!("aborted")));
    assert!(rest.last().unwrap().event.data.contains("\"cancelled\""), "{rest:?}");
    gateway.at_rest().await;
}

#[actix_web::test]
async fn an_id_that_is_in_use_is_refused_or_joined() {
    let gateway = Gateway::start().await;
    let request = |more: &Value| ask_streamed("gate@after=0", more).header("x-request-id", "mine");
    let first = async { answered(&gateway, request(&json!({}))).await };
    let others = async {
        gateway.called(|counts| counts.answers_held == 1).await;
        let same = async { answered(&gateway, request(&json!({}))).await };
        let rest = async {
            let other = answered(&gateway, request(&json!({ "seed": 1 }))).await;
            gateway.until("/api/admin/streams", |streams| streams[0]["listeners"] == 2).await;
            gateway.mock.open_gate();
            other
        };
        futures_util::join!(same, rest)
    };

    let (first, (same, other)) = futures_util::join!(first, others);

    assert_eq!((first.status(), same.status()), (200, 200));
    assert_eq!(first.body, same.body);
    assert_eq!((other.status(), other.error_code().as_deref()), (409, Some("request_id_in_use")));
    assert_eq!(gateway.mock.counts().calls_started, 1);
}

// --- Sharing ------------------------------------------------------------------------

/// Five equal requests at once make this many calls.
async fn five_make(gateway: &Gateway, calls: u64, more: &Value, header: Option<(&str, &str)>) {
    let before = gateway.mock.counts().calls_started;
    let request = || {
        let request = ask_streamed("gate@after=0,tokens=3", more);
        match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        }
    };
    let all_wait = async {
        gateway.until_listeners(5).await;
        gateway.called(|counts| counts.answers_held == calls).await;
        (0..calls).for_each(|_| gateway.mock.open_gate());
    };
    let (answers, ()) = futures_util::join!(join_all((0..5).map(|_| answered(gateway, request()))), all_wait);
    assert!(answers.iter().all(|answer| answer.status() == 200));
    gateway.at_rest().await;
    assert_eq!(gateway.mock.counts().calls_started - before, calls, "{more} {header:?}");
}

#[actix_web::test]
async fn only_what_would_be_equal_anyway_is_shared() {
    let gateway = Gateway::start().await;
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    for (more, header, calls) in [
        (json!({ "temperature": 0 }), None, 1),
        (json!({ "seed": 7 }), None, 1),
        (json!({}), None, 5),
        (json!({ "temperature": 0.1 }), None, 5),
        (json!({ "temperature": 0, "tools": tools }), None, 5),
        (json!({ "temperature": 0, "store": true }), None, 5),
        (json!({ "temperature": 0, "coalesce": false }), None, 5),
        (json!({ "temperature": 0 }), Some(("x-coalesce", "off")), 5),
    ] {
        five_make(&gateway, calls, &more, header).await;
    }
}

#[actix_web::test]
async fn sharing_can_be_widened_and_switched_off() {
    for (tables, more, calls) in [
        ("[coalesce]\nopenai_api = \"always\"", json!({}), 1),
        ("[coalesce]\nopenai_api = \"never\"", json!({ "temperature": 0 }), 5),
        ("[coalesce]\nenabled = false", json!({ "temperature": 0 }), 5),
        ("[stream]\nfanout_enabled = false", json!({ "temperature": 0 }), 5),
    ] {
        let gateway = Gateway::with_tables(tables).await;
        five_make(&gateway, calls, &more, None).await;
    }
}
