//! Recovery: a process that dies leaves nothing that runs for ever, nothing half, and nothing twice.

use super::*;
use crate::store::Recovered;

#[tokio::test]
async fn what_ran_when_the_process_died_is_interrupted_with_its_last_checkpoint() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let (quiet, busy) = (thread_of(&store, &acme()).await, thread_of(&store, &acme()).await);
    talk(&store, &acme(), &quiet, "hi", "ho").await;
    let settled = read(&store, &acme(), &quiet).await;
    let first = open(&store, &acme(), &quiet, "no word yet").await;
    let second = open(&store, &acme(), &busy, "and?").await;
    store.checkpoint(checkpoint(&second, "so"));
    store.checkpoint(checkpoint(&second, "so far"));
    store.ping().await.unwrap(); // The checkpoints came before it.

    copy_files(dir.path(), copy.path());
    store.close().await;
    let clock = HandClock::at(9_000_000_000_000);
    let options = StoreOptions { clock: clock.clock(), ..in_dir(copy.path()) };
    let next = Store::open(&options).unwrap();

    assert_eq!(next.stats().recovered, Recovered { messages: 2, requests: 2 });
    let (shown, messages) = read(&next, &acme(), &busy).await;
    assert_eq!(texts(&messages), ["and?", "so far"]);
    assert_eq!((messages[1].status, messages[1].finish_reason), (Status::Interrupted, Some(FinishReason::Error)));
    assert_eq!(shown.last_message_preview.as_deref(), Some("so far"));
    let (shown, messages) = read(&next, &acme(), &quiet).await;
    assert_eq!(messages[..2], settled.1);
    assert_eq!((messages[3].status, &messages[3].content), (Status::Interrupted, &Content::Text(String::new())));
    assert_eq!(shown.last_message_preview.as_deref(), Some("no word yet"));

    let request = next.request(&first.request.id).await.unwrap().unwrap();
    assert_eq!((request.status, request.finish_reason), (Status::Interrupted, Some(FinishReason::Error)));
    assert_eq!(request.ended_at, Some(9_000_000_000_000));
    assert_eq!(request.facts["error"]["code"], "interrupted");
    assert_eq!(request.facts["error"]["request_id"], first.request.id.as_str());

    // The dead generation's words come too late, and the thread goes on.
    next.checkpoint(checkpoint(&second, "so far, so"));
    assert!(next.settle(settle(&second, Status::Complete, "so far, so good")).await.unwrap().already());
    talk(&next, &acme(), &busy, "go on", "on").await;
    assert_eq!(texts(&read(&next, &acme(), &busy).await.1), ["and?", "so far", "go on", "on"]);
    next.close().await;

    let again = Store::open(&options).unwrap();
    assert_eq!(again.stats().recovered, Recovered::default(), "once is enough");
    again.close().await;
    assert!(is_whole(&copy.path().join("weir.db")));
}

#[tokio::test]
async fn a_store_that_was_closed_has_the_same_answers_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(store.stats().recovered, Recovered::default());
    let thread = thread_of(&store, &acme()).await;
    open(&store, &acme(), &thread, "hi").await;
    store.close().await;

    let next = Store::open(&in_dir(dir.path())).unwrap();

    assert_eq!(next.stats().recovered, Recovered { messages: 1, requests: 1 });
    next.close().await;
}

#[tokio::test]
async fn a_log_that_ends_anywhere_leaves_whole_turns_from_the_first_to_the_last_that_fits() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    copy_files(dir.path(), copy.path());
    let first_len = std::fs::metadata(copy.path().join("weir.db-wal")).unwrap().len();
    for n in 0..4 {
        talk(&store, &acme(), &thread, &format!("q{n}"), &"long answer ".repeat(500)).await;
    }
    copy_files(dir.path(), copy.path());
    store.close().await;
    let (db, log) = (copy.path().join("weir.db"), copy.path().join("weir.db-wal"));
    let (db_bytes, log_bytes) = (std::fs::read(&db).unwrap(), std::fs::read(&log).unwrap());

    let mut seen = Vec::new();
    for cut in (first_len as usize..=log_bytes.len()).step_by(9_973).chain([log_bytes.len()]) {
        std::fs::write(&db, &db_bytes).unwrap();
        // A torn write: the rest of the file is there, but it is not what was written.
        let mut torn = log_bytes.clone();
        torn[cut..].fill(0x5A);
        std::fs::write(&log, torn).unwrap();

        let next = Store::open(&in_dir(copy.path())).unwrap();
        let (_, messages) = read(&next, &acme(), &thread).await;
        next.close().await;

        assert!(messages.iter().map(|message| message.sequence).eq(0..messages.len() as i64));
        assert_eq!(messages.len() % 2, 0, "half a turn is left of a log cut at {cut}");
        assert!(messages.iter().all(|message| message.status != Status::Streaming));
        assert!(is_whole(&db));
        seen.push(messages.len());
    }

    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&8)));
}

