//! What is asked, and what comes back.

use futures_util::FutureExt;
use http::HeaderMap;

use super::*;

#[actix_rt::test]
async fn every_piece_arrives_alone_while_the_next_is_not_yet_written() {
    for mut host in [Host::plain(100).await, Host::tls(100).await] {
        let transport = host.transport();
        let (opened, mut answer) = host.call(&transport).await;
        let mut body = opened.body;

        for number in 0..20 {
            let data = format!("data: {number}\n\n");
            send(&mut answer, &data);

            assert_eq!(next(&mut body).await, data);
            assert!(body.next().now_or_never().is_none());
        }
        answer.send_data(Bytes::new(), true).unwrap();

        assert_eq!(timeout(HANG, body.next()).await, Ok(None));
        assert_eq!(body.next().await, None, "it stays at its end");
        assert_eq!(transport.status(), Status { http: "2", warm: 1 });
    }
}

#[actix_rt::test]
async fn a_call_is_sent_with_the_key_and_without_an_offer_to_compress() {
    let mut host = Host::tls(100).await;
    let transport = host.transport();

    let (opened, (parts, body)) = tokio::join!(open_by(&transport), async {
        let Asked { request, mut answer, .. } = host.asked().await;
        let (parts, mut body) = request.into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        answer.send_response(Response::new(()), true).unwrap();
        (parts, bytes)
    });

    assert_eq!(parts.method, "POST");
    assert_eq!(parts.uri, format!("{}/chat?stream=1", host.base_url).as_str());
    let mut headers: Vec<_> =
        parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    headers.sort_unstable();
    let expected = [
        "accept-encoding: identity".to_owned(),
        "accept: text/event-stream".to_owned(),
        format!("authorization: Bearer {KEY}"),
        "content-length: 15".to_owned(),
        "content-type: application/json".to_owned(),
        format!("user-agent: weir/{}", env!("CARGO_PKG_VERSION")),
        "x-dialect: one".to_owned(),
    ];
    assert_eq!(headers, expected);
    assert_eq!(body, br#"{"stream":true}"#);
    let opened = opened.unwrap();
    assert!(opened.connect_ms > 0);
    assert_eq!(rest(opened.body).await, Ok(String::new()));
}

#[actix_rt::test]
async fn the_head_is_passed_on_and_trailers_are_no_part_of_an_answer() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();

    let (opened, mut answer) = tokio::join!(open_by(&transport), async {
        let mut asked = host.asked().await;
        let head = Response::builder().status(429).header("Retry-After", "3").body(()).unwrap();
        asked.answer.send_response(head, false).unwrap()
    });

    let opened = opened.unwrap();
    assert_eq!(opened.head.status, 429);
    assert_eq!(opened.head.header("retry-after"), Some("3"));
    send(&mut answer, "no");
    answer.send_trailers(HeaderMap::from_iter([("x-cost".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    assert_eq!(rest(opened.body).await, Ok("no".to_owned()));
    ready(&transport, 1).await;
}

#[actix_rt::test]
async fn a_head_that_is_too_large_is_no_answer_and_hurts_no_other_call() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let (other, mut other_answer) = host.call(&transport).await;

    let (opened, _answer) = tokio::join!(open_by(&transport), async {
        let mut asked = host.asked().await;
        let mut head = Response::new(());
        for number in 0..20 {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            head.headers_mut().insert(name, "x".repeat(4096).parse().unwrap());
        }
        asked.answer.send_response(head, false).unwrap()
    });

    assert_eq!(opened.map(|_| ()), Err(TransportError::Protocol));
    other_answer.send_data("mine".into(), true).unwrap();
    assert_eq!(rest(other.body).await, Ok("mine".to_owned()));
}

#[actix_rt::test]
async fn what_is_larger_than_every_window_goes_through_in_both_directions() {
    let mut host = Host::tls(100).await;
    let transport = host.transport();
    let large = "x".repeat(12 * 1024 * 1024);
    let prompt = Call { body: large.as_bytes()[..3 * 1024 * 1024].to_vec(), ..call() };

    let (opened, mut answer) = tokio::join!(transport.open(prompt), async {
        let mut asked = host.asked().await;
        let mut read = 0;
        while let Some(chunk) = asked.request.body_mut().data().await {
            let bytes = chunk.unwrap().len();
            asked.request.body_mut().flow_control().release_capacity(bytes).unwrap();
            read += bytes;
        }
        assert_eq!(read, 3 * 1024 * 1024);
        asked.begin()
    });
    answer.send_data(large.clone().into(), true).unwrap();

    assert!(rest(opened.unwrap().body).await == Ok(large));
}

#[actix_rt::test]
async fn a_call_that_cannot_be_written_is_not_sent() {
    let mut host = Host::plain(100).await;
    let transport = host.transport();
    let bad_path = Call { path: "/chat two".to_owned(), ..call() };
    let bad_header = Call { headers: vec![("x-dialect", "one\r\ntwo: 2".to_owned())], ..call() };
    let bad_name = Call { headers: vec![("connection", "close".to_owned())], ..call() };

    for call in [bad_path, bad_header, bad_name] {
        assert_eq!(transport.open(call).await.map(|_| ()), Err(TransportError::Unsendable));
    }

    host.whole_call(&transport).await;
}

#[actix_rt::test]
async fn nothing_that_is_printed_shows_the_key() {
    let host = Host::plain(100).await;
    let shown = format!("{:?}", host.transport());

    assert!(shown.contains("localhost") && !shown.contains(KEY), "{shown}");
}
