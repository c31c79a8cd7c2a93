//! What the HTTP/2 transport promises.

mod cancels;
mod deaths;
mod endings;
mod negotiation;
mod sharing;
mod streams;
mod warming;

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use socket2::{SockRef, Socket};
use tokio::sync::mpsc;

use super::*;
use crate::providers::upstream::Http2;
use crate::providers::upstream::http2::driver::Pings;

const HOUR: Duration = Duration::from_secs(3600);
/// Never asks for a sign of life.
const NO_PINGS: Pings = Pings { interval: HOUR, probe_after: HOUR, suspect_after: HOUR, dead_after: HOUR };

// --- The provider's side ----------------------------------------------------

/// A server that takes every connection, and leaves the requests to the test.
struct Host {
    base_url: String,
    certificate: Option<String>,
    asked: mpsc::UnboundedReceiver<Asked>,
    links: Links,
}

type Links = Rc<RefCell<Vec<Rc<Link>>>>;

/// The server's end of a connection.
struct Link {
    /// A copy; `None` once it is broken.
    socket: RefCell<Option<Socket>>,
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    /// Say goodbye, and finish what runs.
    GoAway,
    /// Neither read nor write.
    Freeze,
    /// Read and write again.
    Thaw,
    /// Let the connection go.
    Drop,
}

/// A request, and where the answer goes.
struct Asked {
    /// Which connection, from 0.
    link: usize,
    request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
}

impl Host {
    /// By TLS, and this many streams at once.
    async fn tls(streams_max: u32) -> Self {
        Self::on(Server::tls().await, streams_max)
    }

    /// Without.
    async fn plain(streams_max: u32) -> Self {
        Self::on(Server::plain().await, streams_max)
    }

    fn on(server: Server, streams_max: u32) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let links = Links::default();
        let base_url = server.base_url();
        let certificate = server.tls.is_some().then(|| server.certificate.clone());
        actix_rt::spawn(accept(server, streams_max, sender, Rc::clone(&links)));
        Self { base_url, certificate, asked, links }
    }

    /// A transport to it that never asks for a sign of life.
    fn transport(&self) -> Http2 {
        self.transport_with(NO_PINGS, 1_000)
    }

    fn transport_with(&self, pings: Pings, concurrency: usize) -> Http2 {
        let (provider, _folder) = self.provider(concurrency);
        Http2::with(&provider, &SSE, false, pings).unwrap()
    }

    fn provider(&self, concurrency: usize) -> (config::Provider, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut provider = provider(self.base_url.clone());
        provider.http = Http::Http2;
        provider.pace.concurrency = concurrency;
        provider.ca_file = self.certificate.as_ref().map(|certificate| file_in(&folder, certificate));
        (provider, folder)
    }

    /// The next request on any connection.
    async fn asked(&mut self) -> Asked {
        timeout(HANG, self.asked.recv()).await.expect("a request").unwrap()
    }

    /// The next request, answered with a head.
    async fn answered(&mut self) -> (usize, SendStream<Bytes>) {
        let asked = self.asked().await;
        (asked.link, asked.begin())
    }

    /// One call, answered with a head.
    async fn call(&mut self, transport: &dyn Transport) -> (Opened, SendStream<Bytes>) {
        let (opened, (_, answer)) = tokio::join!(open_by(transport), self.answered());
        (opened.unwrap(), answer)
    }

    /// One call that is answered to the end. Leaves an idle connection.
    async fn whole_call(&mut self, transport: &dyn Transport) {
        let (opened, mut answer) = self.call(transport).await;
        send(&mut answer, "whole");
        answer.send_data(Bytes::new(), true).unwrap();
        assert_eq!(rest(opened.body).await, Ok("whole".to_owned()));
    }

    /// Answers every request that comes with the whole of `text`.
    fn answer_all(mut self, text: &'static str) {
        actix_rt::spawn(async move {
            while let Some(asked) = self.asked.recv().await {
                let mut answer = asked.begin();
                // The call may have been cancelled.
                let _ = answer.send_data(Bytes::from_static(text.as_bytes()), true);
            }
        });
    }

    fn link(&self, number: usize) -> Rc<Link> {
        Rc::clone(&self.links.borrow()[number])
    }

    fn connections(&self) -> usize {
        self.links.borrow().len()
    }
}

