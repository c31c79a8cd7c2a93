//! Connections that die while nobody looks.

use tokio::time::{advance, pause, resume};

use super::*;

const SHORT: Duration = Duration::from_millis(100);
/// Asks when a call has met a silence of any length, and soon loses patience.
const PROBES: Pings = Pings { interval: HOUR, probe_after: Duration::ZERO, suspect_after: SHORT, dead_after: HOUR };
/// Asks an idle connection often.
const ASKS: Pings = Pings { interval: SHORT, probe_after: HOUR, suspect_after: SHORT, dead_after: HOUR };

#[actix_rt::test]
async fn an_idle_connection_that_the_server_ends_does_not_fail_the_next_call() {
    for end in [Link::fin, Link::reset] {
        for mut host in [Host::plain(100).await, Host::tls(100).await] {
            let transport = host.transport();
            host.whole_call(&transport).await;
            ready(&transport, 1).await;

            end(&host.link(0));

            ready(&transport, 0).await;
            host.whole_call(&transport).await;
            assert_eq!(transport.connections_opened(), 2);
        }
    }
}

#[actix_rt::test]
async fn a_call_that_crosses_with_the_end_of_its_idle_connection_is_sent_again_on_a_new_one() {
    for mut host in [Host::plain(100).await, Host::tls(100).await] {
        let transport = host.transport();
        host.whole_call(&transport).await;
        host.link(0).order(Order::Freeze);

        let (opened, (link, mut answer)) = tokio::join!(open_by(&transport), async {
            host.link(0).has_unread().await;
            host.link(0).reset();
            host.answered().await
        });

        assert_eq!(link, 1);
        answer.send_data("whole".into(), true).unwrap();
        assert_eq!(rest(opened.unwrap().body).await, Ok("whole".to_owned()));
    }
}

#[actix_rt::test]
async fn a_call_that_is_lost_on_its_own_new_connection_is_not_sent_again() {
    let server = Server::plain().await;
    let mut provider = provider(server.base_url());
    provider.http = Http::Http2;
    let transport = Http2::with(&provider, &SSE, false, NO_PINGS).unwrap();

    let (opened, ()) = tokio::join!(open_by(&transport), async {
        let mut peer = server.accept().await;
        // The greeting is 24 bytes; then come settings and the call.
        peer.0.read_exact(&mut [0; 100]).await.unwrap();
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    server.nobody_waits().await;
}

#[actix_rt::test]
async fn a_call_that_may_have_been_worked_on_is_not_sent_again() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let (_other, _answer) = host.call(&transport).await;

    // Its connection was in use, and so not idle.
    let (opened, _asked) = tokio::join!(open_by(&transport), async {
        let asked = host.asked().await;
        host.link(0).reset();
        asked
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    assert!(host.asked.try_recv().is_err());
}

#[actix_rt::test]
async fn a_call_that_meets_a_connection_that_died_in_silence_is_sent_again_on_a_new_one() {
    for mut host in [Host::plain(100).await, Host::tls(100).await] {
        let transport = host.transport_with(PROBES, 100);
        host.whole_call(&transport).await;
        host.link(0).order(Order::Freeze);

        let (opened, (link, mut answer)) = tokio::join!(open_by(&transport), host.answered());

        assert_eq!(link, 1);
        answer.send_data("whole".into(), true).unwrap();
        let opened = opened.unwrap();
        assert!(opened.connect_ms > 0);
        assert_eq!(rest(opened.body).await, Ok("whole".to_owned()));
        ready(&transport, 1).await;
    }
}

#[actix_rt::test]
async fn a_server_that_is_slow_to_answer_but_alive_is_not_suspected() {
    let mut host = Host::plain(100).await;
    let transport = host.transport_with(PROBES, 100);
    host.whole_call(&transport).await;

    let (opened, mut answer) = tokio::join!(open_by(&transport), async {
        let asked = host.asked().await;
        // Much longer than a sign of life may take.
        assert!(timeout(SHORT * 4, host.asked.recv()).await.is_err(), "the call was sent again");
        asked.begin()
    });

    answer.send_data("slow".into(), true).unwrap();
    assert_eq!(rest(opened.unwrap().body).await, Ok("slow".to_owned()));
    assert_eq!(transport.connections_opened(), 1);
}

#[actix_rt::test]
async fn a_thread_that_was_held_up_does_not_take_that_for_silence_of_the_server() {
    let mut host = Host::plain(100).await;
    let patience = Duration::from_secs(1);
    let transport = host.transport_with(Pings { suspect_after: patience, ..PROBES }, 100);
    host.whole_call(&transport).await;
    host.link(0).order(Order::Freeze);

    let (opened, (link, _answer)) = tokio::join!(open_by(&transport), async {
        host.link(0).has_unread().await;
        pause();
        advance(patience * 3).await;
        resume();
        host.link(0).order(Order::Thaw);
        host.answered().await
    });

    assert!(opened.is_ok());
    assert_eq!((link, transport.connections_opened()), (0, 1));
}

#[actix_rt::test]
async fn an_idle_connection_that_died_in_silence_is_found_without_a_call() {
    let mut host = Host::plain(100).await;
    let transport = host.transport_with(ASKS, 100);
    host.whole_call(&transport).await;
    host.link(0).order(Order::Freeze);

    ready(&transport, 0).await;

    host.whole_call(&transport).await;
    assert_eq!(transport.connections_opened(), 2);
}

#[actix_rt::test]
async fn an_idle_connection_that_gives_signs_of_life_stays() {
    let mut host = Host::plain(100).await;
    let transport = host.transport_with(ASKS, 100);
    host.whole_call(&transport).await;

    // Several questions long.
    assert!(timeout(SHORT * 6, host.asked.recv()).await.is_err());

    assert_eq!(transport.status().warm, 1);
    host.whole_call(&transport).await;
    assert_eq!(transport.connections_opened(), 1);
}

#[actix_rt::test]
async fn a_silent_connection_gets_no_calls_and_its_answers_go_on_when_it_speaks_again() {
    let mut host = Host::plain(100).await;
    let transport = host.transport_with(ASKS, 100);
    let (mut opened, mut answer) = host.call(&transport).await;
    send(&mut answer, "one");
    assert_eq!(next(&mut opened.body).await, "one");
    host.link(0).order(Order::Freeze);
    ready(&transport, 0).await;
    host.whole_call(&transport).await;

    host.link(0).order(Order::Thaw);
    answer.send_data("two".into(), true).unwrap();

    assert_eq!(rest(opened.body).await, Ok("two".to_owned()));
    ready(&transport, 2).await;
}

#[actix_rt::test]
async fn an_answer_on_a_connection_that_stays_silent_is_lost_in_the_end() {
    let mut host = Host::plain(100).await;
    let transport = host.transport_with(Pings { dead_after: SHORT * 2, ..ASKS }, 100);
    let (opened, _answer) = host.call(&transport).await;

    host.link(0).order(Order::Freeze);

    assert_eq!(rest(opened.body).await, Err(TransportError::Lost));
}
