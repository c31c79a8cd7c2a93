//! A provider in memory that plays scripts, and the dialect that it speaks: one JSON document a line.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::chat::ChatRequest;
use crate::event::{ActivityKind, Citation, Event, Finish, FinishReason, Usage};
use crate::failure::{Code, Failure};
use crate::providers::upstream::{Body, Opened, Status, Transport, TransportError};
use crate::providers::{Adapter, Call, Decode, Flow, Frame, Framing, Head, Piece};

/// What happens next in a scripted answer.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Nothing, for so many milliseconds.
    Wait(u64),
    /// A piece of text.
    Text(String),
    /// A piece of text: the question.
    Echo,
    /// Any line.
    Line(&'static str),
    /// The terminator.
    End,
    /// The connection is lost.
    Lose,
    /// The transport has a defect.
    Panic,
    /// The same line again and again, without a pause.
    Flood(&'static str),
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Until the head, or the failure.
    pub(super) head_ms: u64,
    /// The head's status, or why there is none.
    pub(super) head: Result<u16, TransportError>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<Step>,
}

impl Script {
    pub(super) fn new(body: impl IntoIterator<Item = Step>) -> Self {
        Self { head_ms: 10, head: Ok(200), headers: Vec::new(), body: body.into_iter().collect() }
    }

    /// Pieces of text, `pause_ms` before each, then the terminator.
    pub(super) fn says(pieces: &[&str], pause_ms: u64) -> Self {
        let steps = pieces.iter().flat_map(|piece| [Step::Wait(pause_ms), Step::Text((*piece).to_owned())]);
        Self::new(steps.chain([Step::End]))
    }

    /// A refusal.
    pub(super) fn status(status: u16) -> Self {
        Self { head: Ok(status), ..Self::new([Step::Line("refused")]) }
    }

    pub(super) fn retry_after_ms(mut self, millis: u64) -> Self {
        self.headers.push(("retry-after-ms".into(), millis.to_string()));
        self
    }
}

/// The provider. Scripts are played in order; when there are none left, the usual answer is given.
#[derive(Default)]
pub(super) struct Provider {
    pub(super) scripts: RefCell<VecDeque<Script>>,
    /// Writes the scripts when none is left.
    pub(super) author: RefCell<Option<Author>>,
    /// When each call began.
    pub(super) calls: RefCell<Vec<Instant>>,
    /// Calls that are under way at this moment.
    live: Rc<Cell<usize>>,
    /// The most that ever were.
    pub(super) live_max: Cell<usize>,
    pub(super) recycled: Cell<usize>,
    /// The calls that were to end an answer.
    pub(super) endings: RefCell<Vec<String>>,
    /// How long one of them takes.
    pub(super) ending_ms: Cell<u64>,
}

/// Somebody who writes scripts.
pub(super) type Author = Box<dyn FnMut() -> Script>;

/// Counts a call as long as anything of it exists.
struct Live(Rc<Cell<usize>>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Provider {
    pub(super) fn plays(&self, scripts: impl IntoIterator<Item = Script>) {
        self.scripts.borrow_mut().extend(scripts);
    }

    pub(super) fn live(&self) -> usize {
        self.live.get()
    }

    pub(super) fn called(&self) -> usize {
        self.calls.borrow().len()
    }
}

impl Transport for Provider {
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>> {
        if call.path.starts_with("/cancel/") {
            self.endings.borrow_mut().push(call.path);
            let took = sleep(Duration::from_millis(self.ending_ms.get()));
            let opened = || Opened { head: Head::default(), body: stream::empty().boxed_local(), connect_ms: 0 };
            return took.map(move |()| Ok(opened())).boxed_local();
        }
        self.calls.borrow_mut().push(Instant::now());
        self.live.set(self.live.get() + 1);
        self.live_max.set(self.live_max.get().max(self.live.get()));
        let live = Live(self.live.clone());
        let improvise = || match &mut *self.author.borrow_mut() {
            Some(author) => author(),
            None => Script::says(&["Hello", " world"], 10),
        };
        let script = self.scripts.borrow_mut().pop_front().unwrap_or_else(improvise);
        let question = String::from_utf8(call.body).unwrap();
        async move {
            sleep(Duration::from_millis(script.head_ms)).await;
            let status = script.head?;
            let head = Head { status, headers: script.headers };
            let state = (VecDeque::from(script.body), question, live);
            let body = stream::unfold(state, |(mut steps, question, live)| async move {
                let bytes = next(&mut steps, &question).await?;
                Some((bytes, (steps, question, live)))
            });
            Ok(Opened { head, body: body.boxed_local(), connect_ms: 3 })
        }
        .boxed_local()
    }

    fn recycle(&self, body: Body) {
        self.recycled.set(self.recycled.get() + 1);
        drop(body);
    }

    fn status(&self) -> Status {
        Status { http: "none", warm: 0 }
    }
}

async fn next(steps: &mut VecDeque<Step>, question: &str) -> Option<Result<Bytes, TransportError>> {
    loop {
        let line = match steps.pop_front()? {
            Step::Wait(millis) => {
                sleep(Duration::from_millis(millis)).await;
                continue;
            }
            Step::Text(text) => serde_json::json!({ "t": text }).to_string(),
            Step::Echo => serde_json::json!({ "t": question }).to_string(),
            Step::Line(line) => line.to_owned(),
            Step::End => r#"{"end":"stop"}"#.to_owned(),
            Step::Lose => return Some(Err(TransportError::Lost)),
            Step::Panic => panic!("the transport is broken on purpose"),
            Step::Flood(line) => {
                steps.push_front(Step::Flood(line));
                // Time passes although there is always something to read.
                let _ = tokio::time::advance(Duration::from_millis(1)).now_or_never();
                line.to_owned()
            }
        };
        return Some(Ok(Bytes::from(line + "\n")));
    }
}

/// The provider's dialect.
pub(super) struct Dialect;

impl Adapter for Dialect {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        if request.extra.contains_key("unspeakable") {
            return Err(Failure::new(Code::Unprocessable, "this dialect cannot say that"));
        }
        let question = request.messages.last().map(|message| message.content.text().into_owned());
        Ok(Call { path: "/".into(), headers: Vec::new(), body: question.unwrap_or_default().into_bytes() })
    }

    fn authorization(&self, _: &str) -> (&'static str, String) {
        ("authorization", String::new())
    }

    fn framing(&self) -> Framing {
        Framing::NdJson
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Decoder)
    }

    fn failure(&self, head: &Head, _: &[u8]) -> Failure {
        let code = match head.status {
            400 => Code::UpstreamRejected,
            401 => Code::UpstreamAuth,
            402 => Code::UpstreamQuota,
            429 => Code::UpstreamRateLimit,
            503 => Code::UpstreamOverloaded,
            _ => Code::UpstreamError,
        };
        let mut failure = Failure::new(code, "the provider refused");
        failure.retry_after_ms = head.header("retry-after-ms").and_then(|millis| millis.parse().ok());
        failure
    }

    fn cancel_call(&self, upstream_id: &str) -> Option<Call> {
        Some(Call { path: format!("/cancel/{upstream_id}"), headers: Vec::new(), body: Vec::new() })
    }

    fn warm_path(&self) -> Option<&'static str> {
        None
    }
}

