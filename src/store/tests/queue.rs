//! The queues: bounded, grouped into few transactions, indifferent to callers who leave, and answered to the last.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::store::jobs::Level;
use crate::store::{Health, StoreError};

type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + 'a>>;

/// Sends a request off without waiting for its answer.
fn ask<'a, T>(asked: impl Future<Output = Result<T, StoreError>> + 'a) -> Asked<'a, T> {
    let mut asked: Asked<'a, T> = Box::pin(asked);
    assert!(asked.as_mut().now_or_never().is_none(), "it was answered at once");
    asked
}

/// Keeps the writer busy until it is dropped. Takes one place in the queue.
struct Hold<'a> {
    _release: mpsc::Sender<()>,
    _write: Asked<'a, ()>,
}

async fn hold_writer(store: &Store) -> Hold<'_> {
    let (release, released) = mpsc::channel::<()>();
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let write = ask(store.write(Level::Written, move |_, _| {
        let _ = begin.send(());
        let _ = released.recv();
        Ok(())
    }));
    begun.recv().await.unwrap();
    Hold { _release: release, _write: write }
}

async fn hold_reader(store: &Store) -> Hold<'_> {
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let read = ask(store.read(move |_| {
        let _ = begin.send(());
        let _ = released.recv();
        Ok(())
    }));
    begun.await.unwrap();
    Hold { _release: release, _write: read }
}

fn store_in(dir: &tempfile::TempDir, options: impl FnOnce(StoreOptions) -> StoreOptions) -> Store {
    Store::open(&options(in_dir(dir.path()))).unwrap()
}

#[tokio::test]
async fn a_full_queue_refuses_new_writes_and_lets_last_words_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { queue_max: 3, ..options });
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let stateless = request(&acme());
    store.add_request(stateless.clone()).await.unwrap();
    let hold = hold_writer(&store).await;
    let queued = [ask(store.ping()), ask(store.ping())];
    assert_eq!(store.stats().queued, 3);

    assert_eq!(store.ping().await, Err(StoreError::Busy));
    assert_eq!(store.create_thread(new_thread(&acme(), "")).await, Err(StoreError::Busy));
    assert_eq!(store.open_turn(self::turn(&acme(), &thread, 2, "x")).await, Err(StoreError::Busy));
    store.checkpoint(checkpoint(&turn, "dropped"));
    assert_eq!(store.stats().checkpoints_dropped, 1);
    let last = ask(store.settle(settle(&turn, Status::Complete, "ho")));
    let ended = EndedRequest { id: stateless.id, ..settle(&turn, Status::Complete, "").requests.remove(0) };
    let end = ask(store.end_requests(vec![ended]));
    drop(hold);

    for write in queued {
        write.await.unwrap();
    }
    assert_eq!((last.await.unwrap().answers, end.await), (1, Ok(1)));
    store.ping().await.unwrap();
    assert_eq!(store.stats().queued, 0);
    store.close().await;
}

#[tokio::test]
async fn half_of_the_queue_is_not_for_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { queue_max: 6, ..options });
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let hold = hold_writer(&store).await;

    (0..9).for_each(|_| store.checkpoint(checkpoint(&turn, "so far")));

    assert_eq!((store.stats().queued, store.stats().checkpoints_dropped), (3, 7));
    let others: Vec<_> = (0..3).map(|_| ask(store.ping())).collect();
    drop(hold);
    for other in others {
        other.await.unwrap();
    }
    store.close().await;
}

#[tokio::test]
async fn whoever_has_an_answer_finds_its_place_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { queue_max: 1, ..options });

    for n in 0..300 {
        assert_eq!(store.ping().await, Ok(()), "write {n}");
    }

    store.close().await;
}

#[tokio::test]
async fn a_full_queue_of_reads_refuses_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { readers: 1, reads_max: 1, ..options });
    let hold = hold_reader(&store).await;
    let acme = acme();
    let queued = ask(store.list_threads(&acme, 10, None));

    assert_eq!(store.list_threads(&acme, 10, None).await, Err(StoreError::Busy));
    assert_eq!(store.ping().await, Ok(()), "writes have a queue of their own");

    drop(hold);
    assert_eq!(queued.await, Ok((vec![], None)));
    store.close().await;
}

