//! Which connection carries a call, and when one is closed.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use tokio::time::{Instant, advance, pause, resume};

use super::*;
use crate::providers::upstream::connections::IDLE_MAX;
use crate::providers::upstream::http1::STALE_WITHIN;

const ANSWER: &str = "data: one\n\n";

/// Answers every request on every connection with the whole of `answer`.
fn serve(server: Server, answer: String) {
    actix_rt::spawn(async move {
        loop {
            let (mut socket, _) = server.listener.accept().await.unwrap();
            let answer = answer.clone();
            actix_rt::spawn(async move {
                let mut bytes = [0; 4096];
                while socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
}

#[actix_rt::test]
async fn ten_calls_use_one_connection_if_recycled_and_ten_if_not() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    serve(server, streamed(&[ANSWER]) + TERMINATOR);

    for call_number in 0..10 {
        let mut opened = open(&transport).await.unwrap();
        assert_eq!(next(&mut opened.body).await, ANSWER);
        assert_eq!(opened.connect_ms == 0, call_number > 0, "call {call_number}: {} ms", opened.connect_ms);
        assert_eq!(transport.status(), Status { http: "1.1", warm: 0 });
        transport.recycle(opened.body);
        warm(&transport, 1).await;
    }
    assert_eq!(transport.connections_opened(), 1);

    for _ in 0..10 {
        let mut opened = open(&transport).await.unwrap();
        assert_eq!(next(&mut opened.body).await, ANSWER);
        drop(opened);
        assert_eq!(transport.status().warm, 0);
    }
    assert_eq!(transport.connections_opened(), 10, "the first of these used the one that was left");
}

#[actix_rt::test]
async fn a_body_that_ends_a_little_later_is_recycled_too() {
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, _folder) = transport_to(&server);
        let (mut opened, mut peer) = answered(&server, &transport, &streamed(&[ANSWER])).await;
        assert_eq!(next(&mut opened.body).await, ANSWER);

        transport.recycle(opened.body);
        assert_eq!(transport.status().warm, 0);
        peer.send(TERMINATOR).await;

        warm(&transport, 1).await;
        let (opened, ()) = tokio::join!(open(&transport), async {
            peer.request().await;
            peer.send(&streamed(&[])).await;
        });
        assert_eq!(opened.unwrap().connect_ms, 0);
        assert_eq!(transport.connections_opened(), 1);
    }
}

#[actix_rt::test]
async fn a_recycled_body_that_goes_on_is_closed_by_time_and_by_size() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let began = Instant::now();
    let (opened, mut silent) = answered(&server, &transport, &streamed(&[ANSWER])).await;
    transport.recycle(opened.body);
    silent.is_closed().await;
    assert!(began.elapsed() >= Duration::from_millis(250));

    let read = Rc::new(Cell::new(0));
    let body = stream::repeat(Bytes::from_static(&[0; 16 * 1024])).take(100).map(Ok);
    let counter = Rc::clone(&read);
    transport.recycle(Box::pin(body.inspect(move |_| counter.set(counter.get() + 1))));
    assert_eq!(read.get(), 5, "64 KiB, and what goes beyond");
}

#[actix_rt::test]
async fn a_call_that_is_dropped_at_any_point_closes_its_connection_at_once() {
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, _folder) = transport_to(&server);

        // Before the head.
        let mut opening = transport.open(call());
        let (mut peer, _) = tokio::select! {
            asked = server.asked() => asked,
            _ = &mut opening => panic!("no answer was given"),
        };
        drop(opening);
        peer.is_closed().await;

        // Silent after the head.
        let (opened, mut peer) = answered(&server, &transport, &streamed(&[])).await;
        drop(opened);
        peer.is_closed().await;

        // In the middle.
        let (mut opened, mut peer) = answered(&server, &transport, &streamed(&[ANSWER, "data: more"])).await;
        assert_eq!(next(&mut opened.body).await, ANSWER);
        drop(opened);
        peer.is_closed().await;
        assert_eq!(transport.status().warm, 0);
    }
}

#[actix_rt::test]
async fn a_call_that_is_dropped_in_the_handshake_closes_its_connection_at_once() {
    let server = Server::tls().await;
    let (transport, _folder) = transport_to(&server);

    let mut opening = transport.open(call());
    let (mut socket, _) = tokio::select! {
        accepted = server.listener.accept() => accepted.unwrap(),
        _ = &mut opening => panic!("no handshake was made"),
    };
    let mut hello = [0; 5];
    tokio::select! {
        read = socket.read_exact(&mut hello) => assert!(read.is_ok()),
        _ = &mut opening => panic!("no handshake was made"),
    }
    drop(opening);

    Peer(Box::new(socket)).is_closed().await;
}

#[actix_rt::test]
async fn an_idle_connection_that_the_provider_closes_does_not_count_and_does_not_fail_the_next_call() {
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, _folder) = transport_to(&server);
        let (opened, peer) = answered(&server, &transport, &(streamed(&[ANSWER]) + TERMINATOR)).await;
        transport.recycle(opened.body);
        warm(&transport, 1).await;

        drop(peer);

        warm(&transport, 0).await;
        let (opened, _peer) = answered(&server, &transport, &streamed(&[])).await;
        assert!(opened.connect_ms > 0);
    }
}

