//! Threads: made, listed page by page, changed, deleted, and seen by their own organisation alone.

use super::*;
use crate::store::{Cursor, StoreError};

/// The titles of all threads, read in pages of `limit`.
async fn all_titles(store: &Store, limit: usize) -> Vec<String> {
    let (mut titles, mut before) = (Vec::new(), None);
    loop {
        let (page, next) = store.list_threads(&acme(), limit, before).await.unwrap();
        assert!(page.len() <= limit);
        titles.extend(page.into_iter().map(|thread| thread.title));
        match next {
            Some(cursor) => before = Some(as_clients_send_it(&cursor)),
            None => return titles,
        }
    }
}

fn as_clients_send_it(cursor: &Cursor) -> Cursor {
    cursor.to_string().parse().unwrap()
}

#[tokio::test]
async fn a_new_thread_is_what_was_asked_for() {
    let (store, _) = in_memory_at(1_000);
    let new = NewThread {
        org: acme(),
        title: "Plans".into(),
        description: Some("for the week".into()),
        user_id: Some("ada".into()),
    };

    let made = store.create_thread(new).await.unwrap();

    let expected = Thread {
        id: made.id.clone(),
        org_id: acme(),
        title: "Plans".into(),
        description: Some("for the week".into()),
        user_id: Some("ada".into()),
        last_message_preview: None,
        last_provider: None,
        last_model: None,
        created_at: 1_000,
        updated_at: 1_000,
        pinned: false,
    };
    assert_eq!(made, expected);
    assert_eq!(read(&store, &acme(), &made.id).await, (expected, vec![]));
}

#[tokio::test]
async fn pages_have_no_gaps_and_nothing_twice_even_when_stamps_are_equal() {
    let (store, clock) = in_memory_at(1_000);
    let mut expected = Vec::new();
    for n in 0..17 {
        store.create_thread(new_thread(&acme(), &n.to_string())).await.unwrap();
        expected.insert(0, n.to_string());
        if n % 5 == 0 {
            clock.advance(1);
        }
    }
    store.create_thread(new_thread(&other_org(), "theirs")).await.unwrap();

    for limit in [1, 2, 3, 5, 16, 17, 18, 1_000, usize::MAX] {
        assert_eq!(all_titles(&store, limit).await, expected, "pages of {limit}");
    }
    assert_eq!(store.list_threads(&acme(), 0, None).await, Ok((vec![], None)));
}

#[tokio::test]
async fn a_full_last_page_says_that_nothing_follows() {
    let store = in_memory();
    for n in 0..4 {
        store.create_thread(new_thread(&acme(), &n.to_string())).await.unwrap();
    }

    let (_, next) = store.list_threads(&acme(), 2, None).await.unwrap();
    let (page, end) = store.list_threads(&acme(), 2, next).await.unwrap();

    assert_eq!((page.len(), end), (2, None));
}

#[tokio::test]
async fn paging_goes_on_where_it_was_when_threads_move_or_go() {
    let (store, clock) = in_memory_at(1_000);
    let mut ids = Vec::new();
    for n in 0..6 {
        clock.advance(1);
        ids.push(store.create_thread(new_thread(&acme(), &n.to_string())).await.unwrap().id);
    }
    let (page, next) = store.list_threads(&acme(), 2, None).await.unwrap();
    assert_eq!(page.iter().map(|thread| &thread.title).collect::<Vec<_>>(), ["5", "4"]);

    // One of the first page moves up, the one that the cursor names is deleted, a new one comes.
    clock.advance(1);
    talk(&store, &acme(), &ids[5], "hi", "ho").await;
    store.delete_thread(&acme(), &ids[4]).await.unwrap();
    store.create_thread(new_thread(&acme(), "new")).await.unwrap();
    let (rest, end) = store.list_threads(&acme(), 10, next).await.unwrap();

    assert_eq!(rest.iter().map(|thread| &thread.title).collect::<Vec<_>>(), ["3", "2", "1", "0"]);
    assert_eq!(end, None);
}

