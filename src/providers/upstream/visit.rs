//! Visit: goes to a server step by step and tells what each step takes. For check-ups; calls go another way.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use tokio::time::{Instant, timeout_at};

use super::connect::Endpoint;
use super::connections::{Connection, Stream};
use super::http1::Http1;
use super::settings::{self, BaseUrl, BuildError};
use super::{Body, Opened, TransportError, http2, tls};
use crate::config::{self, Http};
use crate::providers::{Adapter, Head};

/// A server to be visited, as its configuration says that it is called.
pub struct Visit {
    endpoint: Endpoint,
    base: BaseUrl,
    http: Http,
    connect_timeout: Duration,
    http1: Rc<Http1>,
    headers: HeaderMap,
}

/// How far a visit came, and how long each step took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// The addresses of the name.
    pub addresses: usize,
    /// To them.
    pub resolve: Option<Duration>,
    /// To a connection to one of them.
    pub connect: Option<Duration>,
    /// To a secure one.
    pub handshake: Option<Duration>,
}

/// One thing that a visitor asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// The method: `GET`, `POST` or `DELETE`.
    pub method: &'static str,
    /// What follows the base URL, with its leading slash.
    pub path: String,
    /// Headers beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
    /// The body; often nothing.
    pub body: Vec<u8>,
}

/// A server that was reached.
pub struct Reached(Line);

enum Line {
    Http1(Rc<Http1>),
    Http2 { sender: SendRequest<Bytes>, origin: String, headers: HeaderMap },
}

impl Visit {
    /// To `provider`, which `adapter` speaks to.
    pub fn new(provider: &config::Provider, adapter: &dyn Adapter) -> Result<Self, BuildError> {
        let base = BaseUrl::of(provider)?;
        let offer: &[&[u8]] = match provider.http {
            Http::Auto => &[b"h2", b"http/1.1"],
            Http::Http1 => &[b"http/1.1"],
            Http::Http2 => &[b"h2"],
        };
        let trust = tls::offering(&*settings::trust(provider)?, offer);
        let endpoint = Endpoint::new(base.authority.host(), base.port, base.secure.then_some(trust));
        Ok(Self {
            endpoint: endpoint.ok_or_else(|| BuildError::BaseUrl { provider: provider.name.clone() })?,
            http: provider.http,
            connect_timeout: Duration::from_millis(provider.connect_timeout_ms),
            http1: Rc::new(Http1::new(provider, adapter)?),
            headers: http2::headers(provider, adapter)?,
            base,
        })
    }

    /// Goes there, for as long as the connect timeout allows, and says how far it came.
    pub async fn arrive(&self) -> (Steps, Result<Reached, TransportError>) {
        let mut steps = Steps::default();
        let deadline = Instant::now() + self.connect_timeout;
        let arrived = timeout_at(deadline, self.walk(&mut steps)).await;
        let late = || Err(TransportError::ConnectTimeout(self.connect_timeout));
        (steps, arrived.unwrap_or_else(|_| late()))
    }

    async fn walk(&self, steps: &mut Steps) -> Result<Reached, TransportError> {
        let began = Instant::now();
        let addresses = self.endpoint.resolve().await?;
        (steps.addresses, steps.resolve) = (addresses.len(), Some(began.elapsed()));
        let dialled = Instant::now();
        let socket = self.endpoint.reach(addresses).await?;
        steps.connect = Some(dialled.elapsed());
        let shaken = Instant::now();
        let stream = self.endpoint.secure(socket).await?;
        steps.handshake = self.base.secure.then(|| shaken.elapsed());
        let chosen = stream.protocol().map(<[u8]>::to_vec);
        let by_http2 = match self.http {
            Http::Http2 => !self.base.secure || chosen.as_deref() == Some(b"h2"),
            Http::Auto => chosen.as_deref() == Some(b"h2"),
            Http::Http1 => false,
        };
        match (by_http2, self.http) {
            (true, _) => self.by_http2(stream).await.map(Reached),
            (false, Http::Http2) => Err(TransportError::Protocol),
            (false, _) => {
                self.http1.adopt(vec![Connection::new(stream, began.elapsed())]);
                Ok(Reached(Line::Http1(Rc::clone(&self.http1))))
            }
        }
    }

    async fn by_http2(&self, stream: Stream) -> Result<Line, TransportError> {
        let (sender, frames) = h2::client::handshake(stream).await.map_err(|_| TransportError::Protocol)?;
        // It ends with the sender and what was asked by it.
        actix_rt::spawn(async move { drop(frames.await) });
        let scheme = if self.base.secure { "https" } else { "http" };
        let origin = format!("{scheme}://{}{}", self.base.authority_in_call(), self.base.path_prefix);
        Ok(Line::Http2 { sender, origin, headers: self.headers.clone() })
    }
}

impl Reached {
    /// The version of HTTP that is spoken.
    pub fn http(&self) -> &'static str {
        match &self.0 {
            Line::Http1(_) => "1.1",
            Line::Http2 { .. } => "2",
        }
    }

    /// Asks, and waits for the head of the answer. The caller bounds the time.
    pub async fn ask(&self, question: &Question) -> Result<Opened, TransportError> {
        match &self.0 {
            Line::Http1(http1) => http1.ask(question).await,
            Line::Http2 { sender, origin, headers } => ask_by_http2(sender.clone(), origin, headers, question).await,
        }
    }
}

async fn ask_by_http2(
    sender: SendRequest<Bytes>,
    origin: &str,
    headers: &HeaderMap,
    question: &Question,
) -> Result<Opened, TransportError> {
    let mut request = Request::builder().method(question.method).version(Version::HTTP_2);
    request = request.uri(format!("{origin}{}", question.path));
    let mut request = request.body(()).map_err(|_| TransportError::Unsendable)?;
    *request.headers_mut() = headers.clone();
    for (name, value) in &question.headers {
        let value = HeaderValue::from_str(value).map_err(|_| TransportError::Unsendable)?;
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    let mut sender = sender.ready().await.map_err(|_| TransportError::Lost)?;
    let ends = question.body.is_empty();
    let (answer, mut upload) = sender.send_request(request, ends).map_err(|_| TransportError::Lost)?;
    if !ends {
        upload.send_data(Bytes::from(question.body.clone()), true).map_err(|_| TransportError::Lost)?;
    }
    let (parts, stream) = answer.await.map_err(|_| TransportError::Lost)?.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    let head = Head { status: parts.status.as_u16(), headers: headers.collect() };
    Ok(Opened::new(head, body(stream), Duration::ZERO))
}

fn body(stream: RecvStream) -> Body {
    let pieces = stream::unfold(stream, |mut stream| async move {
        let piece = stream.data().await?.map_err(|_| TransportError::Lost);
        if let Ok(bytes) = &piece {
            // It fails only for more than has come.
            let _ = stream.flow_control().release_capacity(bytes.len());
        }
        Some((piece, stream))
    });
    pieces.boxed_local()
}
