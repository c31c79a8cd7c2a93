//! Which HTTP is spoken.

use super::*;
use crate::providers::upstream::auto::Auto;
use crate::providers::upstream::{TlsFault, network};

/// A provider with this setting at this server.
fn provider_at(server: &Server, http: Http) -> (config::Provider, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut provider = provider(server.base_url());
    provider.http = http;
    provider.pace.concurrency = 10;
    if server.tls.is_some() {
        provider.ca_file = Some(file_in(&folder, &server.certificate));
    }
    (provider, folder)
}

#[actix_rt::test]
async fn auto_takes_http2_where_the_server_does() {
    let server = Server::tls().await;
    let (provider, _folder) = provider_at(&server, Http::Auto);
    let transport = network(&provider, &SSE).unwrap();
    assert_eq!(transport.status(), Status { http: "auto", warm: 0 });
    let mut host = Host::on(server, 100);

    host.whole_call(&*transport).await;

    assert_eq!(transport.status(), Status { http: "2", warm: 1 });
}

#[actix_rt::test]
async fn auto_takes_http1_where_the_server_does_and_the_connection_that_told_carries_the_call() {
    let one_way: &[&[&[u8]]] = &[&[b"http/1.1"], &[]];
    for protocols in one_way {
        let server = Server::tls_of(protocols).await;
        let (provider, _folder) = provider_at(&server, Http::Auto);
        let transport = Auto::new(&provider, &SSE).unwrap();

        let answer = streamed(&["data: one\n\n"]) + TERMINATOR;
        let (opened, mut peer) = tokio::join!(open_by(&transport), server.answer(&answer));
        let opened = opened.unwrap();
        assert!(opened.connect_ms > 0);
        assert_eq!(rest(opened.body).await, Ok("data: one\n\n".to_owned()));

        assert_eq!(transport.status(), Status { http: "1.1", warm: 1 });
        let (opened, ()) = tokio::join!(open_by(&transport), async {
            peer.request().await;
            peer.send(&answer).await;
        });
        assert_eq!(opened.unwrap().connect_ms, 0);
        assert_eq!(transport.connections_opened(), 1);
        server.nobody_waits().await;
    }
}

#[actix_rt::test]
async fn a_herd_of_calls_learns_together_that_the_server_speaks_http1() {
    let server = Server::tls_of(&[b"http/1.1"]).await;
    let (provider, _folder) = provider_at(&server, Http::Auto);
    let transport = Auto::new(&provider, &SSE).unwrap();

    let calls = futures_util::future::join_all((0..8).map(|_| open_by(&transport)));
    let (opened, _peers) = tokio::join!(calls, async {
        let mut peers = Vec::new();
        for _ in 0..8 {
            peers.push(server.answer(&streamed(&[])).await);
        }
        peers
    });

    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(transport.connections_opened(), 8);
}

#[actix_rt::test]
async fn a_server_that_was_away_is_asked_again_what_it_speaks() {
    let server = Server::tls_of(&[b"http/1.1"]).await;
    let (provider, _folder) = provider_at(&server, Http::Auto);
    let transport = Auto::new(&provider, &SSE).unwrap();
    let answer = streamed(&[]);
    drop(tokio::join!(open_by(&transport), server.answer(&answer)));
    assert_eq!(transport.status().http, "1.1");

    // The handshake is broken off, and again.
    let (opened, ()) = tokio::join!(open_by(&transport), async {
        drop(server.listener.accept().await);
        drop(server.listener.accept().await);
    });
    assert_eq!(opened.map(|_| ()), Err(TransportError::Tls(TlsFault::BrokenOff)));
    let protocols = vec![b"h2".to_vec()];
    let tls = server.tls.as_ref().unwrap();
    let mut newer = (**tls.config()).clone();
    newer.alpn_protocols = protocols;
    let mut host = Host::on(Server { tls: Some(TlsAcceptor::from(Arc::new(newer))), ..server }, 100);

    host.whole_call(&transport).await;

    assert_eq!(transport.status(), Status { http: "2", warm: 1 });
}

#[actix_rt::test]
async fn a_call_that_the_server_wants_by_http1_is_sent_by_http1() {
    let server = Server::tls().await;
    let (provider, _folder) = provider_at(&server, Http::Auto);
    let transport = Auto::new(&provider, &SSE).unwrap();

    let (opened, _peer) = tokio::join!(open_by(&transport), async {
        let (socket, _) = server.listener.accept().await.unwrap();
        let stream = server.tls.as_ref().unwrap().accept(socket).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut answer) = connection.accept().await.unwrap().unwrap();
        answer.send_reset(Reason::HTTP_1_1_REQUIRED);
        actix_rt::spawn(async move { while connection.accept().await.is_some() {} });
        let peer = server.accept().await;
        let mut peer = peer;
        peer.request().await;
        peer.send(&streamed(&[])).await;
        peer
    });

    assert_eq!(opened.unwrap().head.status, 200);
    assert_eq!(transport.status().http, "1.1");
}

#[actix_rt::test]
async fn http2_alone_is_not_spoken_to_a_server_that_does_not_choose_it() {
    let refused = TransportError::Tls(TlsFault::Refused);
    for (protocols, expected) in [(&[b"http/1.1".as_slice()][..], refused), (&[], TransportError::Protocol)] {
        let server = Server::tls_of(protocols).await;
        let (provider, _folder) = provider_at(&server, Http::Http2);
        let transport = network(&provider, &SSE).unwrap();
        let accept = async {
            let (socket, _) = server.listener.accept().await.unwrap();
            drop(server.tls.as_ref().unwrap().accept(socket).await);
        };

        let (opened, ()) = tokio::join!(open_by(&*transport), accept);

        assert_eq!(opened.map(|_| ()), Err(expected));
    }
}

#[actix_rt::test]
async fn without_tls_auto_is_http1_and_only_2_is_http2() {
    for (http, spoken) in [(Http::Auto, "1.1"), (Http::Http1, "1.1"), (Http::Http2, "2")] {
        let server = Server::plain().await;
        let (provider, _folder) = provider_at(&server, http);

        assert_eq!(network(&provider, &SSE).unwrap().status().http, spoken);
    }
    let server = Server::tls().await;
    let (provider, _folder) = provider_at(&server, Http::Http1);
    assert_eq!(network(&provider, &SSE).unwrap().status().http, "1.1");
}

#[actix_rt::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    for http in [Http::Auto, Http::Http2] {
        let server = Server::tls().await;
        let mut provider = provider(server.base_url());
        provider.http = http;
        let transport = network(&provider, &SSE).unwrap();
        let _host = Host::on(server, 100);

        assert_eq!(open_by(&*transport).await.map(|_| ()), Err(TransportError::Tls(TlsFault::UnknownIssuer)));
    }
}
