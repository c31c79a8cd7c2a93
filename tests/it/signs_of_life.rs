//! A client that waits for a slow answer hears something in time, whoever gives the answer.

use std::time::Duration;

use futures_util::future::join_all;
use load::client::{Connection, Request};
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::time::{Instant, advance};

use crate::support::gateway::{FAST, config, message};
use crate::support::virtual_weir::VirtualWeir;
use crate::survival::in_virtual_time;

/// Far below `openai_hold_ms` and the time that the fallback's whole answer takes.
const SOON: Duration = Duration::from_secs(4);

/// How late a comment may be: silent streams are looked after twice a second.
const LATE_MAX: Duration = Duration::from_millis(500);
/// Comments that are waited for: enough for two clocks to drift apart.
const COMMENTS: usize = 8;

/// `mock` is left alone after its first failure; `backup` answers in its place, a token a second.
async fn weir() -> VirtualWeir {
    let backup = "[providers.backup]\ndialect = \"openai_chat\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  api_key_env = \"\"\nany_model = true\nwarm_connections = 0";
    let provider = format!(
        "{FAST}\nfallback = [\"backup/text@tokens=20,gap_ms=1000\"]\nretries_max = 0\nheaders_timeout_ms = 2000\n\
         breaker_failures = 1\nbreaker_open_ms = 600000\nbreaker_open_max_ms = 600000"
    );
    VirtualWeir::start(&config("http://127.0.0.1:1/v1", "unused", &provider, backup)).await
}

/// How long a client waits for the head of a streamed answer.
async fn head_after(weir: &VirtualWeir, path: &str, model: &str) -> Duration {
    let body = json!({
        "model": format!("mock/{model}"), "stream": true,
        "messages": [{ "role": "user", "content": "hello" }], "input": "hello",
    });
    let mut body = body;
    body.as_object_mut().unwrap().remove(if path.ends_with("responses") { "messages" } else { "input" });
    let asked = Instant::now();
    weir.open(&Request::post(path, &body)).await.unwrap();
    asked.elapsed()
}

#[test]
fn openais_clients_hear_a_fallback_from_its_first_event() {
    for path in ["/v1/chat/completions", "/v1/responses"] {
        in_virtual_time(async {
            let weir = weir().await;

            let later = head_after(&weir, path, "slow_head@hold_ms=60000").await;
            let at_once = head_after(&weir, path, "mock").await;

            assert_eq!(weir.mock.counts().calls_started, 3, "the breaker kept the second request from the provider");
            assert!(later >= Duration::from_secs(2) && later < SOON, "{path}: {later:?}");
            assert!(at_once < SOON, "{path}, with an open breaker: {at_once:?}");
        });
    }
}

/// A stream whose bytes have been read up to its first silence.
struct Silent {
    connection: Connection<DuplexStream>,
    last_heard: Instant,
}

impl Silent {
    async fn open(weir: &VirtualWeir, request: Request, until: &str) -> Self {
        let mut connection = weir.connect();
        assert_eq!(connection.send(&request).await.unwrap().status, 200);
        let mut heard = String::new();
        while !heard.contains(until) {
            heard.push_str(std::str::from_utf8(&connection.next_piece().await.unwrap().unwrap()).unwrap());
        }
        Self { connection, last_heard: Instant::now() }
    }

    /// How long it is silent before each of the next comments.
    async fn silences(mut self) -> Vec<Duration> {
        let mut silences = Vec::new();
        while silences.len() < COMMENTS {
            let piece = self.connection.next_piece().await.unwrap().expect("the stream goes on");
            assert_eq!(piece, ": keep-alive\n\n");
            silences.push(self.last_heard.elapsed());
            self.last_heard = Instant::now();
        }
        silences
    }
}

/// Whoever listens, and since when: nobody's silence is longer than it should be because of the others.
async fn check(weir: &VirtualWeir, first: (Request, &str), late: [(Request, &str); 3], silence_ms: u64) {
    let silence = Duration::from_millis(silence_ms);
    let mut listeners = vec![Silent::open(weir, first.0, first.1).await];
    for (after_ms, (late, until)) in [silence_ms / 2, 10, silence_ms / 3].into_iter().zip(late) {
        advance(Duration::from_millis(after_ms)).await;
        listeners.push(Silent::open(weir, late, until).await);
    }
    for (which, silences) in join_all(listeners.into_iter().map(Silent::silences)).await.iter().enumerate() {
        let in_time = silences.iter().all(|heard| (silence..=silence + LATE_MAX).contains(heard));
        assert!(in_time, "listener {which}: {silences:?} instead of {silence:?}");
    }
}

#[test]
fn every_listener_of_a_silent_stream_hears_a_comment_in_time_whenever_it_came() {
    let server = "[server]\nping_early_ms = 1300\nping_interval_ms = 2700";
    let toml = config("http://127.0.0.1:1/v1", "unused", FAST, "").replace("[server]", server);
    in_virtual_time(async {
        let weir = VirtualWeir::start(&toml).await;
        for (model, until, resumed_until, silence_ms) in [
            ("silent", "event: meta", "event: meta", 1_300),
            ("stall@after=1", "event: delta", "event: snapshot", 2_700),
        ] {
            let thread = weir.send(Request::post("/api/threads", &json!({}))).await.json();
            let path = format!("/api/threads/{}", thread["id"].as_str().unwrap());
            let first = Request::post(format!("{path}/messages/stream"), &message("hello", model));
            let (first, resumed) = ((first, until), (Request::get(format!("{path}/stream")), resumed_until));
            check(&weir, first.clone(), [first.clone(), resumed, first], silence_ms).await;
        }
        let body = json!({ "model": "mock/stall@after=1", "stream": true, "temperature": 0,
                           "messages": [{ "role": "user", "content": "hello" }] });
        let request = Request::post("/v1/chat/completions", &body);
        let asks = || (request.clone(), "\"content\":\"");
        check(&weir, asks(), [asks(), asks(), asks()], 2_700).await;
    });
}
