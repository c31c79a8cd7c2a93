//! Answers that are cut, calls that are refused, servers that say goodbye.

use super::*;

/// A GOAWAY for everything after `last_stream_id`, without an error.
fn goaway(last_stream_id: u8) -> [u8; 17] {
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last_stream_id, 0, 0, 0, 0]
}

#[actix_rt::test]
async fn a_goodbye_lets_the_running_answer_end_and_new_calls_go_elsewhere() {
    for mut host in [Host::plain(100).await, Host::tls(100).await] {
        let transport = host.transport();
        let (long, mut long_answer) = host.call(&transport).await;
        send(&mut long_answer, "first ");

        host.link(0).order(Order::GoAway);
        for _ in 0..20 {
            host.whole_call(&transport).await;
        }
        // It may have served calls that crossed with its goodbye; after a round trip it serves none.
        ready(&transport, 1).await;
        host.whole_call(&transport).await;
        long_answer.send_data("last".into(), true).unwrap();

        assert_eq!(rest(long.body).await, Ok("first last".to_owned()));
        assert_eq!(transport.connections_opened(), 2);
        assert_eq!(transport.status().warm, 1);
    }
}

#[actix_rt::test]
async fn a_call_that_comes_too_late_for_a_goodbye_is_sent_on_another_connection() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let (long, mut long_answer) = host.call(&transport).await;
    host.link(0).order(Order::Freeze);

    let (late, (link, mut late_answer)) = tokio::join!(open_by(&transport), async {
        host.link(0).has_unread().await;
        host.link(0).inject(&goaway(1));
        host.answered().await
    });

    assert_eq!(link, 1);
    late_answer.send_data("late".into(), true).unwrap();
    assert_eq!(rest(late.unwrap().body).await, Ok("late".to_owned()));
    host.link(0).order(Order::Thaw);
    long_answer.send_data("long".into(), true).unwrap();
    assert_eq!(rest(long.body).await, Ok("long".to_owned()));
}

#[actix_rt::test]
async fn a_refused_call_is_sent_again_but_only_once() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let refuse = async |host: &mut Host| host.asked().await.answer.send_reset(Reason::REFUSED_STREAM);

    let (opened, (_, mut answer)) = tokio::join!(open_by(&transport), async {
        refuse(&mut host).await;
        host.answered().await
    });
    answer.send_data("whole".into(), true).unwrap();
    assert_eq!(rest(opened.unwrap().body).await, Ok("whole".to_owned()));

    let (opened, ()) = tokio::join!(open_by(&transport), async {
        refuse(&mut host).await;
        refuse(&mut host).await;
    });
    assert_eq!(opened.map(|_| ()), Err(TransportError::Lost));
    assert!(host.asked.try_recv().is_err());
}

#[actix_rt::test]
async fn a_call_that_is_reset_otherwise_may_have_been_worked_on_and_is_not_sent_again() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();

    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::NO_ERROR] {
        let reset = async { host.asked().await.answer.send_reset(reason) };
        let (opened, ()) = tokio::join!(open_by(&transport), reset);

        assert_eq!(opened.map(|_| ()), Err(TransportError::Lost), "{reason:?}");
        assert!(host.asked.try_recv().is_err());
    }
}

#[actix_rt::test]
async fn a_body_that_is_reset_is_an_error_and_no_end_whatever_the_reason() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let reasons = [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM];

    for reason in reasons {
        let (mut opened, mut answer) = host.call(&transport).await;
        send(&mut answer, "data: one\n\n");
        assert_eq!(next(&mut opened.body).await, "data: one\n\n");
        answer.send_reset(reason);

        assert_eq!(timeout(HANG, opened.body.next()).await, Ok(Some(Err(TransportError::Lost))), "{reason:?}");
        assert_eq!(opened.body.next().await, None);
    }
    assert_eq!(transport.connections_opened(), 1);
}

#[actix_rt::test]
async fn a_body_whose_connection_ends_is_an_error_and_no_end() {
    for end in [Link::fin, Link::reset] {
        for mut host in [Host::plain(100).await, Host::tls(100).await] {
            let transport = host.transport();
            let (mut opened, mut answer) = host.call(&transport).await;
            send(&mut answer, "data: one\n\n");
            assert_eq!(next(&mut opened.body).await, "data: one\n\n");

            end(&host.link(0));

            assert_eq!(rest(opened.body).await, Err(TransportError::Lost));
            host.whole_call(&transport).await;
        }
    }
}

#[actix_rt::test]
async fn an_answer_before_the_whole_call_was_taken_is_an_answer() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    // More than the server gives room for.
    let prompt = Call { body: vec![b' '; 1024 * 1024], ..call() };

    let (opened, ()) = tokio::join!(transport.open(prompt), async {
        let mut asked = host.asked().await;
        let head = Response::builder().status(413).body(()).unwrap();
        asked.answer.send_response(head, false).unwrap().send_data("too long".into(), true).unwrap();
    });

    let opened = opened.unwrap();
    assert_eq!(opened.head.status, 413);
    assert_eq!(rest(opened.body).await, Ok("too long".to_owned()));
    host.whole_call(&transport).await;
    assert_eq!(transport.connections_opened(), 1);
}

#[actix_rt::test]
async fn what_is_not_http2_is_no_answer() {
    let server = Server::plain().await;
    let mut provider = provider(server.base_url());
    provider.http = Http::Http2;
    let transport = Http2::new(&provider, &SSE).unwrap();

    let (opened, _peer) = tokio::join!(open_by(&transport), async {
        let mut peer = server.accept().await;
        peer.send("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        peer
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Protocol));
}
