//! Turns: opened in sequence by one of many, checkpointed while they run, settled exactly once.

use super::*;
use crate::chat::{ImageUrl, Part, Role};
use crate::event::{Citation, ToolCall, Usage};
use crate::store::{Settled, StoreError};

const NOTHING: Settled = Settled { answers: 0, requests: 0 };

#[tokio::test]
async fn a_turn_is_a_user_message_and_a_running_answer() {
    let (store, clock) = in_memory_at(1_000);
    let thread = thread_of(&store, &acme()).await;
    clock.set(2_000);

    let turn = open(&store, &acme(), &thread, "hi").await;

    let (_, messages) = read(&store, &acme(), &thread).await;
    let blank = Message {
        id: turn.user.as_ref().unwrap().id.clone(),
        role: Role::User,
        content: Content::Text("hi".into()),
        status: Status::Complete,
        provider: None,
        model: None,
        sequence: 0,
        created_at: 2_000,
        finish_reason: None,
        usage: None,
        citations: vec![],
        reasoning: None,
        tool_calls: vec![],
        meta: json!({}),
        opaque: vec![],
    };
    let answer = Message {
        id: turn.answer.clone(),
        role: Role::Assistant,
        content: Content::Text(String::new()),
        status: Status::Streaming,
        provider: Some("demo".into()),
        model: Some("words".into()),
        sequence: 1,
        ..blank.clone()
    };
    assert_eq!(messages, [blank, answer.clone()]);
    assert_eq!(store.message(&acme(), &thread, &turn.answer).await, Ok(Some(answer)));
}

#[tokio::test]
async fn sequences_count_from_zero_without_gaps() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;

    talk(&store, &acme(), &thread, "a", "b").await;
    regenerate(&store, &acme(), &thread, Status::Complete, "c").await;
    talk(&store, &acme(), &thread, "d", "e").await;

    let (_, messages) = read(&store, &acme(), &thread).await;
    assert_eq!(texts(&messages), ["a", "b", "c", "d", "e"]);
    assert_eq!(messages.iter().map(|message| message.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_turn_for_a_thread_that_has_moved_on_leaves_no_trace() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "a", "b").await;
    let before = read(&store, &acme(), &thread).await;

    for wrong in [-1, 0, 1, 3, i64::MAX] {
        let late = turn(&acme(), &thread, wrong, "x");
        assert_eq!(store.open_turn(late.clone()).await, Err(StoreError::SequenceMoved), "sequence {wrong}");
        assert_eq!(store.request(&late.request.id).await, Ok(None));
    }

    assert_eq!(read(&store, &acme(), &thread).await, before);
}

#[tokio::test]
async fn of_many_racing_turns_exactly_one_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    for round in 0..10 {
        let racers = (0..8).map(|_| store.open_turn(turn(&acme(), &thread, round * 2, "me")));

        let results = futures_util::future::join_all(racers).await;

        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(results.iter().filter(|result| **result == Err(StoreError::SequenceMoved)).count(), 7);
    }
    let (_, messages) = read(&store, &acme(), &thread).await;
    assert!(messages.iter().map(|message| message.sequence).eq(0..20));
    store.close().await;
}

#[tokio::test]
async fn a_refused_request_takes_its_turn_back() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let first = talk(&store, &acme(), &thread, "a", "b").await;
    let before = read(&store, &acme(), &thread).await;
    let mut second = turn(&acme(), &thread, 2, "c");
    second.request.id = first.request.id.clone();

    assert_eq!(store.open_turn(second).await, Err(StoreError::RequestIdInUse));

    assert_eq!(read(&store, &acme(), &thread).await, before);
    talk(&store, &acme(), &thread, "c", "d").await;
    assert_eq!(read(&store, &acme(), &thread).await.1.len(), 4);
}

#[tokio::test]
async fn an_answer_is_generated_anew_without_a_second_user_message() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let first = talk(&store, &acme(), &thread, "a", "b").await;

    let again = regeneration(&acme(), &thread, 2);
    store.open_turn(again.clone()).await.unwrap();

    let (shown, messages) = read(&store, &acme(), &thread).await;
    assert_eq!(
        messages.iter().map(|message| message.role).collect::<Vec<_>>(),
        [Role::User, Role::Assistant, Role::Assistant]
    );
    assert_eq!(shown.last_message_preview.as_deref(), Some("b"), "until the new answer says something");
    let kept = store.request(&again.request.id).await.unwrap().unwrap();
    let asked = first.user.map(|user| user.id);
    assert_eq!((kept.thread, kept.user_message, kept.answer), (Some(thread), asked, Some(again.answer)));
}

#[tokio::test]
async fn a_checkpoint_shows_at_once_and_the_last_one_wins() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;

    store.checkpoint(checkpoint(&turn, "one"));
    store.checkpoint(Checkpoint { reasoning: "hm".into(), ..checkpoint(&turn, "one two") });

    let answer = store.message(&acme(), &thread, &turn.answer).await.unwrap().unwrap();
    assert_eq!((answer.content, answer.status), (Content::Text("one two".into()), Status::Streaming));
    assert_eq!(answer.reasoning.as_deref(), Some("hm"));
}

