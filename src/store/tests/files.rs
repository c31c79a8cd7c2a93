//! Files that are deleted or replaced under a running store: it says so, and pretends nothing.

use std::fs::{copy, remove_file, rename};

use super::*;
use crate::config::Durability;
use crate::store::{Health, StoreError};

/// A store with a thread and a turn that runs.
async fn running_in(dir: &Path, durability: Durability) -> (Store, ThreadId, OpenTurn) {
    let store = Store::open(&StoreOptions { durability, ..in_dir(dir) }).unwrap();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "hi", "ho").await;
    let turn = open(&store, &acme(), &thread, "and?").await;
    (store, thread, turn)
}

/// Every write is refused for one reason, which names the file; what was read before can still be read.
async fn check_failed(store: &Store, (thread, running): (&ThreadId, &OpenTurn), file: &str, how: &str) {
    // Whatever is written first meets it, also what has the last word.
    let failed = store.settle(settle(running, Status::Complete, "so")).await.unwrap_err();

    let StoreError::Failed(why) = &failed else { panic!("{failed:?}") };
    assert!(why.contains(&format!("{file} was {how} while it was in use")), "{why}");
    assert_eq!(store.health(), Health::Failed(why.clone()));
    assert_eq!(store.ping().await, Err(failed.clone()));
    assert_eq!(store.create_thread(new_thread(&acme(), "")).await, Err(failed.clone()));
    assert_eq!(store.add_request(request(&acme())).await, Err(failed.clone()));
    assert_eq!(store.settle(settle(running, Status::Complete, "so")).await, Err(failed.clone()));
    assert_eq!(texts(&read(store, &acme(), thread).await.1)[..3], ["hi", "ho", "and?"]);
    store.close().await;
}

#[tokio::test]
async fn a_store_whose_files_were_deleted_fails_loudly_at_every_durability() {
    for durability in [Durability::Full, Durability::Normal] {
        let dir = tempfile::tempdir().unwrap();
        let (store, thread, turn) = running_in(dir.path(), durability).await;

        for file in ["weir.db", "weir.db-wal", "weir.db-shm"] {
            remove_file(dir.path().join(file)).unwrap();
        }

        check_failed(&store, (&thread, &turn), "weir.db", "deleted or moved away").await;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made anew");
    }
}

#[tokio::test]
async fn a_store_that_only_is_asked_whether_it_is_ready_notices_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = running_in(dir.path(), Durability::Full).await;
    store.ping().await.unwrap();

    remove_file(dir.path().join("weir.db")).unwrap();

    assert!(matches!(store.ping().await, Err(StoreError::Failed(why)) if why.contains("deleted or moved away")));
    store.close().await;
}

#[tokio::test]
async fn a_directory_that_was_moved_away_is_noticed_and_has_everything_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    let (store, thread, turn) = running_in(&here, Durability::Full).await;

    rename(&here, &there).unwrap();

    check_failed(&store, (&thread, &turn), "weir.db", "deleted or moved away").await;
    let next = Store::open(&in_dir(&there)).unwrap();
    assert_eq!(texts(&read(&next, &acme(), &thread).await.1)[..3], ["hi", "ho", "and?"]);
    next.close().await;
}

#[tokio::test]
async fn a_database_that_was_replaced_is_noticed_and_the_new_one_is_left_alone() {
    let (dir, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, thread, turn) = running_in(dir.path(), Durability::Full).await;
    copy_files(dir.path(), backup.path());
    store.settle(settle(&turn, Status::Complete, "only here")).await.unwrap();
    let turn = open(&store, &acme(), &thread, "more").await;

    // Somebody restores the backup without having stopped the store.
    for file in ["weir.db", "weir.db-wal"] {
        remove_file(dir.path().join(file)).unwrap();
        copy(backup.path().join(file), dir.path().join(file)).unwrap();
    }

    check_failed(&store, (&thread, &turn), "weir.db", "replaced").await;
    for file in ["weir.db", "weir.db-wal"] {
        let bytes = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert!(bytes(dir.path()) == bytes(backup.path()), "{file} was changed");
    }
    remove_file(dir.path().join("weir.db-shm")).unwrap();
    let next = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(texts(&read(&next, &acme(), &thread).await.1), ["hi", "ho", "and?", ""]);
    next.close().await;
}

#[tokio::test]
async fn a_log_that_was_deleted_is_moved_into_the_database_before_the_store_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread, turn) = running_in(dir.path(), Durability::Full).await;

    remove_file(dir.path().join("weir.db-wal")).unwrap();

    check_failed(&store, (&thread, &turn), "weir.db-wal", "deleted").await;
    let next = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(texts(&read(&next, &acme(), &thread).await.1), ["hi", "ho", "and?", "so"], "nothing is lost");
    next.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
}

#[tokio::test]
async fn a_log_that_was_replaced_is_moved_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread, turn) = running_in(dir.path(), Durability::Full).await;
    let before = std::fs::read(dir.path().join("weir.db")).unwrap();

    remove_file(dir.path().join("weir.db-wal")).unwrap();
    std::fs::write(dir.path().join("weir.db-wal"), "theirs").unwrap();

    check_failed(&store, (&thread, &turn), "weir.db-wal", "replaced").await;
    assert!(std::fs::read(dir.path().join("weir.db")).unwrap() == before);
    assert_eq!(std::fs::read(dir.path().join("weir.db-wal")).unwrap(), b"theirs");
}

#[tokio::test]
async fn files_that_are_deleted_while_nothing_is_written_are_missed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = running_in(dir.path(), Durability::Full).await;
    store.ping().await.unwrap();

    remove_file(dir.path().join("weir.db")).unwrap();
    store.close().await;

    assert!(matches!(store.health(), Health::Failed(why) if why.contains("weir.db was deleted or moved away")));
    assert!(dir.path().join("weir.db-wal").exists(), "it may help whoever looks for what is lost");
}
