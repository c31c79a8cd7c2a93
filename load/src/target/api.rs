//! Api: weir's interface, as far as the measurements use it.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::client::{Arrived, Client, ClientError, Events, Request, Response, text_of};

/// The longest that any single answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a call did not go as it should.
#[derive(Debug)]
pub enum ApiError {
    /// There is no answer, or another one than was asked for.
    Client(ClientError),
    /// The answer lacks something.
    Lacks(&'static str, String),
    /// The answer did not end in time.
    Timeout,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Client(error) => error.fmt(f),
            ApiError::Lacks(what, answer) => write!(f, "an answer lacks {what}: {answer}"),
            ApiError::Timeout => write!(f, "an answer took longer than {} s", ANSWER_TIMEOUT.as_secs()),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        ApiError::Client(error)
    }
}

/// Weir's interface.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// The interface behind a client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client behind the interface.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Makes a thread. Returns its id.
    pub async fn create_thread(&self) -> Result<String, ApiError> {
        let created = expect(201, self.client.post("/api/threads", &json!({})).await?)?;
        let id = created["thread_id"].as_str().map(str::to_owned);
        id.ok_or_else(|| ApiError::Lacks("thread_id", created.to_string()))
    }

    /// A thread with its messages.
    pub async fn thread(&self, thread: &str) -> Result<Value, ApiError> {
        expect(200, self.client.get(&format!("/api/threads/{thread}")).await?)
    }

    /// The state of a request.
    pub async fn request(&self, request: &str) -> Result<Value, ApiError> {
        expect(200, self.client.get(&format!("/api/requests/{request}")).await?)
    }

    /// The request that sends a message.
    pub fn message(thread: &str, provider: &str, model: &str, content: &str) -> Request {
        let body = json!({"role": "user", "content": content, "provider": provider, "model": model});
        Request::post(format!("/api/threads/{thread}/messages/stream"), &body)
    }

    /// Sends a message and opens the stream of its answer.
    pub async fn send(&self, thread: &str, provider: &str, model: &str, content: &str) -> Result<Events, ApiError> {
        self.open(Self::message(thread, provider, model, content)).await
    }

    /// Joins the answer that runs in a thread.
    pub async fn join(&self, thread: &str) -> Result<Events, ApiError> {
        self.open(Request::get(format!("/api/threads/{thread}/stream"))).await
    }

    /// Resumes a request's answer after the event with this id.
    pub async fn resume(&self, request: &str, after: &str) -> Result<Events, ApiError> {
        let path = format!("/api/requests/{request}/stream");
        self.open(Request::get(path).header("last-event-id", after)).await
    }

    /// Opens an event stream.
    pub async fn open(&self, request: Request) -> Result<Events, ApiError> {
        Ok(timeout(ANSWER_TIMEOUT, self.client.open(request)).await.map_err(|_| ApiError::Timeout)??)
    }

    /// Cancels a request.
    pub async fn cancel(&self, request: &str) -> Result<Response, ApiError> {
        Ok(self.client.send(Self::cancellation(request)).await?)
    }

    /// The request that cancels another one.
    pub fn cancellation(request: &str) -> Request {
        Request::post(format!("/api/threads/cancel/{request}"), &json!({}))
    }

    /// Weir's own figures over its last requests.
    pub async fn performance(&self, last_n: usize) -> Result<Value, ApiError> {
        expect(200, self.client.get(&format!("/api/metrics/performance?last_n={last_n}")).await?)
    }

    /// The pacers.
    pub async fn pacers(&self) -> Result<Value, ApiError> {
        expect(200, self.client.get("/api/admin/pacers").await?)
    }

    /// The running streams.
    pub async fn streams(&self) -> Result<Value, ApiError> {
        expect(200, self.client.get("/api/admin/streams").await?)
    }

    /// How many requests wait at a pacer.
    pub async fn queued(&self, provider: &str) -> Result<u64, ApiError> {
        let pacers = self.pacers().await?;
        let pacer = pacers.as_array().into_iter().flatten().find(|pacer| pacer["provider"] == provider);
        let queued = pacer.and_then(|pacer| pacer["queued"].as_u64());
        queued.ok_or_else(|| ApiError::Lacks("a pacer's queue", pacers.to_string()))
    }
}

fn expect(status: u16, response: Response) -> Result<Value, ApiError> {
    if response.status() != status {
        return Err(ClientError::Refused(Box::new(response)).into());
    }
    Ok(response.json())
}

/// An answer as one listener saw it, from its first event to the last.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Of the request.
    pub request_id: String,
    /// `leader` or `follower`.
    pub role: String,
    /// The text of its pieces together.
    pub text: String,
    /// Its content events as they were sent: id, name, data.
    pub content: Vec<(String, String, String)>,
    /// When each `delta` arrived, and with which read.
    pub arrivals: Vec<(Instant, u64)>,
    /// The terminal events, of which there should be one.
    pub dones: Vec<Value>,
    /// Events after the terminal one, of which there should be none.
    pub after_done: usize,
    /// From the request to the first piece of the text.
    pub ttft: Option<Duration>,
    /// Whether the body ended properly.
    pub whole: bool,
}