#[tokio::test]
async fn one_slow_read_does_not_hold_up_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { readers: 2, ..options });
    let thread = thread_of(&store, &acme()).await;
    let hold = hold_reader(&store).await;

    let turn = talk(&store, &acme(), &thread, "hi", "ho").await;
    assert!(store.request(&turn.request.id).await.unwrap().is_some());

    drop(hold);
    store.close().await;
}

#[tokio::test]
async fn a_write_whose_caller_has_left_is_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| options);
    let thread = thread_of(&store, &acme()).await;
    let turn = turn(&acme(), &thread, 0, "hi");

    let hold = hold_writer(&store).await;
    drop(ask(store.open_turn(turn.clone())));
    drop(store.delete_thread(&acme(), &thread)); // Never polled: never asked for.
    drop(hold);
    store.ping().await.unwrap();

    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", ""]);
    assert_eq!(store.stats().queued, 0);
    store.close().await;
}

#[tokio::test]
async fn a_last_word_whose_caller_leaves_before_there_is_room_costs_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { queue_max: 1, ..options });
    let hold = hold_writer(&store).await;

    drop(ask(store.end_requests(vec![])));
    drop(hold);
    soon(async {
        while store.stats().queued > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    store.ping().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_read_whose_caller_has_left_is_not_worked_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { readers: 1, ..options });
    let was_read = Arc::new(AtomicBool::new(false));
    let hold = hold_reader(&store).await;

    let mark = Arc::clone(&was_read);
    drop(ask(store.read(move |_| {
        mark.store(true, Relaxed);
        Ok(())
    })));
    drop(hold);
    store.read(|_| Ok(())).await.unwrap();

    assert!(!was_read.load(Relaxed));
    store.close().await;
}

#[tokio::test]
async fn writes_that_come_together_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { group_max: 20, ..options });
    let before = store.stats();
    let hold = hold_writer(&store).await;
    let writes: Vec<_> = (0..50).map(|_| ask(store.create_thread(new_thread(&acme(), "")))).collect();
    drop(hold);
    let made = join_all(writes).await;

    let after = store.stats();
    assert!(made.iter().all(Result::is_ok));
    assert_eq!(after.jobs - before.jobs, 51);
    assert_eq!(after.groups - before.groups, 4, "the one that held, then 20, 20 and 10");
    assert_eq!((after.last_group_len, after.groups_failed), (10, 0));
    assert_eq!(after.rows_written - before.rows_written, 50);
    assert!(after.fsyncs - before.fsyncs <= 3);
    store.close().await;
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_the_others_of_its_group_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| options);
    let thread = thread_of(&store, &acme()).await;
    let (good, late, next) =
        (turn(&acme(), &thread, 0, "good"), turn(&acme(), &thread, 0, "late"), turn(&acme(), &thread, 2, "next"));
    let hold = hold_writer(&store).await;
    let opened: Vec<_> = [good, late, next].into_iter().map(|turn| ask(store.open_turn(turn))).collect();
    drop(hold);

    assert_eq!(join_all(opened).await, [Ok(()), Err(StoreError::SequenceMoved), Ok(())]);

    assert_eq!(store.stats().last_group_len, 3);
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["good", "", "next", ""]);
    store.close().await;
}

/// Every call, with its answer reduced to its error.
async fn every_call(store: &Store) -> Vec<Option<StoreError>> {
    let (org, thread) = (acme(), ThreadId::generate());
    let turn = turn(&org, &thread, 0, "hi");
    store.checkpoint(checkpoint(&turn, "nobody hears"));
    vec![
        store.create_thread(new_thread(&org, "")).await.err(),
        store.list_threads(&org, 10, None).await.err(),
        store.thread(&org, &thread, 10, None).await.err(),
        store.message(&org, &thread, &turn.answer).await.err(),
        store.patch_thread(&org, &thread, None, None).await.err(),
        store.delete_thread(&org, &thread).await.err(),
        store.history(&org, &thread, 10, None).await.err(),
        store.settle(settle(&turn, Status::Complete, "")).await.err(),
        store.add_request(request(&org)).await.err(),
        store.end_requests(vec![]).await.err(),
        store.request(&turn.request.id).await.err(),
        store.request_by_idempotency_key(&org, "k").await.err(),
        store.open_turn(turn).await.err(),
        store.ping().await.err(),
    ]
}

