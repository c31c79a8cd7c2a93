//! HTTP/2: the transport of providers that speak it, on h2.
//!
//! Many calls share a connection, so whatever ends one ends many answers; what this transport is about:
//! - Cancelling calls, any number of them, with data under way, ends no connection (`http2/connection.rs`).
//! - A server that says goodbye finishes what it has begun; what comes too late for it goes to another connection.
//! - A connection that has died without a word is found when it is idle, and when a call meets it (`http2/driver.rs`).
//! - A call that finds all connections full waits for a new one, not for others' answers (`http2/pool.rs`).
//! - A body that was cut is an error, not an end (`http2/body.rs`).

mod body;
mod connection;
pub(super) mod driver;
mod pool;

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use tokio::time::sleep;

use self::body::AnswerBody;
use self::connection::{Slot, Unanswered};
use self::driver::Pings;
use self::pool::{Made, Pool};
use super::connect::Endpoint;
use super::connections;
use super::settings::{self, BaseUrl, BuildError};
use super::{Body, Opened, Status, Transport, TransportError, recycle, tls, warm};
use crate::chat::ProviderName;
use crate::config;
use crate::providers::{Adapter, Call, Head};

/// See the module. One per provider; lives on the upstream arbiter.
pub struct Http2 {
    server: Rc<Server>,
    /// Whether connections are made before they are needed.
    warms: bool,
}

struct Server {
    name: ProviderName,
    pool: Rc<Pool>,
    scheme: &'static str,
    authority: Authority,
    path_prefix: String,
    /// What every call has.
    headers: HeaderMap,
}

/// Why there is no answer, to whoever could send the call by HTTP/1.1.
pub(super) enum Failed {
    /// As it says.
    Call(TransportError),
    /// The server has chosen HTTP/1.1. The call was not worked on.
    Http1(Call),
}

impl Http2 {
    /// The transport of `provider`, which `adapter` speaks to. Without TLS the server must be known to speak HTTP/2.
    pub fn new(provider: &config::Provider, adapter: &dyn Adapter) -> Result<Self, BuildError> {
        Self::with(provider, adapter, false, Pings::USUAL)
    }

    /// The same, of a server that may choose HTTP/1.1 in the handshake, or with other clocks.
    pub(super) fn with(
        provider: &config::Provider,
        adapter: &dyn Adapter,
        or_http1: bool,
        pings: Pings,
    ) -> Result<Self, BuildError> {
        let base = BaseUrl::of(provider)?;
        let protocols: &[&[u8]] = if or_http1 { &[b"h2", b"http/1.1"] } else { &[b"h2"] };
        let trust = tls::offering(&*settings::trust(provider)?, protocols);
        let bad_url = || BuildError::BaseUrl { provider: provider.name.clone() };
        let endpoint = Endpoint::new(base.authority.host(), base.port, base.secure.then_some(trust));
        let pool = Pool::new(pool::Settings {
            endpoint: endpoint.ok_or_else(bad_url)?,
            connect_timeout: Duration::from_millis(provider.connect_timeout_ms),
            connections_max: provider.pace.concurrency.max(provider.warm_connections).max(1),
            keep: provider.warm_connections,
            prior_knowledge: !base.secure,
            or_http1,
            pings,
        });
        let server = Server {
            name: provider.name.clone(),
            pool,
            scheme: if base.secure { "https" } else { "http" },
            authority: base.authority_in_call().parse().map_err(|_| bad_url())?,
            path_prefix: base.path_prefix,
            headers: headers(provider, adapter)?,
        };
        let warms = provider.warm_connections > 0 && provider.available().is_ok();
        Ok(Self { server: Rc::new(server), warms })
    }

    /// How many connections have been made so far, each with its handshake.
    pub fn connections_opened(&self) -> u64 {
        self.server.pool.opened()
    }

