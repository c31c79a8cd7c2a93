//! Each behaviour, played over a pipe in paused time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::time::{Instant, timeout};

use super::*;
use crate::client::{Arrived, ClientError, Connection, Events, Head, Request, Response, openai_text_of};
use crate::clock::{STAMP, now_ns};
use crate::mock::{Provider, expected_reasoning, expected_text};

const PROMPT: &str = "tell me of the river";
/// Longer than any pause of a default, shorter than forever.
const LONG: Duration = Duration::from_secs(60);

fn request(model: &str) -> Request {
    let messages = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": PROMPT}]);
    let options = json!({"include_usage": true});
    let body = json!({"model": model, "messages": messages, "stream": true, "stream_options": options});
    Request::post("/v1/chat/completions", &body)
}

/// A connection to a provider over a pipe.
fn connect(provider: &Arc<Provider>) -> Connection<DuplexStream> {
    let (near, mut far) = tokio::io::duplex(256 * 1024);
    let provider = Arc::clone(provider);
    tokio::spawn(async move { provider.serve(&mut far).await });
    Connection::new(near, "mock")
}

/// What a call of a model gives: its events, and how they end.
struct Told {
    events: Vec<Arrived>,
    ending: Result<Option<Arrived>, ClientError>,
    silent: bool,
    took: Duration,
}

impl Told {
    fn last(&self) -> &str {
        self.events.last().map_or("", |arrived| &arrived.event.data)
    }
}

async fn call(model: &str) -> Told {
    let provider = Arc::new(Provider::new(None));
    provider.open_gate();
    let start = Instant::now();
    let mut stream = Events::open(connect(&provider), &request(model)).await.unwrap();
    let mut events = Vec::new();
    loop {
        match timeout(LONG, stream.next()).await {
            Ok(Ok(Some(event))) if events.len() < 5_000 => events.push(event),
            Ok(ending) => return Told { events, ending, silent: false, took: start.elapsed() },
            Err(_) => return Told { events, ending: Ok(None), silent: true, took: start.elapsed() },
        }
    }
}

async fn refusal(model: &str) -> (Head, Value) {
    let provider = Arc::new(Provider::new(None));
    let error = Events::open(connect(&provider), &request(model)).await.unwrap_err();
    let ClientError::Refused(refusal) = error else { panic!("{model}: {error}") };
    let json = refusal.json();
    (refusal.head, json)
}

