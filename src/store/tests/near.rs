//! Near: what is in memory is answered on the asker's thread, at once; everything else by the readers.

use futures_util::FutureExt;
use rusqlite::Connection;

use super::*;
use crate::store::{StoreError, near};

/// How many questions went to the readers, and how many did not.
fn reads(store: &Store) -> (u64, u64) {
    let stats = store.stats();
    (stats.reads, stats.reads_near)
}

/// The history, which must be there without a wait.
fn history_at_once(store: &Store, thread: &ThreadId) -> History {
    store.history(&acme(), thread, 50, None).now_or_never().expect("it was asked of a reader").unwrap()
}

/// Makes the database so large that it does not count as being in memory.
fn make_large(dir: &Path) {
    let db = Connection::open(dir.join("weir.db")).unwrap();
    db.execute_batch("CREATE TABLE filling (bytes BLOB); INSERT INTO filling VALUES (zeroblob(68000000))").unwrap();
}

/// A store with a large database, and a thread with a turn that was made by the process before.
async fn large_in(dir: &Path, options: StoreOptions) -> (Store, ThreadId, OpenTurn) {
    let store = Store::open(&options).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = talk(&store, &acme(), &thread, "hi", "ho").await;
    store.close().await;
    make_large(dir);
    (Store::open(&options).unwrap(), thread, turn)
}

#[tokio::test]
async fn what_was_written_just_now_is_read_without_a_change_of_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;

    assert_eq!(history_at_once(&store, &thread).next_sequence, 0);
    let turn = turn(&acme(), &thread, 0, "hi");
    store.open_turn(turn.clone()).await.unwrap();
    assert_eq!(history_at_once(&store, &thread).next_sequence, 2);
    store.settle(settle(&turn, Status::Complete, "ho")).await.unwrap();
    let history = history_at_once(&store, &thread);

    assert_eq!((texts(&history.messages), history.next_sequence), (vec!["hi".into(), "ho".into()], 2));
    let by_id = store.request(&turn.request.id).now_or_never().expect("at once").unwrap().unwrap();
    assert_eq!(by_id.status, Status::Complete);
    assert!(store.request_by_idempotency_key(&acme(), "k").now_or_never().expect("at once").unwrap().is_none());
    assert_eq!(reads(&store), (0, 5));
    store.close().await;
}

#[tokio::test]
async fn in_a_large_database_only_threads_that_were_touched_are_near() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread, turn) = large_in(dir.path(), in_dir(dir.path())).await;

    assert!(store.request(&turn.request.id).await.unwrap().is_some());
    assert!(store.request_by_idempotency_key(&acme(), "k").await.unwrap().is_none());
    assert_eq!(texts(&history(&store, &acme(), &thread).await.messages), ["hi", "ho"]);
    assert_eq!(reads(&store), (3, 0), "nothing was touched by this process yet");

    assert_eq!(texts(&history_at_once(&store, &thread).messages), ["hi", "ho"]);
    let theirs = store.history(&other_org(), &thread, 50, None).await;
    assert_eq!(theirs.unwrap_err(), StoreError::ThreadNotFound);
    assert_eq!(reads(&store), (4, 1), "to others it is a thread that was never touched");

    let new = thread_of(&store, &acme()).await;
    open(&store, &acme(), &new, "hi").await;
    assert_eq!(reads(&store), (4, 2));
    store.close().await;
}

#[tokio::test]
async fn in_a_small_database_too_a_thread_is_first_read_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "hi", "ho").await;
    store.close().await;
    let store = Store::open(&in_dir(dir.path())).unwrap();

    history(&store, &acme(), &thread).await;
    assert_eq!(reads(&store), (1, 0));
    history_at_once(&store, &thread);
    assert_eq!(reads(&store), (1, 1));
    store.close().await;
}

#[tokio::test]
async fn a_thread_that_others_have_followed_is_left_to_the_readers_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { recent_max: 4, ..in_dir(dir.path()) };
    let (store, thread, _) = large_in(dir.path(), options).await;
    history(&store, &acme(), &thread).await;
    history_at_once(&store, &thread);

    for _ in 0..4 {
        thread_of(&store, &acme()).await;
    }
    let before = reads(&store);
    history(&store, &acme(), &thread).await;

    assert_eq!(reads(&store), (before.0 + 1, before.1));
    store.close().await;
}

#[tokio::test]
async fn long_histories_and_long_messages_are_left_to_the_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let (many, long, sum) =
        (thread_of(&store, &acme()).await, thread_of(&store, &acme()).await, thread_of(&store, &acme()).await);
    for _ in 0..near::ROWS_MAX {
        talk(&store, &acme(), &many, "hi", "ho").await;
    }
    let words = "word ".repeat(near::BYTES_MAX);
    talk(&store, &acme(), &long, "hi", &words).await;
    for _ in 0..4 {
        talk(&store, &acme(), &sum, "hi", &words[..near::BYTES_MAX / 3]).await;
    }

    for (thread, messages) in [(&many, 50), (&long, 2), (&sum, 8)] {
        let before = reads(&store);
        for _ in 0..2 {
            let history = history(&store, &acme(), thread).await;
            assert_eq!(history.messages.len(), messages);
        }
        assert_eq!(reads(&store), (before.0 + 2, before.1));
    }
    assert_eq!(history(&store, &acme(), &long).await.messages[1].content.text(), words);
    store.close().await;
}

#[tokio::test]
async fn whoever_finds_the_connection_in_use_asks_the_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = talk(&store, &acme(), &thread, "hi", "ho").await;
    let before = reads(&store);

    let hold = store.hold_near();
    assert_eq!(texts(&soon(history(&store, &acme(), &thread)).await.messages), ["hi", "ho"]);
    assert!(soon(store.request(&turn.request.id)).await.unwrap().is_some());
    drop(hold);

    assert_eq!(reads(&store), (before.0 + 2, before.1));
    history_at_once(&store, &thread);
    store.close().await;
}

#[tokio::test]
async fn nothing_is_answered_after_the_close_and_the_log_is_gone_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    history_at_once(&store, &thread);

    store.close().await;

    assert_eq!(store.history(&acme(), &thread, 50, None).await.unwrap_err(), StoreError::Stopped);
    assert!(!dir.path().join("weir.db-wal").exists(), "a connection was left open");
}

#[tokio::test]
async fn what_is_near_can_still_be_read_when_the_store_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "hi", "ho").await;
    std::fs::remove_file(dir.path().join("weir.db")).unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Failed(_))));

    assert_eq!(texts(&history_at_once(&store, &thread).messages), ["hi", "ho"]);

    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_reads_what_they_wrote_while_all_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let talker = |store: Store| async move {
        let thread = thread_of(&store, &acme()).await;
        for n in 0..10 {
            let turn = turn(&acme(), &thread, n * 2, "q");
            store.open_turn(turn.clone()).await.unwrap();
            assert_eq!(history(&store, &acme(), &thread).await.next_sequence, n * 2 + 2);
            store.settle(settle(&turn, Status::Complete, &n.to_string())).await.unwrap();
            let said = texts(&history(&store, &acme(), &thread).await.messages);
            assert_eq!(said.last(), Some(&n.to_string()));
        }
    };

    let talkers: Vec<_> = (0..8).map(|_| tokio::spawn(talker(store.clone()))).collect();
    for talker in talkers {
        talker.await.unwrap();
    }

    let (far, near) = reads(&store);
    assert_eq!(far + near, 160);
    assert!(near > 0);
    store.close().await;
}
