//! Random schedules of many clients, replayed by their seed: they join, share, leave, cancel, read slowly, come back,
//! while the provider fails in every way it can. Whatever happens, nothing is lost, doubled or left behind.
//!
//! `WEIR_SIM_SEEDS=1000` runs that many schedules instead of the few of a normal run, `WEIR_SIM_SEED=7` one of them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use load::client::{Arrived, Request, Response, text_of};
use load::mock::expected_text;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weir::actors::{coalescer, pacer};

use crate::support::gateway::config;
use crate::support::virtual_weir::{Dice, VirtualWeir};
use crate::support::{content, done, opening};

/// Schedules of a normal run.
const SEEDS: u64 = 60;
/// Clients of one schedule.
const CLIENTS: u64 = 40;
/// Threads of one schedule.
const THREADS: usize = 5;
/// Longer than anything may take in virtual time.
const FOREVER: Duration = Duration::from_secs(3_600);

const PROVIDER: &str = "rps = 50.0\nconcurrency = 4\nburst = 6\nqueue_max = 12\nqueue_wait_max_ms = 8000\n\
                        headers_timeout_ms = 3000\nttft_timeout_ms = 4000\nidle_timeout_ms = 2000\n\
                        total_timeout_ms = 20000\nretries_max = 1";

/// Who answers when the provider cannot: at times nobody.
const BACKUP: &str = "[providers.backup]\ndialect = \"openai_chat\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                      api_key_env = \"\"\nany_model = true\nwarm_connections = 0\nrps = 20.0\nconcurrency = 2\n\
                      burst = 3\nqueue_max = 4\nqueue_wait_max_ms = 2000\nidle_timeout_ms = 2000";
const FALLBACK: &str = "fallback = [\"backup/flaky@k=1\", \"backup/text@tokens=30,gap_ms=20\"]";

const MODELS: [&str; 14] = [
    "mock",
    "text@tokens=50,gap_ms=40",
    "text@tokens=400,gap_ms=1,bytes=200",
    "reasoning",
    "drip@tokens=3",
    "split_utf8",
    "stall@after=4",
    "silent",
    "slow_head@hold_ms=900",
    "drop@after=5",
    "reset@after=2",
    "flaky@k=1",
    "error_frame@after=3",
    "rate_limited@after_s=1",
];

/// What a provider's failures are to a client: at the end of a stream, or at once while the failure is remembered.
const UPSTREAM_FAILURES: [&str; 6] = [
    "upstream_stalled",
    "upstream_timeout",
    "upstream_truncated",
    "upstream_error",
    "upstream_overloaded",
    "upstream_rate_limit",
];

/// Why else a message may be refused.
const REFUSALS: [&str; 3] = ["turn_in_progress", "provider_busy", "breaker_open"];

/// Why else an answer may fail.
const FAILURES: [&str; 3] = ["queue_timeout", "breaker_open", "provider_busy"];

/// What one client has seen of one answer.
struct Seen {
    thread: String,
    prompt: String,
    model: String,
    events: Vec<Arrived>,
    /// Whether it has heard the end; otherwise it left before.
    whole: bool,
}

impl Seen {
    /// The answer's id; a request that was cancelled before it came has none.
    fn message(&self) -> Option<String> {
        opening(&self.events)["message_id"].as_str().map(str::to_owned)
    }
}

fn on_disconnect(seed: u64) -> &'static str {
    if seed.is_multiple_of(2) { "cancel" } else { "continue" }
}

async fn schedule(seed: u64) {
    let on_disconnect = on_disconnect(seed);
    let tables = format!("[stream]\non_disconnect = \"{on_disconnect}\"\ndisconnect_grace_ms = 500\n{BACKUP}");
    // An open breaker keeps much from happening.
    let breaker_failures = if seed.is_multiple_of(3) { 4 } else { 0 };
    let tpm = if seed.is_multiple_of(4) { 20_000 } else { 0 };
    let provider = format!("{PROVIDER}\nbreaker_failures = {breaker_failures}\nbreaker_open_ms = 500\ntpm = {tpm}");
    let fallback = if seed % 3 == 1 { FALLBACK } else { "" };
    let on_cancel = if seed % 4 > 1 { "on_cancel = \"drain\"\ndrain_max_ms = 600" } else { "" };
    let provider = format!("{provider}\n{fallback}\n{on_cancel}");
    let weir = Rc::new(VirtualWeir::start(&config("http://127.0.0.1:1/v1", "unused", &provider, &tables)).await);
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let made = weir.send(Request::post("/api/threads", &json!({}))).await.json();
        threads.push(made["id"].as_str().unwrap().to_owned());
    }
    let threads = Rc::new(threads);
    let clients = (0..CLIENTS).map(|client| {
        let (weir, threads) = (weir.clone(), threads.clone());
        tokio::task::spawn_local(async move { act(&weir, &threads, seed, client).await })
    });
    let seen = timeout(FOREVER, join_all(clients)).await.expect("every client comes to an end");
    let seen: Vec<Seen> = seen.into_iter().filter_map(|seen| seen.expect("no client panics")).collect();

    timeout(FOREVER, until_idle(&weir)).await.expect("weir comes to rest");
    check_answers(&seen);
    check_threads(&weir, &threads, &seen).await;
}

