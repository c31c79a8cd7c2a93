//! What the transports promise, over real sockets: a server of a few lines plays the provider. HTTP/1.1 here, HTTP/2 in
//! `http2`.

mod answers;
mod bodies;
mod connections;
mod faults;
mod handshakes;
mod http2;
mod warming;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Body, Http1, Opened, Status, Transport, TransportError};
use crate::chat::{ChatRequest, ProviderName};
use crate::config::{self, Dialect, Http, Key, OnCancel, Pace, Secret};
use crate::event::{Finish, FinishReason};
use crate::failure::{Code, Failure};
use crate::providers::answer::truncated;
use crate::providers::{Adapter, Call, Decode, Flow, Frame, Framing, Head, Piece};

/// The key of every provider here; it must not be seen anywhere but in the header.
const KEY: &str = "sk-canary-0123456789";
/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(10);
const TERMINATOR: &str = "0\r\n\r\n";

// --- The provider's side ----------------------------------------------------

/// A server on a port of its own.
struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    /// Its own certificate, as PEM.
    certificate: String,
}

impl Server {
    async fn plain() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: None, certificate: String::new() }
    }

    async fn tls() -> Self {
        Self::tls_of(&[b"h2", b"http/1.1"]).await
    }

    /// Speaks these protocols, as it says in the handshake.
    async fn tls_of(protocols: &[&[u8]]) -> Self {
        Self::tls_with(CertificateParams::new(["localhost".to_owned()]).unwrap(), protocols).await
    }

    /// Shows a certificate like this, which nobody but itself vouches for.
    async fn tls_with(certificate: CertificateParams, protocols: &[&[u8]]) -> Self {
        let signing_key = KeyPair::generate().unwrap();
        let cert = certificate.self_signed(&signing_key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: Some(TlsAcceptor::from(Arc::new(config))), certificate: cert.pem() }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn base_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}/v1", self.port())
    }

    /// The next connection, after its handshake.
    async fn accept(&self) -> Peer {
        let (socket, _) = timeout(HANG, self.listener.accept()).await.expect("a connection").unwrap();
        match &self.tls {
            Some(tls) => Peer(Box::new(tls.accept(socket).await.unwrap())),
            None => Peer(Box::new(socket)),
        }
    }

    /// The next connection and the first request on it.
    async fn asked(&self) -> (Peer, String) {
        let mut peer = self.accept().await;
        let request = peer.request().await;
        (peer, request)
    }

    /// The next connection, whose first request is answered like this.
    async fn answer(&self, answer: &str) -> Peer {
        let (mut peer, _) = self.asked().await;
        peer.send(answer).await;
        peer
    }

    /// Fails if there is a connection that has not been accepted: the next one must be our own.
    async fn nobody_waits(&self) {
        let own = TcpStream::connect(("127.0.0.1", self.port())).await.unwrap();
        let (_, next) = self.listener.accept().await.unwrap();
        assert_eq!(next, own.local_addr().unwrap(), "another connection was made");
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// The server's end of a connection.
struct Peer(Box<dyn Duplex>);

impl Peer {
    /// Reads one request, head and body.
    async fn request(&mut self) -> String {
        let mut read = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let count = timeout(HANG, self.0.read(&mut bytes)).await.expect("a request").unwrap();
            assert_ne!(count, 0, "closed before a whole request: {}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8(read.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Waits until the transport has closed the connection.
    async fn is_closed(&mut self) {
        let closed = async { while self.0.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
        timeout(HANG, closed).await.expect("the connection stays open");
    }
}

/// A streamed answer with these chunks; without the terminator.
fn streamed(chunks: &[&str]) -> String {
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    chunks.iter().for_each(|data| text.push_str(&chunk(data)));
    text
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

// --- The transport's side ---------------------------------------------------

/// A dialect with nothing in it.
#[derive(Clone, Copy)]
struct Plain {
    framing: Framing,
    warm_path: Option<&'static str>,
}

const SSE: Plain = Plain { framing: Framing::Sse, warm_path: Some("/models") };

impl Adapter for Plain {
    fn encode(&self, _: &ChatRequest) -> Result<Call, Failure> {
        Ok(call())
    }

    fn authorization(&self, key: &str) -> (&'static str, String) {
        ("authorization", format!("Bearer {key}"))
    }

    fn framing(&self) -> Framing {
        self.framing
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Endless)
    }

    fn failure(&self, _: &Head, _: &[u8]) -> Failure {
        Failure::new(Code::UpstreamError, "")
    }

    fn warm_path(&self) -> Option<&'static str> {
        self.warm_path
    }
}

struct Endless;

impl Decode for Endless {
    fn frame(&mut self, _: &Frame<'_>, _: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure> {
        Ok(Flow::More)
    }

    fn end(&mut self, _: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        Err(truncated())
    }

    fn finish(&self) -> Finish {
        Finish { reason: FinishReason::Stop, native: None }
    }
}

fn provider(base_url: String) -> config::Provider {
    config::Provider {
        name: ProviderName::new("here"),
        dialect: Dialect::OpenaiChat,
        base_url,
        api_key_env: "HERE_API_KEY".to_owned(),
        key: Key::Given(Secret::new(KEY)),
        models: Vec::new(),
        default_model: None,
        any_model: true,
        pace: Pace { rps: 1.0, concurrency: 1, burst: 1, tpm: 0 },
        queue_max: 1,
        queue_wait_max_ms: 1,
        http: Http::Http1,
        connect_timeout_ms: 10_000,
        headers_timeout_ms: 1,
        ttft_timeout_ms: 1,
        idle_timeout_ms: 1,
        total_timeout_ms: 1,
        on_cancel: OnCancel::Abort,
        drain_max_ms: 1,
        drain_bytes_max: 1,
        warm_connections: 0,
        ca_file: None,
        retries_max: 0,
        breaker_failures: 0,
        breaker_open_ms: 1,
        breaker_open_max_ms: 1,
        fallback: Vec::new(),
    }
}

fn http1(provider: &config::Provider) -> Http1 {
    Http1::new(provider, &SSE).unwrap()
}

/// A transport to a server, and the folder that its certificate is in.
fn transport_to(server: &Server) -> (Http1, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut provider = provider(server.base_url());
    if server.tls.is_some() {
        provider.ca_file = Some(file_in(&folder, &server.certificate));
    }
    (http1(&provider), folder)
}

fn file_in(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, text).unwrap();
    path
}

fn call() -> Call {
    let headers = vec![("x-dialect", "one".to_owned())];
    Call { path: "/chat?stream=1".to_owned(), headers, body: br#"{"stream":true}"#.to_vec() }
}

/// One call.
async fn open(transport: &Http1) -> Result<Opened, TransportError> {
    timeout(HANG, transport.open(call())).await.expect("an answer or an error")
}

/// One call that is answered like this on a new connection.
async fn answered(server: &Server, transport: &Http1, answer: &str) -> (Opened, Peer) {
    let (opened, peer) = tokio::join!(open(transport), server.answer(answer));
    (opened.unwrap(), peer)
}

async fn next(body: &mut Body) -> String {
    let bytes = timeout(HANG, body.next()).await.expect("a chunk").expect("no end").unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits until so many connections are idle.
async fn warm(transport: &Http1, count: usize) {
    let there = async {
        while transport.status().warm != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, there).await.unwrap_or_else(|_| panic!("{} warm, not {count}", transport.status().warm));
}
