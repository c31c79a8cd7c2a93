//! Connections that are open before anybody needs them.

use super::*;
use crate::providers::upstream::network;

fn warming(host: &Host, http: Http, wanted: usize) -> Rc<dyn Transport> {
    let (mut provider, _folder) = host.provider(10);
    provider.http = http;
    provider.warm_connections = wanted;
    // No call is made for it, so no path is needed.
    network(&provider, &Plain { warm_path: None, ..SSE }).unwrap()
}

#[actix_rt::test]
async fn as_many_connections_as_wanted_are_open_without_a_call_and_again_when_they_are_closed() {
    for http in [Http::Http2, Http::Auto] {
        let mut host = Host::tls(100).await;
        let transport = warming(&host, http, 2);
        let keeping = actix_rt::spawn(transport.keep_warm());

        ready(&*transport, 2).await;
        assert_eq!(transport.status().http, "2");
        let (opened, _answer) = host.call(&*transport).await;
        assert_eq!(opened.connect_ms, 0);
        assert_eq!(host.connections(), 2);

        host.link(0).fin();
        host.link(1).reset();
        ready(&*transport, 0).await;
        ready(&*transport, 2).await;
        assert_eq!(host.connections(), 4);
        keeping.abort();
    }
}

#[actix_rt::test]
async fn nothing_is_kept_warm_without_a_number_or_a_key() {
    let host = Host::plain(100).await;
    let (mut provider, _folder) = host.provider(10);
    let no_number = Http2::new(&provider, &SSE).unwrap();
    provider.warm_connections = 2;
    provider.key = Key::Missing;
    let no_key = Http2::new(&provider, &SSE).unwrap();

    for transport in [no_number, no_key] {
        timeout(HANG, transport.keep_warm()).await.expect("nothing to do");
    }

    assert_eq!(host.connections(), 0);
}

#[actix_rt::test]
async fn a_server_that_chooses_http1_is_kept_warm_by_http1() {
    let server = Server::tls_of(&[b"http/1.1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut provider = provider(server.base_url());
    provider.http = Http::Auto;
    provider.ca_file = Some(file_in(&folder, &server.certificate));
    provider.warm_connections = 2;
    let transport = network(&provider, &SSE).unwrap();
    let keeping = actix_rt::spawn(transport.keep_warm());

    let mut peers = Vec::new();
    for _ in 0..2 {
        let (mut peer, request) = server.asked().await;
        assert!(request.starts_with("GET /v1/models "), "{request}");
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        peers.push(peer);
    }

    ready(&*transport, 2).await;
    assert_eq!(transport.status().http, "1.1");
    server.nobody_waits().await;
    keeping.abort();
}

#[actix_rt::test]
async fn a_transport_that_is_dropped_says_goodbye_and_an_answer_outlives_it() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let (opened, mut answer) = host.call(&transport).await;

    drop(transport);
    answer.send_data("whole".into(), true).unwrap();

    assert_eq!(rest(opened.body).await, Ok("whole".to_owned()));
    let orders = host.link(0).orders.clone();
    timeout(HANG, orders.closed()).await.expect("the connection is closed");
}
