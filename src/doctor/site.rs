//! Site: a weir that runs, through the address that its clients use: whether it answers, and one stream of it.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::Site;
use super::findings::Findings;
use super::providers::{in_words, what_helps};
use super::stream::{self, Heard};
use crate::chat::ProviderName;
use crate::config::{Config, Http, Key, Provider};
use crate::providers::frames::{FRAME_LEN_MAX, Framer, Unit};
use crate::providers::upstream::{Opened, Question, Reached, Visit};
use crate::providers::{Flow, Framing, registry};

/// The longest document that is read, in bytes.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Long enough for gaps, short enough to wait for.
const PROMPT: &str = "In plain words, write 60 words about what a weir does.";
/// Who answers without being paid.
const DEMO: &str = "demo";

/// Why there is nothing more to look at; it has been told.
struct Over;

type Looked<T> = Result<T, Over>;

/// Looks at a site. `config` is the one here, which may not be its.
pub(super) async fn look(site: &Site, config: &Config, findings: &mut Findings) {
    if let Some(reached) = arrive(site, config, findings).await {
        let visit = Visitor { site, reached, findings, way: None };
        // Whatever was in the way has been told.
        let _: Looked<()> = visit.look(config).await;
    }
}

async fn arrive(site: &Site, config: &Config, findings: &mut Findings) -> Option<Reached> {
    let provider = as_provider(site, config);
    let visit = match Visit::new(&provider, &*registry::of(&provider)) {
        Ok(visit) => visit,
        Err(_) => {
            findings.fail(
                "url",
                "it is not the http or https address of a host, or the key cannot be sent",
                "--url, --key",
            );
            return None;
        }
    };
    let (steps, arrived) = visit.arrive().await;
    match arrived {
        Ok(reached) => {
            let hint = match (site.url.starts_with("https"), reached.http()) {
                (true, "1.1") => "; browsers open six such connections at most, HTTP/2 in the proxy lifts that",
                _ => "",
            };
            findings.ok("url", format!("{}HTTP/{}{hint}", in_words(&steps), reached.http()));
            Some(reached)
        }
        Err(error) => {
            findings.fail("url", format!("{}{error}", in_words(&steps)), what_helps(&error));
            None
        }
    }
}

/// The site as a server that is called: all of its settings but these are of no account.
fn as_provider(site: &Site, config: &Config) -> Provider {
    let any = config.providers.values().next().cloned();
    let any = any.unwrap_or_else(|| Config::default().default_provider().clone());
    Provider {
        name: ProviderName::new("url"),
        dialect: crate::config::Dialect::OpenaiChat,
        base_url: site.url.trim_end_matches('/').to_owned(),
        api_key_env: String::new(),
        key: site.key.clone().map_or(Key::NotNeeded, Key::Given),
        http: Http::Auto,
        connect_timeout_ms: u64::try_from(site.wait_max.as_millis()).unwrap_or(u64::MAX),
        warm_connections: 0,
        ca_file: site.ca_file.clone(),
        ..any
    }
}

struct Visitor<'v> {
    site: &'v Site,
    reached: Reached,
    findings: &'v mut Findings,
    /// The quickest answer so far.
    way: Option<Duration>,
}