#[tokio::test]
async fn a_message_moves_a_thread_up_and_a_title_or_a_pin_does_not() {
    let (store, clock) = in_memory_at(1_000);
    let a = store.create_thread(new_thread(&acme(), "a")).await.unwrap().id;
    clock.advance(1);
    let b = store.create_thread(new_thread(&acme(), "b")).await.unwrap().id;
    clock.advance(1);

    store.patch_thread(&acme(), &a, Some("A".into()), Some(true)).await.unwrap();
    assert_eq!(all_titles(&store, 10).await, ["b", "A"]);

    let turn = open(&store, &acme(), &a, "hi").await;
    assert_eq!(all_titles(&store, 10).await, ["A", "b"]);

    clock.advance(1);
    talk(&store, &acme(), &b, "hi", "ho").await;
    clock.advance(1);
    store.settle(settle(&turn, Status::Complete, "ho")).await.unwrap();
    assert_eq!(all_titles(&store, 10).await, ["A", "b"]);
    assert_eq!(read(&store, &acme(), &a).await.0.updated_at, 1_004);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let store = in_memory();
    let made = store.create_thread(new_thread(&acme(), "before")).await.unwrap();
    let patch =
        async |title: Option<&str>, pinned| store.patch_thread(&acme(), &made.id, title.map(Into::into), pinned).await;

    assert_eq!(patch(None, None).await, Ok(made.clone()));
    assert_eq!(patch(Some("after"), None).await, Ok(Thread { title: "after".into(), ..made.clone() }));
    let pinned = Thread { title: "after".into(), pinned: true, ..made.clone() };
    assert_eq!(patch(None, Some(true)).await, Ok(pinned.clone()));
    assert_eq!(read(&store, &acme(), &made.id).await.0, pinned);
    assert_eq!(patch(Some(""), Some(false)).await, Ok(Thread { title: String::new(), ..made.clone() }));
}

#[tokio::test]
async fn a_thread_shows_its_last_message_and_who_answered() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;

    let turn = open(&store, &acme(), &thread, "What\nis  a weir?").await;
    let (shown, _) = read(&store, &acme(), &thread).await;
    assert_eq!(shown.title, "What is a weir?");
    assert_eq!(shown.last_message_preview.as_deref(), Some("What is a weir?"));
    assert_eq!((shown.last_provider.as_deref(), shown.last_model.as_deref()), (Some("demo"), Some("words")));

    let answered_by: Option<(String, String)> = Some(("backup".into(), "m-2".into()));
    let mut last = Settle { answered_by: answered_by.clone(), ..settle(&turn, Status::Complete, &"dam ".repeat(100)) };
    last.requests[0].answered_by = answered_by;
    store.settle(last).await.unwrap();
    let asked = store.request(&turn.request.id).await.unwrap().unwrap();
    assert_eq!((asked.provider.as_str(), asked.model.as_str()), ("backup", "m-2"));
    let (shown, messages) = read(&store, &acme(), &thread).await;
    assert_eq!(shown.last_message_preview.map(|preview| preview.len()), Some(119));
    assert_eq!((shown.last_provider.as_deref(), shown.last_model.as_deref()), (Some("backup"), Some("m-2")));
    assert_eq!((messages[1].provider.as_deref(), messages[1].model.as_deref()), (Some("backup"), Some("m-2")));

    talk(&store, &acme(), &thread, "And a lock?", "").await;
    let (shown, _) = read(&store, &acme(), &thread).await;
    assert_eq!(shown.title, "What is a weir?");
    assert_eq!(shown.last_message_preview.as_deref(), Some("And a lock?"), "an answer without text shows nothing");
}

#[tokio::test]
async fn a_title_that_was_given_stays() {
    let store = in_memory();
    let made = store.create_thread(new_thread(&acme(), "Plans")).await.unwrap();

    talk(&store, &acme(), &made.id, "hi", "ho").await;

    assert_eq!(read(&store, &acme(), &made.id).await.0.title, "Plans");
}

