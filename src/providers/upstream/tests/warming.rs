//! Connections that are open before anybody needs them.

use super::*;

const MODELS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

fn warming(server: &Server, wanted: usize) -> Http1 {
    let mut provider = provider(server.base_url());
    provider.warm_connections = wanted;
    http1(&provider)
}

/// Accepts `count` connections, and only then answers what is asked on them.
async fn models(server: &Server, count: usize) -> Vec<Peer> {
    let mut peers = Vec::new();
    for _ in 0..count {
        let (peer, request) = server.asked().await;
        assert!(request.starts_with("GET /v1/models HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nauthorization: Bearer {KEY}\r\n")), "{request}");
        peers.push(peer);
    }
    for peer in &mut peers {
        peer.send(MODELS).await;
    }
    peers
}

#[actix_rt::test]
async fn as_many_connections_as_wanted_are_opened_at_once_and_again_when_the_provider_closes_them() {
    let server = Server::plain().await;
    let transport = warming(&server, 3);
    let keeping = actix_rt::spawn(transport.keep_warm());

    let peers = models(&server, 3).await;

    warm(&transport, 3).await;
    assert_eq!(transport.connections_opened(), 3);
    server.nobody_waits().await;
    drop(peers);
    let _peers = models(&server, 3).await;
    warm(&transport, 3).await;
    assert_eq!(transport.connections_opened(), 6);
    keeping.abort();
}

#[actix_rt::test]
async fn a_call_takes_a_warm_connection_and_it_is_replaced() {
    let server = Server::plain().await;
    let transport = warming(&server, 2);
    actix_rt::spawn(async move {
        loop {
            let mut peer = server.accept().await;
            actix_rt::spawn(async move {
                while peer.request().await.starts_with("GET") {
                    peer.send(MODELS).await;
                }
                peer.send(&streamed(&[])).await;
                peer.is_closed().await;
            });
        }
    });
    let keeping = actix_rt::spawn(transport.keep_warm());
    warm(&transport, 2).await;

    let opened = open(&transport).await.unwrap();

    assert_eq!(opened.connect_ms, 0);
    warm(&transport, 2).await;
    assert_eq!(transport.connections_opened(), 3);
    keeping.abort();
}

#[actix_rt::test]
async fn nothing_is_kept_warm_without_a_path_a_number_or_a_key() {
    let server = Server::plain().await;
    let mut wanting = provider(server.base_url());
    wanting.warm_connections = 2;
    let no_path = Http1::new(&wanting, &Plain { warm_path: None, ..SSE }).unwrap();
    let no_key = http1(&config::Provider { key: Key::Missing, ..wanting });
    let no_number = warming(&server, 0);

    for transport in [no_path, no_number, no_key] {
        timeout(HANG, transport.keep_warm()).await.expect("nothing to do");
    }

    server.nobody_waits().await;
}

#[actix_rt::test]
async fn warming_ends_with_its_future_and_closes_what_is_under_way() {
    let server = Server::plain().await;
    let transport = warming(&server, 1);
    let mut keeping = transport.keep_warm();
    let (mut peer, _) = tokio::select! {
        asked = server.asked() => asked,
        () = &mut keeping => panic!("it ends by itself"),
    };

    drop(keeping);

    peer.is_closed().await;
}

#[actix_rt::test]
async fn a_provider_that_is_away_at_first_is_warm_when_it_is_back() {
    let server = Server::plain().await;
    let transport = warming(&server, 1);
    let keeping = actix_rt::spawn(transport.keep_warm());

    drop(server.asked().await);
    let _peers = models(&server, 1).await;

    warm(&transport, 1).await;
    keeping.abort();
}

#[actix_rt::test]
async fn a_connection_that_the_provider_does_not_keep_is_not_warm() {
    let server = Server::plain().await;
    let transport = warming(&server, 1);
    let keeping = actix_rt::spawn(transport.keep_warm());

    let mut peer = server.answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").await;

    peer.is_closed().await;
    assert_eq!(transport.status().warm, 0);
    keeping.abort();
}
