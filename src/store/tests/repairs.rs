//! Ends of answers that could not be written: tried again until they are, within bounds.

use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::store::repairs::{BYTES_MAX, End, Repairs, WAITING_MAX};
use crate::store::{Health, StoreError};

/// A store that gives up soon when another program holds the lock, and that program.
fn locked_in(dir: &Path) -> (Store, Connection) {
    let store = Store::open(&StoreOptions { busy_timeout_ms: 1, ..in_dir(dir) }).unwrap();
    (store, Connection::open(dir.join("weir.db")).unwrap())
}

async fn status_of(store: &Store, turn: &OpenTurn) -> (Status, Status) {
    let answer = store.message(&acme(), &turn.thread, &turn.answer).await.unwrap().unwrap();
    (answer.status, store.request(&turn.request.id).await.unwrap().unwrap().status)
}

/// Waits, in virtual time, until nothing waits to be written again.
async fn repaired(store: &Store) {
    while store.stats().unsettled > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_could_not_be_written_is_written_when_it_can_be_however_late() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let follower = request(&acme());
    store.add_request(follower.clone()).await.unwrap();
    disk::set_room(&store, Some(0)).await;
    let much = "text ".repeat(8_000);

    let end = settle(&turn, Status::Complete, &much);
    let follower_end =
        EndedRequest { id: follower.id.clone(), facts: json!({ "much": much }), ..end.requests[0].clone() };
    assert!(matches!(store.settle(end).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.end_requests(vec![follower_end]).await, Err(StoreError::Failed(_))));

    // Tried again and again, but not all the time: a second, two, four, and so on, up to a minute.
    let failed = store.stats().groups_failed;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!((store.stats().unsettled, store.health()), (2, Health::Ok));
    assert_eq!(status_of(&store, &turn).await, (Status::Streaming, Status::Streaming));
    let tried = store.stats().groups_failed - failed;
    assert!((60..70).contains(&tried), "{tried} times");
    disk::set_room(&store, None).await;
    repaired(&store).await;

    assert_eq!(status_of(&store, &turn).await, (Status::Complete, Status::Complete));
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", &much]);
    assert_eq!(store.request(&follower.id).await.unwrap().unwrap().status, Status::Complete);

    // The next failure finds somebody who tries again, too.
    let turn = open(&store, &acme(), &thread, "and?").await;
    disk::set_room(&store, Some(0)).await;
    assert!(store.settle(settle(&turn, Status::Complete, &much)).await.is_err());
    disk::set_room(&store, None).await;
    repaired(&store).await;
    assert_eq!(status_of(&store, &turn).await, (Status::Complete, Status::Complete));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_never_fits_does_not_keep_others_from_being_written() {
    let (store, _) = in_memory_at(1_000);
    let thread = thread_of(&store, &acme()).await;
    let large = open(&store, &acme(), &thread, "hi").await;
    let small = open(&store, &acme(), &thread, "and?").await;
    disk::set_room(&store, Some(0)).await;
    let much = |n: usize| "text ".repeat(n);
    assert!(store.settle(settle(&large, Status::Complete, &much(80_000))).await.is_err());
    assert!(store.settle(settle(&small, Status::Complete, &much(8_000))).await.is_err());

    disk::set_room(&store, Some(30)).await;
    while store.stats().unsettled > 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    assert_eq!(status_of(&store, &small).await, (Status::Complete, Status::Complete));
    assert_eq!(status_of(&store, &large).await, (Status::Streaming, Status::Streaming));
    disk::set_room(&store, None).await;
    repaired(&store).await;
    assert_eq!(status_of(&store, &large).await, (Status::Complete, Status::Complete));
}

#[tokio::test]
async fn a_store_that_closes_writes_once_more_what_it_could_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = locked_in(dir.path());
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.settle(settle(&turn, Status::Complete, "ho")).await.is_err());
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);

    store.close().await;

    let next = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(next.stats().recovered, crate::store::Recovered::default());
    assert_eq!(texts(&read(&next, &acme(), &thread).await.1), ["hi", "ho"]);
    next.close().await;
}

#[tokio::test]
async fn what_cannot_be_written_when_the_store_closes_is_left_to_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = locked_in(dir.path());
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.settle(settle(&turn, Status::Complete, "ho")).await.is_err());

    store.close().await;

    assert_eq!(store.stats().unsettled, 0);
    drop(other);
    let next = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(status_of(&next, &turn).await, (Status::Interrupted, Status::Interrupted));
    next.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_is_not_held_by_what_it_could_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = locked_in(dir.path());
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.settle(settle(&turn, Status::Complete, "ho")).await.is_err());

    drop(store);

    drop(other);
    // Real threads end it: the lock is free when they have.
    let next = loop {
        match Store::open(&in_dir(dir.path())) {
            Ok(store) => break store,
            Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(status_of(&next, &turn).await, (Status::Interrupted, Status::Interrupted));
    next.close().await;
}

#[tokio::test]
async fn nothing_waits_for_a_store_that_has_failed_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    std::fs::remove_file(dir.path().join("weir.db")).unwrap();

    assert!(store.settle(settle(&turn, Status::Complete, "ho")).await.is_err());

    assert_eq!(store.stats().unsettled, 0);
    store.close().await;
}

/// The end of one answer with a text of so many bytes, and which one it is.
fn end(n: usize, bytes: usize) -> End {
    let turn = regeneration(&acme(), &ThreadId::generate(), 0);
    let mut last = settle(&turn, Status::Complete, &" ".repeat(bytes));
    last.meta = json!(n);
    End::Answers(Arc::new(last))
}

fn waiting(repairs: &Repairs) -> Vec<usize> {
    let ends = std::iter::from_fn(|| repairs.next());
    let number = |end| match end {
        End::Answers(last) => usize::try_from(last.meta.as_u64().unwrap()).unwrap(),
        End::Requests(_) => panic!("there are none"),
    };
    ends.map(number).inspect(|_| repairs.put_down()).collect()
}

#[test]
fn beyond_their_number_the_oldest_ends_are_left_out() {
    let repairs = Repairs::default();

    (0..WAITING_MAX + 3).for_each(|n| repairs.push(end(n, 1)));

    assert_eq!(repairs.len(), WAITING_MAX as u64);
    assert_eq!(waiting(&repairs), (3..WAITING_MAX + 3).collect::<Vec<_>>());
    assert_eq!(repairs.len(), 0);
}

#[test]
fn beyond_their_bytes_the_oldest_ends_are_left_out() {
    let repairs = Repairs::default();

    (0..5).for_each(|n| repairs.push(end(n, BYTES_MAX / 4)));
    assert_eq!(waiting(&repairs), [2, 3, 4], "each has something beside its text");

    // One that is larger than all of the room gets it alone.
    (0..3).for_each(|n| repairs.push(end(n, 10)));
    repairs.push(end(3, BYTES_MAX + 1));
    assert_eq!(waiting(&repairs), [3]);
    (0..3).for_each(|n| repairs.push(end(n, BYTES_MAX / 4)));
    assert_eq!(waiting(&repairs), [0, 1, 2], "the room is there again");
}
