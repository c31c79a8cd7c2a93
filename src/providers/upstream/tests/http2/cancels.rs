//! Calls that nobody wants any more.

use super::*;

#[actix_rt::test]
async fn a_call_that_is_dropped_at_any_point_is_reset_at_once_and_its_connection_stays() {
    for mut host in [Host::plain(100).await, Host::tls(100).await] {
        let transport = host.transport();

        // Before the head.
        let mut opening = transport.open(call());
        let asked = tokio::select! {
            asked = host.asked() => asked,
            _ = &mut opening => panic!("no answer was given"),
        };
        drop(opening);
        let mut answer = asked.begin();
        assert_eq!(reset_of(&mut answer).await, Reason::CANCEL);

        // Silent after the head.
        let (opened, mut answer) = host.call(&transport).await;
        drop(opened);
        assert_eq!(reset_of(&mut answer).await, Reason::CANCEL);

        // In the middle.
        let (mut opened, mut answer) = host.call(&transport).await;
        send(&mut answer, "data: one\n\n");
        assert_eq!(next(&mut opened.body).await, "data: one\n\n");
        send(&mut answer, "data: two\n\n");
        drop(opened);
        assert_eq!(reset_of(&mut answer).await, Reason::CANCEL);

        ready(&transport, 1).await;
        assert_eq!(transport.connections_opened(), 1);
    }
}

#[actix_rt::test]
async fn a_call_that_is_dropped_while_it_waits_for_a_connection_leaves_it_to_the_next() {
    let server = Server::plain().await;
    let (base_url, listener) = (server.base_url(), server.listener);
    let mut provider = provider(base_url);
    provider.pace.concurrency = 10;
    let transport = Http2::with(&provider, &SSE, false, NO_PINGS).unwrap();
    let mut opening = transport.open(call());
    assert!(futures_util::poll!(&mut opening).is_pending());
    drop(opening);

    let server = Server { listener, tls: None, certificate: String::new() };
    let mut host = Host::on(server, 100);
    host.whole_call(&transport).await;

    assert_eq!(transport.connections_opened(), 1);
}

#[actix_rt::test]
async fn a_body_whose_end_is_still_to_come_is_recycled_without_a_reset() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let (mut opened, mut answer) = host.call(&transport).await;
    send(&mut answer, "data: [DONE]\n\n");
    assert_eq!(next(&mut opened.body).await, "data: [DONE]\n\n");

    transport.recycle(opened.body);
    answer.send_data(Bytes::new(), true).unwrap();
    let (other, mut other_answer) = host.call(&transport).await;
    other_answer.send_data(Bytes::new(), true).unwrap();
    assert_eq!(rest(other.body).await, Ok(String::new()));

    let end = std::future::poll_fn(|cx| answer.poll_reset(cx));
    assert!(futures_util::FutureExt::now_or_never(end).is_none_or(|reset| reset.is_err()), "no reset has come");
}

/// A DATA frame.
fn data(stream: u32, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[0, 0, length, 0, 0], stream.to_be_bytes().as_slice(), text.as_bytes()].concat()
}

/// Writes lines to an answer until it is told to end it. Tells how many it was.
async fn write_until(ended: tokio::sync::oneshot::Receiver<()>, mut answer: SendStream<Bytes>) -> usize {
    let mut written = 0;
    tokio::pin!(ended);
    while futures_util::poll!(&mut ended).is_pending() {
        send(&mut answer, &format!("{written}\n"));
        written += 1;
        tokio::task::yield_now().await;
    }
    answer.send_data("end".into(), true).unwrap();
    written
}

/// What ends other clients' connections: resets for which data is still under way. Here it crosses with each of them.
#[actix_rt::test]
async fn fifteen_hundred_cancels_in_bursts_with_data_under_way_do_not_touch_another_answer() {
    const BURSTS: usize = 30;
    const BURST: usize = 50;
    let mut host = Host::plain(200).await;
    let transport = host.transport();
    let (long, long_answer) = host.call(&transport).await;
    let (end, ended) = tokio::sync::oneshot::channel();
    let writing = actix_rt::spawn(write_until(ended, long_answer));
    let reading = actix_rt::spawn(long.body.collect::<Vec<_>>());

    for _ in 0..BURSTS {
        let (mut bodies, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..BURST {
            let (mut opened, mut answer) = host.call(&transport).await;
            send(&mut answer, "data: first\n\n");
            assert_eq!(next(&mut opened.body).await, "data: first\n\n");
            bodies.push(opened.body);
            answers.push(answer);
        }
        for answer in &mut answers {
            (0..100).for_each(|_| send(answer, "data: more\n\n"));
        }
        tokio::task::yield_now().await;
        host.link(0).order(Order::Freeze);
        tokio::task::yield_now().await;
        drop(bodies);
        host.link(0).has_unread().await;
        for answer in &answers {
            let frame = data(answer.stream_id().as_u32(), "data: late\n\n");
            host.link(0).inject(&frame.repeat(4));
        }
        host.link(0).order(Order::Thaw);
        for answer in &mut answers {
            assert_eq!(reset_of(answer).await, Reason::CANCEL);
        }
    }
    end.send(()).unwrap();

    let written = timeout(HANG, writing).await.unwrap().unwrap();
    let chunks = timeout(HANG, reading).await.expect("the long answer ends").unwrap();
    let text: Vec<Bytes> = chunks.into_iter().map(|chunk| chunk.expect("it is not cut")).collect();
    let expected: String = (0..written).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(text.concat()).unwrap(), expected + "end");
    assert!(written > BURSTS);
    assert_eq!(transport.connections_opened(), 1);
}

#[actix_rt::test]
async fn a_connection_on_which_very_many_were_cancelled_gets_no_more_and_ends_with_its_last_answer() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let (long, mut long_answer) = host.call(&transport).await;

    let mut cancels = 0;
    while transport.connections_opened() == 1 {
        let (opened, _answer) = host.call(&transport).await;
        drop(opened);
        cancels += 1;
        assert!(cancels <= 5_000, "a connection is used for ever");
    }

    assert!(cancels > 1_000, "{cancels}");
    long_answer.send_data("whole".into(), true).unwrap();
    assert_eq!(rest(long.body).await, Ok("whole".to_owned()));
}
