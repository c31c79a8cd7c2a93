//! How many connections carry how many calls.

use futures_util::future::join_all;

use super::*;

/// Makes `count` calls at once, and begins to answer them when all have come. Returns how many each connection carries.
async fn calls_at_once(
    host: &mut Host,
    transport: &Http2,
    count: usize,
) -> (Vec<Opened>, Vec<SendStream<Bytes>>, Vec<usize>) {
    let calls = join_all((0..count).map(|_| open_by(transport)));
    let (opened, (answers, links)) = tokio::join!(calls, async {
        let mut asked = Vec::new();
        for _ in 0..count {
            asked.push(host.asked().await);
        }
        let mut links = vec![0; host.connections()];
        asked.iter().for_each(|asked| links[asked.link] += 1);
        (asked.into_iter().map(Asked::begin).collect(), links)
    });
    (opened.into_iter().map(Result::unwrap).collect(), answers, links)
}

#[actix_rt::test]
async fn calls_at_once_share_as_few_connections_as_the_server_allows() {
    for (streams_max, count, connections) in [(100, 50, 1), (50, 200, 4), (10, 40, 4), (128, 200, 2), (1, 5, 5)] {
        let mut host = Host::tls(streams_max).await;
        let transport = host.transport();

        let (opened, answers, links) = calls_at_once(&mut host, &transport, count).await;

        assert_eq!(transport.connections_opened(), connections, "{count} calls, {streams_max} streams: {links:?}");
        assert!(links.iter().all(|calls| *calls <= streams_max as usize), "{links:?}");
        for mut answer in answers {
            answer.send_data("whole".into(), true).unwrap();
        }
        for opened in opened {
            assert_eq!(rest(opened.body).await, Ok("whole".to_owned()));
        }
    }
}

#[actix_rt::test]
async fn there_are_never_more_connections_than_calls_at_once_and_who_finds_no_place_waits_for_one() {
    let mut host = Host::plain(3).await;
    let transport = host.transport_with(NO_PINGS, 2);
    let (mut opened, mut answers, links) = calls_at_once(&mut host, &transport, 6).await;
    assert_eq!(links, [3, 3]);

    let seventh = open_by(&transport);
    let (seventh, ()) = tokio::join!(seventh, async {
        assert!(timeout(Duration::from_millis(20), host.asked()).await.is_err(), "there is no place for it");
        drop(opened.pop());
        answers.push(host.answered().await.1);
    });

    assert!(seventh.is_ok());
    assert_eq!(transport.connections_opened(), 2);
}

#[actix_rt::test]
async fn who_finds_no_place_within_the_connect_timeout_is_told() {
    let mut host = Host::plain(1).await;
    let (mut provider, _folder) = host.provider(1);
    provider.connect_timeout_ms = 100;
    let transport = Http2::with(&provider, &SSE, false, NO_PINGS).unwrap();
    let (_opened, _answer) = host.call(&transport).await;

    let error = open_by(&transport).await.map(|_| ());

    assert_eq!(error, Err(TransportError::ConnectTimeout(Duration::from_millis(100))));
}

#[actix_rt::test]
async fn a_call_goes_where_the_fewest_are() {
    let mut host = Host::plain(2).await;
    let transport = host.transport();
    let (mut opened, _answers, links) = calls_at_once(&mut host, &transport, 4).await;
    assert_eq!(links, [2, 2]);
    opened.clear();
    ready(&transport, 2).await;

    let (_opened, _answers, _) = calls_at_once(&mut host, &transport, 2).await;

    assert_eq!(transport.connections_opened(), 2);
    assert_eq!(transport.status().warm, 2, "each has one call, and room for another");
}

#[actix_rt::test]
async fn all_who_wait_for_a_connection_that_cannot_be_made_are_told_why() {
    let refused = Server::plain().await;
    let mut provider = provider(refused.base_url());
    drop(refused);
    provider.http = Http::Http2;
    let transport = Http2::new(&provider, &SSE).unwrap();

    let answers = join_all((0..20).map(|_| open_by(&transport))).await;

    for answer in answers {
        assert_eq!(answer.map(|_| ()), Err(TransportError::Connect));
    }
}

#[actix_rt::test]
async fn a_handshake_that_nobody_answers_ends_with_the_connect_timeout() {
    let server = Server::tls().await;
    let mut provider = provider(server.base_url());
    provider.connect_timeout_ms = 150;
    let transport = Http2::new(&provider, &SSE).unwrap();

    let error = open_by(&transport).await.map(|_| ());

    assert_eq!(error, Err(TransportError::ConnectTimeout(Duration::from_millis(150))));
}

#[actix_rt::test]
async fn a_thousand_calls_need_one_handshake_by_http2_and_one_each_at_a_time_by_http1() {
    let host = Host::tls(100).await;
    let transport = host.transport();
    host.answer_all("data: [DONE]\n\n");
    for _ in 0..20 {
        for opened in join_all((0..50).map(|_| open_by(&transport))).await {
            let mut body = opened.unwrap().body;
            assert_eq!(next(&mut body).await, "data: [DONE]\n\n");
            transport.recycle(body);
        }
    }
    let by_http2 = transport.connections_opened();

    let server = Server::tls().await;
    let (transport, _folder) = transport_to(&server);
    actix_rt::spawn(async move {
        loop {
            let mut peer = server.accept().await;
            actix_rt::spawn(async move {
                let mut bytes = [0; 4096];
                while peer.0.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    peer.send(&(streamed(&["data: [DONE]\n\n"]) + TERMINATOR)).await;
                }
            });
        }
    });
    for _ in 0..20 {
        for opened in join_all((0..50).map(|_| open_by(&transport))).await {
            let mut body = opened.unwrap().body;
            assert_eq!(next(&mut body).await, "data: [DONE]\n\n");
            transport.recycle(body);
        }
    }
    let by_http1 = transport.connections_opened();

    println!("handshakes for 1,000 calls, 50 at once: {by_http2} by HTTP/2, {by_http1} by HTTP/1.1");
    assert_eq!(by_http2, 1);
    assert!((50..=60).contains(&by_http1), "{by_http1}");
}