/// One client's life.
async fn act(weir: &VirtualWeir, threads: &[String], seed: u64, client: u64) -> Option<Seen> {
    let dice = Dice::new(seed * 1_000 + client);
    sleep(Duration::from_millis(dice.below(3_000))).await;
    let thread = dice.pick(threads).clone();
    // Few different questions, so that many clients share an answer.
    let question = Dice::new(seed * 10 + dice.below(3));
    let (prompt, model) = (format!("question {}", question.below(3)), (*question.pick(&MODELS)).to_owned());
    let id = format!("c-{client}");
    let body = json!({ "content": prompt, "provider": "mock", "model": model, "request_id": id });
    let canceller = async {
        if dice.below(3) == 0 {
            sleep(Duration::from_millis(dice.below(2_000))).await;
            let target = if dice.below(2) == 0 { id.clone() } else { format!("c-{}", dice.below(CLIENTS)) };
            let cancel = weir.send(Request::post(format!("/api/threads/cancel/{target}"), &json!({}))).await;
            let is_known = cancel.json()["status"] != "not_found";
            assert_eq!(cancel.status(), if is_known { 200 } else { 404 }, "{}", cancel.json());
        }
    };
    let priority = if client.is_multiple_of(5) { "background" } else { "user" };
    let path = format!("/api/threads/{thread}/messages/stream");
    let request = Request::post(path, &body).header("x-priority", priority);
    let reader = async {
        let mut events = match weir.open(&request).await {
            Ok(events) => events,
            Err(error) => {
                let code = error.refusal().and_then(Response::error_code).expect("a refusal has its code");
                assert!([&REFUSALS[..], &UPSTREAM_FAILURES].concat().contains(&&*code), "refused: {code}");
                return None;
            }
        };
        let style = dice.below(4);
        let mut heard = Vec::new();
        while let Some(arrived) = events.next().await.expect("no stream is cut") {
            heard.push(arrived);
            match style {
                0 if dice.below(20) == 0 => sleep(Duration::from_millis(dice.below(900))).await,
                1 if dice.below(25) == 0 && heard.len() > 1 => {
                    drop(events);
                    return come_back(weir, &id, heard, &dice).await.map(|heard| (heard, true));
                }
                2 if dice.below(40) == 0 => return Some((heard, false)),
                _ => {}
            }
        }
        Some((heard, true))
    };
    let (seen, ()) = futures_util::join!(reader, canceller);
    let (events, whole) = seen?;
    // Who left before the first line has no answer to speak of.
    events.iter().any(|arrived| arrived.event.name == "meta").then_some(Seen { thread, prompt, model, events, whole })
}

/// The client lost its connection and asks for the rest.
async fn come_back(weir: &VirtualWeir, id: &str, mut heard: Vec<Arrived>, dice: &Dice) -> Option<Vec<Arrived>> {
    sleep(Duration::from_millis(dice.below(300))).await;
    let last = heard.iter().rev().find_map(|arrived| arrived.event.id.clone());
    let last = last.unwrap_or_else(|| "1-0".to_owned());
    if heard.iter().any(|arrived| arrived.event.name == "done") {
        return Some(heard);
    }
    let resume = Request::get(format!("/api/requests/{id}/stream")).header("last-event-id", last);
    let mut events = match weir.open(&resume).await {
        Ok(events) => events,
        // Cancelled before it came: there is no answer to come back to.
        Err(_) if opening(&heard)["message_id"].is_null() => return None,
        Err(error) => panic!("who was heard once may come back: {error}: {heard:#?}"),
    };
    heard.extend(events.rest().await.expect("no stream is cut"));
    Some(heard)
}