#[tokio::test]
async fn an_answer_is_settled_once_and_nothing_changes_it_afterwards() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    store.checkpoint(checkpoint(&turn, "one"));

    let first = store.settle(settle(&turn, Status::Complete, "one two")).await;
    assert_eq!(first, Ok(Settled { answers: 1, requests: 1 }));
    let (settled, kept) = (read(&store, &acme(), &thread).await, store.request(&turn.request.id).await);

    for status in [Status::Complete, Status::Cancelled, Status::Error, Status::Interrupted] {
        assert_eq!(store.settle(settle(&turn, status, "other")).await, Ok(NOTHING), "{status:?}");
    }
    store.checkpoint(checkpoint(&turn, "one"));
    assert_eq!(store.end_requests(settle(&turn, Status::Error, "").requests).await, Ok(0));
    assert_eq!(read(&store, &acme(), &thread).await, settled);
    assert_eq!(store.request(&turn.request.id).await, kept);
}

#[tokio::test]
async fn only_the_generation_that_writes_an_answer_may_change_it() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let before = read(&store, &acme(), &thread).await;
    let other = OpenTurn { stream: StreamId::generate(), ..turn.clone() };

    store.checkpoint(checkpoint(&other, "not mine"));
    let settled = store.settle(Settle { requests: vec![], ..settle(&other, Status::Complete, "not mine") }).await;

    assert_eq!(settled, Ok(NOTHING));
    assert_eq!(read(&store, &acme(), &thread).await, before);
}

#[tokio::test]
async fn one_generation_settles_the_answers_of_all_threads_that_share_it() {
    let store = in_memory();
    let (a, b) = (thread_of(&store, &acme()).await, thread_of(&store, &acme()).await);
    let leader = open(&store, &acme(), &a, "hi").await;
    let mut follower = turn(&acme(), &b, 0, "hi");
    follower.stream = leader.stream.clone();
    follower.request.stream = leader.stream.clone();
    follower.request.role = CallRole::Follower;
    store.open_turn(follower.clone()).await.unwrap();
    let answers = vec![leader.answer.clone(), follower.answer.clone()];

    store.checkpoint(Checkpoint { answers: answers.clone(), ..checkpoint(&leader, "so far") });
    assert_eq!(texts(&read(&store, &acme(), &b).await.1), ["hi", "so far"]);
    // One thread's turn ends early; the other one goes on.
    let early = store.settle(settle(&follower, Status::Cancelled, "so far")).await;
    let all = store.settle(Settle { answers, ..settle(&leader, Status::Complete, "so far, so good") }).await;

    assert_eq!(early, Ok(Settled { answers: 1, requests: 1 }));
    assert_eq!(all, Ok(Settled { answers: 1, requests: 1 }));
    assert_eq!(texts(&read(&store, &acme(), &a).await.1), ["hi", "so far, so good"]);
    assert_eq!(texts(&read(&store, &acme(), &b).await.1), ["hi", "so far"]);
    assert_eq!(store.request(&follower.request.id).await.unwrap().unwrap().role, CallRole::Follower);
}

#[tokio::test]
async fn everything_that_a_provider_said_is_read_as_it_was_written() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let usage = Usage { input: 3, output: 5, total: 8, cost_usd: Some(0.25), ..Usage::default() };
    let citation =
        Citation { n: 1, url: "https://a.example/".into(), title: "A".into(), snippet: Some("s".into()), date: None };
    let call = ToolCall { index: 0, id: "c1".into(), name: "look".into(), arguments: "{\"q\":".into() };
    let last = Settle {
        finish_reason: FinishReason::ContentFilter,
        reasoning: "because".into(),
        usage: Some(usage),
        citations: vec![citation.clone()],
        tool_calls: vec![call.clone()],
        opaque: vec![json!({"signature": "x=="})],
        meta: json!({"native_finish_reason": "blocked", "upstream_id": null}),
        ..settle(&turn, Status::Error, "text \0 with \u{2028} and 👩‍👩‍👧‍👦")
    };

    store.settle(last.clone()).await.unwrap();

    let answer = store.message(&acme(), &thread, &turn.answer).await.unwrap().unwrap();
    let expected = Message {
        id: turn.answer,
        role: Role::Assistant,
        content: Content::Text(last.text),
        status: Status::Error,
        provider: Some("demo".into()),
        model: Some("words".into()),
        sequence: 1,
        created_at: answer.created_at,
        finish_reason: Some(FinishReason::ContentFilter),
        usage: Some(usage),
        citations: vec![citation],
        reasoning: Some("because".into()),
        tool_calls: vec![call],
        meta: last.meta,
        opaque: last.opaque,
    };
    assert_eq!(answer, expected);
    assert!(!serde_json::to_string(&answer).unwrap().contains("signature"), "signatures stay on the server");
}

#[tokio::test]
async fn images_of_a_message_come_back_and_previews_show_its_text() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let image = Part::ImageUrl { image_url: ImageUrl { url: "data:image/png;base64,AA==".into(), detail: None } };
    let parts = Content::Parts(vec![Part::Text { text: "look".into() }, image]);
    let mut turn = turn(&acme(), &thread, 0, "");
    let user = turn.user.as_mut().unwrap();
    user.content = parts.clone();
    user.meta = json!({"reason": "test"});

    store.open_turn(turn).await.unwrap();

    let (shown, messages) = read(&store, &acme(), &thread).await;
    assert_eq!((&messages[0].content, &messages[0].meta), (&parts, &json!({"reason": "test"})));
    assert_eq!((shown.title.as_str(), shown.last_message_preview.as_deref()), ("look", Some("look")));
}
