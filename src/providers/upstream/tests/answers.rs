//! What is asked, and what comes back.

use std::time::SystemTime;

use futures_util::{FutureExt, StreamExt};
use socket2::SockRef;
use tokio::time::timeout;

use super::*;
use crate::providers::answer::AnswerDecoder;
use crate::providers::registry;

#[actix_rt::test]
async fn every_chunk_arrives_alone_while_the_next_is_not_yet_written() {
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, _folder) = transport_to(&server);
        let (opened, mut peer) = answered(&server, &transport, &streamed(&[])).await;
        let mut body = opened.body;

        for number in 0..20 {
            let data = format!("data: {number}\n\n");
            peer.send(&chunk(&data)).await;

            assert_eq!(next(&mut body).await, data);
            assert!(body.next().now_or_never().is_none());
        }
        peer.send(TERMINATOR).await;

        assert_eq!(timeout(HANG, body.next()).await, Ok(None));
        assert_eq!(transport.status().warm, 1, "the connection is free before the body is dropped");
        assert_eq!(body.next().await, None, "it stays at its end");
    }
}

#[actix_rt::test]
async fn a_call_is_sent_with_the_key_and_without_an_offer_to_compress_or_upgrade() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);

    let (opened, (mut peer, request)) = tokio::join!(open(&transport), async {
        let (mut peer, request) = server.asked().await;
        peer.send(&streamed(&[])).await;
        (peer, request)
    });

    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    let host = format!("host: localhost:{}", server.port());
    let authorization = format!("authorization: Bearer {KEY}");
    let version = format!("user-agent: weir/{}", env!("CARGO_PKG_VERSION"));
    let expected = [
        "POST /v1/chat?stream=1 HTTP/1.1",
        "accept-encoding: identity",
        "accept: text/event-stream",
        &authorization,
        "content-length: 15",
        "content-type: application/json",
        &host,
        &version,
        "x-dialect: one",
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, r#"{"stream":true}"#);
    drop(opened);
    peer.is_closed().await;
}

#[actix_rt::test]
async fn a_provider_without_a_key_gets_none_and_one_of_lines_is_asked_for_lines() {
    let server = Server::plain().await;
    let mut provider = provider(server.base_url());
    provider.key = Key::NotNeeded;
    let transport = Http1::new(&provider, &Plain { framing: Framing::NdJson, ..SSE }).unwrap();

    let (_opened, (_peer, request)) = tokio::join!(open(&transport), async {
        let (mut peer, request) = server.asked().await;
        peer.send(&streamed(&[])).await;
        (peer, request)
    });

    assert!(request.contains("\r\naccept: application/x-ndjson\r\n"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[actix_rt::test]
async fn the_head_is_passed_on_with_names_in_lower_case_and_in_order() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let answer = "HTTP/1.1 429 Slow Down\r\nRetry-After: 3\r\nX-Id: \u{e9}t\u{e9}\r\nContent-Length: 2\r\n\r\nno";

    let (mut opened, _peer) = answered(&server, &transport, answer).await;

    assert_eq!(opened.head.status, 429);
    assert_eq!(opened.head.header("retry-after"), Some("3"));
    assert_eq!(opened.head.header("x-id"), Some("\u{e9}t\u{e9}"));
    assert_eq!(next(&mut opened.body).await, "no");
}

#[actix_rt::test]
async fn an_answer_without_a_date_gets_that_of_its_arrival() {
    let date_of = async |header: &str| {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let answer = format!("HTTP/1.1 429 Slow Down\r\n{header}content-length: 0\r\n\r\n");
        let (opened, _peer) = answered(&server, &transport, &answer).await;
        httpdate::parse_http_date(opened.head.header("date").unwrap()).unwrap()
    };
    let before = SystemTime::now() - Duration::from_secs(1);

    for header in ["", "date: \r\n", "date: yesterday\r\n"] {
        let date = date_of(header).await;
        assert!(date >= before && date <= SystemTime::now(), "{header:?}: {date:?}");
    }
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(date_of("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n").await, theirs);
}

#[actix_rt::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Server::plain().await;
    for status in [301, 302, 303, 307, 308] {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let location = elsewhere.base_url();
        let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");

        let (opened, _peer) = answered(&server, &transport, &answer).await;

        assert_eq!(opened.head.status, status);
        assert_eq!(opened.head.header("location"), Some(location.as_str()));
        assert_eq!(opened.body.collect::<Vec<_>>().await, []);
    }
    elsewhere.nobody_waits().await;
}

#[actix_rt::test]
async fn a_body_without_a_length_is_read_as_it_comes_until_its_connection_ends() {
    for server in [Server::plain().await, Server::tls().await] {
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"] {
            let (transport, _folder) = transport_to(&server);

            let (opened, mut peer) = answered(&server, &transport, head).await;
            let mut body = opened.body;
            assert_eq!(opened.head.status, 200);
            for number in 0..3 {
                assert!(body.next().now_or_never().is_none());
                peer.send(&format!("data: {number}\n\n")).await;
                assert_eq!(next(&mut body).await, format!("data: {number}\n\n"));
            }
            drop(peer);

            assert_eq!(timeout(HANG, body.next()).await, Ok(None));
            assert_eq!(transport.status().warm, 0);
        }
    }
}

