//! Front: TLS in front of the mock, by HTTP/2 or HTTP/1.1, with its connections in the test's hand.
//!
//! Over HTTP/2 each stream is a connection of its own to the mock, over a pipe: what ends that connection too early
//! resets the stream.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_rt::task::JoinHandle;
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use load::client::{ClientError, Connection, Request as Call};
use load::mock::{Ending, Provider};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

/// What a pipe holds.
const PIPE_BYTES: usize = 16 * 1024;
/// Streams at once on one connection, as the large providers have it.
const STREAMS_MAX: u32 = 100;

/// See the module.
pub(crate) struct Front {
    port: u16,
    certificate: PathBuf,
    protocol: Protocol,
    opened: Arc<AtomicUsize>,
    orders: broadcast::Sender<Order>,
    accepting: JoinHandle<()>,
    _folder: TempDir,
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// To all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Say goodbye, and finish what runs.
    GoAway,
    /// Close, whatever runs.
    Close,
}

impl Front {
    /// In front of `provider`.
    pub(crate) async fn start(protocol: Protocol, provider: Arc<Provider>) -> Self {
        let name: &[u8] = if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("front.pem");
        let tls = acceptor(name, &certificate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (opened, orders) = (Arc::<AtomicUsize>::default(), broadcast::Sender::new(16));
        let door = Door { protocol, provider, tls, opened: opened.clone() };
        let accepting = actix_rt::spawn(accept(listener, door, orders.clone()));
        Self { port, certificate, protocol, opened, orders, accepting, _folder: folder }
    }

    /// The base URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }

    /// What a provider's table needs to come here.
    pub(crate) fn keys(&self) -> String {
        let http = if self.protocol == Protocol::Http2 { "2" } else { "1.1" };
        format!("http = {http:?}\nca_file = {:?}", self.certificate)
    }

    /// How many handshakes there were.
    pub(crate) fn handshakes(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Says goodbye on every connection; what runs goes on.
    pub(crate) fn say_goodbye(&self) {
        self.order(Order::GoAway);
    }

    /// Closes every connection.
    pub(crate) fn close_all(&self) {
        self.order(Order::Close);
    }

    fn order(&self, order: Order) {
        // Without a connection there is nobody who hears it.
        let _ = self.orders.send(order);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Who takes TLS connections as `localhost` and speaks `protocol` on them; whom to trust for that is written to
/// `certificate`.
pub(crate) fn acceptor(protocol: &[u8], certificate: &Path) -> TlsAcceptor {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    std::fs::write(certificate, cert.pem()).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// What every connection needs.
#[derive(Clone)]
struct Door {
    protocol: Protocol,
    provider: Arc<Provider>,
    tls: TlsAcceptor,
    opened: Arc<AtomicUsize>,
}

async fn accept(listener: TcpListener, door: Door, orders: broadcast::Sender<Order>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (door, orders) = (door.clone(), orders.subscribe());
        actix_rt::spawn(async move { door.serve(socket, orders).await });
    }
}

impl Door {
    async fn serve(&self, socket: TcpStream, mut orders: broadcast::Receiver<Order>) {
        socket.set_nodelay(true).unwrap();
        let Ok(mut stream) = self.tls.accept(socket).await else { return };
        self.opened.fetch_add(1, Ordering::Relaxed);
        if self.protocol == Protocol::Http2 {
            return self.serve_http2(stream, orders).await;
        }
        let closed = async { while orders.recv().await.is_ok_and(|order| order != Order::Close) {} };
        let ending = tokio::select! {
            () = closed => return,
            ending = self.provider.serve(&mut stream) => ending,
        };
        if ending == Ending::Reset {
            let _ = stream.get_ref().0.set_zero_linger();
        }
    }

    async fn serve_http2(&self, stream: impl AsyncRead + AsyncWrite + Unpin, mut orders: broadcast::Receiver<Order>) {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(STREAMS_MAX).max_concurrent_reset_streams(10_000);
        builder.max_pending_accept_reset_streams(10_000).max_local_error_reset_streams(None);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Ok(Order::GoAway) => connection.graceful_shutdown(),
                    Ok(Order::Close) | Err(_) => return,
                },
                accepted = connection.accept() => {
                    let Some(Ok((request, answer))) = accepted else { return };
                    let provider = self.provider.clone();
                    actix_rt::spawn(async move { relay(request, answer, &provider).await });
                }
            }
        }
    }
}

/// Passes one call on, and its answer back. Ends early when the caller has reset the stream.
async fn relay(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, provider: &Arc<Provider>) {
    let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
    let served = provider.clone();
    actix_rt::spawn(async move { served.serve(&mut theirs).await });
    let mut connection = Connection::new(ours, "front");
    let passed = tokio::select! {
        head = call(request, &mut connection) => head,
        _ = poll_fn(|cx| answer.poll_reset(cx)) => return,
    };
    let Ok(head) = passed else { return answer.send_reset(Reason::INTERNAL_ERROR) };
    let Ok(mut body) = answer.send_response(head, false) else { return };
    loop {
        let piece = tokio::select! {
            piece = connection.next_piece() => piece,
            _ = poll_fn(|cx| body.poll_reset(cx)) => return,
        };
        match piece {
            Ok(Some(piece)) => {
                if !send(&mut body, piece).await {
                    return;
                }
            }
            Ok(None) => return drop(body.send_data(Bytes::new(), true)),
            Err(_) => {
                flush().await;
                return body.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}

/// Lets the connection write what is queued: a reset would throw it away.
async fn flush() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Sends a call over HTTP/1.1. Returns the head of its answer, without what belongs to HTTP/1.1.
async fn call(
    request: Request<RecvStream>,
    connection: &mut Connection<DuplexStream>,
) -> Result<Response<()>, ClientError> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|_| ClientError::Cut)?;
        // The window is the caller's to lose.
        let _ = body.flow_control().release_capacity(piece.len());
        bytes.extend_from_slice(&piece);
    }
    let method = if head.method == http::Method::GET { "GET" } else { "POST" };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let answered = connection.send(&Call::new(method, path).body(bytes)).await?;
    let mut response = Response::builder().status(answered.status);
    let own = ["connection", "transfer-encoding", "content-length"];
    for (name, value) in answered.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        response = response.header(name, value);
    }
    response.body(()).map_err(|_| ClientError::NotHttp)
}

/// Sends a piece as the caller takes it; whether it has.
async fn send(body: &mut SendStream<Bytes>, mut piece: Bytes) -> bool {
    while !piece.is_empty() {
        body.reserve_capacity(piece.len());
        let Some(Ok(granted)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return false };
        if body.send_data(piece.split_to(granted.min(piece.len())), false).is_err() {
            return false;
        }
    }
    true
}
