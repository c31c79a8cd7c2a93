//! Canaries: whatever a provider does, nothing of a key, a prompt or a provider's own words comes where it does not
//! belong: the log (at every level), the metrics, the lists for operators, errors and heads of answers.
//!
//! A relay between weir and the mock puts canaries into the heads of its answers, and over the words of its errors.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use load::client::{Client, ClientError, Request};
use load::mock::{Dialect, Mock, faults};
use load::target::{Launch, Weir};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::gateway::PATIENCE;
use crate::support::until;

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");

/// What all of them begin with.
const CANARY: &str = "canary-";
const PROVIDERS_KEY: &str = "canary-providers-key";
const CLIENTS_KEY: &str = "canary-clients-key";
const OPERATORS_KEY: &str = "canary-operators-key";
const PROMPT: &str = "canary-prompt";
const SYSTEM: &str = "canary-system";
const HEADERS: &str = "x-canary: canary-header\r\nset-cookie: c=canary-cookie\r\nserver: canary-server\r\n\
                       www-authenticate: canary-realm\r\n";
/// What stands over the words of a provider's error, as often as it fits.
const WORDS: &[u8] = b"canary-words ";
/// Where a provider's words begin in its errors.
const ERRORS: [&[u8]; 3] = [b"\"message\":\"", b"\"raw\":\"", b"<h1>"];

/// What is tried in every dialect, because each has words of its own for it.
const REFUSALS: [&str; 10] = [
    "server_error",
    "auth",
    "rejected",
    "too_long",
    "quota",
    "not_found",
    "rate_limited",
    "overloaded",
    "error_in_200",
    "error_frame",
];
/// Every clock rings within the test; nothing is tried twice.
const HASTY: &str = "headers_timeout_ms = 600\nttft_timeout_ms = 700\nidle_timeout_ms = 600\ntotal_timeout_ms = 1500\n\
                     queue_wait_max_ms = 900\nretries_max = 0\nbreaker_failures = 0\nrps = 10000.0\nburst = 1000\n\
                     concurrency = 1000\nwarm_connections = 0";

/// So few that no clock rings on a busy machine before its time.
const CASES_AT_ONCE: usize = 16;

