//! Every way in which a provider can fail, in every dialect: its code and its phase, one `done`, what had come is kept,
//! and nothing is left behind.
//!
//! The mock speaks each dialect over real sockets; a case is the name of what it does. Each case has a provider of its
//! own, so that no case waits for another, and a permit that is not given back has a name. The cases of a dialect run at
//! once, as streams and as single responses.

use std::fmt::Write;
use std::net::SocketAddr;

use futures_util::future::{join, join_all};
use load::client::text_of;
use load::mock::{Dialect, Mock, expected_text};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use weir::failure::Code;

use crate::support::done;
use crate::support::front::{Front, Protocol};
use crate::support::gateway::{FAST, Gateway};

/// No second tries, no breaker, and no waiting for a rate that the mock refuses for a second.
const ONCE: &str = "retries_max = 0\nbreaker_failures = 0\nqueue_wait_max_ms = 900";

/// Much more than any case says that has an end.
const ANSWER_BYTES_MAX: usize = 100_000;

/// How a case ends.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// Complete.
    Whole,
    /// With this code, in this phase.
    In(&'static str, &'static str),
}

use Ends::{In, Whole};

/// What the mock does, and how that ends.
const CASES: &[(&str, Ends)] = &[
    // No answer.
    ("reset_head", In("upstream_truncated", "headers")),
    ("no_head", In("upstream_truncated", "headers")),
    ("cut_head", In("upstream_truncated", "headers")),
    ("no_http", In("upstream_protocol", "headers")),
    ("interim", In("upstream_protocol", "headers")),
    ("huge_head", In("upstream_protocol", "headers")),
    ("many_headers", In("upstream_protocol", "headers")),
    // A refusal.
    ("rejected", In("upstream_rejected", "headers")),
    ("too_long", In("context_length_exceeded", "headers")),
    ("auth", In("upstream_auth", "headers")),
    ("forbidden", In("upstream_auth", "headers")),
    ("not_found", In("upstream_model_not_found", "headers")),
    ("too_large", In("upstream_rejected", "headers")),
    ("unprocessable", In("upstream_rejected", "headers")),
    ("rate_limited", In("upstream_rate_limit", "headers")),
    ("quota", In("upstream_quota", "headers")),
    ("server_error", In("upstream_error", "headers")),
    ("html_error", In("upstream_error", "headers")),
    ("overloaded", In("upstream_overloaded", "headers")),
    ("overloaded@status=529", In("upstream_overloaded", "headers")),
    ("redirect", In("upstream_redirect", "headers")),
    // A success that is none.
    ("error_in_200", In("upstream_error", "pre_token")),
    ("empty_200", In("upstream_protocol", "pre_token")),
    ("no_content", In("upstream_protocol", "pre_token")),
    ("wrong_type", In("upstream_protocol", "pre_token")),
    ("no_length", Whole),
    ("gzip", In("upstream_protocol", "pre_token")),
    // An end that is none.
    ("drop", In("upstream_truncated", "mid_stream")),
    ("cut_chunk", In("upstream_truncated", "mid_stream")),
    ("cut_frame", In("upstream_truncated", "mid_stream")),
    ("cut_end", In("upstream_truncated", "mid_stream")),
    ("short_body", In("upstream_truncated", "mid_stream")),
    ("reset", In("upstream_truncated", "mid_stream")),
    ("no_finish", In("upstream_truncated", "mid_stream")),
    // Something else than the answer, in the middle of it.
    ("garbage", In("upstream_protocol", "mid_stream")),
    ("error_frame", In("upstream_error", "mid_stream")),
    ("bare_error", In("upstream_error", "mid_stream")),
    // What looks odd, and is whole.
    ("text", Whole),
    ("split_utf8", Whole),
    ("bad_utf8", Whole),
    ("drip@tokens=3", Whole),
    ("after_done", Whole),
    ("done_twice", Whole),
    ("no_done", Whole),
    ("comments@hold_ms=300", Whole),
    ("slow_first_byte@hold_ms=300", Whole),
];

/// The same, where the rest would wait for what it takes to carry that much.
const HEAVY: &[(&str, Ends)] =
    &[("huge_line", In("upstream_protocol", "mid_stream")), ("huge_frame", In("upstream_protocol", "mid_stream"))];