#[actix_rt::test]
async fn an_idle_connection_on_which_something_comes_unasked_is_not_used() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let (opened, mut peer) = answered(&server, &transport, &(streamed(&[ANSWER]) + TERMINATOR)).await;
    transport.recycle(opened.body);
    warm(&transport, 1).await;

    peer.send(&streamed(&["data: forged\n\n"])).await;

    warm(&transport, 0).await;
    peer.is_closed().await;
}

/// A transport with one idle connection, and the server's end of it.
async fn one_idle(server: &Server) -> (Http1, Peer, tempfile::TempDir) {
    let (transport, folder) = transport_to(server);
    let (opened, peer) = answered(server, &transport, &(streamed(&[ANSWER]) + TERMINATOR)).await;
    transport.recycle(opened.body);
    warm(&transport, 1).await;
    (transport, peer, folder)
}

#[actix_rt::test]
async fn an_idle_connection_is_closed_when_it_has_waited_too_long() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;

    pause();
    advance(IDLE_MAX - Duration::from_secs(1)).await;
    assert_eq!(transport.status().warm, 1);
    advance(Duration::from_secs(1)).await;
    assert_eq!(transport.status().warm, 0);
    resume();

    peer.is_closed().await;
}

#[actix_rt::test]
async fn a_call_that_is_sent_again_does_not_trust_the_other_idle_connections() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let answer = streamed(&[ANSWER]) + TERMINATOR;
    let (one, mut peer) = answered(&server, &transport, &answer).await;
    let (other, mut other_peer) = answered(&server, &transport, &answer).await;
    transport.recycle(one.body);
    transport.recycle(other.body);
    warm(&transport, 2).await;

    let (opened, _peer) = tokio::join!(open(&transport), async {
        // The one that has waited longest is taken.
        peer.request().await;
        drop(peer);
        server.answer(&streamed(&[])).await
    });

    assert!(opened.unwrap().connect_ms > 0);
    other_peer.is_closed().await;
}

/// A request's lines; awc writes the headers in any order.
fn sorted(request: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = request.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines.sort_unstable();
    lines
}

#[actix_rt::test]
async fn a_call_that_crosses_with_the_close_of_its_connection_is_sent_again_on_a_new_one() {
    for server in [Server::plain().await, Server::tls().await] {
        let (transport, mut peer, _folder) = one_idle(&server).await;

        let (opened, (first, second, _peer)) = tokio::join!(open(&transport), async {
            let first = peer.request().await;
            drop(peer);
            let (mut peer, second) = server.asked().await;
            peer.send(&streamed(&[])).await;
            (first, second, peer)
        });

        assert!(opened.unwrap().connect_ms > 0);
        assert_eq!(sorted(&first), sorted(&second));
    }
}

#[actix_rt::test]
async fn a_call_is_sent_again_only_once() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;

    let (opened, ()) = tokio::join!(open(&transport), async {
        peer.request().await;
        drop(peer);
        drop(server.asked().await);
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    server.nobody_waits().await;
}

#[actix_rt::test]
async fn a_call_that_is_lost_on_its_own_connection_is_not_sent_again() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);

    let (opened, ()) = tokio::join!(open(&transport), async { drop(server.asked().await) });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    server.nobody_waits().await;
}

#[actix_rt::test]
async fn a_call_of_whose_answer_a_byte_has_come_is_not_sent_again() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;

    let (opened, ()) = tokio::join!(open(&transport), async {
        peer.request().await;
        peer.send("H").await;
        drop(peer);
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    server.nobody_waits().await;
}

#[actix_rt::test]
async fn a_call_that_was_perhaps_worked_on_is_not_sent_again() {
    let server = Server::plain().await;
    let (transport, mut peer, _folder) = one_idle(&server).await;

    let (opened, ()) = tokio::join!(open(&transport), async {
        peer.request().await;
        pause();
        advance(STALE_WITHIN).await;
        resume();
        drop(peer);
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    server.nobody_waits().await;
}

#[actix_rt::test]
async fn concurrent_calls_have_a_connection_each_and_none_waits_for_another() {
    let server = Server::plain().await;
    let (transport, _folder) = transport_to(&server);
    let calls: Vec<_> = (0..150).map(|_| transport.open(call())).collect();
    let calls = futures_util::future::join_all(calls);

    let (opened, peers) = tokio::join!(calls, async {
        let mut peers = Vec::new();
        for _ in 0..150 {
            peers.push(server.asked().await.0);
        }
        for peer in &mut peers {
            peer.send(&streamed(&[])).await;
        }
        peers
    });

    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(transport.connections_opened(), 150);
    drop(opened);
    for mut peer in peers {
        peer.is_closed().await;
    }
    assert!(transport.open(call()).now_or_never().is_none());
}
