//! Cancels and stops, in every phase of an answer and at every step between them.

use super::support::{Plan, in_a_world};
use super::*;
use crate::actors::coalescer::Whose;
use crate::actors::pacer;
use crate::chat::{OrgId, View};

const ABORTED: Cancellation = Cancellation::Withdrawn(Cancelled::Aborted);
const SHARED: Cancellation = Cancellation::Withdrawn(Cancelled::Shared);
const NOT_STARTED: Cancellation = Cancellation::Withdrawn(Cancelled::NotStarted);

async fn steps(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Cancels the only request of an answer at this time and looks at what is left.
async fn check(script: Script, at_ms: u64, expected: Cancellation, kept: &str) {
    let house = House::paused();
    house.provider.plays([script]);
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let listener = house.ask(&ask).await.unwrap();
    sleep(millis(at_ms)).await;

    assert_eq!(house.cancel(&ask.request).await, expected);
    steps(10).await;

    assert_eq!(house.provider.live(), 0, "the call is closed at once");
    let heard = listener.heard().await;
    assert_eq!((heard.status(), heard.text.as_str()), ("cancelled", kept));
    assert_eq!(heard.done["partial"].as_bool().unwrap_or(false), !kept.is_empty());
    assert_eq!(house.answers(&thread).await, [("cancelled", kept.to_owned())]);
    assert_eq!(house.stored(&ask.request).await.unwrap().status, Status::Cancelled);
    assert_eq!(house.cancel(&ask.request).await, Cancellation::Ended(Status::Cancelled), "once is enough");
    sleep(millis(60_000)).await;
    assert_eq!(house.provider.called(), 1, "nothing goes on behind its back");
    assert_eq!(house.report()["errors"]["total"], 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_cancel_before_the_head_closes_the_call() {
    check(Script { head_ms: 1_000, ..Script::new([]) }, 500, ABORTED, "").await;
}

#[actix::test]
async fn a_cancel_before_the_first_piece_closes_the_call() {
    check(Script::new([Step::Wait(1_000)]), 500, ABORTED, "").await;
}

#[actix::test]
async fn a_cancel_in_the_middle_keeps_the_text_so_far() {
    check(Script::says(&["a", "b", "c"], 400), 900, ABORTED, "ab").await;
}

#[actix::test]
async fn a_cancel_between_two_tries_ends_the_tries() {
    check(Script::status(503).retry_after_ms(5_000), 2_000, NOT_STARTED, "").await;
}

#[actix::test]
async fn a_cancel_in_the_queue_gives_the_place_back() {
    let slow = pacer::schedule::Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 10 };
    let house = House::build(Plan { pace: slow, ..Plan::default() });
    house.provider.plays([Script::says(&["a"], 10_000)]);
    let thread = house.thread().await;
    let running = house.ask(&Ask::new("other")).await.unwrap();
    let waiting = Ask::within(&thread, "hi");
    let listener = house.ask(&waiting).await.unwrap();
    sleep(millis(500)).await;

    assert_eq!(house.cancel(&waiting.request).await, NOT_STARTED);

    assert_eq!(listener.heard().await.status(), "cancelled");
    assert_eq!(house.pacer.send(pacer::Snapshot).await.unwrap().queued, 0);
    assert_eq!(running.heard().await.status(), "complete");
    assert_eq!(house.provider.called(), 1);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_cancel_after_the_end_tells_the_end() {
    let house = House::paused();
    let ask = Ask::new("hi");
    house.hear(&ask).await;

    assert_eq!(house.cancel(&ask.request).await, Cancellation::Ended(Status::Complete));
    house.forgets_everything().await;
}

#[actix::test]
async fn a_cancel_before_its_request_is_remembered_for_a_while() {
    let house = House::paused();
    let ask = Ask::new("hi");
    assert_eq!(house.cancel(&ask.request).await, Cancellation::Unknown);
    sleep(millis(9_000)).await;

    let heard = house.hear(&ask).await;

    assert_eq!((heard.status(), house.provider.called()), ("cancelled", 0));
    sleep(millis(2_000)).await;
    assert_eq!(house.hear(&ask).await.status(), "complete");
    house.forgets_everything().await;
}

/// Cancels so many steps after the terminator.
async fn check_after_the_terminator(count: usize) {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let listener = house.ask(&ask).await.unwrap();
    while house.provider.recycled.get() == 0 {
        sleep(millis(1)).await;
    }
    steps(count).await;

    let cancellation = house.cancel(&ask.request).await;

    let heard = listener.heard().await;
    let (expected, status) = (Cancellation::Ended(Status::Complete), "complete");
    assert_eq!((cancellation, heard.status()), (expected, status), "after {count} steps");
    house.all_is_settled(&[&thread], &[&ask]).await;
    house.forgets_everything().await;
}

#[test]
fn a_cancel_at_any_step_after_the_terminator_knows_its_request() {
    for count in 0..20 {
        in_a_world(check_after_the_terminator(count));
    }
}

/// Cancels `asks[which]` so many steps after they were all sent.
async fn check_at_step(count: usize, threads: usize, which: usize) {
    let house = House::paused();
    let (one, two) = (house.thread().await, house.thread().await);
    let of = |index: usize| if index < threads { [&one, &two][index] } else { &one };
    let asks: Vec<_> = (0..3).map(|index| Ask::within(of(index), "hi")).collect();
    let mut answers = Vec::new();
    for ask in &asks {
        let (reply, answer) = oneshot::channel();
        let join = house.join(ask, reply).await;
        drop(house.coalescer.try_send(join));
        answers.push(answer);
    }
    steps(count).await;

    let cancellation = house.cancel(&asks[which].request).await;

    assert!(!matches!(cancellation, Cancellation::Ended(_)), "{cancellation:?}");
    for (index, answer) in answers.into_iter().enumerate() {
        let heard = Listener::new(answer.await.unwrap().unwrap()).heard().await;
        let expected = if index == which { ("cancelled", "") } else { ("complete", "Hello world") };
        assert_eq!((heard.status(), heard.text.as_str()), expected, "after {count} steps, {index} of {threads}");
    }
    assert_eq!(house.provider.called(), 1);
    house.is_quiet().await;
    house.all_is_settled(&[&one, &two], &asks.iter().collect::<Vec<_>>()).await;
    house.forgets_everything().await;
}

#[test]
fn a_cancel_at_any_step_of_joining_ends_one_request_and_no_other() {
    for count in 0..25 {
        for threads in [1, 2] {
            for which in 0..3 {
                in_a_world(check_at_step(count, threads, which));
            }
        }
    }
}

/// Cancels a request that nobody shares so many steps after it was sent.
async fn check_alone_at_step(count: usize) {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let answer = house.ask_once(&ask).await;
    steps(count).await;

    let cancellation = house.cancel(&ask.request).await;

    assert!(matches!(cancellation, Cancellation::Withdrawn(_)), "{cancellation:?} after {count} steps");
    let heard = Listener::new(answer.await.unwrap().unwrap()).heard().await;
    assert_eq!(heard.status(), "cancelled");
    house.is_quiet().await;
    house.all_is_settled(&[&thread], &[&ask]).await;
    assert_eq!(house.hear(&Ask::within(&thread, "ho")).await.status(), "complete", "the thread is free");
    house.forgets_everything().await;
}

#[test]
fn a_cancel_of_the_only_request_at_any_step_leaves_nothing_running() {
    for count in 0..25 {
        in_a_world(check_alone_at_step(count));
    }
}

#[actix::test]
async fn the_leader_leaves_and_the_followers_hear_on() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b", "c", "d"], 100)]);
    let thread = house.thread().await;
    let (lead, follow) = (Ask::within(&thread, "hi"), Ask::within(&thread, "hi"));
    let (leader, follower) = (house.ask(&lead).await.unwrap(), house.ask(&follow).await.unwrap());
    sleep(millis(250)).await;

    assert_eq!(house.cancel(&lead.request).await, SHARED);

    let leader = leader.heard().await;
    assert_eq!((leader.status(), leader.text.as_str()), ("cancelled", "ab"));
    let found = house.find_turn(&thread).await.unwrap();
    assert_eq!(found.subscription().facts.request, follow.request, "who comes now finds somebody who is there");
    let (found, follower) = futures_util::join!(Listener::new(found).heard(), follower.heard());
    assert_eq!((follower.status(), follower.text.as_str()), ("complete", "abcd"));
    assert_eq!(found.frames, follower.frames);
    assert_eq!(house.answers(&thread).await, [("complete", "abcd".to_owned())]);
    assert_eq!(house.stored(&lead.request).await.unwrap().status, Status::Cancelled);
    assert_eq!(house.provider.called(), 1);
    house.forgets_everything().await;
}

#[actix::test]
async fn the_last_one_to_leave_closes_the_call() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b"], 1_000)]);
    let thread = house.thread().await;
    let asks = [Ask::within(&thread, "hi"), Ask::within(&thread, "hi"), Ask::new("hi")];
    for ask in &asks {
        house.ask(ask).await.unwrap().attachment.take();
    }
    sleep(millis(500)).await;

    let cancellations = [
        house.cancel(&asks[0].request).await,
        house.cancel(&asks[2].request).await,
        house.cancel(&asks[1].request).await,
    ];

    assert_eq!(cancellations, [SHARED, Cancellation::Ended(Status::Cancelled), ABORTED]);
    steps(10).await;
    assert_eq!(house.provider.live(), 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn one_of_two_threads_stops_and_the_other_one_hears_on() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b", "c", "d"], 100)]);
    let (stops, goes_on) = (house.thread().await, house.thread().await);
    let asks = [Ask::within(&stops, "hi"), Ask::within(&goes_on, "hi"), Ask::within(&stops, "hi")];
    let mut listeners = Vec::new();
    for ask in &asks {
        listeners.push(house.ask(ask).await.unwrap());
    }
    sleep(millis(250)).await;

    assert_eq!(house.stop(Whose::Thread(stops.clone()), Status::Cancelled).await, 1);

    let other = listeners.remove(1);
    for listener in listeners {
        let heard = listener.heard().await;
        assert_eq!((heard.status(), heard.text.as_str()), ("cancelled", "ab"));
    }
    assert_eq!(house.answers(&stops).await, [("cancelled", "ab".to_owned())], "settled when its clients read done");
    let next = house.hear(&Ask::within(&stops, "ho")).await;
    assert_eq!(next.status(), "complete", "its thread is free at once");
    assert_eq!(other.heard().await.text, "abcd");
    assert_eq!(house.answers(&goes_on).await, [("complete", "abcd".to_owned())]);
    house.forgets_everything().await;
}

#[actix::test]
async fn the_end_of_the_server_interrupts_everybody() {
    let house = House::paused();
    let plays = || Script::says(&["a", "b"], 1_000);
    house.provider.plays([plays(), plays()]);
    let thread = house.thread().await;
    let (one, two) = (house.ask(&Ask::within(&thread, "hi")).await.unwrap(), house.ask(&Ask::new("ho")).await.unwrap());
    sleep(millis(1_500)).await;

    assert_eq!(house.stop(Whose::Everybody, Status::Interrupted).await, 2);

    let (one, two) = (one.heard().await, two.heard().await);
    assert_eq!((one.status(), one.code(), one.text.as_str()), ("interrupted", "interrupted", "a"));
    assert_eq!(two.status(), "interrupted");
    assert_eq!(house.answers(&thread).await, [("interrupted", "a".to_owned())]);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_stream_that_an_operator_stops_ends_for_all_threads() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b"], 1_000)]);
    let (one, two) = (house.thread().await, house.thread().await);
    let first = house.ask(&Ask::within(&one, "hi")).await.unwrap();
    let second = house.ask(&Ask::within(&two, "hi")).await.unwrap();
    let stream = first.attachment.as_ref().unwrap().subscription().facts.stream.clone();

    let stop = |view| house.stop(Whose::Stream(view, stream.clone()), Status::Cancelled);
    assert_eq!(stop(View::Org(OrgId::new("other"))).await, 0, "it does not exist for others");
    assert_eq!(stop(View::Org(OrgId::new("org"))).await, 1);
    assert_eq!(stop(View::Everything).await, 0, "it is over");

    assert_eq!((first.heard().await.status(), second.heard().await.status()), ("cancelled", "cancelled"));
    assert_eq!(house.answers(&one).await, [("cancelled", String::new())]);
    assert_eq!(house.answers(&two).await, [("cancelled", String::new())]);
    house.forgets_everything().await;
}
