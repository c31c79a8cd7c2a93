//! Small promises that are easily broken: names, nulls, looks, strangers, and what an error may say.

use load::client::{Request, text_of};
use load::mock::expected_text;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::gateway::{FAST, Gateway, PATIENCE, message};
use crate::support::{content, done};

#[actix_web::test]
async fn a_message_that_was_cancelled_before_it_came_is_answered_as_cancelled() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    assert_eq!(gateway.cancel("early").await.status(), 404);
    let mut body = message("hello", "mock");
    body["request_id"] = "early".into();

    let answer = gateway.send(&thread, &body).await;

    assert_eq!((answer.status(), &answer.json()["status"]), (200, &json!("cancelled")), "{}", answer.json());
    assert_eq!(answer.json()["request_id"], "early");
    assert_eq!(gateway.mock.counts().calls_started, 0);
}

/// Two threads share an answer; one of them withdraws while it goes on.
#[actix_web::test]
async fn a_thread_that_leaves_a_shared_answer_keeps_what_it_heard() {
    let gateway = Gateway::start().await;
    for round in 0..20 {
        let (leaving, staying) = (gateway.thread().await, gateway.thread().await);
        let body = message(&format!("round {round}"), "text@tokens=1000000,gap_ms=0");
        let mut others = gateway.stream(&staying, &body).await;
        let mut events = gateway.stream(&leaving, &body).await;
        let request = events.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
        events.next_named("delta").await;
        let other = others.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();

        let (cancel, rest) = futures_util::join!(gateway.cancel(&request), events.rest());
        gateway.cancel(&other).await;

        assert_eq!(cancel.json()["upstream"], "shared");
        assert_eq!(done(&rest)["status"], "cancelled");
        let heard_len = 1 + content(&rest).len();
        let end = rest.last().unwrap().event.id.clone();
        assert_eq!(end, Some(format!("1-{}", heard_len + 1)), "the end is numbered after what was heard");
        let heard = expected_text("text@tokens=1", &format!("round {round}")) + &text_of(&rest);
        let kept = gateway.read(&leaving).await["messages"][1].clone();
        assert_eq!(kept["status"], "cancelled");
        assert_eq!(kept["content"], heard, "what was delivered is what is kept");
    }
}

#[actix_web::test]
async fn the_id_that_a_client_chose_names_its_response_and_its_refusals() {
    let gateway = Gateway::start().await;
    let (thread, busy) = (gateway.thread().await, gateway.thread().await);
    let mut running = gateway.stream(&busy, &message("hello", "silent")).await;
    running.next_named("meta").await;
    let mut wrong = message("hello", "mock");
    wrong["temperature"] = json!("hot");
    let cases = [
        (&thread, message("hello", "mock"), 200),
        (&thread, message("hello", "server_error"), 502),
        (&thread, wrong, 400),
        (&busy, message("something else", "mock"), 409),
    ];
    let mut expected = Vec::new();
    let mut found = Vec::new();
    for (at, (thread, mut body, status)) in cases.into_iter().enumerate() {
        let id = format!("mine-{at}");
        body["request_id"] = json!(id);
        let answer = gateway.send(thread, &body).await;

        let named = match status {
            200 => answer.json()["request_id"].clone(),
            // The conflict names the request that is in the way.
            409 => json!(id),
            _ => answer.json()["error"]["request_id"].clone(),
        };
        found.push((answer.status(), answer.head.header("x-request-id").unwrap().to_owned(), named));
        expected.push((status, id.clone(), json!(id)));
    }

    assert_eq!(found, expected);
}

#[actix_web::test]
async fn a_foreign_page_cannot_post_in_open_mode() {
    let gateway = Gateway::start().await;
    let ours = format!("http://{}", gateway.address());
    let foreign = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")];
    let own = [("origin", ours.as_str()), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")];
    let post = |name: &str, value: &str| Request::post("/api/threads", &json!({})).header(name, value);

    for (name, value) in own {
        assert_eq!(gateway.client.send(post(name, value)).await.unwrap().status(), 201, "{name}: {value}");
    }
    for (name, value) in foreign {
        let refused = gateway.client.send(post(name, value)).await.unwrap();

        assert_eq!((refused.status(), refused.error_code().as_deref()), (403, Some("forbidden")), "{name}: {value}");
    }
    assert_eq!(gateway.get("/api/threads").await.as_array().unwrap().len(), own.len());
}

#[actix_web::test]
async fn health_can_be_asked_for_its_head() {
    let gateway = Gateway::start().await;

    let head = gateway.client.send(Request::new("HEAD", "/health")).await.unwrap();

    assert_eq!((head.status(), head.body.len()), (200, 0));
}

#[actix_web::test]
async fn what_was_said_never_stands_in_an_error() {
    let gateway = Gateway::with_provider("rps = 10000.0\nconcurrency = 1000\nburst = 1000\nretries_max = 0").await;
    let contents = [
        json!(["canary"]),
        json!({ "canary": 1 }),
        json!([{ "type": "canary" }]),
        json!([{ "type": "text", "text": { "canary": 1 } }]),
        json!([{ "type": "text", "text": "hello", "more": "canary" }]),
        json!([{ "type": "image_url", "image_url": "canary" }]),
        json!([{ "type": "image_url", "image_url": { "url": "canary" } }]),
        json!([{ "type": "image_url", "image_url": { "url": "https://x", "detail": "canary" } }]),
        json!(format!("canary {}", "x".repeat(300_000))),
    ];
    let mut bodies: Vec<_> = contents.into_iter().map(|content| json!({ "content": content })).collect();
    for model in ["server_error", "html_error", "error_in_200", "error_frame", "garbage", "drop", "auth", "not_found"] {
        bodies.push(message("canary", model));
    }
    let mut errors = Vec::new();
    for body in bodies {
        let thread = gateway.thread().await;
        let answer = gateway.send(&thread, &body).await;
        assert!(answer.error_code().is_some(), "{}: {}", answer.status(), answer.json());
        errors.push(answer.json()["error"].to_string());
    }

    let quoting: Vec<_> = errors.iter().filter(|error| error.contains("canary")).collect();
    assert!(quoting.is_empty(), "{quoting:#?}");
}

#[actix_web::test]
async fn null_is_the_same_as_nothing_in_a_repeated_request() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let path = format!("/api/threads/{thread}/messages");
    let send = async |body: Value| {
        let request = Request::post(path.clone(), &body).header("idempotency-key", "k-1");
        gateway.client.send(request).await.unwrap()
    };

    let first = send(json!({ "content": "hello" })).await;
    let second = send(json!({ "content": "hello", "model": null })).await;

    assert_eq!((first.status(), second.status()), (200, 200), "{}", second.json());
    assert_eq!(first.json(), second.json());
    assert_eq!(gateway.mock.counts().calls_started, 1);
}

