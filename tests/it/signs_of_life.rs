//! A client that waits for a slow answer hears something in time, whoever gives the answer.

use std::time::Duration;

use load::client::Request;
use serde_json::json;
use tokio::time::Instant;

use crate::support::gateway::{FAST, config};
use crate::support::virtual_weir::VirtualWeir;
use crate::survival::in_virtual_time;

/// Far below `openai_hold_ms` and the time that the fallback's whole answer takes.
const SOON: Duration = Duration::from_secs(4);

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