    /// Sends a call, and gives it back if it is to be sent by HTTP/1.1.
    pub(super) fn ask(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, Failed>> {
        let server = Rc::clone(&self.server);
        Box::pin(async move { server.ask(call).await })
    }

    /// Those connections on which the server has chosen HTTP/1.1.
    pub(super) fn take_spares(&self) -> Vec<connections::Connection> {
        self.server.pool.take_spares()
    }

    /// Keeps connections, until the server chooses HTTP/1.1 on one.
    pub(super) fn keep_until_http1(&self) -> LocalBoxFuture<'static, ()> {
        if !self.warms {
            return Box::pin(std::future::pending());
        }
        let server = Rc::clone(&self.server);
        Box::pin(async move { server.keep().await })
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { name, authority, .. } = &*self.server;
        f.debug_struct("Http2").field("name", name).field("authority", authority).finish_non_exhaustive()
    }
}

impl Transport for Http2 {
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>> {
        let answer = self.ask(call);
        Box::pin(async move {
            answer.await.map_err(|failed| match failed {
                Failed::Call(error) => error,
                Failed::Http1(_) => TransportError::Protocol,
            })
        })
    }

    /// A body that is dropped before its end cancels a call that has in truth succeeded, and the provider may count it
    /// as cancelled.
    fn recycle(&self, body: Body) {
        recycle::recycle(body);
    }

    fn keep_warm(&self) -> LocalBoxFuture<'static, ()> {
        if self.warms { self.keep_until_http1() } else { Box::pin(std::future::ready(())) }
    }

    fn status(&self) -> Status {
        Status { http: "2", warm: self.server.pool.ready() }
    }
}

impl Server {
    /// Sends a call; sends it again, once, if the server has certainly not worked on it, or its connection was dead.
    async fn ask(&self, call: Call) -> Result<Opened, Failed> {
        let request = self.request(&call).map_err(Failed::Call)?;
        let Call { path, headers, body } = call;
        let body = Bytes::from(body);
        let repeated = Cell::new(false);
        loop {
            let answer = self.send(request.clone(), body.clone()).await;
            let reason = match answer {
                Ok(opened) => return Ok(opened),
                Err(Unanswered::Failed(error)) => return Err(Failed::Call(error)),
                Err(Unanswered::Http1) => return Err(Failed::Http1(Call { path, headers, body: body.into() })),
                Err(reason) => reason,
            };
            if repeated.replace(true) {
                return Err(Failed::Call(TransportError::Lost));
            }
            log::debug!(provider = self.name.as_str(), reason:?; "the call was not taken; trying once more");
            if reason == Unanswered::Stale {
                // The others have likely died with it.
                self.pool.retire_idle();
            }
        }
    }

    async fn send(&self, request: Request<()>, body: Bytes) -> Result<Opened, Unanswered> {
        let (slot, connect) = self.pool.slot().await?;
        let answer = slot.send(request, body).await?;
        Ok(opened(answer, slot, connect))
    }

    fn request(&self, call: &Call) -> Result<Request<()>, TransportError> {
        let uri = Uri::builder().scheme(self.scheme).authority(self.authority.clone());
        let uri = uri.path_and_query(format!("{}{}", self.path_prefix, call.path)).build();
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.map_err(|_| TransportError::Unsendable)?;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.insert(CONTENT_LENGTH, call.body.len().into());
        for (name, value) in &call.headers {
            let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, value) = header.ok_or(TransportError::Unsendable)?;
            headers.insert(name, value);
        }
        Ok(request)
    }

    async fn keep(&self) {
        let mut pause = warm::CHECK_INTERVAL;
        loop {
            let made = self.pool.fill().await;
            if made == Made::Http1 {
                return;
            }
            pause = warm::next_pause(pause, made == Made::Http2);
            sleep(pause).await;
        }
    }
}

/// What every call to `provider` has.
pub(super) fn headers(provider: &config::Provider, adapter: &dyn Adapter) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static(settings::accept(adapter)));
    headers.insert(USER_AGENT, HeaderValue::from_static(settings::USER_AGENT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some((name, value)) = settings::authorization(provider, adapter)? {
        // The same types, of another version.
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("it is a header's name");
        let mut value = HeaderValue::from_bytes(value.as_bytes()).expect("it is a header's value");
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// An answer whose head is there.
fn opened(answer: Response<h2::RecvStream>, slot: Slot, connect: Duration) -> Opened {
    let (parts, stream) = answer.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    let head = Head { status: parts.status.as_u16(), headers: headers.collect() };
    Opened::new(head, Box::pin(AnswerBody::new(stream, slot)), connect)
}
