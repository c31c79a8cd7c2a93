//! History: which messages of a thread go into the next prompt.

use super::*;
use crate::chat::Role;

/// What the history says, in short: its texts, the next sequence, the last user message.
async fn check(store: &Store, thread: &ThreadId, messages_max: usize, expected: (&[&str], i64, Option<&str>)) {
    let History { messages, next_sequence, last_user } =
        store.history(&acme(), thread, messages_max, None).await.unwrap();
    let last_user = last_user.map(|message| message.content.text().into_owned());
    let texts = texts(&messages);

    let found = (texts.iter().map(String::as_str).collect::<Vec<_>>(), next_sequence, last_user.as_deref());
    assert_eq!(found, (expected.0.to_vec(), expected.1, expected.2), "of at most {messages_max}");
}

#[tokio::test]
async fn an_empty_thread_has_none() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;

    check(&store, &thread, 50, (&[], 0, None)).await;
    check(&store, &thread, 0, (&[], 0, None)).await;
}

#[tokio::test]
async fn a_turn_that_runs_is_not_part_of_it() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let first = open(&store, &acme(), &thread, "q0").await;
    store.checkpoint(checkpoint(&first, "half an answer"));
    check(&store, &thread, 50, (&[], 2, None)).await;

    store.settle(settle(&first, Status::Complete, "a0")).await.unwrap();
    open(&store, &acme(), &thread, "q1").await;
    check(&store, &thread, 50, (&["q0", "a0"], 4, Some("q0"))).await;
}

#[tokio::test]
async fn a_running_regeneration_leaves_the_former_answer_in_it() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "q0", "a0").await;

    store.open_turn(regeneration(&acme(), &thread, 2)).await.unwrap();

    check(&store, &thread, 50, (&["q0", "a0"], 3, Some("q0"))).await;
}

#[tokio::test]
async fn a_running_regeneration_of_a_failed_answer_leaves_the_question_in_it() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let failed = open(&store, &acme(), &thread, "q0").await;
    store.settle(settle(&failed, Status::Error, "")).await.unwrap();

    store.open_turn(regeneration(&acme(), &thread, 2)).await.unwrap();

    check(&store, &thread, 50, (&["q0"], 3, Some("q0"))).await;
}

#[tokio::test]
async fn answers_that_say_nothing_are_left_out_and_partial_ones_are_not() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let ends = [(Status::Error, ""), (Status::Cancelled, " \n"), (Status::Cancelled, "part"), (Status::Error, "piece")];
    for (n, (status, text)) in ends.into_iter().enumerate() {
        let turn = open(&store, &acme(), &thread, &format!("q{n}")).await;
        store.settle(settle(&turn, status, text)).await.unwrap();
    }

    check(&store, &thread, 50, (&["q0", "q1", "q2", "part", "q3", "piece"], 8, Some("q3"))).await;
}

#[tokio::test]
async fn an_answer_that_only_calls_tools_is_part_of_it() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "q0").await;
    let call = crate::event::ToolCall { index: 0, id: "c".into(), name: "look".into(), arguments: "{}".into() };
    store.settle(Settle { tool_calls: vec![call], ..settle(&turn, Status::Complete, "") }).await.unwrap();

    check(&store, &thread, 50, (&["q0", ""], 2, Some("q0"))).await;
}

#[tokio::test]
async fn a_new_answer_replaces_the_former_ones_unless_it_says_nothing() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "q0", "a0").await;
    talk(&store, &acme(), &thread, "q1", "first").await;
    regenerate(&store, &acme(), &thread, Status::Complete, "second").await;
    regenerate(&store, &acme(), &thread, Status::Error, "").await;
    check(&store, &thread, 50, (&["q0", "a0", "q1", "second"], 6, Some("q1"))).await;

    regenerate(&store, &acme(), &thread, Status::Cancelled, "third, cut").await;
    check(&store, &thread, 50, (&["q0", "a0", "q1", "third, cut"], 7, Some("q1"))).await;
    check(&store, &thread, 2, (&["q1", "third, cut"], 7, Some("q1"))).await;
    check(&store, &thread, 3, (&["q1", "third, cut"], 7, Some("q1"))).await;
}

