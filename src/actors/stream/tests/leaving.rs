//! What becomes of answers that nobody listens to.

use super::support::{Plan, in_a_world};
use super::*;

fn house(on_disconnect: OnDisconnect) -> House {
    let house = House::build(Plan { on_disconnect, ..Plan::default() });
    house.provider.plays([Script::says(&["a", "b", "c", "d"], 1_000)]);
    house
}

#[actix::test]
async fn a_thread_s_answer_goes_on_without_listeners() {
    let house = house(OnDisconnect::Continue);
    let thread = house.thread().await;
    let listener = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
    sleep(millis(1_500)).await;

    drop(listener);

    house.is_quiet().await;
    assert_eq!(house.answers(&thread).await, [("complete", "abcd".to_owned())]);
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_without_a_thread_is_cancelled_at_once_when_its_listener_goes() {
    let house = house(OnDisconnect::Continue);
    let listener = house.ask(&Ask::new("hi")).await.unwrap();
    sleep(millis(1_500)).await;
    let left = Instant::now();

    drop(listener);
    while house.provider.live() > 0 {
        tokio::task::yield_now().await;
    }

    assert_eq!(left.elapsed(), Duration::ZERO);
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_without_a_thread_goes_on_while_others_share_it() {
    let house = house(OnDisconnect::Continue);
    let (goes, stays) = (house.ask(&Ask::new("hi")).await.unwrap(), house.ask(&Ask::new("hi")).await.unwrap());
    sleep(millis(1_500)).await;

    drop(goes);

    assert_eq!(stays.heard().await.text, "abcd");
    house.forgets_everything().await;
}

#[test]
fn a_client_that_goes_before_it_is_answered_leaves_nothing_behind() {
    for has_thread in [false, true] {
        in_a_world(async {
            let house = house(OnDisconnect::CancelAfter(millis(500)));
            let thread = house.thread().await;
            let ask = if has_thread { Ask::within(&thread, "hi") } else { Ask::new("hi") };

            drop(house.ask_once(&ask).await);

            house.is_quiet().await;
            assert!(house.provider.called() <= 1);
            assert_eq!(house.report()["window"]["count"], 1);
            house.all_is_settled(&[&thread], &[&ask]).await;
            house.forgets_everything().await;
        });
    }
}

#[actix::test]
async fn cancel_on_disconnect_waits_for_somebody_to_come_back() {
    let house = house(OnDisconnect::CancelAfter(millis(1_000)));
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    drop(house.ask(&ask).await.unwrap());
    sleep(millis(900)).await;

    let back = house.ask(&ask).await.unwrap();

    assert_eq!(back.heard().await.text, "abcd");
    house.forgets_everything().await;
}

#[actix::test]
async fn cancel_on_disconnect_ends_what_nobody_comes_back_for() {
    let house = house(OnDisconnect::CancelAfter(millis(1_000)));
    let thread = house.thread().await;
    let listener = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
    sleep(millis(1_500)).await;

    drop(listener);
    sleep(millis(1_100)).await;

    assert_eq!(house.provider.live(), 0);
    assert_eq!(house.answers(&thread).await, [("cancelled", "ab".to_owned())]);
    assert_eq!(house.report()["cancel_ms"]["max"], Value::Null, "nobody has pressed anything");
    house.forgets_everything().await;
}

#[actix::test]
async fn the_grace_begins_anew_with_each_departure() {
    let house = house(OnDisconnect::CancelAfter(millis(1_000)));
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    drop(house.ask(&ask).await.unwrap());
    sleep(millis(800)).await;
    drop(house.ask(&ask).await.unwrap());
    sleep(millis(800)).await;
    assert_eq!(house.provider.live(), 1, "1.6 s after the first one left, 0.8 s after the second");

    sleep(millis(300)).await;

    assert_eq!(house.provider.live(), 0);
    house.forgets_everything().await;
}

#[actix::test]
async fn listeners_of_a_silent_answer_are_woken_now_and_then_and_not_more_often() {
    let house = house(OnDisconnect::Continue);
    house.provider.scripts.borrow_mut().clear();
    house.provider.plays([Script::new([Step::Wait(10_000), Step::End])]);
    let listener = house.ask(&Ask::new("hi")).await.unwrap();
    let log = listener.attachment.as_ref().unwrap().subscription().log.clone();
    let woken = Rc::new(std::cell::RefCell::new(Vec::new()));
    let began = Instant::now();
    let (mut cursor, noted) = (crate::fanout::Cursor::new(log, 0), woken.clone());
    let reader = tokio::task::spawn_local(std::future::poll_fn(move |cx| {
        if cursor.next(u64::MAX, cx.waker()) == crate::fanout::Next::Nothing {
            noted.borrow_mut().push(began.elapsed().as_millis());
            cursor.log().nudge_at(Instant::now() + millis(1_500));
        }
        std::task::Poll::<()>::Pending
    }));

    sleep(millis(9_000)).await;

    reader.abort();
    let woken = woken.take();
    let pauses: Vec<_> = woken.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((4..=7).contains(&woken.len()), "{woken:?}");
    assert!(pauses.iter().all(|pause| (1_500..=2_010).contains(pause)), "{woken:?}");
    listener.heard().await;
}