/// The same, and the only clock that rings within a test.
const CLOCKS: &[(&str, &str, Ends)] = &[
    ("headers_timeout_ms = 700", "slow_head@hold_ms=3600000", In("upstream_timeout", "headers")),
    ("idle_timeout_ms = 700", "silent", In("upstream_stalled", "pre_token")),
    ("idle_timeout_ms = 1500", "stall", In("upstream_stalled", "mid_stream")),
    ("ttft_timeout_ms = 700", "comments@hold_ms=3600000", In("upstream_timeout", "pre_token")),
    ("ttft_timeout_ms = 700", "comment_flood", In("upstream_timeout", "pre_token")),
    ("total_timeout_ms = 1500", "comments_after", In("upstream_timeout", "mid_stream")),
    ("total_timeout_ms = 1500", "trickle@gap_ms=20", In("upstream_timeout", "mid_stream")),
];

/// What only HTTP/1.1 has.
const OF_HTTP1: [&str; 10] = [
    "cut_head",
    "no_http",
    "interim",
    "huge_head",
    "many_headers",
    "no_content",
    "no_length",
    "cut_chunk",
    "cut_end",
    "short_body",
];

/// Where the dialects differ: what is whole in one is cut in another.
fn ends(dialect: Dialect, model: &str, elsewhere: Ends) -> Ends {
    match (dialect, model) {
        // Their terminator is all that says that an answer is whole.
        (Dialect::OpenaiResponses | Dialect::PerplexityAgent | Dialect::Anthropic | Dialect::Ollama, "no_done") => {
            In("upstream_truncated", "mid_stream")
        }
        // A document over many lines is many broken lines.
        (Dialect::Ollama, "bare_error") => In("upstream_protocol", "mid_stream"),
        _ => elsewhere,
    }
}

/// One case in one dialect.
struct Case {
    provider: String,
    /// Keys of the provider's table.
    table: String,
    model: &'static str,
    ends: Ends,
}

/// Where the mock is.
struct Place {
    dialect: Dialect,
    url: String,
    /// What else a provider's table needs to come there.
    keys: String,
    protocol: Protocol,
}

/// Cases at the mock: the clock, what it does, how that ends.
fn cases(place: &Place, all: impl Iterator<Item = (&'static str, &'static str, Ends)>) -> Vec<Case> {
    let &Place { dialect, ref url, ref keys, protocol } = place;
    // Without a terminator nothing comes after it.
    let all = all.filter(|(_, model, _)| !(dialect == Dialect::Gemini && *model == "after_done"));
    let all = all.filter(|(_, model, _)| protocol == Protocol::Http1 || !OF_HTTP1.contains(model));
    let cases = all.map(|(clock, model, elsewhere)| {
        let provider = model.replace(['_', '@', '=', ','], "-");
        let table = format!("base_url = {url:?}\n{keys}\n{clock}");
        Case { provider, table, model, ends: ends(dialect, model, elsewhere) }
    });
    cases.collect()
}

/// What cannot be reached.
fn unreachable(silent: &Socket, insecure: SocketAddr) -> Vec<Case> {
    let refused = silent.local_addr().unwrap().as_socket().unwrap();
    let places = [
        ("refused", format!("http://{refused}/v1"), "upstream_connect"),
        ("insecure", format!("https://{insecure}/v1"), "upstream_tls"),
        ("nowhere", "https://mock.invalid/v1".to_owned(), "upstream_dns"),
    ];
    let case = |(name, url, code): (&str, String, &'static str)| Case {
        provider: name.to_owned(),
        table: format!("base_url = {url:?}"),
        model: "text@tokens=0",
        ends: In(code, "connect"),
    };
    places.into_iter().map(case).collect()
}

/// A port that is taken and where nobody listens.
fn silent_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// A server that knows nothing of TLS.
async fn insecure() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    address
}

/// A provider for each case and each way to ask for it.
fn providers<'c>(dialect: Dialect, cases: impl Iterator<Item = &'c Case>) -> String {
    let mut tables = FAST.to_owned();
    for Case { provider, table, .. } in cases {
        for way in ["stream", "response"] {
            let table = format!("dialect = {:?}\n{table}\n{ONCE}\n{FAST}", dialect.name());
            let rest = "api_key_env = \"\"\nmodels = [\"mock\"]\nany_model = true\nwarm_connections = 0";
            write!(tables, "\n[providers.{provider}-{way}]\n{table}\n{rest}\n").unwrap();
        }
    }
    tables
}

