//! What Prometheus reads: a text that it can parse, counters that move, and no series that a client has made. What is
//! measured of one answer stands in its head.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use load::client::{Client, Head, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::orgs::{keys, with_key};
use crate::support::done;
use crate::support::gateway::{FAST, Gateway, PATIENCE, message};
use crate::support::listener::Listener;

const ALERTS: &str = include_str!("../../docs/alerts.yml");
const DASHBOARD: &str = include_str!("../../docs/grafana.json");
const PROTOCOL: &str = include_str!("../../docs/protocol.md");

// --- The text -----------------------------------------------------------------

/// A name with its labels, as they are written.
type Series = String;

/// A text in the format 0.0.4.
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<Series, f64>,
}

impl Scrape {
    async fn of(client: &Client) -> Self {
        let answer = client.get("/metrics").await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status(), 200, "{text}");
        assert_eq!(answer.head.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&text)
    }

    /// Strictly: whatever a reader could stumble over is a failure.
    fn parse(text: &str) -> Self {
        let mut scrape = Self { kinds: BTreeMap::new(), samples: BTreeMap::new() };
        assert!(text.ends_with('\n'), "the last line ends");
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
            assert!(is_name(name) && !help.is_empty(), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect(name);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{name}: {kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}: {kind}");
            assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (series, value) = line.rsplit_once(' ').expect(line);
                check_series(name, kind, series);
                let value = value.parse().expect(line);
                assert!(scrape.samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
            }
        }
        scrape.check_histograms();
        scrape
    }

    /// Counts grow with their bounds, and the last one is the count of all.
    fn check_histograms(&self) {
        let is_count = |series: &&String| self.kinds.contains_key(name_of(series).trim_end_matches("_count"));
        for count in self.samples.keys().filter(|series| name_of(series).ends_with("_count")).filter(is_count) {
            let labels = count.split_once("_count").unwrap().1.trim_matches(['{', '}']);
            let prefix = format!("{}_bucket{{", name_of(count).trim_end_matches("_count"));
            let mut buckets: Vec<_> = self
                .samples
                .iter()
                .filter_map(|(series, value)| {
                    let rest = series.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                    let (others, bound) = rest.rsplit_once("le=\"")?;
                    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                    (others.trim_end_matches(',') == labels).then_some((bound, *value))
                })
                .collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{count}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, self.samples[count])), "{count}");
            assert!(self.samples.contains_key(&count.replacen("_count", "_sum", 1)), "{count}");
        }
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    fn series(&self) -> BTreeSet<&Series> {
        self.samples.keys().collect()
    }

    /// Which samples have grown since `before`, and by how much; no times and no gauges.
    fn since(&self, before: &Self) -> BTreeMap<&str, f64> {
        let counts = |series: &str| {
            let name = name_of(series);
            self.kinds.get(name).is_some_and(|kind| kind == "counter") || name.ends_with("_count")
        };
        let grown = self.samples.iter().map(|(series, value)| (&**series, value - before.get(series)));
        grown.filter(|(series, more)| counts(series) && *more != 0.0).collect()
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with("weir_") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn name_of(series: &str) -> &str {
    series.split('{').next().unwrap()
}

/// A sample's name is its metric's, its labels are well-formed, and their texts are words.
fn check_series(metric: &str, kind: &str, series: &str) {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let suffix = name.strip_prefix(metric).expect(series);
    let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    assert!(suffixes.contains(&suffix), "{series}");
    let mut rest = labels;
    while rest != "}" {
        let (label, after) = rest.split_once("=\"").expect(series);
        let (text, after) = after.split_once('"').expect(series);
        assert!(!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_lowercase()), "{series}");
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+".contains(&byte);
        assert!(!text.is_empty() && text.bytes().all(is_word), "{series}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

// --- What is counted ------------------------------------------------------------

#[actix_web::test]
async fn every_end_is_counted_as_what_it_is() {
    let gateway = Gateway::start().await;
    let before = Scrape::of(&gateway.client).await;
    let thread = gateway.thread().await;

    assert_eq!(gateway.send(&thread, &message("hello", "mock")).await.status(), 200);
    assert_eq!(gateway.send(&thread, &message("hello", "auth")).await.status(), 502);
    let mut silent = gateway.stream(&gateway.thread().await, &message("hello", "silent")).await;
    let request = silent.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(gateway.cancel(&request).await.status(), 200);
    assert_eq!(done(&silent.rest().await)["status"], "cancelled");
    let threads = join_all((0..5).map(|_| gateway.thread())).await;
    let shared = message("hello", "gate@after=0");
    let mut listeners = join_all(threads.iter().map(|thread| gateway.stream(thread, &shared))).await;
    gateway.mock.open_gate();
    join_all(listeners.iter_mut().map(Listener::rest)).await;

    let after = Scrape::of(&gateway.client).await;
    let mut grown = after.since(&before);
    // How often the store was asked is its own affair, and what the mock bills is that of the mock.
    grown.retain(|series, _| !series.starts_with("weir_store_"));
    assert!(grown.remove(r#"weir_tokens_total{provider="mock",type="input"}"#).is_some_and(|tokens| tokens > 0.0));
    assert!(grown.remove(r#"weir_tokens_total{provider="mock",type="output"}"#).is_some_and(|tokens| tokens > 0.0));
    let expected = [
        (r#"weir_requests_total{provider="mock",role="leader",status="complete"}"#, 2.0),
        (r#"weir_requests_total{provider="mock",role="follower",status="complete"}"#, 4.0),
        (r#"weir_requests_total{provider="mock",role="leader",status="error"}"#, 1.0),
        (r#"weir_requests_total{provider="mock",role="leader",status="cancelled"}"#, 1.0),
        (r#"weir_request_errors_total{provider="mock",code="upstream_auth"}"#, 1.0),
        (r#"weir_error_responses_total{code="upstream_auth"}"#, 1.0),
        (r#"weir_ttft_seconds_count{provider="mock"}"#, 6.0),
        (r#"weir_ttfb_seconds_count{provider="mock"}"#, 6.0),
        (r#"weir_queue_wait_seconds_count{provider="mock"}"#, 8.0),
        (r#"weir_latency_seconds_count{provider="mock"}"#, 8.0),
        ("weir_cancel_seconds_count", 1.0),
    ];
    assert_eq!(grown, BTreeMap::from(expected));
    assert_eq!(before.series(), after.series(), "all were there from the beginning");
}

/// Also those that no handler returns as an error.
#[actix_web::test]
async fn every_error_is_counted_wherever_it_is_answered() {
    let gateway = Gateway::with_server("connections_max = 50\nhead_timeout_ms = 300").await;
    let before = Scrape::of(&gateway.client).await;

    assert_eq!(gateway.cancel("nobodys").await.status(), 404);
    assert_eq!(gateway.cancel("not.an.id").await.status(), 404);
    for unread in ["this is no HTTP\r\n\r\n", "GET / HTTP/1.1\r\nhost: w\r\n"] {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        socket.write_all(unread.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    }

    let after = Scrape::of(&gateway.client).await;
    let grown = after.since(&before);
    for (code, count) in [("request_not_found", 2.0), ("invalid_request", 1.0), ("request_timeout", 1.0)] {
        let series = format!("weir_error_responses_total{{code={code:?}}}");
        // A client of the test that was held up for long enough is told so as well.
        let is_counted = |grown: &f64| if code == "request_timeout" { *grown >= count } else { *grown == count };
        assert!(grown.get(&*series).is_some_and(is_counted), "{code}: {grown:?}");
    }
}

#[actix_web::test]
async fn gauges_show_what_runs_and_what_waits() {
    let gateway = Gateway::with_provider("rps = 10000.0\nconcurrency = 1\nburst = 1000").await;
    let mut running = gateway.stream(&gateway.thread().await, &message("hello", "silent")).await;
    running.next_named("meta").await;
    gateway.called(|counts| counts.calls_started == 1).await;
    let mut waiting = gateway.stream(&gateway.thread().await, &message("and then?", "silent")).await;
    waiting.next_named("meta").await;
    gateway.until_listeners(2).await;

    let scrape = Scrape::of(&gateway.client).await;

    for (series, value) in [
        (r#"weir_streams{provider="mock",phase="upstream"}"#, 1.0),
        (r#"weir_streams{provider="mock",phase="queue"}"#, 1.0),
        (r#"weir_streams{provider="mock",phase="streaming"}"#, 0.0),
        (r#"weir_listeners{provider="mock"}"#, 2.0),
        (r#"weir_in_flight{provider="mock"}"#, 1.0),
        (r#"weir_queued{provider="mock"}"#, 1.0),
        (r#"weir_concurrency_limit{provider="mock"}"#, 1.0),
        (r#"weir_effective_rps{provider="mock"}"#, 10_000.0),
        (r#"weir_breaker_state{provider="mock"}"#, 0.0),
        ("weir_store_failed", 0.0),
        ("weir_store_unsettled", 0.0),
        ("weir_draining", 0.0),
    ] {
        assert_eq!(scrape.get(series), value, "{series}");
    }
    assert!(scrape.get("weir_connections") >= 3.0, "two listeners and whoever asks");
}

#[actix_web::test]
async fn the_store_tells_what_it_does() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let before = Scrape::of(&gateway.client).await;
    assert_eq!(gateway.send(&thread, &message("hello", "mock")).await.status(), 200);
    gateway.read(&thread).await;

    let after = Scrape::of(&gateway.client).await;

    let grown = after.since(&before);
    for series in ["weir_store_writes_total", "weir_store_transactions_total", "weir_store_fsyncs_total"] {
        assert!(grown[series] >= 1.0, "{series}: {grown:?}");
    }
    let reads = grown.iter().filter(|(series, _)| series.starts_with("weir_store_reads_total{by="));
    assert!(reads.map(|(_, more)| more).sum::<f64>() >= 1.0, "{grown:?}");
    assert_eq!(after.get("weir_store_transactions_failed_total"), 0.0);
    let quiet = async {
        while Scrape::of(&gateway.client).await.get("weir_store_sync_waiting") > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, quiet).await.expect("they wait for a moment");
}

#[actix_web::test]
async fn an_open_breaker_is_seen() {
    let breaker = "retries_max = 0\nbreaker_failures = 1\nbreaker_open_ms = 60000\nbreaker_open_max_ms = 60000";
    let gateway = Gateway::with_provider(&format!("{FAST}\n{breaker}")).await;

    assert_eq!(gateway.send(&gateway.thread().await, &message("hello", "overloaded")).await.status(), 503);

    let is_open = |pacer: &Value| pacer["provider"] == "mock" && pacer["breaker"] == "open";
    gateway.until("/api/admin/pacers", |pacers| pacers.as_array().unwrap().iter().any(is_open)).await;
    assert_eq!(Scrape::of(&gateway.client).await.get(r#"weir_breaker_state{provider="mock"}"#), 2.0);
}

#[actix_web::test]
async fn nothing_that_clients_say_makes_a_series() {
    let gateway = Gateway::with_tables(&keys(&[("a", "acme", "user"), ("ops", "*", "admin")])).await;
    let (client, ops) = (with_key(&gateway, "a"), with_key(&gateway, "ops"));
    let thread = client.post("/api/threads", &json!({})).await.unwrap().json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/threads/{thread}/messages");
    let before = Scrape::of(&ops).await;

    for n in 0..250 {
        let mut body = message(&format!("junk {n}"), &format!("junk-{n}"));
        body["user_id"] = format!("user-{n}").into();
        body["request_id"] = format!("request-{n}").into();
        client.post(&path, &body).await.unwrap();
        body["provider"] = format!("provider-{n}").into();
        client.post(&path, &body).await.unwrap();
        assert_eq!(client.get(&format!("/junk/{n}")).await.unwrap().status(), 404);
        assert_eq!(with_key(&gateway, &format!("key-{n}")).get("/api/threads").await.unwrap().status(), 401);
    }

    let after = Scrape::of(&ops).await;
    assert_eq!(before.series(), after.series());
    let grown = after.since(&before);
    let requests = grown.iter().filter(|(series, _)| series.starts_with("weir_requests_total"));
    assert_eq!(requests.map(|(_, more)| more).sum::<f64>(), 250.0, "those that reached a provider: {grown:?}");
    for code in ["unknown_provider", "not_found", "unauthorized"] {
        assert_eq!(grown[&*format!("weir_error_responses_total{{code={code:?}}}")], 250.0);
    }
}

#[actix_web::test]
async fn totals_are_for_those_who_see_all_organisations() {
    let gateway = Gateway::start().await;

    let narrow = gateway.client.clone().with_header("x-org-id", "acme").get("/metrics").await.unwrap();

    assert_eq!((narrow.status(), narrow.error_code().as_deref()), (403, Some("forbidden")));
    Scrape::of(&gateway.client).await;
}

// --- What the documents say -------------------------------------------------------

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').filter(|word| is_name(word)).collect()
}

/// The conditions `label="text"` of an expression.
fn conditions(expression: &str) -> impl Iterator<Item = String> {
    let ends = expression.match_indices("=\"").filter_map(|(at, _)| {
        let begin = expression[..at].rfind(['{', ',', '('])? + 1;
        let end = at + 2 + expression[at + 2..].find('"')?;
        Some(expression[begin..=end].to_owned())
    });
    ends.collect::<Vec<_>>().into_iter()
}

#[actix_web::test]
async fn alerts_and_dashboard_ask_for_what_is_there() {
    let gateway = Gateway::with_provider(&format!("{FAST}\ntpm = 1000000\nfallback = [\"demo\"]")).await;
    let scrape = Scrape::of(&gateway.client).await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let known: BTreeSet<_> = scrape.samples.keys().map(|series| name_of(series)).collect();

    assert!(expressions.iter().all(|expression| !names(expression).is_empty()), "{expressions:?}");
    for text in [ALERTS, DASHBOARD] {
        assert!(!names(text).is_empty());
        let unknown: Vec<_> = names(text).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
    let queries = ALERTS.lines().filter(|line| line.contains("weir_")).chain(expressions);
    let conditions: BTreeSet<_> = queries.flat_map(conditions).collect();
    assert!(conditions.contains("role=\"follower\"") && conditions.contains("status=\"error\""), "{conditions:?}");
    for condition in &conditions {
        let holds =
            |series: &Series| series.contains(&format!("{{{condition}")) || series.contains(&format!(",{condition}"));
        assert!(scrape.samples.keys().any(holds), "{condition} is never so");
    }
}

#[actix_web::test]
async fn the_protocol_lists_every_metric_and_no_other() {
    let provider = format!(
        "{FAST}
tpm = 1000000
fallback = [\"demo\"]"
    );
    let gateway = Gateway::with(&provider, &keys(&[("ops", "*", "admin")])).await;
    let scrape = Scrape::of(&with_key(&gateway, "ops")).await;

    let listed: BTreeSet<_> =
        PROTOCOL.lines().filter(|line| line.starts_with("| `weir_")).flat_map(|line| names(line)).collect();

    assert_eq!(listed, scrape.kinds.keys().map(String::as_str).collect());
    for name in listed {
        assert!(scrape.samples.keys().any(|series| series.starts_with(name)), "{name} has no sample");
    }
}

// --- Server-Timing ------------------------------------------------------------------

/// The parts of the header, in order, in milliseconds.
fn parts(head: &Head) -> Vec<(String, f64)> {
    let value = head.header("server-timing").expect("it says where the time went");
    let part = |part: &str| {
        let (name, ms) = part.split_once(";dur=").expect(value);
        (name.to_owned(), ms.parse().expect(value))
    };
    value.split(", ").map(part).collect()
}

fn parts_named(head: &Head) -> Vec<String> {
    parts(head).into_iter().map(|(name, _)| name).collect()
}

#[actix_web::test]
async fn a_whole_answer_says_where_its_time_went() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let chat = json!({ "model": "mock/mock", "messages": [{ "role": "user", "content": "hello" }] });
    let responses = json!({ "model": "mock/mock", "input": "hello" });
    for (path, body, status) in [
        (&*format!("/api/threads/{thread}/messages"), message("hello", "mock"), 200),
        (&*format!("/api/threads/{thread}/messages"), message("hello", "auth"), 502),
        ("/v1/chat/completions", chat, 200),
        ("/v1/responses", responses, 200),
    ] {
        let began = Instant::now();
        let answer = gateway.client.post(path, &body).await.unwrap();
        let took_ms = began.elapsed().as_secs_f64() * 1_000.0;

        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(parts_named(&answer.head), ["queue", "connect", "upstream", "weir"], "{path}");
        let told_ms: f64 = parts(&answer.head).iter().map(|(_, ms)| ms).sum();
        // Four parts, each rounded to a tenth.
        assert!(told_ms > 0.0 && told_ms <= took_ms + 0.2, "{path}: {told_ms} of {took_ms}");
    }
}

#[actix_web::test]
async fn the_head_of_a_stream_says_what_is_known_then() {
    let gateway = Gateway::start().await;
    let thread = gateway.thread().await;
    let mut connection = gateway.client.connect().await.unwrap();
    let request = Request::post(format!("/api/threads/{thread}/messages/stream"), &message("hello", "mock"));

    let head = connection.send(&gateway.client.complete(request)).await.unwrap();

    assert_eq!(parts_named(&head), ["weir"]);
    let other = gateway.client.get("/health").await.unwrap();
    assert_eq!(other.head.header("server-timing"), None, "what asks no provider has nothing to tell");
}
