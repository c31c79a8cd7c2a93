//! Handshakes that fail, and what is said of them.

use rcgen::{BasicConstraints, IsCa, date_time_ymd};

use super::*;
use crate::providers::upstream::TlsFault;

/// What a call comes to that is answered by this server alone, which need not speak TLS, nor to the end.
async fn failure(provider: &config::Provider, server: impl Future) -> TransportError {
    let transport = http1(provider);
    let call = timeout(HANG, transport.open(call()));
    let (opened, _) = tokio::join!(call, server);
    opened.expect("an error").map(|_| ()).unwrap_err()
}

/// What a call comes to that is shown this certificate; with its own issuer trusted, or not.
async fn failure_of(certificate: CertificateParams, trusted: bool) -> TransportError {
    let server = Server::tls_with(certificate, &[b"http/1.1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut provider = provider(server.base_url());
    provider.ca_file = trusted.then(|| file_in(&folder, &server.certificate));
    failure(&provider, handshake(&server)).await
}

/// Takes the next connection and tries the handshake.
async fn handshake(server: &Server) -> bool {
    let (socket, _) = server.listener.accept().await.unwrap();
    server.tls.as_ref().unwrap().accept(socket).await.is_ok()
}

fn certificate(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

#[actix_rt::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_and_one_in_the_ca_file_is_not() {
    let server = Server::tls().await;
    let untrusting = http1(&provider(server.base_url()));

    let (opened, accepted) = tokio::join!(open(&untrusting), handshake(&server));

    assert_eq!(opened.map(|_| ()), Err(TransportError::Tls(TlsFault::UnknownIssuer)));
    assert!(!accepted);
    let (trusting, _folder) = transport_to(&server);
    let (opened, _peer) = answered(&server, &trusting, &streamed(&[])).await;
    assert_eq!(opened.head.status, 200);
}

#[actix_rt::test]
async fn what_is_wrong_with_a_certificate_is_said() {
    let mut expired = certificate("localhost");
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut early = certificate("localhost");
    (early.not_before, early.not_after) = (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1));
    let mut authority = certificate("localhost");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);

    for trusted in [true, false] {
        for (certificate, expected) in
            [(&expired, TlsFault::Expired), (&early, TlsFault::NotYetValid), (&authority, TlsFault::Authority)]
        {
            let error = failure_of(certificate.clone(), trusted).await;
            assert_eq!(error, TransportError::Tls(expected), "trusted: {trusted}");
        }
    }
    assert_eq!(failure_of(certificate("elsewhere"), true).await, TransportError::Tls(TlsFault::WrongName));
    let failure = Failure::from(TransportError::Tls(TlsFault::Expired));
    assert_eq!(failure.code, Code::UpstreamTls);
    assert_eq!(failure.message, "no secure connection to the provider: its certificate has expired");
}

#[actix_rt::test]
async fn a_server_that_answers_without_tls_is_no_secure_one_and_is_sent_nothing_of_the_call() {
    let server = Server::plain().await;
    let provider = provider(format!("https://localhost:{}", server.port()));
    let mut hello = Vec::new();
    let answer = async {
        let (mut socket, _) = server.listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        let count = socket.read(&mut bytes).await.unwrap();
        hello.extend_from_slice(&bytes[..count]);
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    };

    let error = failure(&provider, answer).await;

    assert_eq!(error, TransportError::Tls(TlsFault::NotTls));
    let hello = String::from_utf8_lossy(&hello);
    assert!(!hello.contains(KEY) && !hello.contains("POST"));
}

#[actix_rt::test]
async fn a_server_that_always_ends_the_connection_in_the_handshake_speaks_no_tls() {
    let server = Server::plain().await;
    let provider = provider(format!("https://localhost:{}", server.port()));
    let accept_twice = async {
        drop(server.listener.accept().await.unwrap());
        drop(server.listener.accept().await.unwrap());
    };

    let error = failure(&provider, accept_twice).await;

    assert_eq!(error, TransportError::Tls(TlsFault::BrokenOff));
    assert!(error.to_string().contains("does it speak TLS"), "{error}");
    server.nobody_waits().await;
}

#[actix_rt::test]
async fn a_connection_that_ends_in_the_handshake_once_is_made_again() {
    let server = Server::tls().await;
    let (transport, _folder) = transport_to(&server);
    let answer = async {
        drop(server.listener.accept().await.unwrap());
        server.answer(&streamed(&[])).await
    };

    let (opened, _peer) = tokio::join!(open(&transport), answer);

    assert_eq!(opened.unwrap().head.status, 200);
}