impl Link {
    fn order(&self, order: Order) {
        // It may be gone already.
        let _ = self.orders.send(order);
    }

    fn socket<T>(&self, use_it: impl FnOnce(&Socket) -> T) -> T {
        use_it(self.socket.borrow().as_ref().expect("it is not broken"))
    }

    /// Closes the connection in order.
    fn fin(&self) {
        self.socket(|socket| socket.shutdown(std::net::Shutdown::Write)).unwrap();
        self.order(Order::Freeze);
    }

    /// Breaks the connection.
    fn reset(&self) {
        self.socket(|socket| socket.set_linger(Some(Duration::ZERO))).unwrap();
        // The peer is told when the last copy is gone.
        self.socket.take();
        self.order(Order::Drop);
    }

    /// Writes past the server's own frames.
    fn inject(&self, bytes: &[u8]) {
        self.socket(|mut socket| socket.write_all(bytes)).unwrap();
    }

    /// Waits until something has come that is not read; for connections that are frozen.
    async fn has_unread(&self) {
        let there = async {
            let mut byte = [std::mem::MaybeUninit::uninit(); 1];
            while !self.socket(|socket| socket.peek(&mut byte)).is_ok_and(|count| count > 0) {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANG, there).await.expect("something is sent");
    }
}

impl Asked {
    /// Answers with a head.
    fn begin(mut self) -> SendStream<Bytes> {
        let head = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        self.answer.send_response(head, false).unwrap()
    }
}

fn send(answer: &mut SendStream<Bytes>, text: &str) {
    answer.send_data(Bytes::copy_from_slice(text.as_bytes()), false).unwrap();
}

/// Waits until the transport has reset the stream.
async fn reset_of(answer: &mut SendStream<Bytes>) -> Reason {
    timeout(HANG, std::future::poll_fn(|cx| answer.poll_reset(cx))).await.expect("a reset").unwrap()
}

async fn accept(server: Server, streams_max: u32, asked: mpsc::UnboundedSender<Asked>, links: Links) {
    loop {
        let (socket, _) = server.listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (orders, ordered) = mpsc::unbounded_channel();
        let copy = SockRef::from(&socket).try_clone().unwrap();
        let number = links.borrow().len();
        links.borrow_mut().push(Rc::new(Link { socket: RefCell::new(Some(copy)), orders }));
        let (asked, tls) = (asked.clone(), server.tls.clone());
        actix_rt::spawn(async move {
            let stream: Box<dyn Duplex> = match tls {
                Some(tls) => match tls.accept(socket).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
                None => Box::new(socket),
            };
            serve(stream, streams_max, number, asked, ordered).await;
        });
    }
}

async fn serve(
    stream: Box<dyn Duplex>,
    streams_max: u32,
    link: usize,
    asked: mpsc::UnboundedSender<Asked>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(streams_max).max_concurrent_reset_streams(10_000);
    builder.max_pending_accept_reset_streams(10_000).max_local_error_reset_streams(None);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::GoAway) => connection.graceful_shutdown(),
                Some(Order::Freeze) => {
                    if !matches!(orders.recv().await, Some(Order::Thaw)) {
                        return;
                    }
                }
                Some(Order::Thaw) => {}
                Some(Order::Drop) | None => return,
            },
            request = connection.accept() => match request {
                // The test may have ended.
                Some(Ok((request, answer))) => drop(asked.send(Asked { link, request, answer })),
                Some(Err(_)) | None => return,
            },
        }
    }
}

// --- The transport's side ---------------------------------------------------

async fn open_by(transport: &dyn Transport) -> Result<Opened, TransportError> {
    timeout(HANG, transport.open(call())).await.expect("an answer or an error")
}

/// Everything that is left of a body, or its error.
async fn rest(body: Body) -> Result<String, TransportError> {
    let chunks = timeout(HANG, body.collect::<Vec<_>>()).await.expect("an end");
    let chunks = chunks.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(String::from_utf8(chunks.concat()).unwrap())
}

/// Waits until so many connections could take a call.
async fn ready(transport: &dyn Transport, count: usize) {
    let there = async {
        while transport.status().warm != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, there).await.unwrap_or_else(|_| panic!("{} ready, not {count}", transport.status().warm));
}
