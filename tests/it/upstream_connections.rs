//! What a whole weir asks of its connections to a provider, over TLS, by HTTP/2 and by HTTP/1.1: few handshakes, cancels
//! that touch nobody else, and no request that fails because a connection ends.

use futures_util::future::{join, join_all};
use load::client::text_of;
use load::mock::{Mock, expected_text};
use serde_json::{Value, json};

use crate::support::done;
use crate::support::front::{Front, Protocol};
use crate::support::gateway::{FAST, Gateway};
use crate::support::listener::Listener;

/// Nothing is tried a second time: a call that fails is seen.
const ONCE: &str = "retries_max = 0\nbreaker_failures = 0\nqueue_wait_max_ms = 20000";

/// A weir whose provider `front` is behind TLS.
async fn behind(protocol: Protocol) -> (Gateway, Front) {
    let mock = Mock::start().await;
    let front = Front::start(protocol, mock.provider().clone()).await;
    let table = format!("dialect = \"openai_chat\"\nbase_url = {:?}\n{}", front.url("v1"), front.keys());
    let rest = "api_key_env = \"\"\nmodels = [\"mock\"]\nany_model = true\nwarm_connections = 0";
    let gateway = Gateway::before(mock, &format!("{FAST}\n[providers.front]\n{table}\n{ONCE}\n{FAST}\n{rest}\n")).await;
    (gateway, front)
}

fn message(content: &str, model: &str) -> Value {
    json!({"content": content, "provider": "front", "model": model})
}

/// Opens the stream of a message in a thread of its own.
async fn open(gateway: &Gateway, content: &str, model: &str) -> Listener {
    let thread = gateway.thread().await;
    gateway.stream(&thread, &message(content, model)).await
}

/// Asks, and expects the whole answer.
async fn ask(gateway: &Gateway, content: &str) {
    let thread = gateway.thread().await;
    let answer = gateway.send(&thread, &message(content, "text@tokens=3,gap_ms=0")).await;
    assert_eq!(answer.status(), 200, "{content}: {}", answer.json());
    let text = expected_text("text@tokens=3", content);
    assert_eq!(answer.json()["assistant_message"]["content"], text, "{content}");
}

/// Asks this many questions at once.
async fn ask_at_once(gateway: &Gateway, round: usize, count: usize) {
    let questions: Vec<_> = (0..count).map(|number| format!("question {number} of round {round}")).collect();
    join_all(questions.iter().map(|question| ask(gateway, question))).await;
}

#[actix_web::test]
async fn two_hundred_answers_at_once_share_two_connections_by_http2() {
    for (protocol, connections) in [(Protocol::Http2, 2..=2), (Protocol::Http1, 200..=200)] {
        let (gateway, front) = behind(protocol).await;
        let contents: Vec<_> = (0..200).map(|number| format!("question {number}")).collect();
        let opened = join_all(contents.iter().map(|content| open(&gateway, content, "gate@after=2,tokens=4"))).await;
        gateway.called(|counts| counts.answers_held == 200).await;

        let handshakes = front.handshakes();
        (0..200).for_each(|_| gateway.mock.open_gate());
        let heard = join_all(opened.into_iter().map(async |mut listener| listener.rest().await)).await;

        assert!(connections.contains(&handshakes), "{protocol:?}: {handshakes} handshakes");
        for (content, events) in contents.iter().zip(heard) {
            assert_eq!(done(&events)["status"], "complete", "{content}");
            assert_eq!(text_of(&events), expected_text("text@tokens=4", content));
        }
        gateway.at_rest().await;
    }
}

