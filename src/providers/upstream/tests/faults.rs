//! What goes wrong, and what it is called.

use futures_util::StreamExt;
use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::*;
use crate::providers::upstream::{BuildError, settings};

/// What a call comes to that nobody answers on purpose.
async fn failure(provider: &config::Provider) -> TransportError {
    open(&http1(provider)).await.map(|_| ()).unwrap_err()
}

/// What a call comes to that is answered like this, after which the connection is closed.
async fn failure_of(answer: &str) -> TransportError {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let (opened, ()) = tokio::join!(open(&transport), async { drop(server.answer(answer).await) });
    opened.map(|_| ()).unwrap_err()
}

#[actix_rt::test]
async fn a_port_where_nobody_listens_is_a_failed_connection() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base_url = format!("http://{}", socket.local_addr().unwrap());

    assert_eq!(failure(&provider(base_url)).await, TransportError::Connect);
}

#[actix_rt::test]
async fn a_name_that_cannot_resolve_is_named_as_such() {
    // Longer than a label may be, so that no resolver asks the network.
    let base_url = format!("http://{}.invalid", "x".repeat(64));

    assert_eq!(failure(&provider(base_url)).await, TransportError::Dns);
}

#[actix_rt::test]
async fn a_handshake_that_nobody_answers_ends_with_the_connect_timeout() {
    let server = Server::tls().await;
    let mut provider = provider(server.base_url());
    provider.connect_timeout_ms = 150;
    let began = Instant::now();

    let error = failure(&provider).await;

    assert_eq!(error, TransportError::ConnectTimeout(Duration::from_millis(150)));
    assert!(began.elapsed() >= Duration::from_millis(150) && began.elapsed() < HANG / 4);
}

#[actix_rt::test]
async fn what_is_not_http_is_a_protocol_failure() {
    let many_headers = "a: b\r\n".repeat(200);
    let many_headers = format!("HTTP/1.1 200 OK\r\n{many_headers}\r\n");
    let two_lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n";
    for answer in ["SSH-2.0-here\r\n\r\n", "HTTP/1.1 two OK\r\n\r\n", two_lengths, &many_headers] {
        assert_eq!(failure_of(answer).await, TransportError::Protocol, "{answer}");
    }
}

#[actix_rt::test]
async fn a_head_that_is_cut_is_a_lost_connection() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        assert_eq!(failure_of(answer).await, TransportError::Lost, "{answer}");
    }
}

/// Whatever the answer's decoder would make of it.
#[actix_rt::test]
async fn a_body_that_is_cut_is_a_lost_connection() {
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndata:";
    let chunked = streamed(&["data:"]);
    let cuts = ["", "f", "ff\r\n", "ff\r\nda", "2\r\nda", "0\r\n"].map(|end| format!("{chunked}{end}"));
    for answer in [length].into_iter().chain(cuts.iter().map(String::as_str)) {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);

        let (opened, peer) = answered(&server, &transport, answer).await;
        drop(peer);

        let mut pieces: Vec<_> = opened.body.collect().await;
        assert_eq!(pieces.pop(), Some(Err(TransportError::Lost)), "{answer}");
        assert!(pieces.iter().all(Result::is_ok), "{pieces:?}");
        assert_eq!(transport.status().warm, 0);
    }
}

#[actix_rt::test]
async fn a_body_that_is_reset_is_a_lost_connection_and_one_of_broken_chunks_is_no_http() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let (opened, socket) = tokio::join!(open(&transport), async {
        let (mut socket, _) = server.listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 4096]).await.is_ok());
        socket.write_all(streamed(&["data:"]).as_bytes()).await.unwrap();
        socket
    });
    let mut body = opened.unwrap().body;
    assert_eq!(next(&mut body).await, "data:");
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert_eq!(body.next().await, Some(Err(TransportError::Lost)));
    assert_eq!(body.next().await, None);

    let (opened, mut peer) = answered(&server, &transport, &(streamed(&[]) + "no number\r\n")).await;
    assert_eq!(opened.body.collect::<Vec<_>>().await, [Err(TransportError::Protocol)]);
    peer.is_closed().await;
}

#[actix_rt::test]
async fn a_call_that_cannot_be_written_is_not_sent() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let bad_path = Call { path: "/chat two".to_owned(), ..call() };
    let bad_header = Call { headers: vec![("x-dialect", "one\r\ntwo: 2".to_owned())], ..call() };

    for call in [bad_path, bad_header] {
        assert_eq!(transport.open(call).await.map(|_| ()), Err(TransportError::Unsendable));
    }

    server.nobody_waits().await;
}

#[test]
fn a_bad_ca_file_is_named_with_its_provider_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: Option<&str>, expected: &str| {
        let mut provider = provider("https://api.test".to_owned());
        provider.ca_file = Some(match text {
            Some(text) => file_in(&folder, text),
            None => folder.path().join("missing.pem"),
        });
        let error = Http1::new(&provider, &SSE).unwrap_err().to_string();
        assert!(error.starts_with("providers.here.ca_file: /"), "{error}");
        assert!(error.ends_with(expected), "{error}");
    };
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();

    check(None, "missing.pem: No such file or directory (os error 2)");
    check(Some(""), "ca.pem: no PEM certificate in it");
    check(Some(&key), "ca.pem: no PEM certificate in it");
    check(Some("-----BEGIN CERTIFICATE-----\n"), "ca.pem: not a PEM file");
    check(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "BadEncoding");
}

#[test]
fn a_key_that_cannot_stand_in_a_header_is_named_but_not_shown() {
    let mut provider = provider("https://api.test".to_owned());
    provider.key = Key::Given(Secret::new(format!("{KEY}\n")));

    let error = Http1::new(&provider, &SSE).unwrap_err();

    let variable = "HERE_API_KEY".to_owned();
    assert_eq!(error, BuildError::ApiKey { provider: ProviderName::new("here"), variable });
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("providers.here.api_key_env") && !shown.contains(KEY), "{shown}");
}

#[test]
fn nothing_that_is_printed_shows_the_key() {
    let provider = provider("https://api.test/v1".to_owned());
    let transport = http1(&provider);
    let header = settings::authorization(&provider, &SSE).unwrap().unwrap();

    let shown = format!("{transport:?} {transport:#?} {header:?} {provider:?}");

    assert!(shown.contains("api.test"), "{shown}");
    assert!(!shown.contains(KEY), "{shown}");
}