/// Waits until no answer runs and every permit is back.
async fn until_idle(weir: &VirtualWeir) {
    loop {
        let load = weir.api.coalescer.ask(coalescer::Weigh).await.unwrap();
        let mut busy = load.running;
        for pacer in weir.api.pacers.values() {
            let status = pacer.ask(pacer::Snapshot).await.unwrap();
            busy += status.in_flight + status.queued;
        }
        if busy == 0 && weir.mock.counts().streams_live == 0 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// One done each; the same content for all who heard the same answer, up to where each one's hearing ended.
fn check_answers(seen: &[Seen]) {
    let mut by_stream: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for answer in seen {
        let events = &answer.events;
        let content = content(events);
        for (at, (id, _)) in content.iter().enumerate() {
            assert_eq!(*id, format!("1-{}", at + 1), "numbers have no gaps");
        }
        if answer.whole {
            check_end(answer, content.len());
        }
        let longest = by_stream.entry(opening(events)["stream_id"].to_string()).or_default();
        let shared = longest.len().min(content.len());
        assert_eq!(longest[..shared], content[..shared], "all hear the same");
        if content.len() > longest.len() {
            *longest = content;
        }
    }
}

/// The end is numbered after everything that was heard, and says what the text is.
fn check_end(answer: &Seen, content_len: usize) {
    let end = done(&answer.events);
    let id = answer.events.last().and_then(|done| done.event.id.clone());
    assert_eq!(id, Some(format!("1-{}", content_len + 1)), "{}: {end}", answer.model);
    let mut metas =
        answer.events.iter().filter(|arrived| arrived.event.name == "meta").map(|arrived| arrived.event.json());
    let fallback = metas.rfind(|meta| !meta["fallback_from"].is_null());
    let model = fallback.as_ref().and_then(|meta| meta["model"].as_str()).unwrap_or(&answer.model);
    let (text, whole) = (text_of(&answer.events), expected_text(model, &answer.prompt));
    let code = end["error"]["code"].as_str();
    match end["status"].as_str().unwrap() {
        "complete" => assert_eq!((text, code), (whole, None), "{}", answer.model),
        "cancelled" => assert!(whole.starts_with(&text) && code.is_none(), "{}: {end}: {text:?}", answer.model),
        "error" => {
            let code = code.expect("an error has its code");
            assert!([&FAILURES[..], &UPSTREAM_FAILURES].concat().contains(&code), "{}: {end}", answer.model);
            assert!(whole.starts_with(&text), "{}: {text:?}", answer.model);
        }
        other => panic!("{}: {other}", answer.model),
    }
}

/// Threads are whole: numbers without gaps, turns of two messages, nothing left running, the text that was heard.
async fn check_threads(weir: &VirtualWeir, threads: &[String], seen: &[Seen]) {
    let mut kept: BTreeMap<String, Value> = BTreeMap::new();
    for thread in threads {
        let read = weir.send(Request::get(format!("/api/threads/{thread}"))).await.json();
        let messages = read["messages"].as_array().unwrap();
        assert_eq!(read["active_request_id"], Value::Null);
        for (at, message) in messages.iter().enumerate() {
            assert_eq!(message["sequence"], at);
            assert_eq!(message["role"], ["user", "assistant"][at % 2]);
            assert_ne!(message["status"], "streaming");
            kept.insert(message["id"].as_str().unwrap().to_owned(), message.clone());
        }
        assert!(messages.len().is_multiple_of(2));
    }
    let mut by_message: BTreeMap<String, Vec<&Seen>> = BTreeMap::new();
    for answer in seen {
        match answer.message() {
            Some(message) => by_message.entry(message).or_default().push(answer),
            None if answer.whole => assert_eq!(done(&answer.events)["status"], "cancelled"),
            None => {}
        }
    }
    for (message, heard) in by_message {
        check_kept(kept.get(&message), &heard);
    }
}

/// What was delivered is what is kept: whoever heard an answer to the end of its turn heard what the store has, whoever
/// left before heard how it begins.
fn check_kept(kept: Option<&Value>, heard: &[&Seen]) {
    let mut longest = String::new();
    for answer in heard.iter().filter(|answer| answer.whole) {
        let end = done(&answer.events);
        let text = text_of(&answer.events);
        if end["message_id"].is_null() {
            assert!(kept.is_none() && text.is_empty(), "a turn that came to nothing is not kept: {end}");
            continue;
        }
        let Some(kept) = kept else { panic!("an answer in {} is not kept: {end}", answer.thread) };
        let stored = kept["content"].as_str().unwrap();
        assert!(stored.starts_with(&text), "{}: {end}: {text:?} was heard, {stored:?} is kept", answer.model);
        if end["status"] != "cancelled" {
            assert_eq!((&end["status"], &*text), (&kept["status"], stored), "{}", answer.model);
        }
        longest = if text.len() > longest.len() { text } else { longest };
    }
    // The last one who left ended the turn; it may have left without hearing that.
    if let Some(kept) = kept.filter(|kept| kept["status"] == "cancelled")
        && heard.iter().all(|answer| answer.whole)
    {
        assert_eq!(kept["content"], longest, "{}", heard[0].model);
    }
}

#[test]
fn nothing_is_lost_doubled_or_left_behind_whatever_the_schedule() {
    let variable =
        |name: &str| std::env::vars().find(|(known, _)| known == name).and_then(|(_, value)| value.parse().ok());
    let seeds = match variable("WEIR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("WEIR_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let run = std::panic::AssertUnwindSafe(|| tokio::task::LocalSet::new().block_on(&runtime, schedule(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("replay with WEIR_SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