#[actix_rt::test]
async fn a_body_without_a_length_may_begin_together_with_its_head_and_its_head_may_be_cut() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: {\"a\":1}\n\n\r\n\r\ndata: 2\n\n";
    for cut in [0, 9, 17, 36, 37, 38, 39, 40, 50] {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let (opened, mut peer) = tokio::join!(open(&transport), async {
            let mut peer = server.answer(&answer[..cut]).await;
            tokio::task::yield_now().await;
            peer.send(&answer[cut..]).await;
            peer
        });
        peer.send("data: 3\n\n").await;
        drop(peer);

        let body: Vec<_> = opened.unwrap().body.map(|bytes| bytes.unwrap()).collect().await;
        let text = String::from_utf8(body.concat()).unwrap();
        assert_eq!(text, "data: {\"a\":1}\n\n\r\n\r\ndata: 2\n\ndata: 3\n\n", "cut at {cut}");
    }
}

#[actix_rt::test]
async fn a_body_without_a_length_that_is_dropped_or_recycled_closes_its_connection() {
    for recycled in [false, true] {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let (opened, mut peer) = answered(&server, &transport, "HTTP/1.1 200 OK\r\n\r\ndata: mine\n\n").await;
        let mut body = opened.body;
        assert_eq!(next(&mut body).await, "data: mine\n\n");

        if recycled {
            transport.recycle(body);
        } else {
            drop(body);
        }

        peer.is_closed().await;
        let (opened, _peer) = answered(&server, &transport, &streamed(&["data: other\n\n"])).await;
        assert_eq!(next(&mut { opened.body }).await, "data: other\n\n");
    }
}

#[actix_rt::test]
async fn a_body_without_a_length_that_is_reset_is_a_lost_connection() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let (opened, socket) = tokio::join!(open(&transport), async {
        let (mut socket, _) = server.listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 4096]).await.is_ok());
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata:").await.unwrap();
        socket
    });
    let mut body = opened.unwrap().body;
    assert_eq!(next(&mut body).await, "data:");
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);

    assert_eq!(body.next().await, Some(Err(TransportError::Lost)));
    assert_eq!(body.next().await, None);
}

/// The end of the connection proves nothing: the decoder judges as for every other body.
#[actix_rt::test]
async fn an_answer_without_a_length_is_whole_when_its_own_terminator_has_come() {
    let whole = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    for (text, expected) in [(whole, Ok(())), (&whole[..30], Err(Code::UpstreamTruncated))] {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let (opened, peer) = answered(&server, &transport, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
        let mut peer = peer;
        peer.send(text).await;
        drop(peer);

        let mut decoder = AnswerDecoder::new(&*registry::adapter(Dialect::OpenaiChat));
        let mut body = opened.body;
        let mut decoded = Ok(Flow::More);
        while let (Ok(Flow::More), Some(bytes)) = (&decoded, body.next().await) {
            decoded = decoder.push(&bytes.unwrap(), &mut |_| {});
        }
        let ended = decoded.and_then(|_| decoder.end(&mut |_| {}));

        assert_eq!(ended.map_err(|failure| failure.code), expected);
    }
}

/// awc takes the interim answer for the final one; the final one would become the answer to the next call.
#[actix_rt::test]
async fn an_interim_answer_fails_the_call_and_the_final_one_meets_no_other_call() {
    for interim in ["100 Continue", "103 Early Hints"] {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);

        let answer = format!("HTTP/1.1 {interim}\r\n\r\n");
        let (opened, mut peer) = tokio::join!(open(&transport), server.answer(&answer));

        assert_eq!(opened.map(|_| ()), Err(TransportError::Protocol));
        peer.is_closed().await;
        let (opened, _peer) = answered(&server, &transport, &streamed(&["data: mine\n\n"])).await;
        assert_eq!(next(&mut { opened.body }).await, "data: mine\n\n");
    }
}

#[actix_rt::test]
async fn an_answer_without_content_has_an_empty_body_and_leaves_its_connection() {
    let server = Server::plain().await;
    for answer in [
        "204 No Content\r\n\r\n",
        "304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        "200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (transport, _folder) = transport_to(&server);
        let (opened, _peer) = answered(&server, &transport, &format!("HTTP/1.1 {answer}")).await;

        assert_eq!(transport.status().warm, 1, "whether or not the body is looked at");
        assert_eq!(opened.head.status, answer[..3].parse::<u16>().unwrap());
        assert_eq!(opened.body.collect::<Vec<_>>().await, []);
    }
}

#[actix_rt::test]
async fn an_http_1_0_server_is_read_to_the_end_of_its_connection() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);

    let (opened, peer) = answered(&server, &transport, "HTTP/1.0 200 OK\r\n\r\ndata: old\n\n").await;
    drop(peer);

    let body: Vec<_> = opened.body.map(|bytes| bytes.unwrap()).collect().await;
    assert_eq!(body.concat(), b"data: old\n\n");
    assert_eq!(transport.status().warm, 0);
}