impl Answer {
    /// Reads a stream to its end. A cut is no error, but no whole answer either.
    pub async fn read(stream: &mut Events) -> Result<Self, ApiError> {
        let mut answer = Self::default();
        timeout(ANSWER_TIMEOUT, answer.read_on(stream)).await.map_err(|_| ApiError::Timeout)?;
        Ok(answer)
    }

    /// Reads a stream to its end, or to a cut. What has been read is kept if the future is dropped.
    pub async fn read_on(&mut self, stream: &mut Events) {
        let sent = stream.sent();
        loop {
            match stream.next().await {
                Ok(Some(arrived)) => self.take(&arrived, sent),
                Ok(None) => {
                    self.whole = true;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Takes the next event of a stream that was asked for at `sent`.
    pub fn take(&mut self, arrived: &Arrived, sent: Instant) {
        if !self.dones.is_empty() {
            self.after_done += 1;
        }
        let (event, at) = (&arrived.event, arrived.at);
        match event.name.as_str() {
            "meta" => {
                let meta = event.json();
                if let (Some(request), Some(role)) = (meta["request_id"].as_str(), meta["role"].as_str()) {
                    (self.request_id, self.role) = (request.to_owned(), role.to_owned());
                }
            }
            "done" => self.dones.push(event.json()),
            "snapshot" => self.text = event.json()["text"].as_str().unwrap_or_default().to_owned(),
            "delta" => {
                self.ttft.get_or_insert_with(|| at - sent);
                self.text.push_str(&text_of([arrived]));
                self.arrivals.push((at, arrived.read));
            }
            _ => {}
        }
        if let (Some(id), true) = (&event.id, event.name != "done") {
            self.content.push((id.clone(), event.name.clone(), event.data.clone()));
        }
    }

    /// The status of the only terminal event; empty if there is none, or another number of them.
    pub fn status(&self) -> &str {
        match self.dones.as_slice() {
            [done] => done["status"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    /// What is wrong with the form of it, whatever it says.
    pub fn defect(&self) -> Option<String> {
        match (self.dones.len(), self.after_done, self.whole) {
            (1, 0, true) => None,
            (1, 0, false) => Some("the body was cut after the terminal event".to_owned()),
            (1, after, _) => Some(format!("{after} events after the terminal one")),
            (count, ..) => Some(format!("{count} terminal events")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Event;

    /// The answer that consists of these events, one a read.
    fn answer(events: &[(Option<&str>, &str, Value)]) -> Answer {
        let (mut answer, sent) = (Answer { whole: true, ..Answer::default() }, Instant::now());
        for (read, (id, name, data)) in (1..).zip(events) {
            let (id, name, data) = (id.map(str::to_owned), (*name).to_owned(), data.to_string());
            answer
                .take(&Arrived { event: Event { id, name, data }, at: sent + Duration::from_millis(read), read }, sent);
        }
        answer
    }

    fn done() -> (Option<&'static str>, &'static str, Value) {
        (Some("1-3"), "done", json!({"type": "done", "status": "complete"}))
    }

    #[test]
    fn an_answer_has_its_request_its_text_and_its_end() {
        let meta = json!({"type": "meta", "request_id": "r", "role": "leader"});
        let queue = json!({"type": "meta", "queue": {"position": 1}});
        let delta = |text: &str| json!({"type": "delta", "delta": text});
        let (first, second) = ((Some("1-1"), "delta", delta("Hel")), (Some("1-2"), "delta", delta("lo")));
        let answer = answer(&[(None, "meta", meta), (None, "meta", queue), first, second, done()]);

        assert_eq!((answer.request_id.as_str(), answer.role.as_str()), ("r", "leader"));
        assert_eq!((answer.text.as_str(), answer.status(), answer.content.len()), ("Hello", "complete", 2));
        assert_eq!((answer.ttft, answer.defect()), (Some(Duration::from_millis(3)), None));
    }

    #[test]
    fn an_answer_without_exactly_one_end_is_defective() {
        let ping = || (None, "ping", json!({"type": "ping"}));

        assert_eq!(answer(&[ping()]).defect().unwrap(), "0 terminal events");
        assert_eq!(answer(&[done(), done()]).defect().unwrap(), "2 terminal events");
        assert_eq!(answer(&[done(), ping()]).defect().unwrap(), "1 events after the terminal one");
        let cut = Answer { whole: false, ..answer(&[done()]) };
        assert_eq!(cut.defect().unwrap(), "the body was cut after the terminal event");
        assert_eq!(answer(&[done(), done()]).status(), "");
    }

    #[test]
    fn a_snapshot_replaces_the_text_so_far() {
        let delta = (Some("1-2"), "delta", json!({"delta": "lo"}));
        let answer = answer(&[(None, "snapshot", json!({"text": "Hel", "seq": 1})), delta]);

        assert_eq!(answer.text, "Hello");
    }
}
