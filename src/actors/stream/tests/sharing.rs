//! One answer, many who hear it.

use super::*;
use crate::actors::pacer;
use crate::chat::{OrgId, Role};
use crate::store::CallRole;

async fn join_all(house: &House, asks: &[Ask]) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for ask in asks {
        listeners.push(house.ask(ask).await.unwrap());
    }
    listeners
}

async fn hear_all(listeners: Vec<Listener>) -> Vec<Heard> {
    futures_util::future::join_all(listeners.into_iter().map(Listener::heard)).await
}

#[actix::test]
async fn an_answer_is_heard_kept_and_counted() {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");

    let heard = house.hear(&ask).await;

    assert_eq!((heard.status(), heard.text.as_str(), heard.timings), ("complete", "Hello world", 1));
    assert_eq!(heard.done["finish_reason"], "stop");
    assert_eq!(heard.done["native_finish_reason"], "stop");
    let latency_ms = heard.done["latency_ms"].as_u64().unwrap();
    assert!((30..=36).contains(&latency_ms), "{latency_ms}");
    assert_eq!(house.answers(&thread).await, [("complete", "Hello world".to_owned())]);
    let stored = house.stored(&ask.request).await.unwrap();
    assert_eq!((stored.status, stored.role), (Status::Complete, CallRole::Leader));
    assert!((20..=24).contains(&stored.facts["ttft_ms"].as_u64().unwrap()), "{}", stored.facts);
    assert_eq!(house.report()["window"]["count"], 1);
    assert_eq!(house.provider.recycled.get(), 1, "the connection is used again");
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_costs_the_same_whoever_hears_its_end() {
    let house = House::paused();
    let (one, two) = (house.thread().await, house.thread().await);
    let cost = Step::Line(r#"{"usage":42}"#);
    house.provider.plays([Script::new([Step::Text("a".into()), Step::Wait(1_000), cost, Step::End])]);
    let asks = [Ask::within(&one, "hi"), Ask::within(&two, "hi")];
    let [leader, follower] = [house.ask(&asks[0]).await.unwrap(), house.ask(&asks[1]).await.unwrap()];
    sleep(millis(500)).await;

    house.cancel(&asks[0].request).await;

    assert_eq!((leader.heard().await.status(), follower.heard().await.status()), ("cancelled", "complete"));
    assert_eq!(house.tokens_spent(), 42);
    assert_eq!(house.report()["tokens"]["output"], 42);
    house.forgets_everything().await;
}

#[actix::test]
async fn an_answer_without_a_thread_is_heard_and_not_kept() {
    let house = House::paused();
    let ask = Ask::new("hi");

    let heard = house.hear(&ask).await;

    assert_eq!((heard.status(), heard.text.as_str()), ("complete", "Hello world"));
    assert_eq!(heard.done["message_id"], Value::Null);
    assert_eq!(house.stored(&ask.request).await, None);
    house.forgets_everything().await;
}

#[actix::test]
async fn fifty_identical_messages_are_one_call_one_turn_and_fifty_equal_streams() {
    let house = House::paused();
    let thread = house.thread().await;
    let asks: Vec<_> = (0..50).map(|_| Ask::within(&thread, "hi")).collect();

    let heard = hear_all(join_all(&house, &asks).await).await;

    assert_eq!(house.provider.called(), 1);
    assert!(heard.iter().all(|one| one.frames == heard[0].frames && one.status() == "complete" && one.timings == 1));
    assert_eq!(house.messages(&OrgId::new("org"), &thread).await.len(), 2);
    for ask in &asks {
        assert_eq!(house.stored(&ask.request).await.unwrap().status, Status::Complete);
    }
    let roles = support::tally(heard.iter().map(|one| one.done["message_id"].to_string()));
    assert_eq!(roles.len(), 1, "they share the turn's message");
    assert_eq!(house.report()["coalesce"], serde_json::json!({"leaders": 1, "followers": 49, "ratio": 49.0}));
    house.forgets_everything().await;
}

#[actix::test]
async fn identical_messages_of_two_threads_are_one_call_and_two_turns() {
    let house = House::paused();
    let (one, two) = (house.thread().await, house.thread().await);
    let asks = [Ask::within(&one, "hi"), Ask::within(&two, "hi"), Ask::within(&two, "hi"), Ask::new("hi")];

    let heard = hear_all(join_all(&house, &asks).await).await;

    assert_eq!(house.provider.called(), 1);
    assert!(heard.iter().all(|listener| listener.frames == heard[0].frames));
    assert_ne!(heard[0].done["message_id"], heard[1].done["message_id"]);
    assert_eq!(heard[1].done["message_id"], heard[2].done["message_id"]);
    for thread in [&one, &two] {
        let messages = house.messages(&OrgId::new("org"), thread).await;
        let kept: Vec<_> = messages.iter().map(|message| (message.role, message.content.text().into_owned())).collect();
        assert_eq!(kept, [(Role::User, "hi".to_owned()), (Role::Assistant, "Hello world".to_owned())]);
    }
    house.forgets_everything().await;
}

#[actix::test]
async fn organisations_never_share() {
    let house = House::paused();
    let asks = [Ask::of(&OrgId::new("one"), "hi"), Ask::of(&OrgId::new("two"), "hi")];

    hear_all(join_all(&house, &asks).await).await;

    assert_eq!(house.provider.called(), 2);
    house.forgets_everything().await;
}

#[actix::test]
async fn what_is_not_to_be_shared_is_not() {
    let house = House::paused();
    let alone = || Ask { shares: false, ..Ask::new("hi") };

    hear_all(join_all(&house, &[alone(), alone(), Ask::new("hi")]).await).await;

    assert_eq!(house.provider.called(), 3);
    house.forgets_everything().await;
}

#[actix::test]
async fn whoever_comes_in_the_middle_hears_everything_from_the_beginning() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b", "c", "d"], 100)]);
    let thread = house.thread().await;
    let leader = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
    sleep(millis(250)).await;

    let late = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
    let found = Listener::new(house.find_turn(&thread).await.unwrap());

    let (leader, late, found) = futures_util::join!(leader.heard(), late.heard(), found.heard());
    assert_eq!(leader.text, "abcd");
    assert_eq!((&late.frames, &found.frames), (&leader.frames, &leader.frames));
    house.forgets_everything().await;
}

#[actix::test]
async fn the_same_request_sent_twice_is_one_request_running_and_ended() {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let first = house.ask(&ask).await.unwrap();
    let again = house.ask(&ask).await.unwrap();

    let (first, again) = futures_util::join!(first.heard(), again.heard());
    let afterwards = house.hear(&ask).await;

    assert_eq!((&first.done, &first.frames), (&again.done, &again.frames));
    assert_eq!((&first.done, &first.frames), (&afterwards.done, &afterwards.frames));
    assert_eq!((house.provider.called(), house.report()["window"]["count"].as_u64()), (1, Some(1)));
    house.forgets_everything().await;
}

#[actix::test]
async fn another_message_while_one_is_answered_is_refused_and_then_taken() {
    let house = House::paused();
    let thread = house.thread().await;
    let running = Ask::within(&thread, "hi");
    let listener = house.ask(&running).await.unwrap();

    let refused = house.ask(&Ask::within(&thread, "ho")).await.err().unwrap();

    assert_eq!(refused.code, Code::TurnInProgress);
    assert_eq!(refused.conflicting_request_id.as_deref(), Some(running.request.as_str()));
    listener.heard().await;
    assert_eq!(
        house.hear(&Ask::within(&thread, "ho")).await.status(),
        "complete",
        "done means that the thread is free"
    );
    house.forgets_everything().await;
}

#[actix::test]
async fn a_growing_answer_is_saved_before_its_end() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b", "c", "d"], 700)]);
    let thread = house.thread().await;
    let listener = house.ask(&Ask::within(&thread, "hi")).await.unwrap();

    sleep(millis(1_900)).await;

    assert_eq!(house.answers(&thread).await, [("streaming", "ab".to_owned())]);
    listener.heard().await;
    assert_eq!(house.answers(&thread).await, [("complete", "abcd".to_owned())]);
    house.forgets_everything().await;
}

#[actix::test]
async fn who_waits_for_the_pacer_is_told_its_place() {
    let slow = pacer::schedule::Limits { rps: 1.0, concurrency: 1, burst: 1, tpm: 0, queue_max: 10 };
    let house = House::build(support::Plan { pace: slow, ..support::Plan::default() });
    let (first, second) = (house.ask(&Ask::new("a")).await.unwrap(), house.ask(&Ask::new("b")).await.unwrap());

    let (first, second) = futures_util::join!(first.heard(), second.heard());

    assert_eq!((first.places, first.status()), (0, "complete"));
    assert!((1..=3).contains(&second.places), "{}", second.places);
    assert_eq!(second.status(), "complete");
    house.forgets_everything().await;
}
