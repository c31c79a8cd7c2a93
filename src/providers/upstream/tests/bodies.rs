//! Where a body ends, and whether its connection carries another call.

use futures_util::StreamExt;
use tokio::time::{advance, pause, resume};

use super::*;
use crate::providers::upstream::connections::AGE_MAX;

/// The next call, made while `peer` answers it like this.
async fn next_call(transport: &Http1, peer: &mut Peer, reads: &[&str]) -> Opened {
    let (opened, ()) = tokio::join!(open(transport), async {
        peer.request().await;
        for read in reads {
            peer.send(read).await;
            // So that it is read alone, mostly.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
    });
    opened.unwrap()
}

async fn text_of(body: Body) -> String {
    let pieces: Vec<_> = timeout(HANG, body.collect()).await.expect("an end");
    let pieces: Vec<_> = pieces.into_iter().map(Result::unwrap).collect();
    String::from_utf8(pieces.concat()).unwrap()
}

/// A transport and the server's end of its one connection, which is idle.
async fn one_idle(server: &Server) -> (Http1, Peer, tempfile::TempDir) {
    let (transport, folder) = transport_to(server);
    let (opened, peer) = answered(server, &transport, "HTTP/1.1 204 No Content\r\n\r\n").await;
    drop(opened);
    assert_eq!(transport.status().warm, 1);
    (transport, peer, folder)
}

#[actix_rt::test]
async fn an_answer_may_be_cut_anywhere_and_its_connection_carries_the_next_call() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let chunked = "B;name=\"v\"\r\ndata: one\n\n\r\n00b \r\ndata: two\n\n\r\n0\r\nx-sum: 1\r\n\r\n";
    let of_length = "HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\ndata: one\n\ndata: two\n\n";
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, mut peer, _folder) = one_idle(&server).await;
        for answer in [format!("{head}{chunked}"), of_length.to_owned()] {
            for cut in 1..=answer.len() {
                let opened = next_call(&transport, &mut peer, &[&answer[..cut], &answer[cut..]]).await;

                assert_eq!(text_of(opened.body).await, "data: one\n\ndata: two\n\n", "cut at {cut}");
                assert_eq!((opened.connect_ms, transport.status().warm), (0, 1), "cut at {cut}");
            }
        }
        assert_eq!(transport.connections_opened(), 1);
    }
}

#[actix_rt::test]
async fn an_answer_may_come_byte_by_byte() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;
    let answer = streamed(&["data: one\n\n", "data: two\n\n"]) + TERMINATOR;
    let bytes: Vec<_> = answer.split("").filter(|byte| !byte.is_empty()).collect();

    let (text, ()) = tokio::join!(async { text_of(open(&transport).await.unwrap().body).await }, async {
        peer.request().await;
        for byte in bytes {
            peer.send(byte).await;
            tokio::task::yield_now().await;
        }
    });

    assert_eq!(text, "data: one\n\ndata: two\n\n");
    assert_eq!(transport.status().warm, 1);
}

#[actix_rt::test]
async fn what_is_larger_than_every_buffer_comes_whole() {
    let long = "x".repeat(1_000_000);
    let of_length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}", long.len());
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, mut peer, _folder) = one_idle(&server).await;
        for answer in [streamed(&[&long]) + TERMINATOR, of_length.clone()] {
            let (text, ()) = tokio::join!(async { text_of(open(&transport).await.unwrap().body).await }, async {
                peer.request().await;
                peer.send(&answer).await;
            });

            assert!(text == long);
            assert_eq!(transport.status().warm, 1);
        }
    }
}

#[actix_rt::test]
async fn a_thousand_calls_one_after_the_other_use_one_connection() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;
    for number in 0..1000 {
        let data = format!("data: {number}\n\n");
        let mut opened = next_call(&transport, &mut peer, &[&(streamed(&[&data]) + TERMINATOR)]).await;
        assert_eq!((next(&mut opened.body).await, opened.connect_ms), (data, 0));

        transport.recycle(opened.body);
    }
    assert_eq!((transport.connections_opened(), transport.status().warm), (1, 1));
}