#[tokio::test]
async fn a_process_that_dies_among_many_writers_leaves_a_whole_database() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let writer = async || {
        let thread = thread_of(&store, &acme()).await;
        for n in 0..6 {
            let turn = open(&store, &acme(), &thread, &format!("q{n}")).await;
            store.checkpoint(checkpoint(&turn, "half"));
            store.settle(settle(&turn, Status::Complete, "whole")).await.unwrap();
        }
        thread
    };
    let deaths = async {
        let mut copies = Vec::new();
        for _ in 0..12 {
            let copy = tempfile::tempdir().unwrap();
            copy_files(dir.path(), copy.path());
            copies.push(copy);
            store.ping().await.unwrap();
        }
        copies
    };
    let writers = futures_util::future::join_all((0..8).map(|_| writer()));

    let (threads, copies) = futures_util::future::join(writers, deaths).await;
    store.close().await;

    for copy in copies {
        let next = Store::open(&in_dir(copy.path())).unwrap();
        for thread in &threads {
            // A thread that was not made yet has nothing.
            let Some((_, messages)) = next.thread(&acme(), thread, 100, None).await.unwrap() else { continue };
            assert!(messages.iter().map(|message| message.sequence).eq(0..messages.len() as i64));
            for message in &messages[..messages.len().saturating_sub(1)] {
                assert_eq!(message.status, Status::Complete);
            }
            let last = messages.last().map(|message| (message.status, message.content.text().into_owned()));
            assert!(
                match last {
                    None => true,
                    Some((Status::Complete, text)) => text == "whole",
                    Some((Status::Interrupted, text)) => text.is_empty() || text == "half",
                    Some(_) => false,
                },
                "{messages:?}"
            );
        }
        next.close().await;
        assert!(is_whole(&copy.path().join("weir.db")));
    }
}

/// What the next process finds if this one dies now.
async fn recovered_from(dir: &Path, store: &Store) -> Recovered {
    let copy = tempfile::tempdir().unwrap();
    store.ping().await.unwrap();
    copy_files(dir, copy.path());
    let next = Store::open(&in_dir(copy.path())).unwrap();
    let recovered = next.stats().recovered;
    next.close().await;
    recovered
}

#[tokio::test]
async fn an_answer_that_goes_on_without_its_request_is_found_however_much_has_ended_since() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let (running, busy) = (thread_of(&store, &acme()).await, thread_of(&store, &acme()).await);
    talk(&store, &acme(), &busy, "before", "it").await;
    let turn = open(&store, &acme(), &running, "go on").await;
    store.end_requests(settle(&turn, Status::Cancelled, "").requests).await.unwrap();
    for _ in 0..5 {
        talk(&store, &acme(), &busy, "after", "it").await;
        purge_all(&store).await;
    }

    assert_eq!(recovered_from(dir.path(), &store).await, Recovered { messages: 1, requests: 0 });
    store.settle(settle(&turn, Status::Complete, "")).await.unwrap();
    purge_all(&store).await;
    assert_eq!(recovered_from(dir.path(), &store).await, Recovered::default());
    store.close().await;
}

#[tokio::test]
async fn what_runs_is_found_though_it_has_the_number_of_something_that_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let (gone, thread) = (thread_of(&store, &acme()).await, thread_of(&store, &acme()).await);
    for _ in 0..3 {
        talk(&store, &acme(), &gone, "hi", "ho").await;
    }
    purge_all(&store).await;
    store.delete_thread(&acme(), &gone).await.unwrap();

    open(&store, &acme(), &thread, "hi").await;
    purge_all(&store).await;

    assert_eq!(recovered_from(dir.path(), &store).await, Recovered { messages: 1, requests: 1 });
    store.close().await;
}
