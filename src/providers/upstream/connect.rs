//! Connect: makes the connections to one provider: name, socket, handshake.
//!
//! The handshake happens here and not in awc, which would give it a clock of its own: so the connect timeout bounds
//! all three together, each failure keeps its cause, and what awc writes to the connection is the call and nothing
//! else. awc is told `http` whatever the base URL says. It asks here for a connection for each call, and gets one that
//! waits, if there is one.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_service::{Service, always_ready};
use actix_tls::connect::{ConnectError, ConnectInfo, Connection as Connected};
use awc::http::Uri;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use super::connections::{Connection, Connections, Stream};
use super::loan::{Lent, Loan};
use super::{TlsFault, TransportError};

/// How long one address may stay silent before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// More addresses of one name are not tried.
const ADDRESSES_MAX: usize = 8;
/// A connection without traffic is asked for a sign of life after this time,
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// then this often,
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// and given up after so many questions.
const PROBES_MAX: u32 = 3;

/// Where a provider is, and how it is reached.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Gives awc a connection for each call.
#[derive(Clone)]
pub(super) struct Dial(Rc<Dialled>);

struct Dialled {
    endpoint: Endpoint,
    connections: Rc<Connections>,
}

impl Dial {
    /// To a server; those of `connections` come first.
    pub(super) fn new(endpoint: Endpoint, connections: Rc<Connections>) -> Self {
        Self(Rc::new(Dialled { endpoint, connections }))
    }
}

impl Dialled {
    async fn connect(&self) -> Result<Connection, TransportError> {
        if let Some(connection) = self.connections.take() {
            return Ok(connection);
        }
        let began = Instant::now();
        let stream = self.endpoint.connect().await?;
        self.connections.count();
        Ok(Connection::new(stream, began.elapsed()))
    }
}

impl Service<ConnectInfo<Uri>> for Dial {
    type Response = Connected<Uri, Lent>;
    type Error = ConnectError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    always_ready!();

    fn call(&self, info: ConnectInfo<Uri>) -> Self::Future {
        let dialled = Rc::clone(&self.0);
        Box::pin(async move {
            let connection = dialled.connect().await.map_err(|error| ConnectError::Io(io::Error::other(error)))?;
            Ok(Connected::new(info.request().clone(), Loan::to_call(connection)))
        })
    }
}

impl Endpoint {
    /// A server, by TLS if there is a configuration for it. `None` if the host's name cannot be one of TLS.
    pub(super) fn new(host: &str, port: u16, tls: Option<Arc<ClientConfig>>) -> Option<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match tls {
            Some(config) => Some((TlsConnector::from(config), ServerName::try_from(host.clone()).ok()?)),
            None => None,
        };
        Some(Self { host, port, tls })
    }

    /// Makes a connection. The caller bounds the time.
    pub(super) async fn connect(&self) -> Result<Stream, TransportError> {
        match self.connect_once().await {
            // A balancer that is being replaced ends connections like this, and the next one is well. A port that
            // speaks no TLS does it again.
            Err(TransportError::Tls(TlsFault::BrokenOff)) => self.connect_once().await,
            made => made,
        }
    }

    async fn connect_once(&self) -> Result<Stream, TransportError> {
        let addresses = self.resolve().await?;
        let socket = self.reach(addresses).await?;
        self.secure(socket).await
    }

    /// The addresses of its name, at most [`ADDRESSES_MAX`].
    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, TransportError> {
        let addresses = lookup_host((self.host.as_str(), self.port)).await.map_err(|error| {
            log::debug!(host = self.host.as_str(), error:%; "no address");
            TransportError::Dns
        })?;
        Ok(addresses.take(ADDRESSES_MAX).collect())
    }

    /// A connection to one of these addresses.
    pub(super) async fn reach(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, TransportError> {
        first_to_answer(addresses.into_iter(), HEAD_START).await.map_err(|error| {
            log::debug!(host = self.host.as_str(), port = self.port, error:%; "no connection");
            TransportError::Connect
        })
    }

    /// The connection with its handshake, if there has to be one.
    pub(super) async fn secure(&self, socket: TcpStream) -> Result<Stream, TransportError> {
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let secured = connector.connect(name.clone(), socket).await.map_err(|error| {
            // It is for people to put right.
            log::warn!(host = self.host.as_str(), port = self.port, error:%; "no secure connection");
            TransportError::Tls(TlsFault::of(&error))
        })?;
        Ok(Stream::Tls(Box::new(secured)))
    }
}

/// Connects to the first address that answers. A silent one delays the next by `head_start`, a refusal does not.
async fn first_to_answer(
    mut addresses: impl Iterator<Item = SocketAddr>,
    head_start: Duration,
) -> io::Result<TcpStream> {
    let mut tried = FuturesUnordered::new();
    let mut refusal = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let next = addresses.next();
        let waits = next.is_some();
        tried.extend(next.map(TcpStream::connect));
        tokio::select! {
            biased;
            Some(answer) = tried.next() => match answer.and_then(prepare) {
                Ok(socket) => return Ok(socket),
                Err(error) => refusal = error,
            },
            () = sleep(head_start), if waits => {}
            else => return Err(refusal),
        }
    }
}

/// Small writes leave at once; a peer that is gone is noticed.
fn prepare(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES_MAX);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    const HANG: Duration = Duration::from_secs(10);

    /// An address where connections are neither taken nor refused, for as long as what comes with it is kept.
    async fn silent() -> (SocketAddr, impl Sized) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // Fills the queue of connections that nobody accepts.
        let mut waiting = Vec::new();
        while let Ok(socket) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            waiting.push(socket.unwrap());
        }
        (address, (listener, waiting))
    }

    #[actix_rt::test]
    async fn every_socket_sends_at_once_and_is_probed_when_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::new("127.0.0.1", port, None).unwrap();

        let stream = endpoint.connect().await.unwrap();

        assert!(stream.socket().nodelay().unwrap());
        let socket = SockRef::from(stream.socket());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
    }

    #[actix_rt::test]
    async fn an_address_that_refuses_does_not_delay_the_next() {
        // Bound, so that nobody else gets the port, but not listening.
        let deaf = TcpSocket::new_v4().unwrap();
        deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refuses = deaf.local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = listener.local_addr().unwrap();

        let socket = timeout(HANG, first_to_answer([refuses, answers].into_iter(), 2 * HANG)).await;

        assert_eq!(socket.expect("no delay").unwrap().peer_addr().unwrap(), answers);
        assert!(first_to_answer([refuses, refuses].into_iter(), HANG).await.is_err());
        assert!(first_to_answer(std::iter::empty(), HANG).await.is_err());
    }

    #[actix_rt::test]
    async fn an_address_that_is_silent_delays_the_next_by_a_moment() {
        let (silent, _full) = silent().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = listener.local_addr().unwrap();
        let began = Instant::now();

        let socket = timeout(HANG, first_to_answer([silent, answers].into_iter(), HEAD_START)).await;

        assert_eq!(socket.expect("the next is tried").unwrap().peer_addr().unwrap(), answers);
        assert!(began.elapsed() >= HEAD_START);
    }
}
