//! Upstream: carries calls to providers and brings their answers back, byte by byte. The only part that talks to the
//! network.
//!
//! A [`Transport`] belongs to one provider and lives on the upstream arbiter with it. It adds what an adapter does not
//! know: the base URL, the key, the connection. Dropping the future of [`Transport::open`], or a [`Body`], cancels the
//! call at once: over HTTP/1.1 by closing the connection under it, over HTTP/2 by a reset of its stream alone.

mod auto;
mod chunks;
mod connect;
mod connections;
pub mod demo;
mod http1;
mod http2;
mod loan;
mod recycle;
mod rest;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod visit;
mod warm;

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::LocalBoxStream;
use serde::Serialize;

pub use self::http1::Http1;
pub use self::http2::Http2;
pub use self::settings::BuildError;
pub use self::tls::TlsFault;
pub use self::visit::{Question, Reached, Steps, Visit};
use super::{Adapter, Call, Head, moments};
use crate::config::{self, Http};
use crate::failure::{Code, Failure, Phase};

/// Carries the calls to one provider.
pub trait Transport {
    /// Sends a call; answers when the head of the provider's answer is there. Bounded by the connect timeout up to
    /// the connection; the caller bounds the rest.
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>>;

    /// Takes a body whose answer has ended, so that its connection can serve another call: reads the little that is
    /// left, for a bounded time and size.
    fn recycle(&self, body: Body);

    /// Keeps as many idle connections as configured, until it is dropped. Nothing to do for most kinds.
    fn keep_warm(&self) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// How it stands.
    fn status(&self) -> Status;
}

/// The transport of `provider` that its configuration asks for (`http`); `adapter` speaks to it.
///
/// Without TLS there is no handshake in which a server could choose: `auto` then is HTTP/1.1.
pub fn network(provider: &config::Provider, adapter: &dyn Adapter) -> Result<Rc<dyn Transport>, BuildError> {
    let is_secure = settings::BaseUrl::of(provider)?.secure;
    Ok(match provider.http {
        Http::Http2 => Rc::new(Http2::new(provider, adapter)?),
        Http::Auto if is_secure => Rc::new(auto::Auto::new(provider, adapter)?),
        Http::Auto | Http::Http1 => Rc::new(Http1::new(provider, adapter)?),
    })
}

/// How a transport stands, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The protocol it speaks: `1.1`, `2`, `auto` before the server has chosen, or `none` without a network.
    pub http: &'static str,
    /// Connections that are open and could take a call at once.
    pub warm: usize,
}

/// The bytes of an answer as they come. Ends with the body; over HTTP/1.1, one that was cut may end just like a whole
/// one.
pub type Body = LocalBoxStream<'static, Result<Bytes, TransportError>>;

/// An answer that has begun.
pub struct Opened {
    /// Its head.
    pub head: Head,
    /// What follows.
    pub body: Body,
    /// How long the connection took, handshake included; 0 on one that was open.
    pub connect_ms: u32,
}

impl Opened {
    /// An answer whose connection took this long; zero if it was open.
    fn new(mut head: Head, body: Body, connect: Duration) -> Self {
        // As RFC 9110, section 6.6.1, asks of who has a clock: pauses until a date are measured against this one.
        if moments::answered_s(&head).is_none() {
            head.headers.retain(|(name, _)| name != "date");
            head.headers.push(("date".to_owned(), httpdate::fmt_http_date(SystemTime::now())));
        }
        let connect_ms = u32::try_from(connect.as_millis()).unwrap_or(u32::MAX);
        // Below a millisecond it was quick, but it was made.
        let connect_ms = if connect.is_zero() { 0 } else { connect_ms.max(1) };
        Self { head, body, connect_ms }
    }
}

/// What went wrong on the way to a provider, or back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportError {
    /// The name does not resolve.
    Dns,
    /// No connection: refused, unreachable.
    Connect,
    /// No connection within this time (`connect_timeout_ms`).
    ConnectTimeout(Duration),
    /// The handshake failed, or the certificate is not trusted.
    Tls(TlsFault),
    /// The connection was lost after something of the call may have been sent.
    Lost,
    /// What came is not HTTP.
    Protocol,
    /// The call cannot be written as an HTTP request.
    Unsendable,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::Dns => f.write_str("the name does not resolve"),
            TransportError::Connect => f.write_str("no connection"),
            TransportError::ConnectTimeout(limit) => write!(f, "no connection within {} ms", limit.as_millis()),
            TransportError::Tls(fault) => write!(f, "no secure connection: {fault}"),
            TransportError::Lost => f.write_str("the connection was lost"),
            TransportError::Protocol => f.write_str("the answer is not HTTP"),
            TransportError::Unsendable => f.write_str("the call is no HTTP request"),
        }
    }
}

impl std::error::Error for TransportError {}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Dns => {
                Failure::new(Code::UpstreamDns, "the provider's name does not resolve").phase(Phase::Connect)
            }
            TransportError::Connect => {
                Failure::new(Code::UpstreamConnect, "no connection to the provider").phase(Phase::Connect)
            }
            TransportError::ConnectTimeout(limit) => {
                let limit_ms = limit.as_millis();
                let message = format!("no connection to the provider within {limit_ms} ms (connect_timeout_ms)");
                Failure::new(Code::UpstreamConnect, message).phase(Phase::Connect)
            }
            TransportError::Tls(fault) => {
                let message = format!("no secure connection to the provider: {fault}");
                Failure::new(Code::UpstreamTls, message).phase(Phase::Connect)
            }
            TransportError::Lost => Failure::new(Code::UpstreamTruncated, "the connection to the provider was lost"),
            TransportError::Protocol => Failure::new(Code::UpstreamProtocol, "the provider's answer is not HTTP"),
            TransportError::Unsendable => Failure::new(Code::Internal, "the call cannot be written as an HTTP request"),
        }
    }
}