/// Between weir and the mock. Ends with the test.
struct Relay {
    port: u16,
    /// How many canaries it has put into what.
    heads: Arc<AtomicUsize>,
    errors: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Relay {
    async fn before(mock: &Mock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heads, errors) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (address, counted) = (mock.address(), (heads.clone(), errors.clone()));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(address).await.unwrap();
                tokio::spawn(relay(client, server, counted.clone()));
            }
        });
        Self { port, heads, errors, accepting }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(client: TcpStream, server: TcpStream, (heads, errors): (Arc<AtomicUsize>, Arc<AtomicUsize>)) {
    let ((mut asks, mut hears), (mut answers, mut takes)) = (client.into_split(), server.into_split());
    let up = async {
        // It ends when either side has gone.
        let _ = tokio::io::copy(&mut asks, &mut takes).await;
        let _ = takes.shutdown().await;
    };
    let down = async {
        let (mut begins, mut bytes) = (true, vec![0; 64 * 1024]);
        while let Ok(count @ 1..) = answers.read(&mut bytes).await {
            let mut piece = bytes[..count].to_vec();
            errors.fetch_add(cover(&mut piece), Ordering::Relaxed);
            if std::mem::take(&mut begins)
                && piece.starts_with(b"HTTP/1.1 ")
                && let Some(end) = piece.windows(2).position(|pair| pair == b"\r\n")
            {
                piece.splice(end + 2..end + 2, HEADERS.bytes());
                heads.fetch_add(1, Ordering::Relaxed);
            }
            if hears.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = async { up.await; std::future::pending().await } => {}
    }
}

/// Puts canaries over the words of errors; lengths stay. How many.
fn cover(piece: &mut [u8]) -> usize {
    let mut covered = 0;
    for before in ERRORS {
        let mut from = 0;
        while let Some(at) = piece[from..].windows(before.len()).position(|window| window == before) {
            let begin = from + at + before.len();
            let length = piece[begin..].iter().position(|byte| matches!(byte, b'"' | b'<' | b'\\')).unwrap_or(0);
            for (byte, word) in piece[begin..begin + length].iter_mut().zip(WORDS.iter().cycle()) {
                *byte = *word;
            }
            covered += usize::from(length >= CANARY.len());
            from = begin + length;
        }
    }
    covered
}

/// One thing that a provider does, at a provider of its own: a refusal slows no other.
struct Case {
    provider: String,
    dialect: Dialect,
    model: &'static str,
}

fn cases() -> Vec<Case> {
    let all = faults::ALL.iter().map(|behaviour| (Dialect::OpenaiChat, behaviour.name));
    let others = Dialect::ALL.into_iter().filter(|dialect| *dialect != Dialect::OpenaiChat);
    let of_others = others.flat_map(|dialect| REFUSALS.map(|model| (dialect, model)));
    let case = |(dialect, model): (Dialect, &'static str)| {
        let provider = format!("{}-{model}", dialect.name()).replace('_', "-");
        Case { provider, dialect, model }
    };
    all.chain(of_others).map(case).collect()
}

fn config(port: u16, cases: &[Case]) -> String {
    let mut toml = format!(
        "system_prompt = {SYSTEM:?}\n[server]\nbind = \"127.0.0.1:0\"\nworkers = 2\nopenai_hold_ms = 200\n\
         [stream]\nanswer_bytes_max = 100000\n"
    );
    for (id, org, role, key) in [("client", "acme", "user", CLIENTS_KEY), ("operator", "*", "admin", OPERATORS_KEY)] {
        let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("id = {id:?}\norg = {org:?}\nrole = {role:?}\nsha256 = {digest:?}");
        write!(toml, "[[auth.keys]]\n{key}\n").unwrap();
    }
    for Case { provider, dialect, .. } in cases {
        let name = dialect.name();
        let place = format!("dialect = {name:?}\nbase_url = \"http://127.0.0.1:{port}/{name}\"");
        let rest = "api_key_env = \"THE_KEY\"\nmodels = [\"mock\"]\nany_model = true";
        write!(toml, "[providers.{provider}]\n{place}\n{rest}\n{HASTY}\n").unwrap();
    }
    toml
}

/// The program, with its whole log in a file.
async fn start(directory: &Path, toml: &str, level: &str) -> Weir {
    let (config, log) = (directory.join("config.toml"), directory.join("log"));
    std::fs::write(&config, toml).unwrap();
    let script = format!("exec {PROGRAM} --config {} 2>{}", config.display(), log.display());
    let launch = Launch::program("/bin/sh", ["-c", &script]).env("RUST_LOG", level).env("THE_KEY", PROVIDERS_KEY);
    Weir::start(launch).await.unwrap()
}

/// Something that was seen, and where.
type Seen = (String, String);

/// The head of an answer, and its error if it is one, or ends as one.
async fn heard(client: &Client, place: String, request: Request) -> Vec<Seen> {
    let (head, error) = match timeout(PATIENCE, client.open(request)).await.expect("an answer in time") {
        Err(ClientError::Refused(refused)) => {
            (refused.head.clone(), String::from_utf8_lossy(&refused.body).into_owned())
        }
        Err(error) => panic!("{place}: {error}"),
        Ok(mut events) => {
            let head = events.head().clone();
            let rest = timeout(PATIENCE, events.rest()).await.expect("an end in time").unwrap_or_default();
            let errors = rest.iter().map(|arrived| arrived.event.json()["error"].clone());
            (head, errors.filter(|error| !error.is_null()).map(|error| error.to_string()).collect())
        }
    };
    vec![(format!("{place}: the head"), format!("{head:?}")), (format!("{place}: the error"), error)]
}

/// Asks every provider for what it does, both ways, and looks at what operators see meanwhile.
async fn ask_all(weir: &Weir, cases: &[Case], level: &str) -> Vec<Seen> {
    let with = |key: &str| weir.client().with_header("authorization", format!("Bearer {key}"));
    let (client, operator) = (with(CLIENTS_KEY), with(OPERATORS_KEY));
    let ask = async |Case { provider, model, .. }: &Case| {
        let made = client.post("/api/threads", &json!({})).await.unwrap().json();
        let path = format!("/api/threads/{}/messages/stream", made["id"].as_str().unwrap());
        let message = json!({"content": PROMPT, "provider": provider, "model": model, "user_id": PROMPT});
        let whole = json!({"model": format!("{provider}/{model}"), "messages": [{"role": "user", "content": PROMPT}]});
        let (streamed, whole) = futures_util::join!(
            heard(&client, format!("{level} {provider}"), Request::post(path, &message)),
            heard(&client, format!("{level} {provider}, /v1"), Request::post("/v1/chat/completions", &whole)),
        );
        [streamed, whole].concat()
    };
    let watch = async {
        let is_busy = |streams: &load::client::Response| streams.json().as_array().is_some_and(|rows| rows.len() > 5);
        let streams = until(&operator, "/api/admin/streams", is_busy).await;
        (format!("{level} /api/admin/streams"), streams.json().to_string())
    };
    let answers = stream::iter(cases).map(ask).buffer_unordered(CASES_AT_ONCE).collect::<Vec<_>>();
    let (answers, streams) = futures_util::join!(answers, watch);
    let mut seen = answers.concat();
    seen.push(streams);
    for path in ["/metrics", "/api/metrics/performance", "/api/admin/pacers", "/api/admin/streams"] {
        let found = operator.get(path).await.unwrap();
        assert_eq!(found.status(), 200, "{path}");
        seen.push((format!("{level} {path}"), String::from_utf8_lossy(&found.body).into_owned()));
    }
    let stranger = with("canary-nobodys-key").get("/api/threads").await.unwrap();
    seen.push((format!("{level} a wrong key"), format!("{:?} {}", stranger.head, stranger.json())));
    seen
}

/// Runs everything with the log at this level.
async fn sing(level: &str) -> Vec<Seen> {
    let (mock, cases, directory) = (Mock::start().await, cases(), tempfile::tempdir().unwrap());
    let relay = Relay::before(&mock).await;
    let mut weir = start(directory.path(), &config(relay.port, &cases), level).await;
    let mut seen = ask_all(&weir, &cases, level).await;
    assert!(weir.terminate(PATIENCE).await.unwrap().unwrap().success());
    // The canaries were there: in what weir has sent, and in what it was answered.
    let sent: Vec<_> = mock.calls();
    let bodies = |text: &str| sent.iter().filter(|call| String::from_utf8_lossy(&call.body).contains(text)).count();
    let keys = sent.iter().filter(|call| call.headers.iter().any(|(_, value)| value.contains(PROVIDERS_KEY))).count();
    assert!(keys > 20 && bodies(PROMPT) > 20 && bodies(SYSTEM) > 10, "{keys} {} {}", bodies(PROMPT), bodies(SYSTEM));
    let (heads, errors) = (relay.heads.load(Ordering::Relaxed), relay.errors.load(Ordering::Relaxed));
    // Connections are used again, and where time is short a clock rings first.
    assert!(heads > cases.len() / 2 && errors > cases.len() / 4, "{heads} heads and {errors} errors");
    let failed = seen.iter().filter(|(place, text)| place.ends_with("error") && !text.is_empty()).count();
    assert!(failed > cases.len(), "{failed} errors");
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(log.lines().count() > cases.len(), "{} lines of log", log.lines().count());
    seen.extend(log.lines().map(|line| (format!("{level} log"), line.to_owned())));
    seen
}

#[tokio::test]
async fn whatever_providers_do_no_key_and_nobodys_words_come_where_they_do_not_belong() {
    let (quiet, loud) = futures_util::join!(sing("info"), sing("trace"));

    let seen = [quiet, loud].concat();
    let escaped = seen.iter().filter(|(_, text)| text.contains(CANARY));
    let escaped: Vec<_> = escaped.map(|(place, text)| format!("{place}: {}", around(text))).collect();
    assert!(
        escaped.is_empty(),
        "{} of {}:\n{}",
        escaped.len(),
        seen.len(),
        escaped[..escaped.len().min(40)].join("\n")
    );
}

/// The part of a text with the first canary.
fn around(text: &str) -> String {
    let at = text.find(CANARY).unwrap_or(0);
    let begin = text[..at].char_indices().rev().nth(120).map_or(0, |(begin, _)| begin);
    text[begin..].chars().take(240).collect()
}

#[test]
fn the_relay_covers_words_and_changes_no_length() {
    let mut piece = br#"{"error":{"code":"x","message":"you have used it up","type":"y"}}"#.to_vec();
    let length = piece.len();

    assert_eq!(cover(&mut piece), 1);

    let error: Value = serde_json::from_slice(&piece).unwrap();
    assert_eq!((piece.len(), error["error"]["message"].as_str()), (length, Some("canary-words canary")));
    assert_eq!(error["error"]["code"], "x");
}