/// What is left of a case when it is over, in the order in which a reader wants to know it.
fn over(status: &Value, error: &Value, text: &Value, thread: &Value) -> Value {
    let answer = &thread["messages"][1];
    json!({
        "status": status, "code": error["code"], "phase": error["phase"], "provider": error["provider"], "text": text,
        "kept": {"status": answer["status"], "text": answer["content"]},
        "pause_ms": error["retry_after_ms"],
    })
}

/// What should be left of it.
fn expected(case: &Case, provider: &str, prompt: &str) -> Value {
    match case.ends {
        Whole => {
            let text = json!(expected_text(case.model, prompt));
            over(&json!("complete"), &Value::Null, &text, &kept("complete", &text))
        }
        In(code, phase) => {
            let said = if phase == "mid_stream" { expected_text(case.model, prompt) } else { String::new() };
            let pause_ms = if case.model == "rate_limited" { json!(1_000) } else { Value::Null };
            let error = json!({"code": code, "phase": phase, "provider": provider, "retry_after_ms": pause_ms});
            let text = json!(said);
            over(&json!("error"), &error, &text, &kept("error", &text))
        }
    }
}

fn kept(status: &str, text: &Value) -> Value {
    json!({"messages": [{}, {"status": status, "content": text}]})
}

/// Plays a case in both ways. Returns what is not as it should be.
async fn play(gateway: &Gateway, case: &Case) -> String {
    let (streamed, whole) = join(stream(gateway, case), respond(gateway, case)).await;
    streamed + &whole
}

async fn stream(gateway: &Gateway, case: &Case) -> String {
    let (prompt, provider) = ("as a stream", format!("{}-stream", case.provider));
    let thread = gateway.thread().await;
    let body = json!({"content": prompt, "provider": provider, "model": case.model});

    let events = gateway.stream(&thread, &body).await.rest().await;

    let end = done(&events);
    let text = json!(text_of(&events));
    let found = over(&end["status"], &end["error"], &text, &gateway.read(&thread).await);
    compare(case, "stream", &found, &expected(case, &provider, prompt)) + &quotes(case, &end)
}

async fn respond(gateway: &Gateway, case: &Case) -> String {
    let (prompt, provider) = ("as one response", format!("{}-response", case.provider));
    let thread = gateway.thread().await;
    let body = json!({"content": prompt, "provider": provider, "model": case.model});

    let answer = gateway.send(&thread, &body).await;

    let status = match case.ends {
        Whole => 200,
        In(code, _) => Code::find(code).unwrap().status(),
    };
    let (http, answer) = (answer.status(), answer.json());
    let kept = gateway.read(&thread).await;
    let mut expected = expected(case, &provider, prompt);
    let mut found = over(&answer["status"], &answer["error"], &answer["assistant_message"]["content"], &kept);
    if http != 200 {
        // An error has neither.
        found["status"] = expected["status"].clone();
        found["text"] = expected["text"].clone();
    }
    (found["http"], expected["http"]) = (json!(http), json!(status));
    compare(case, "response", &found, &expected) + &quotes(case, &answer["error"])
}

fn compare(case: &Case, way: &str, found: &Value, expected: &Value) -> String {
    if found == expected {
        return String::new();
    }
    format!("\n{} ({way})\n- {expected}\n+ {found}", case.model)
}

/// What the mock says to people is in each of its errors, and must be in none of weir's.
fn quotes(case: &Case, told: &Value) -> String {
    let told = told.to_string();
    if told.contains("the mock") { format!("\n{} is quoted: {told}", case.model) } else { String::new() }
}

/// An answer without end is cut at its limit, and what came until then is kept.
async fn endless(gateway: &Gateway, case: &Case) -> String {
    let thread = gateway.thread().await;
    let body = json!({"content": "go on", "provider": format!("{}-stream", case.provider), "model": case.model});

    let events = gateway.stream(&thread, &body).await.rest().await;

    let (end, text) = (done(&events), text_of(&events));
    let beginning = expected_text(case.model, "go on");
    assert!(text.starts_with(&beginning) && text.len() > ANSWER_BYTES_MAX / 2, "{} bytes", text.len());
    let found = over(&end["status"], &end["error"], &Value::Null, &gateway.read(&thread).await);
    let error = json!({"code": "response_too_large", "phase": "mid_stream", "provider": "endless-stream"});
    compare(case, "stream", &found, &over(&json!("error"), &error, &Value::Null, &kept("error", &json!(text))))
}