/// Cancels a thousand answers in bursts while another one goes on.
async fn cancel_a_thousand(protocol: Protocol, handshakes_max: usize) {
    const BURSTS: u32 = 20;
    let (gateway, front) = behind(protocol).await;
    let long_model = format!("gate@after=1,gate=1,tokens={}", BURSTS + 1);
    let mut long = open(&gateway, "the long one", &long_model).await;
    for burst in 0..BURSTS {
        let contents: Vec<_> = (0..50).map(|number| format!("burst {burst}, {number}")).collect();
        join_all(contents.iter().map(|content| cancel_in_flight(&gateway, content))).await;
        gateway.mock.open_gate();
    }

    let events = long.rest().await;

    assert_eq!(done(&events)["status"], "complete", "{protocol:?}");
    assert_eq!(text_of(&events), expected_text(&format!("text@tokens={}", BURSTS + 1), "the long one"));
    let counts = gateway.called(|counts| counts.streams_live == 0).await;
    assert_eq!((counts.calls_started, counts.calls_aborted), (1_001, 1_000), "{protocol:?}");
    assert!(front.handshakes() <= handshakes_max, "{protocol:?}: {}", front.handshakes());
    gateway.at_rest().await;
}

#[actix_web::test]
async fn a_thousand_cancels_in_bursts_do_not_touch_another_answer_by_http2() {
    // A connection on which very many were cancelled is replaced.
    cancel_a_thousand(Protocol::Http2, 3).await;
}

#[actix_web::test]
async fn a_thousand_cancels_in_bursts_do_not_touch_another_answer_by_http1() {
    cancel_a_thousand(Protocol::Http1, 1_001).await;
}

/// Cancels an answer while it is on its way.
async fn cancel_in_flight(gateway: &Gateway, content: &str) {
    let mut listener = open(gateway, content, "text@tokens=1000000,gap_ms=10").await;
    let request = listener.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
    listener.next_named("delta").await;
    let (cancel, events) = join(gateway.cancel(&request), listener.rest()).await;
    assert_eq!(cancel.status(), 200, "{content}: {}", cancel.json());
    assert_eq!(done(&events)["status"], "cancelled", "{content}");
}

#[actix_web::test]
async fn a_goodbye_fails_no_request() {
    let (gateway, front) = behind(Protocol::Http2).await;
    let contents: Vec<_> = (0..20).map(|number| format!("question {number}")).collect();
    let opened = join_all(contents.iter().map(|content| open(&gateway, content, "gate@after=2,tokens=4"))).await;
    gateway.called(|counts| counts.answers_held == 20).await;

    for round in 0..10 {
        // The goodbye crosses with calls that are being made.
        join(ask_at_once(&gateway, round, 20), async { front.say_goodbye() }).await;
    }
    (0..20).for_each(|_| gateway.mock.open_gate());
    let heard = join_all(opened.into_iter().map(async |mut listener| listener.rest().await)).await;

    for (content, events) in contents.iter().zip(heard) {
        assert_eq!(done(&events)["status"], "complete", "{content}");
        assert_eq!(text_of(&events), expected_text("text@tokens=4", content));
    }
    assert!(front.handshakes() > 1, "the goodbyes were heard");
    gateway.at_rest().await;
}

#[actix_web::test]
async fn an_idle_connection_that_is_closed_fails_no_request() {
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let (gateway, front) = behind(protocol).await;
        ask_at_once(&gateway, 0, 10).await;
        for round in 1..=10 {
            front.close_all();
            ask_at_once(&gateway, round, 10).await;
        }

        assert!(front.handshakes() > 10, "{protocol:?}: each round needs a new connection");
        gateway.at_rest().await;
    }
}

/// Makes a thousand requests, 50 at once.
async fn ask_a_thousand(protocol: Protocol, handshakes_max: usize) {
    let (gateway, front) = behind(protocol).await;
    for round in 0..20 {
        ask_at_once(&gateway, round, 50).await;
    }

    println!("handshakes for 1,000 requests, 50 at once, by {protocol:?}: {}", front.handshakes());
    assert!((1..=handshakes_max).contains(&front.handshakes()), "{protocol:?}: {}", front.handshakes());
}

#[actix_web::test]
async fn a_thousand_requests_need_one_handshake_or_two_by_http2() {
    ask_a_thousand(Protocol::Http2, 2).await;
}

#[actix_web::test]
async fn a_thousand_requests_need_as_many_handshakes_as_are_made_at_once_by_http1() {
    ask_a_thousand(Protocol::Http1, 60).await;
}