#[actix_web::test]
async fn who_only_looks_does_not_keep_an_answer_alive() {
    let gateway = Gateway::with_tables("[stream]\non_disconnect = \"cancel\"\ndisconnect_grace_ms = 1000").await;
    for look_at_request in [false, true] {
        let thread = gateway.thread().await;
        let mut events = gateway.stream(&thread, &message("hello", "silent")).await;
        let request = events.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();

        drop(events);

        if look_at_request {
            let is_over = |request: &Value| request["status"] != "streaming";
            let ended = gateway.until(&format!("/api/requests/{request}"), is_over).await;
            assert_eq!(ended["status"], "cancelled");
        } else {
            let is_over = |thread: &Value| thread["messages"][1]["status"] != "streaming";
            let ended = gateway.until(&format!("/api/threads/{thread}"), is_over).await;
            assert_eq!(ended["messages"][1]["status"], "cancelled");
        }
    }
}

#[actix_web::test]
async fn the_end_of_a_stored_answer_is_that_of_the_live_one() {
    let gateway = Gateway::with("retries_max = 0", "[stream]\nretain_ms = 0").await;
    for model in ["mock", "server_error", "drop@after=3", "silent"] {
        let thread = gateway.thread().await;
        let mut events = gateway.stream(&thread, &message("hello", model)).await;
        let request = events.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
        if model == "silent" {
            gateway.cancel(&request).await;
        }
        let live = events.rest().await;

        let stored = once_forgotten(&gateway, &request).await;

        assert_eq!(done(&stored), done(&live), "{model}");
        let id = |events: &[load::client::Arrived]| events.last().unwrap().event.id.clone();
        assert_eq!(id(&stored), id(&live), "{model}");
    }
}

#[actix_web::test]
async fn a_stored_failure_is_repeated_as_it_was_told_first() {
    let gateway =
        Gateway::with(&format!("{FAST}\nqueue_wait_max_ms = 500\nretries_max = 0"), "[stream]\nretain_ms = 0").await;
    for model in ["server_error", "drop@after=3", "rate_limited@after_s=7"] {
        let thread = gateway.thread().await;
        let mut body = message("hello", model);
        body["request_id"] = thread.as_str().into();
        let first = gateway.send(&thread, &body).await;
        assert!(first.error_code().is_some(), "{model}: {}", first.json());
        once_forgotten(&gateway, &thread).await;

        let again = gateway.send(&thread, &body).await;

        assert_eq!((again.status(), again.json()), (first.status(), first.json()), "{model}");
        for header in ["retry-after", "retry-after-ms", "x-should-retry", "x-request-id"] {
            assert_eq!(again.head.header(header), first.head.header(header), "{model}: {header}");
        }
    }
}

/// Its end could not be written, and its answer has been forgotten since.
#[actix_web::test]
async fn a_request_that_was_left_behind_in_the_store_is_interrupted_wherever_it_is_asked_for() {
    let gateway = Gateway::with_tables("[stream]\nretain_ms = 0").await;
    let thread = gateway.thread().await;
    let mut body = message("hello", "mock");
    body["request_id"] = "left".into();
    gateway.send(&thread, &body).await;
    once_forgotten(&gateway, "left").await;
    let store = rusqlite::Connection::open(gateway.database()).unwrap();
    store.execute("UPDATE requests SET status = 'streaming', finish_reason = NULL, facts = '{}'", []).unwrap();

    let state = gateway.get("/api/requests/left").await;
    let end = done(&once_forgotten(&gateway, "left").await);
    let again = gateway.send(&thread, &body).await;

    for told in [&state, &end] {
        assert_eq!((&told["status"], &told["error"]["code"]), (&json!("interrupted"), &json!("interrupted")), "{told}");
    }
    assert_eq!((&state["finish_reason"], &end["partial"]), (&json!("error"), &json!(true)));
    assert_eq!((again.status(), again.json()["error"].clone()), (503, end["error"].clone()));
}

/// A request's stream as soon as only the store knows it: that has no events to continue with, but a snapshot.
async fn once_forgotten(gateway: &Gateway, request: &str) -> Vec<load::client::Arrived> {
    let resume = Request::get(format!("/api/requests/{request}/stream")).header("last-event-id", "1-0");
    let asking = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let events = gateway.open(resume.clone()).await.rest().await;
            if events.iter().any(|arrived| arrived.event.name == "snapshot") {
                return events;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("ended streams are forgotten")
}