struct Decoder;

impl Decode for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure> {
        let Ok(line) = serde_json::from_str::<Value>(frame.data) else {
            return Err(Failure::new(Code::UpstreamProtocol, "not JSON"));
        };
        if let Some(text) = line["t"].as_str() {
            out(Piece::Event(Event::Delta { delta: text.into() }));
        }
        if let Some(url) = line["cite"].as_str() {
            let citation = Citation { n: 1, url: url.into(), title: String::new(), snippet: None, date: None };
            out(Piece::Event(Event::Citation { items: vec![citation] }));
        }
        if let Some(id) = line["id"].as_str() {
            out(Piece::UpstreamId(id));
        }
        if line["error"].is_string() {
            return Err(Failure::new(Code::UpstreamOverloaded, "the provider gave up"));
        }
        if let Some(query) = line.get("search") {
            out(Piece::Event(Event::Activity {
                kind: ActivityKind::Search,
                state: "start".into(),
                detail: query.clone(),
            }));
        }
        if let Some(output) = line["usage"].as_u64() {
            let usage = Usage { output, total: output, ..Usage::default() };
            out(Piece::Event(Event::Usage { usage }));
        }
        if let Some(signature) = line.get("opaque") {
            out(Piece::Opaque(signature.clone()));
        }
        assert!(line.get("panic").is_none(), "the decoder is broken on purpose");
        Ok(if line["end"].is_string() { Flow::Ended } else { Flow::More })
    }

    fn end(&mut self, _: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        Err(Failure::new(Code::UpstreamTruncated, "the answer has no end"))
    }

    fn finish(&self) -> Finish {
        Finish { reason: FinishReason::Stop, native: Some("stop".into()) }
    }
}