#[tokio::test]
async fn a_history_that_was_cut_begins_with_a_user_message() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    for n in 0..3 {
        talk(&store, &acme(), &thread, &format!("q{n}"), &format!("a{n}")).await;
    }

    for (messages_max, expected) in [
        (0, vec![]),
        (1, vec![]),
        (2, vec!["q2", "a2"]),
        (3, vec!["q2", "a2"]),
        (4, vec!["q1", "a1", "q2", "a2"]),
        (5, vec!["q1", "a1", "q2", "a2"]),
        (6, vec!["q0", "a0", "q1", "a1", "q2", "a2"]),
        (7, vec!["q0", "a0", "q1", "a1", "q2", "a2"]),
        (usize::MAX, vec!["q0", "a0", "q1", "a1", "q2", "a2"]),
    ] {
        check(&store, &thread, messages_max, (&expected, 6, Some("q2"))).await;
    }
}

#[tokio::test]
async fn the_last_question_is_found_when_no_message_is_wanted() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "q0", "a0").await;
    for n in 1..5 {
        regenerate(&store, &acme(), &thread, Status::Complete, &format!("a{n}")).await;
    }
    open(&store, &acme(), &thread, "running").await;

    check(&store, &thread, 0, (&[], 8, Some("q0"))).await;
}

#[tokio::test]
async fn its_messages_are_whole() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "q0").await;
    let last = Settle { opaque: vec![json!("signature")], ..settle(&turn, Status::Complete, "a0") };
    store.settle(last).await.unwrap();

    let history = history(&store, &acme(), &thread).await;

    let (_, messages) = read(&store, &acme(), &thread).await;
    assert_eq!(history.messages, messages);
    assert_eq!(history.last_user.as_ref(), Some(&messages[0]));
    assert_eq!((messages[1].role, &messages[1].opaque), (Role::Assistant, &vec![json!("signature")]));
}

#[tokio::test]
async fn a_turn_that_was_replaced_is_not_part_of_it_with_all_its_answers() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "q0", "a0").await;
    talk(&store, &acme(), &thread, "q1", "a1").await;
    regenerate(&store, &acme(), &thread, Status::Complete, "a1 again").await;

    let second = edit(&store, &acme(), &thread, "q1 better").await;
    check(&store, &thread, 50, (&["q0", "a0", "q1", "a1 again"], 7, Some("q1"))).await;
    store.settle(settle(&second, Status::Complete, "b1")).await.unwrap();
    check(&store, &thread, 50, (&["q0", "a0", "q1 better", "b1"], 7, Some("q1 better"))).await;

    let third = edit(&store, &acme(), &thread, "q1 best").await;
    store.settle(settle(&third, Status::Complete, "c1")).await.unwrap();
    regenerate(&store, &acme(), &thread, Status::Complete, "c1 again").await;
    talk(&store, &acme(), &thread, "q2", "a2").await;

    let whole: &[&str] = &["q0", "a0", "q1 best", "c1 again", "q2", "a2"];
    check(&store, &thread, 50, (whole, 12, Some("q2"))).await;
    check(&store, &thread, 4, (&whole[2..], 12, Some("q2"))).await;
    assert_eq!(read(&store, &acme(), &thread).await.1.len(), 12, "all of it is kept");
}

#[tokio::test]
async fn the_first_message_of_a_thread_can_be_replaced_too() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "q0", "a0").await;

    for text in ["second", "third"] {
        let turn = edit(&store, &acme(), &thread, text).await;
        store.settle(settle(&turn, Status::Complete, "answer")).await.unwrap();
    }

    check(&store, &thread, 50, (&["third", "answer"], 6, Some("third"))).await;
    check(&store, &thread, 2, (&["third", "answer"], 6, Some("third"))).await;
}

#[tokio::test]
async fn only_the_last_message_can_be_replaced() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let first = talk(&store, &acme(), &thread, "q0", "a0").await;
    open(&store, &acme(), &thread, "q1").await;

    let mut late = turn(&acme(), &thread, 4, "q0 better");
    late.user.as_mut().unwrap().replaces = Some(first.user.unwrap().id);

    assert!(matches!(store.open_turn(late).await, Err(crate::store::StoreError::SequenceMoved)));
    assert_eq!(read(&store, &acme(), &thread).await.1.len(), 4);
}