#[tokio::test]
async fn close_carries_out_what_is_queued_and_answers_everything_later_with_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| options);
    let hold = hold_writer(&store).await;
    let queued: Vec<_> = (0..5).map(|_| ask(store.create_thread(new_thread(&acme(), "")))).collect();
    let mut closing = Box::pin(store.close());
    assert!(closing.as_mut().now_or_never().is_none());
    drop(hold);
    closing.await;

    assert!(join_all(queued).await.iter().all(Result::is_ok));
    assert!(every_call(&store).await.iter().all(|error| *error == Some(StoreError::Stopped)));
    assert_eq!((store.health(), store.stats().queued), (Health::Stopped, 0));
    store.close().await;
    let next = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(next.list_threads(&acme(), 10, None).await.unwrap().0.len(), 5);
    next.close().await;
}

#[tokio::test]
async fn last_words_that_wait_for_room_when_the_store_closes_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { queue_max: 1, ..options });
    let hold = hold_writer(&store).await;
    let waiting = ask(store.end_requests(vec![]));
    let mut closing = Box::pin(store.close());
    assert!(closing.as_mut().now_or_never().is_none());

    assert_eq!(waiting.await, Err(StoreError::Stopped));

    drop(hold);
    closing.await;
}

#[tokio::test]
async fn whoever_closes_waits_for_the_end() {
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let store = store_in(&dir, |options| options);
        let (a, b) = (store.clone(), store.clone());
        let hold = hold_reader(&store).await;
        let mut closings = [Box::pin(a.close()), Box::pin(b.close())];
        for closing in &mut closings {
            assert!(closing.as_mut().now_or_never().is_none());
        }
        let [first, second] = closings;
        drop(hold);
        if round % 2 == 0 {
            first.await;
        } else {
            second.await;
        }

        // The lock is the last thing to go.
        Store::open(&in_dir(dir.path())).unwrap().close().await;
    }
}

#[tokio::test]
async fn a_close_whose_caller_has_left_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| options);
    let hold = hold_reader(&store).await;
    assert!(Box::pin(store.close()).as_mut().now_or_never().is_none());
    drop(hold);

    store.close().await;

    Store::open(&in_dir(dir.path())).unwrap().close().await;
}

#[tokio::test]
async fn a_write_that_panics_stops_the_store_and_leaves_nobody_without_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| options);
    let hold = hold_writer(&store).await;
    let group = [
        ask(store.ping()),
        ask(store.write(Level::Durable, |_, _| std::panic::resume_unwind(Box::new("a defect")))),
        ask(store.ping()),
    ];
    drop(hold);

    assert_eq!(join_all(group).await, [const { Err(StoreError::Stopped) }; 3]);

    assert_eq!(store.ping().await, Err(StoreError::Stopped));
    assert_eq!(store.health(), Health::Stopped);
    store.close().await;
}

#[tokio::test]
async fn a_store_that_cannot_read_any_more_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir, |options| StoreOptions { readers: 1, ..options });
    let broken = store.read(|_| -> Result<(), _> { std::panic::resume_unwind(Box::new("a defect")) }).await;

    assert_eq!(broken, Err(StoreError::Stopped));
    soon(async {
        while store.health() == Health::Ok {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(store.health(), Health::Stopped);
    assert_eq!(store.list_threads(&acme(), 10, None).await, Err(StoreError::Stopped));
    store.close().await;
}

#[tokio::test]
async fn a_store_in_memory_answers_at_once() {
    let store = in_memory();

    let made = store.create_thread(new_thread(&acme(), "")).now_or_never();
    assert!(made.is_some_and(|made| made.is_ok()));
    let listed = store.list_threads(&acme(), 10, None).now_or_never().unwrap();
    assert_eq!(listed.unwrap().0.len(), 1);

    assert_eq!((store.health(), store.stats().queued), (Health::Ok, 0));
    store.close().await;
    assert!(every_call(&store).await.iter().all(|error| *error == Some(StoreError::Stopped)));
    assert_eq!(store.health(), Health::Stopped);
}