#[tokio::test]
async fn messages_are_read_newest_first_in_pages_and_shown_oldest_first() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    for n in 0..3 {
        talk(&store, &acme(), &thread, &format!("q{n}"), &format!("a{n}")).await;
    }
    let page = async |messages_max, before| {
        texts(&store.thread(&acme(), &thread, messages_max, before).await.unwrap().unwrap().1)
    };

    assert_eq!(page(4, None).await, ["q1", "a1", "q2", "a2"]);
    assert_eq!(page(4, Some(2)).await, ["q0", "a0"]);
    assert_eq!(page(1, Some(2)).await, ["a0"]);
    assert!(page(4, Some(0)).await.is_empty());
    assert!(page(0, None).await.is_empty());
    assert_eq!(page(usize::MAX, None).await.len(), 6);
}

#[tokio::test]
async fn a_deleted_thread_is_gone_with_everything_in_it() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let ended = talk(&store, &acme(), &thread, "hi", "ho").await;
    let running = open(&store, &acme(), &thread, "more").await;

    assert_eq!(store.delete_thread(&acme(), &thread).await, Ok(()));

    assert_eq!(store.delete_thread(&acme(), &thread).await, Err(StoreError::ThreadNotFound));
    assert_eq!(store.thread(&acme(), &thread, 10, None).await, Ok(None));
    assert_eq!(store.message(&acme(), &thread, &ended.answer).await, Ok(None));
    assert_eq!(store.request(&ended.request.id).await, Ok(None));
    assert_eq!(store.list_threads(&acme(), 10, None).await, Ok((vec![], None)));
    // What still runs for it ends without effect.
    store.checkpoint(checkpoint(&running, "too late"));
    assert!(store.settle(settle(&running, Status::Complete, "too late")).await.unwrap().already());
    assert_eq!(store.open_turn(turn(&acme(), &thread, 4, "hello?")).await, Err(StoreError::ThreadNotFound));
}

#[tokio::test]
async fn a_foreign_thread_is_answered_exactly_like_a_missing_one() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let ours = talk(&store, &acme(), &thread, "secret", "answer").await;
    let theirs = thread_of(&store, &other_org()).await;
    let missing = ThreadId::generate();
    let before = read(&store, &acme(), &thread).await;

    for id in [&thread, &missing] {
        let org = other_org();
        assert_eq!(store.thread(&org, id, 10, None).await, Ok(None));
        assert_eq!(store.message(&org, id, &ours.answer).await, Ok(None));
        assert_eq!(store.history(&org, id, 10, None).await.unwrap_err(), StoreError::ThreadNotFound);
        assert_eq!(store.patch_thread(&org, id, Some("mine".into()), None).await, Err(StoreError::ThreadNotFound));
        assert_eq!(store.delete_thread(&org, id).await, Err(StoreError::ThreadNotFound));
        for sequence in [0, 2] {
            assert_eq!(store.open_turn(turn(&org, id, sequence, "x")).await, Err(StoreError::ThreadNotFound));
        }
        let follower = NewRequest { turn: Some((id.clone(), None, ours.answer.clone())), ..request(&org) };
        assert_eq!(store.add_request(follower).await, Err(StoreError::ThreadNotFound));
    }
    // A message is found in its own thread only.
    assert_eq!(store.message(&other_org(), &theirs, &ours.answer).await, Ok(None));
    let same_id = RequestId::parse(other_org(), ours.request.id.as_str()).unwrap();
    assert_eq!(store.request(&same_id).await, Ok(None));
    let (listed, _) = store.list_threads(&other_org(), 10, None).await.unwrap();
    assert_eq!(listed.into_iter().map(|thread| thread.id).collect::<Vec<_>>(), [theirs]);
    assert_eq!(read(&store, &acme(), &thread).await, before);
}

#[tokio::test]
async fn a_cursor_of_another_organisation_shows_nothing_of_it() {
    let (store, _) = in_memory_at(1_000);
    for _ in 0..3 {
        thread_of(&store, &acme()).await;
    }
    let (_, cursor) = store.list_threads(&acme(), 1, None).await.unwrap();
    assert!(cursor.is_some());

    assert_eq!(store.list_threads(&other_org(), 10, cursor).await, Ok((vec![], None)));
}