impl Visitor<'_> {
    async fn look(mut self, config: &Config) -> Looked<()> {
        self.health().await?;
        self.idle_hint(config);
        let Some(provider) = self.who_answers().await? else { return Ok(()) };
        let thread = self.make_thread().await?;
        let heard = self.listen(&thread, &provider).await;
        let tidied = self.question("DELETE", format!("/api/threads/{thread}"), None);
        let deleted = self.answer(&tidied).await;
        if !matches!(deleted, Ok((204, _))) {
            self.findings.warn("thread", format!("{thread} of this check-up could not be deleted"), "delete it");
        }
        stream::judge(&heard?, self.findings);
        Ok(())
    }

    async fn health(&mut self) -> Looked<()> {
        let health = self.question("GET", "/health".to_owned(), None);
        let began = Instant::now();
        let (status, body) = self.told("health", &health).await?;
        let (took, version) = (began.elapsed().as_millis(), body["version"].as_str());
        match (status, body["status"].as_str(), version) {
            (200, Some("ok"), Some(env!("CARGO_PKG_VERSION"))) => {
                self.findings.ok("health", format!("weir {} in {took} ms", env!("CARGO_PKG_VERSION")));
            }
            (200, Some("ok"), Some(_)) => {
                let to_do = "look with the weir of its own version";
                self.findings.warn("health", format!("another version than {}", env!("CARGO_PKG_VERSION")), to_do);
            }
            (403, ..) => return Err(self.stop("health", status, "put the name of --url into server.allowed_hosts")),
            (502..=504, ..) => {
                return Err(self.stop("health", status, "the proxy does not reach weir: its address, is weir up?"));
            }
            _ => {
                return Err(self.stop(
                    "health",
                    status,
                    "what answers is not weir: the proxy's rules, the path of --url",
                ));
            }
        }
        let ready = self.question("GET", "/ready".to_owned(), None);
        match self.told("ready", &ready).await? {
            (200, _) => self.findings.ok("ready", "it wants work"),
            (status, body) => {
                let code = body["error"]["code"].as_str().and_then(crate::failure::Code::find);
                let code = code.map_or("no word", crate::failure::Code::as_str);
                self.findings.fail("ready", format!("{status}: {code}"), "weir's log says why");
            }
        }
        Ok(())
    }

    /// What cannot be measured without waiting for it.
    fn idle_hint(&mut self, config: &Config) {
        let total = config.providers.values().map(|provider| provider.total_timeout_ms).max().unwrap_or(0) / 1_000;
        let silence = config.server.ping_interval_ms / 1_000;
        self.findings.ok("idle", format!(
            "by this configuration streams are silent for {silence} s, whole answers for {total} s: the proxy must wait \
             longer (nginx: `proxy_read_timeout {}s;`)", total + 60,
        ));
    }

    /// Who is to answer, if somebody may.
    async fn who_answers(&mut self) -> Looked<Option<String>> {
        let providers = self.question("GET", "/api/providers".to_owned(), None);
        let (status, body) = self.told("providers", &providers).await?;
        match status {
            200 => {}
            401 => return Err(self.stop("access", status, "give a client's key: --key, or WEIR_API_KEY")),
            _ => return Err(self.stop("access", status, "what answers is not weir: the proxy's rules for /api")),
        }
        if let Some(provider) = &self.site.provider {
            return Ok(Some(provider.clone()));
        }
        let rows = body.as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.iter().any(|row| row["name"] == DEMO && row["available"] == true) {
            return Ok(Some(DEMO.to_owned()));
        }
        self.findings.warn("stream", "the demo is not available", "name who answers: --provider; it may cost money");
        Ok(None)
    }

    async fn make_thread(&mut self) -> Looked<String> {
        let title = json!({ "title": "weir doctor" });
        let make = self.question("POST", "/api/threads".to_owned(), Some(&title));
        let (status, body) = self.told("thread", &make).await?;
        let plain = |id: &&str| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match (status, body["id"].as_str().filter(plain)) {
            (201, Some(id)) => Ok(id.to_owned()),
            (403, _) => {
                Err(self.stop("thread", status, "this key has no threads: give one of an organisation, not of \"*\""))
            }
            _ => Err(self.stop("thread", status, "weir's log says why")),
        }
    }

    /// Sends a message and notes when what comes.
    async fn listen(&mut self, thread: &str, provider: &str) -> Looked<Heard> {
        let mut message = json!({ "content": PROMPT, "provider": provider, "coalesce": false });
        if let Some(model) = &self.site.model {
            message["model"] = model.as_str().into();
        }
        let path = format!("/api/threads/{thread}/messages/stream");
        let mut question = self.question("POST", path, Some(&message));
        question.headers.push(("accept-encoding", "gzip, br, zstd".to_owned()));
        let (began, limit) = (Instant::now(), self.site.wait_max);
        let opened = match timeout(limit, self.reached.ask(&question)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(self.fail("stream", error.to_string(), what_helps(&error))),
            Err(_) => return Err(self.late("stream")),
        };
        let mut heard = Heard { head_at: began.elapsed(), http: self.reached.http(), ..Heard::default() };
        heard.way = self.way.unwrap_or_default();
        if opened.head.status != 200 {
            return Err(self.stop("stream", opened.head.status, "is the provider available? weir's log says why"));
        }
        let Opened { head, body, .. } = opened;
        heard.head = head;
        // What did not come in time is judged as what was cut.
        let _ = timeout(limit, follow(body, began, &mut heard)).await;
        Ok(heard)
    }

    fn question(&self, method: &'static str, path: String, body: Option<&Value>) -> Question {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        Question { method, path, headers: Vec::new(), body }
    }

    /// The status and the JSON of an answer; `null` for what is none.
    async fn answer(&mut self, question: &Question) -> Result<(u16, Value), Option<String>> {
        let asked = Instant::now();
        let ask = async {
            let Opened { head, mut body, .. } = self.reached.ask(question).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() > DOCUMENT_BYTES_MAX {
                    break;
                }
            }
            Ok((head.status, serde_json::from_slice(&bytes).unwrap_or_default()))
        };
        let answer: Result<_, crate::providers::upstream::TransportError> =
            timeout(self.site.wait_max, ask).await.map_err(|_| None)?;
        let took = asked.elapsed();
        self.way = Some(self.way.map_or(took, |way| way.min(took)));
        answer.map_err(|error| Some(error.to_string()))
    }

    /// The same; what goes wrong is told.
    async fn told(&mut self, check: &str, question: &Question) -> Looked<(u16, Value)> {
        match self.answer(question).await {
            Ok(answer) => Ok(answer),
            Err(None) => Err(self.late(check)),
            Err(Some(error)) => Err(self.fail(check, error, "look at the proxy's log")),
        }
    }

    fn late(&mut self, check: &str) -> Over {
        let says = format!("no answer within {} ms", self.site.wait_max.as_millis());
        self.fail(check, says, "look at the proxy's log and weir's; --timeout-ms waits longer")
    }

    fn stop(&mut self, check: &str, status: u16, to_do: &str) -> Over {
        self.fail(check, format!("answered with {status}"), to_do)
    }

    fn fail(&mut self, check: &str, says: String, to_do: &str) -> Over {
        self.findings.fail(check, says, to_do);
        Over
    }
}

