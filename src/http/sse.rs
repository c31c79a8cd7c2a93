//! LogBody: the body of one event stream. Reads a [`StreamLog`](crate::fanout::StreamLog) at its own offset and adds
//! what only this request may see: `ping`, `meta`, `snapshot` and its own `done`.
//!
//! Content frames are handed on as they lie in the log; nothing is encoded here for each of them. The body has no
//! timer of its own: it tells the log until when it may be silent, and the coalescer wakes the listeners of logs whose
//! time has come.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header;
use actix_web::{HttpResponse, web::Bytes};
use bytes::BytesMut;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::config;
use crate::event::write_frame;
use crate::fanout::{Attachment, Cursor, Fallback, Next, QueuePlace, StreamLog, Subscription, Timings, Transcript};

/// When a silent stream says that it is alive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pings {
    /// Before the first piece of content.
    early: Duration,
    /// After it.
    interval: Duration,
}

impl Pings {
    pub(super) fn new(server: &config::Server) -> Self {
        let early = Duration::from_millis(server.ping_early_ms);
        Self { early, interval: Duration::from_millis(server.ping_interval_ms) }
    }

    /// What a body says that waits at `log` and has been silent since `last_sent`, if it is time to say something.
    /// Else it is woken when it is time.
    pub(super) fn sign_of_life(&self, log: &StreamLog, last_sent: Instant, said_content: bool) -> Option<Bytes> {
        let due = last_sent + if said_content { self.interval } else { self.early };
        if Instant::now() >= due {
            return Some(KEEP_ALIVE);
        }
        log.nudge_at(due);
        None
    }
}

/// A comment, which clients skip.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// See the module.
pub(super) struct LogBody {
    attachment: Attachment,
    cursor: Cursor,
    pings: Pings,
    /// What is to be sent before anything else.
    head: Option<Bytes>,
    last_sent: Instant,
    is_over: bool,
}

impl LogBody {
    /// A body that tells the whole answer from its beginning.
    pub(super) fn from_start(attachment: Attachment, pings: Pings) -> Self {
        let cursor = Cursor::new(attachment.subscription().log.clone(), 0);
        let head = opening(attachment.subscription(), false, None);
        Self::new(attachment, cursor, pings, head)
    }

    /// A body that goes on after the event `seen`, or with a snapshot when the client does not say.
    pub(super) fn resumed(attachment: Attachment, seen: Option<u64>, pings: Pings) -> Self {
        let subscription = attachment.subscription();
        let mut cursor = Cursor::new(subscription.log.clone(), seen.unwrap_or(0));
        let snapshot = match seen {
            Some(_) => None,
            None => Some(cursor.snapshot(subscription.limit())),
        };
        let head = opening(attachment.subscription(), true, snapshot);
        Self::new(attachment, cursor, pings, head)
    }

    fn new(attachment: Attachment, cursor: Cursor, pings: Pings, head: Bytes) -> Self {
        Self { attachment, cursor, pings, head: Some(head), last_sent: Instant::now(), is_over: false }
    }

    /// The response that streams this body.
    pub(super) fn into_response(self) -> HttpResponse<Self> {
        let facts = &self.attachment.subscription().facts;
        let stream = facts.stream.to_string();
        let mut response = HttpResponse::Ok();
        event_stream(&mut response);
        response.insert_header(("x-stream-id", stream));
        response.message_body(self).unwrap_or_else(|_| unreachable!("ids and constants are valid header values"))
    }

    /// The next bytes to send; `None` when there is nothing yet.
    fn next(&mut self, waker: &Waker) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        let subscription = self.attachment.subscription();
        let mut end = subscription.end();
        loop {
            return match self.cursor.next_within(|| subscription.limit(), waker) {
                Next::Frames { frames, .. } => Some(frames),
                Next::FirstContent(timings) => Some(first_content(subscription, timings)),
                Next::Queue(place) => Some(frame("meta", &QueueMeta { r#type: "meta", queue: place })),
                Next::Fallback(fallback) => Some(fallback_frame(&fallback)),
                Next::Gap { text, reasoning, seq } => Some(snapshot_frame(&text, &reasoning, seq)),
                Next::Nothing => match end {
                    Some(end) => {
                        self.is_over = true;
                        Some(end.frame.clone())
                    }
                    None => {
                        self.attachment.wake_at_end(waker);
                        end = subscription.end();
                        if end.is_some() {
                            // It came just now: what it lets this listener see may have come before it.
                            continue;
                        }
                        let said_content = self.cursor.is_past_first_content();
                        self.pings.sign_of_life(&subscription.log, self.last_sent, said_content)
                    }
                },
            };
        }
    }
}

impl MessageBody for LogBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.next(cx.waker()) {
            Some(bytes) => {
                self.last_sent = Instant::now();
                Poll::Ready(Some(Ok(bytes)))
            }
            None => Poll::Pending,
        }
    }
}