#[actix_rt::test]
async fn chunks_that_are_none_are_a_protocol_failure_and_close_the_connection() {
    let long_extension = format!("1;{}\r\n", "x".repeat(20_000));
    let long_trailer = format!("0\r\n{}", "a: b\r\n".repeat(4_000));
    for chunks in
        ["1g\r\n", "-1\r\n", "\r\n", "11111111111111111\r\n", "1\nd", "1\r\nda", &long_extension, &long_trailer]
    {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let (opened, mut peer) = answered(&server, &transport, &(streamed(&["data:"]) + chunks)).await;
        let mut body = opened.body;

        let mut last = None;
        while let Some(piece) = timeout(HANG, body.next()).await.expect("an end") {
            last = Some(piece);
        }

        assert_eq!(last, Some(Err(TransportError::Protocol)), "{chunks:.20}");
        assert_eq!(body.next().await, None);
        peer.is_closed().await;
        assert_eq!(transport.status().warm, 0);
    }
}

#[actix_rt::test]
async fn a_connection_is_not_used_again_if_the_answer_says_so_or_leaves_doubt() {
    let of_length = |head: &str| format!("{head}content-length: 2\r\n\r\n{{}}");
    let answers = [
        of_length("HTTP/1.1 200 OK\r\nConnection: Close\r\n"),
        of_length("HTTP/1.1 200 OK\r\nconnection: x-other , close\r\n"),
        of_length("HTTP/1.1 200 OK\r\nconnection: x-other\r\nconnection: close\r\n"),
        of_length("HTTP/1.0 200 OK\r\n"),
        of_length("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n"),
        "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
        // More than one answer, to one call.
        of_length("HTTP/1.1 200 OK\r\n") + "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\r\n".to_owned(),
    ];
    for answer in answers {
        let server = Server::plain().await;
        let (transport, _folder) = transport_to(&server);
        let (opened, mut peer) = answered(&server, &transport, &answer).await;

        assert_eq!(text_of(opened.body).await, "{}", "{answer}");

        assert_eq!(transport.status().warm, 0, "{answer}");
        peer.is_closed().await;
    }
}

#[actix_rt::test]
async fn a_connection_that_has_come_of_age_is_replaced() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;
    let minute = Duration::from_secs(60);
    for _ in 1..AGE_MAX.as_secs() / 60 {
        pause();
        advance(minute).await;
        resume();
        let opened = next_call(&transport, &mut peer, &["HTTP/1.1 204 No Content\r\n\r\n"]).await;
        assert_eq!(opened.connect_ms, 0);
    }

    pause();
    advance(minute).await;
    resume();

    let (opened, _other) = answered(&server, &transport, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(opened.connect_ms > 0);
    peer.is_closed().await;
}

#[actix_rt::test]
async fn a_refusal_leaves_its_connection_too() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;
    let refusal = "HTTP/1.1 429 Slow Down\r\ncontent-length: 2\r\n\r\nno";

    let opened = next_call(&transport, &mut peer, &[refusal]).await;

    assert_eq!((opened.head.status, text_of(opened.body).await), (429, "no".to_owned()));
    assert_eq!(transport.status().warm, 1);
}

#[actix_rt::test]
async fn a_body_that_is_recycled_in_the_middle_of_its_end_is_read_to_it() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;
    let answer = streamed(&["data: one\n\n"]) + "0;x\r\nx-sum: 1\r\n\r\n";
    for kept in 1..16 {
        let (begun, rest) = answer.split_at(answer.len() - kept);
        let mut opened = next_call(&transport, &mut peer, &[begun]).await;
        assert_eq!(next(&mut opened.body).await, "data: one\n\n");

        transport.recycle(opened.body);
        peer.send(rest).await;

        warm(&transport, 1).await;
    }
    assert_eq!(transport.connections_opened(), 1);
}