#[tokio::test(start_paused = true)]
async fn every_behaviour_delivers_the_text_that_is_expected_of_it() {
    for behaviour in ALL.iter().filter(|behaviour| behaviour.says != Says::Nothing && behaviour.name != "flaky") {
        let told = call(behaviour.name).await;
        let expected = expected_text(behaviour.name, PROMPT);
        assert!(!expected.is_empty());
        match behaviour.name {
            "endless" | "after_done" => assert!(openai_text_of(&told.events).starts_with(&expected)),
            "garbage" => {
                let valid = told.events.iter().take_while(|arrived| arrived.event.json() != Value::Null);
                assert_eq!(openai_text_of(valid), expected);
            }
            "huge_line" => {
                let short = told.events.iter().filter(|arrived| arrived.event.data.len() < 1024);
                assert_eq!(openai_text_of(short), expected);
                assert!(told.events.iter().any(|arrived| arrived.event.data.len() > 9 * 1024 * 1024));
            }
            name => assert_eq!(openai_text_of(&told.events), expected, "{name}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_good_case_has_a_role_a_finish_reason_the_usage_and_the_terminator() {
    let told = call("text@tokens=2").await;

    let chunks: Vec<_> = told.events.iter().map(|arrived| arrived.event.json()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[4]["usage"], json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}));
    assert_eq!(told.last(), "[DONE]");
    assert!(matches!(told.ending, Ok(None)));
}

#[tokio::test(start_paused = true)]
async fn tokens_come_at_an_even_rate() {
    let told = call("text@tokens=101,gap_ms=7,first_ms=100").await;

    assert_eq!(told.took.as_millis(), 800);
}

#[test]
fn a_stamp_is_the_time_of_its_writing_and_not_of_the_pause_before() {
    let plan = "stamped@tokens=2,gap_ms=7,bytes=40".parse().unwrap();
    let asked =
        Asked { plan, dialect: Dialect::OpenaiChat, prompt: PROMPT.into(), call: 1, earlier: 0, include_usage: true };
    let mut steps = asked.script().skip_while(|step| *step != Step::Wait(Duration::from_millis(7)));
    assert!(steps.next().is_some());

    let before = now_ns();
    let Some(Step::Bytes(bytes)) = steps.next() else { panic!("a chunk follows the pause") };

    let chunk = String::from_utf8_lossy(&bytes).into_owned();
    let (_, text) = chunk.split_once(STAMP).unwrap();
    let text = text.split('"').next().unwrap();
    let stamp: u64 = text.trim_end_matches('.').parse().unwrap();
    assert!(before <= stamp && stamp <= now_ns());
    assert_eq!(text.len() + 1, 40);
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_does_not_end_properly() {
    for model in ["drop", "cut_chunk", "reset"] {
        let told = call(model).await;
        assert!(matches!(told.ending, Err(ClientError::Cut)), "{model}: {:?}", told.ending);
    }
}

#[tokio::test(start_paused = true)]
async fn what_falls_silent_stays_open() {
    for model in ["stall", "silent"] {
        assert!(call(model).await.silent, "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_lacks_its_terminator_ends_like_a_whole_body() {
    for model in ["no_done", "no_finish"] {
        let told = call(model).await;
        assert!(matches!(told.ending, Ok(None)), "{model}");
        assert_ne!(told.last(), "[DONE]", "{model}");
    }
    let finishes =
        |told: &Told| told.events.iter().any(|event| event.event.json()["choices"][0]["finish_reason"] == "stop");
    assert!(finishes(&call("no_done").await));
    assert!(!finishes(&call("no_finish").await));
}

#[tokio::test(start_paused = true)]
async fn delays_last_as_long_as_asked() {
    for model in ["slow_head@tokens=1,hold_ms=3000", "slow_first_byte@tokens=1,hold_ms=3000"] {
        assert_eq!(call(model).await.took.as_secs(), 3, "{model}");
    }
}

/// How many tokens of a model's answer come before it waits at a gate.
async fn tokens_before_the_gate(stream: &mut Events<DuplexStream>) -> usize {
    let mut tokens = 0;
    while let Ok(event) = timeout(LONG, stream.next()).await {
        let delta = event.unwrap().unwrap().event.json()["choices"][0]["delta"]["content"].clone();
        tokens += usize::from(delta.as_str().is_some_and(|text| !text.is_empty()));
    }
    tokens
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_at_its_gate_until_it_is_opened() {
    let provider = Arc::new(Provider::new(None));
    let mut stream = Events::open(connect(&provider), &request("gate@after=2,tokens=9")).await.unwrap();

    assert_eq!(tokens_before_the_gate(&mut stream).await, 2);
    assert_eq!(provider.counts().answers_held, 1);
    provider.open_gate();

    let rest = openai_text_of(&stream.rest().await.unwrap());
    assert_eq!(rest, expected_text("text@tokens=9", PROMPT)[expected_text("text@tokens=2", PROMPT).len()..]);
    assert_eq!(provider.counts().answers_held, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_have_a_gate_every_few_tokens() {
    let provider = Arc::new(Provider::new(None));
    let mut stream = Events::open(connect(&provider), &request("gate@after=1,gate=2,tokens=5")).await.unwrap();
    let mut stretches = vec![tokens_before_the_gate(&mut stream).await];
    provider.open_gate();
    stretches.push(tokens_before_the_gate(&mut stream).await);
    provider.open_gate();

    let rest = openai_text_of(&stream.rest().await.unwrap());

    assert_eq!(stretches, [1, 2]);
    assert_eq!(rest, expected_text("text@tokens=5", PROMPT)[expected_text("text@tokens=3", PROMPT).len()..]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_said_everything_may_still_wait_before_its_end() {
    let provider = Arc::new(Provider::new(None));
    let mut stream = Events::open(connect(&provider), &request("gate@after=3,tokens=3")).await.unwrap();

    assert_eq!(tokens_before_the_gate(&mut stream).await, 3);
    provider.open_gate();

    assert_eq!(openai_text_of(&stream.rest().await.unwrap()), "");
}

#[tokio::test(start_paused = true)]
async fn each_opening_of_the_gate_lets_the_one_pass_that_has_waited_longest() {
    let provider = Arc::new(Provider::new(None));
    let mut streams = Vec::new();
    for held in 1..=2 {
        streams.push(Events::open(connect(&provider), &request("gate@after=0")).await.unwrap());
        provider.wait_until(|counts| counts.answers_held == held).await;
    }

    provider.open_gate();

    assert!(timeout(LONG, streams[0].rest()).await.is_ok());
    assert!(timeout(LONG, streams[1].rest()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn comments_come_before_the_first_token() {
    let provider = Arc::new(Provider::new(None));
    let mut stream = Events::open(connect(&provider), &request("comments@hold_ms=200")).await.unwrap();

    stream.next().await.unwrap();

    assert_eq!(stream.comments(), 10);
    assert_eq!(stream.sent().elapsed().as_millis(), 200);
}

#[tokio::test(start_paused = true)]
async fn characters_are_split_between_two_chunks() {
    let provider = Arc::new(Provider::new(None));
    let mut connection = connect(&provider);
    connection.send(&request("split_utf8")).await.unwrap();
    let mut split = 0;
    while let Some(piece) = connection.next_piece().await.unwrap() {
        split += usize::from(std::str::from_utf8(&piece).is_err());
    }

    assert!(split >= 4, "{split}");
}

#[tokio::test(start_paused = true)]
async fn arguments_of_a_tool_call_come_in_pieces() {
    let told = call("tool_call").await;

    let calls = told.events.iter().map(|arrived| arrived.event.json()["choices"][0]["delta"]["tool_calls"][0].clone());
    let arguments: String =
        calls.map(|call| call["function"]["arguments"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"city": "Zürich", "days": 3}));
}

#[tokio::test(start_paused = true)]
async fn reasoning_comes_before_the_text_and_is_another_one() {
    let told = call("reasoning@after=4").await;

    let deltas = told.events.iter().map(|arrived| arrived.event.json()["choices"][0]["delta"].clone());
    let reasoning: String = deltas.filter_map(|delta| delta["reasoning_content"].as_str().map(str::to_owned)).collect();
    assert_eq!(reasoning, expected_reasoning("reasoning@after=4", PROMPT));
    assert_ne!(reasoning, "");
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_stream_is_followed_by_the_terminator() {
    let told = call("error_frame").await;

    assert!(told.events[told.events.len() - 2].event.json()["error"]["message"].is_string());
    assert_eq!(told.last(), "[DONE]");
}

#[tokio::test(start_paused = true)]
async fn refusals_have_their_status_and_code() {
    let expected = [
        ("rate_limited", 429, json!("rate_limit_exceeded")),
        ("overloaded", 503, json!("server_is_overloaded")),
        ("server_error", 500, Value::Null),
        ("html_error", 502, Value::Null),
        ("auth", 401, json!("invalid_api_key")),
        ("quota", 429, json!("insufficient_quota")),
        ("not_found", 404, json!("model_not_found")),
        ("no_such_model", 404, json!("model_not_found")),
        ("error_in_200", 200, Value::Null),
        ("wrong_type", 200, Value::Null),
        ("redirect", 307, Value::Null),
    ];
    for (model, status, code) in expected {
        let (head, body) = refusal(model).await;
        assert_eq!((head.status, &body["error"]["code"]), (status, &code), "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_rate_limit_says_when_to_come_back() {
    assert_eq!(refusal("rate_limited@after_s=7").await.0.header("retry-after"), Some("7"));
    assert_eq!(refusal("quota").await.0.header("retry-after"), None);
}

#[tokio::test(start_paused = true)]
async fn a_flaky_model_fails_k_times_for_each_prompt() {
    let provider = Arc::new(Provider::new(None));
    let mut statuses = Vec::new();
    let mut connection = connect(&provider);
    for _ in 0..4 {
        let head = connection.send(&request("flaky@k=2,status=429,tokens=1")).await.unwrap();
        statuses.push(head.status);
        connection.whole(head).await.unwrap();
    }

    assert_eq!(statuses, [429, 429, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_an_event_stream_without_events() {
    let told = call("empty_200").await;

    assert!(told.events.is_empty());
    assert!(matches!(told.ending, Ok(None)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_follows_the_redirect_is_counted() {
    let provider = Arc::new(Provider::new(None));
    let mut connection = connect(&provider);
    let head = connection.send(&request("redirect")).await.unwrap();
    let location = head.header("location").unwrap().to_owned();
    connection.whole(head).await.unwrap();
    assert_eq!(provider.counts().strays, 0);

    let head = connection.send(&Request::get(location)).await.unwrap();
    let Response { head, .. } = connection.whole(head).await.unwrap();

    assert_eq!((head.status, provider.counts().strays), (404, 1));
}

#[test]
fn names_are_unique_and_fit_into_a_url() {
    let names: HashSet<_> = ALL.iter().map(|behaviour| behaviour.name).collect();

    assert_eq!(names.len(), ALL.len());
    assert!(ALL.iter().all(|behaviour| {
        behaviour.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    }));
    assert!(ALL.iter().all(|behaviour| behaviour.reaches.trim().ends_with('.')));
}