/// Asks proxies to hand events on as they come.
pub(super) const NO_BUFFERING: (header::HeaderName, header::HeaderValue) =
    (header::HeaderName::from_static("x-accel-buffering"), header::HeaderValue::from_static("no"));

/// The head of every event stream: nobody may hold it back, change it or keep it.
pub(super) fn event_stream(response: &mut actix_web::HttpResponseBuilder) {
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-cache, no-store, no-transform"))
        .insert_header(NO_BUFFERING);
}

/// The first `meta`: what is known when the request is accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Opening<'a> {
    pub(super) r#type: &'static str,
    pub(super) request_id: &'a str,
    #[schema(required)]
    pub(super) thread_id: Option<&'a str>,
    pub(super) stream_id: &'a str,
    pub(super) role: &'static str,
    pub(super) provider: &'a str,
    pub(super) model: &'a str,
    #[schema(required)]
    pub(super) message_id: Option<&'a str>,
    #[schema(required)]
    pub(super) user_message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) resumed: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct QueueMeta {
    r#type: &'static str,
    queue: QueuePlace,
}

/// Another provider than the one that was asked makes the answer.
#[derive(Serialize, ToSchema)]
pub(super) struct FallbackMeta<'a> {
    r#type: &'static str,
    provider: &'a str,
    model: &'a str,
    fallback_from: &'a str,
}

/// The `meta` right before the first piece of content.
#[derive(Serialize, ToSchema)]
pub(super) struct FirstContentMeta<'a> {
    r#type: &'static str,
    ttft_ms: u32,
    #[schema(required)]
    ttfb_ms: Option<u32>,
    #[schema(required)]
    queue_wait_ms: Option<u32>,
    connect_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_id: Option<&'a str>,
}

/// The answer so far, for who comes late.
#[derive(Serialize, ToSchema)]
pub(super) struct Snapshot<'a> {
    pub(super) r#type: &'static str,
    pub(super) text: &'a str,
    pub(super) reasoning: &'a str,
    pub(super) seq: u64,
}

/// The first bytes, sent before anything upstream is done.
pub(super) fn write_ping(out: &mut BytesMut) {
    out.extend_from_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

fn opening(subscription: &Arc<Subscription>, resumed: bool, snapshot: Option<Next>) -> Bytes {
    let facts = &subscription.facts;
    let mut out = BytesMut::with_capacity(512);
    write_ping(&mut out);
    let meta = Opening {
        r#type: "meta",
        request_id: facts.request.as_str(),
        thread_id: facts.thread.as_ref().map(|id| id.as_str()),
        stream_id: facts.stream.as_str(),
        role: facts.role.as_str(),
        provider: facts.provider.as_str(),
        model: &facts.model,
        message_id: facts.answer.as_ref().map(|id| id.as_str()),
        user_message_id: facts.user_message.as_ref().map(|id| id.as_str()),
        resumed,
    };
    write_frame("meta", None, &meta, &mut out);
    if let Some(Next::Gap { text, reasoning, seq }) = snapshot {
        out.extend_from_slice(&snapshot_frame(&text, &reasoning, seq));
    }
    out.freeze()
}

fn first_content(subscription: &Subscription, timings: Timings) -> Bytes {
    let ttft_ms = subscription.first_piece();
    let copy = |transcript: &Transcript| (transcript.model.clone(), transcript.upstream_id.clone());
    let (model, upstream_id) = subscription.log.with_transcript(copy);
    let meta = FirstContentMeta {
        r#type: "meta",
        ttft_ms,
        ttfb_ms: subscription.since_arrival_ms(timings.first_byte),
        queue_wait_ms: subscription.since_arrival_ms(timings.granted),
        connect_ms: timings.connect_ms.unwrap_or(0),
        model: model.as_deref(),
        upstream_id: upstream_id.as_deref(),
    };
    frame("meta", &meta)
}

fn fallback_frame(fallback: &Fallback) -> Bytes {
    let Fallback { provider, model, from } = fallback;
    let (provider, fallback_from) = (provider.as_str(), from.as_str());
    frame("meta", &FallbackMeta { r#type: "meta", provider, model, fallback_from })
}

fn snapshot_frame(text: &str, reasoning: &str, seq: u64) -> Bytes {
    frame("snapshot", &Snapshot { r#type: "snapshot", text, reasoning, seq })
}

fn frame(name: &str, data: &impl Serialize) -> Bytes {
    let mut out = BytesMut::with_capacity(192);
    write_frame(name, None, data, &mut out);
    out.freeze()
}