/// Every case of a dialect.
async fn every_fault(dialect: Dialect) {
    let mock = Mock::start().await;
    let place = Place { dialect, url: mock.url_of(dialect), keys: String::new(), protocol: Protocol::Http1 };
    every_fault_at(mock, &place).await;
}

/// Every case of a dialect that HTTP/2 has as well.
async fn every_fault_by_http2(dialect: Dialect) {
    let mock = Mock::start().await;
    let front = Front::start(Protocol::Http2, mock.provider().clone()).await;
    let (url, keys) = (front.url(dialect.name()), front.keys());
    every_fault_at(mock, &Place { dialect, url, keys, protocol: Protocol::Http2 }).await;
}

async fn every_fault_at(mock: Mock, place: &Place) {
    let (dialect, silent) = (place.dialect, silent_port());
    let mut plain = cases(place, CASES.iter().map(|(model, ends)| ("", *model, *ends)));
    plain.extend(unreachable(&silent, insecure().await));
    let heavy = cases(place, HEAVY.iter().map(|(model, ends)| ("", *model, *ends)));
    let without_end = cases(place, [("", "endless", Whole)].into_iter());
    let timed = cases(place, CLOCKS.iter().copied());
    let all = [&plain, &heavy, &without_end, &timed].into_iter().flatten();
    let tables = format!("{}\n[stream]\nanswer_bytes_max = {ANSWER_BYTES_MAX}", providers(dialect, all));
    let gateway = Gateway::before(mock, &tables).await;

    let mut report = join_all(plain.iter().map(|case| play(&gateway, case))).await.concat();
    report += &join_all(heavy.iter().map(|case| stream(&gateway, case))).await.concat();
    report += &endless(&gateway, &without_end[0]).await;
    report += &join_all(timed.iter().map(|case| play(&gateway, case))).await.concat();

    assert!(report.is_empty(), "{}:{report}", dialect.name());
    gateway.at_rest().await;
    assert_eq!(gateway.mock.counts().strays, 0, "a redirect is not followed");
    let ends_runs = dialect == Dialect::PerplexityAgent;
    assert_eq!(gateway.mock.counts().runs_cancelled > 0, ends_runs, "what is given up is ended at the provider");
}

#[actix_web::test]
async fn every_fault_of_openai_chat_has_its_code_and_one_done() {
    every_fault(Dialect::OpenaiChat).await;
}

#[actix_web::test]
async fn every_fault_of_openai_responses_has_its_code_and_one_done() {
    every_fault(Dialect::OpenaiResponses).await;
}

#[actix_web::test]
async fn every_fault_of_perplexity_agent_has_its_code_and_one_done() {
    every_fault(Dialect::PerplexityAgent).await;
}

#[actix_web::test]
async fn every_fault_of_perplexity_sonar_has_its_code_and_one_done() {
    every_fault(Dialect::PerplexitySonar).await;
}

#[actix_web::test]
async fn every_fault_of_gemini_has_its_code_and_one_done() {
    every_fault(Dialect::Gemini).await;
}

#[actix_web::test]
async fn every_fault_of_openrouter_has_its_code_and_one_done() {
    every_fault(Dialect::Openrouter).await;
}

#[actix_web::test]
async fn every_fault_of_anthropic_has_its_code_and_one_done() {
    every_fault(Dialect::Anthropic).await;
}

#[actix_web::test]
async fn every_fault_of_ollama_has_its_code_and_one_done() {
    every_fault(Dialect::Ollama).await;
}

#[actix_web::test]
async fn every_fault_of_openai_responses_is_the_same_by_http2() {
    every_fault_by_http2(Dialect::OpenaiResponses).await;
}

#[actix_web::test]
async fn every_fault_of_ollama_is_the_same_by_http2() {
    every_fault_by_http2(Dialect::Ollama).await;
}