/// Reads a stream to its `done`.
async fn follow(mut body: crate::providers::upstream::Body, began: Instant, heard: &mut Heard) {
    let mut framer = Framer::new(Framing::Sse, FRAME_LEN_MAX);
    while let Some(Ok(bytes)) = body.next().await {
        let at = began.elapsed();
        heard.first_byte_at.get_or_insert(at);
        let pushed = framer.push(&bytes, &mut |unit| {
            if let Unit::Frame(frame) = unit {
                note(frame.event.unwrap_or_default(), frame.data, at, heard);
            }
            Ok(if heard.status.is_some() { Flow::Ended } else { Flow::More })
        });
        if !matches!(pushed, Ok(Flow::More)) {
            return;
        }
    }
}

fn note(event: &str, data: &str, at: Duration, heard: &mut Heard) {
    let millis =
        |data: &Value, name: &str| data[name].as_f64().map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1_000.0));
    heard.ping_at.get_or_insert(at);
    heard.end_at = Some(at);
    match event {
        "delta" | "reasoning" => heard.pieces.push(at),
        "meta" | "done" => {
            let data: Value = serde_json::from_str(data).unwrap_or_default();
            heard.ttft = heard.ttft.or(millis(&data, "ttft_ms"));
            heard.latency = millis(&data, "latency_ms");
            if event == "done" {
                heard.status = Some(data["status"].as_str().unwrap_or("unknown").chars().take(32).collect());
            }
        }
        _ => {}
    }
}
