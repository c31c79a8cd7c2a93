//! Requests: what nobody has asked for. Most of them are refused; none costs anything.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::client::Request;
use crate::target::MOCK;

/// What texts are made of; the last ones only where a line of HTTP does not end at them.
const PLAIN: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.~";
const ODD: &[char] = &['"', '\\', '{', '}', '=', ',', '<', '|', '%', '\n', '\u{0}', 'é', '🦀', ' ', '/'];
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "QZX"];
/// Headers that mean something, and one that does not.
const HEADERS: &[&str] = &[
    "x-priority",
    "x-coalesce",
    "idempotency-key",
    "x-request-id",
    "last-event-id",
    "x-org-id",
    "cookie",
    "accept",
    "x-forwarded-proto",
    "content-type",
    "origin",
    "sec-fetch-site",
    "user-agent",
    "x-made-up",
];

/// Makes things up.
pub(super) struct Junk {
    rng: Rng,
    /// A thread that exists, for messages to a provider that does not know what is asked for.
    thread: Option<String>,
}

impl Junk {
    pub(super) fn new(rng: Rng, thread: Option<String>) -> Self {
        Self { rng, thread }
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Request {
        let word = self.word();
        match self.rng.u32(0..14) {
            0 => Request::new(METHODS[self.rng.usize(..METHODS.len())], format!("/{word}/{}", self.word())),
            1 => Request::new(METHODS[self.rng.usize(..METHODS.len())], format!("/api/{word}?{}={word}", self.word())),
            2 => Request::post("/v1/chat/completions", &self.completion()),
            3 => Request::post("/v1/responses", &json!({"model": self.text(), "input": self.text()})),
            4 => self.post_to(&format!("/api/threads/{word}/messages")),
            5 => self.ask_the_provider(),
            6 => Request::get(format!("/api/threads/{word}?limit={}", self.word())),
            7 => Request::get(format!("/api/requests/{word}/stream?last_event_id={}", self.word())),
            8 => Request::post(format!("/api/threads/cancel/{word}"), &json!({})),
            9 => Request::get("/api/threads").header("authorization", format!("Bearer {word}")),
            10 => Request::get("/api/metrics/performance").header("x-org-id", word),
            11 => self.with_headers(),
            12 => Request::new("PATCH", format!("/api/admin/pacers/{word}")).json(&json!({"rps": self.text()})),
            _ => Request::post("/api/session", &json!({"key": self.text(), word: 1})),
        }
    }

    fn completion(&mut self) -> Value {
        json!({"model": self.text(), "messages": [{"role": self.text(), "content": self.text()}], "user": self.text()})
    }

    fn post_to(&mut self, path: &str) -> Request {
        // Never a provider that exists: it would have to be paid.
        let provider = format!("junk-{}", self.text());
        Request::post(path, &json!({"content": self.text(), "provider": provider, "model": self.text()}))
    }

    fn ask_the_provider(&mut self) -> Request {
        let Some(thread) = self.thread.clone() else { return self.post_to("/api/threads/none/messages") };
        let model = format!("junk-{}", self.word());
        let body = json!({"content": self.text(), "provider": MOCK, "model": model, "user_id": self.word()});
        Request::post(format!("/api/threads/{thread}/messages"), &body)
    }

    fn with_headers(&mut self) -> Request {
        let count = self.rng.usize(1..5);
        (0..count).fold(Request::get("/api/providers"), |request, _| {
            let name = HEADERS[self.rng.usize(..HEADERS.len())];
            request.header(name, self.word())
        })
    }

    /// A word that can stand in a path and in a header.
    fn word(&mut self) -> String {
        let length = self.rng.usize(1..40);
        (0..length).map(|_| char::from(PLAIN[self.rng.usize(..PLAIN.len())])).collect()
    }

    /// Any text.
    fn text(&mut self) -> String {
        let length = self.rng.usize(0..40);
        let odd = self.rng.bool();
        (0..length)
            .map(|_| match odd && self.rng.u32(0..4) == 0 {
                true => ODD[self.rng.usize(..ODD.len())],
                false => char::from(PLAIN[self.rng.usize(..PLAIN.len())]),
            })
            .collect()
    }
}
