//! One request's view: its end, its first piece, its listeners.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::chat::{OrgId, ProviderName, RequestId, StreamId};
use crate::event::{Finish, FinishReason, Status};
use crate::store::CallRole;

fn subscription() -> Arc<Subscription> {
    let facts = SubscriptionFacts {
        request: RequestId::generate(OrgId::new("a")),
        stream: StreamId::generate(),
        role: CallRole::Leader,
        provider: ProviderName::new("p"),
        model: "m".into(),
        thread: None,
        user_message: None,
        answer: None,
        arrived: Instant::now(),
    };
    Arc::new(Subscription::new(facts, Arc::new(StreamLog::new(1, 1 << 20)), Audience::new(2)))
}

fn attach(subscription: &Arc<Subscription>) -> Attachment {
    Attachment::new(subscription.clone()).unwrap()
}

fn end(frame: &'static str) -> End {
    let finish = Finish { reason: FinishReason::Stop, native: None };
    let outcome =
        Outcome { status: Status::Complete, finish, failure: None, usage: None, partial: false, kept: Kept::Yes };
    End { frame: Bytes::from_static(frame.as_bytes()), last_seq: 0, outcome, latency_ms: 1, spans: Spans::default() }
}

#[test]
fn it_ends_once() {
    let subscription = subscription();

    subscription.finish(end("first"));
    subscription.finish(end("second"));

    assert_eq!(subscription.end().unwrap().frame, "first");
}

#[tokio::test]
async fn whoever_waits_for_the_end_is_woken_and_whoever_comes_later_need_not_wait() {
    let subscription = subscription();
    let waiting = tokio::spawn({
        let subscription = subscription.clone();
        async move { subscription.ended().await.latency_ms }
    });
    tokio::task::yield_now().await;

    subscription.finish(end(""));

    assert_eq!(waiting.await.unwrap(), 1);
    assert_eq!(subscription.ended().await.latency_ms, 1);
}

#[test]
fn the_hook_is_called_when_the_last_listener_has_gone_and_not_before() {
    let subscription = subscription();
    let (bell, waker) = Bell::new();
    subscription.on_unattended(move || waker.wake_by_ref());
    let (one, two) = (attach(&subscription), attach(&subscription));

    drop(one);
    assert_eq!((bell.rung(), subscription.bodies()), (0, 1));
    drop(two);

    assert_eq!((bell.rung(), subscription.bodies()), (1, 0));
    drop(attach(&subscription));
    assert_eq!(bell.rung(), 2, "each time anew");
}

#[test]
fn the_hook_is_not_called_after_the_end() {
    let subscription = subscription();
    let (bell, waker) = Bell::new();
    subscription.on_unattended(move || waker.wake_by_ref());
    let listener = attach(&subscription);
    subscription.finish(end(""));

    drop(listener);

    assert_eq!(bell.rung(), 0);
}

#[test]
fn a_subscription_knows_whether_anybody_has_ever_listened() {
    let subscription = subscription();
    assert!(!subscription.was_attended());

    drop(attach(&subscription));

    assert!(subscription.was_attended());
}

#[test]
fn a_listener_that_has_gone_leaves_no_waker_behind_and_the_others_are_still_woken() {
    let subscription = subscription();
    let (gone, gone_waker) = Bell::new();
    let (stays, stays_waker) = Bell::new();
    let staying = attach(&subscription);
    let going = attach(&subscription);
    going.wake_at_end(&gone_waker);
    staying.wake_at_end(&stays_waker);
    drop((going, gone_waker));
    assert_eq!(Arc::strong_count(&gone), 1);
    assert_eq!(stays.rung(), 0, "nobody is woken because another one has gone");

    subscription.finish(end(""));

    assert_eq!(stays.rung(), 1);
    staying.wake_at_end(&stays_waker);
    assert_eq!(Arc::strong_count(&stays), 2, "after the end no waker is kept");
}

#[tokio::test(start_paused = true)]
async fn the_first_piece_counts_once_from_the_arrival() {
    let subscription = subscription();
    assert_eq!(subscription.ttft_ms(), None);
    tokio::time::advance(Duration::from_millis(400)).await;

    let first = subscription.first_piece();
    tokio::time::advance(Duration::from_millis(400)).await;

    assert_eq!((first, subscription.first_piece(), subscription.ttft_ms()), (400, 400, Some(400)));
}

#[tokio::test(start_paused = true)]
async fn without_a_listener_the_first_piece_counts_when_it_came() {
    let subscription = subscription();
    tokio::time::advance(Duration::from_millis(250)).await;
    subscription.log.append(&delta("a"));
    tokio::time::advance(Duration::from_millis(250)).await;

    assert_eq!(subscription.ttft_ms(), Some(250));
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_a_request_has_ended_is_not_counted_for_it() {
    let subscription = subscription();
    subscription.log.reach(|timings| timings.granted = Some(Instant::now()));
    tokio::time::advance(Duration::from_millis(250)).await;
    let ended = Instant::now();
    tokio::time::advance(Duration::from_millis(250)).await;
    subscription.log.append(&delta("a"));
    subscription.first_piece();

    let (then, now) = (subscription.spans(ended), subscription.spans(Instant::now()));

    assert_eq!((then.queue_wait_ms, then.ttft_ms, then.connect_ms), (Some(0), None, None));
    assert_eq!(now, Spans { ttft_ms: Some(500), ..then });
}

#[tokio::test(start_paused = true)]
async fn what_was_over_before_the_request_came_took_no_time() {
    let before = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;

    assert_eq!(subscription().since_arrival_ms(Some(before)), Some(0));
}

#[test]
fn a_listener_beyond_the_places_is_refused_until_another_one_leaves() {
    let subscription = subscription();
    let (first, _second) = (attach(&subscription), attach(&subscription));
    assert_eq!(Attachment::new(subscription.clone()).err(), Some(Full));
    assert_eq!(subscription.bodies(), 2);

    drop(first);

    attach(&subscription);
}
