//! Durability: what is acknowledged as durable waits for the disk, and a disk that fails is not trusted again.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::mpsc as wakers;

use super::*;
use crate::config::Durability;
use crate::store::sync::{OpenSync, SyncFn};
use crate::store::{Health, StoreError};

/// A disk that a test holds in its hands: every sync waits for a verdict. Without the gate it is a good disk.
struct Gate {
    entered: wakers::UnboundedReceiver<()>,
    verdicts: mpsc::Sender<io::Result<()>>,
}

impl Gate {
    fn new() -> (Self, impl OpenSync) {
        let (enter, entered) = wakers::unbounded_channel();
        let (verdicts, verdict) = mpsc::channel();
        let sync = move || {
            let _ = enter.send(());
            verdict.recv().unwrap_or(Ok(()))
        };
        (Self { entered, verdicts }, |_: &Path| Ok(Box::new(sync) as SyncFn))
    }

    /// Lets the next sync through, now or when it comes.
    fn pass(&self) {
        self.verdicts.send(Ok(())).unwrap();
    }

    /// Lets the next sync fail.
    fn fail(&self) {
        self.verdicts.send(Err(io::Error::other("the disk is gone"))).unwrap();
    }

    /// Waits until a sync waits for its verdict.
    async fn entered(&mut self) {
        soon(self.entered.recv()).await.unwrap();
    }
}

/// A store with a thread in it, on a disk that is held.
async fn held(dir: &Path) -> (Store, Gate, ThreadId) {
    let (mut gate, sync) = Gate::new();
    let store = Store::open_with(&in_dir(dir), sync).unwrap();
    gate.pass();
    let thread = thread_of(&store, &acme()).await;
    gate.entered().await;
    (store, gate, thread)
}

#[tokio::test]
async fn a_durable_write_is_not_answered_before_the_disk_has_it_and_a_written_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut gate, thread) = held(dir.path()).await;
    let turn = turn(&acme(), &thread, 0, "hi");

    store.open_turn(turn.clone()).await.unwrap();
    store.ping().await.unwrap();
    let mut settled = Box::pin(store.settle(settle(&turn, Status::Complete, "ho")));
    assert!(settled.as_mut().now_or_never().is_none());
    gate.entered().await;

    // It can be read already, and other writes go on; only the answer waits.
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", "ho"]);
    store.ping().await.unwrap();
    assert!(settled.as_mut().now_or_never().is_none());
    assert_eq!(store.stats().sync_waiting, 1);

    gate.pass();
    assert_eq!(settled.await.unwrap().answers, 1);
    assert_eq!(store.stats().sync_waiting, 0);
    store.close().await;
}

#[tokio::test]
async fn one_sync_answers_everybody_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut gate, _) = held(dir.path()).await;
    let make = || Box::pin(store.create_thread(new_thread(&acme(), "")));
    let mut first = make();
    assert!(first.as_mut().now_or_never().is_none());
    gate.entered().await;

    let mut others: Vec<_> = (0..20).map(|_| make()).collect();
    others.iter_mut().for_each(|other| assert!(other.as_mut().now_or_never().is_none()));
    store.ping().await.unwrap();
    gate.pass();
    first.await.unwrap();
    // The first sync began before they were written: it says nothing about them.
    gate.entered().await;
    assert!(others.iter_mut().all(|other| other.as_mut().now_or_never().is_none()));
    gate.pass();
    for other in others {
        other.await.unwrap();
    }

    assert_eq!(store.stats().fsyncs, 3, "one for the thread at the start, one for the first, one for all others");
    store.close().await;
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, gate, _) = held(dir.path()).await;

    let missing = ThreadId::generate();
    assert_eq!(soon(store.delete_thread(&acme(), &missing)).await, Err(StoreError::ThreadNotFound));

    assert_eq!(store.stats().fsyncs, 1);
    drop(gate);
    store.close().await;
}

#[tokio::test]
async fn without_full_durability_nobody_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { durability: Durability::Normal, ..in_dir(dir.path()) };
    let never: fn(&Path) -> io::Result<SyncFn> = |_| Ok(Box::new(|| Err(io::Error::other("nobody asks"))));
    let store = Store::open_with(&options, never).unwrap();

    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "hi", "ho").await;

    assert_eq!((store.stats().fsyncs, store.health()), (0, Health::Ok));
    store.close().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_an_error_and_the_database_stays_usable() {
    let dir = tempfile::tempdir().unwrap();
    let broken: fn(&Path) -> io::Result<SyncFn> = |_| Err(io::Error::other("no handle left"));

    let opened = Store::open_with(&in_dir(dir.path()), broken).map(|_| ());

    assert!(matches!(opened, Err(StoreError::Failed(why)) if why.contains("weir.db: no handle left")));
    Store::open(&in_dir(dir.path())).unwrap().close().await;
}

#[tokio::test]
async fn a_disk_that_failed_once_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, gate, thread) = held(dir.path()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let failed = StoreError::Failed("the log could not be synced: the disk is gone".into());
    gate.fail();

    assert_eq!(store.create_thread(new_thread(&acme(), "new")).await, Err(failed.clone()));

    // Nothing new is taken in; what runs gets its last word, without the promise.
    assert_eq!(store.health(), Health::Failed("the log could not be synced: the disk is gone".into()));
    assert_eq!(store.create_thread(new_thread(&acme(), "newer")).await, Err(failed.clone()));
    assert_eq!(store.open_turn(turn.clone()).await, Err(failed.clone()));
    assert_eq!(store.add_request(request(&acme())).await, Err(failed.clone()));
    assert_eq!(store.patch_thread(&acme(), &thread, None, Some(true)).await, Err(failed.clone()));
    assert_eq!(store.delete_thread(&acme(), &thread).await, Err(failed.clone()));
    assert_eq!(store.ping().await, Err(failed.clone()));
    assert_eq!(store.settle(settle(&turn, Status::Complete, "ho")).await, Err(failed.clone()));
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", "ho"]);
    assert_eq!(store.stats().fsyncs, 2);

    // The log may be what is broken: it is left to whoever looks into the matter, and to the next start.
    store.close().await;
    assert!(std::fs::metadata(dir.path().join("weir.db-wal")).unwrap().len() > 0);
    let next = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(next.stats().recovered, crate::store::Recovered::default());
    assert_eq!(texts(&read(&next, &acme(), &thread).await.1), ["hi", "ho"]);
    next.close().await;
}

#[tokio::test]
async fn everybody_who_waits_when_the_disk_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut gate, _) = held(dir.path()).await;
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(store.create_thread(new_thread(&acme(), "")))).collect();
    waiting.iter_mut().for_each(|write| assert!(write.as_mut().now_or_never().is_none()));
    gate.entered().await;
    gate.fail();

    for write in waiting {
        assert!(matches!(write.await, Err(StoreError::Failed(_))));
    }

    assert_eq!(store.stats().sync_waiting, 0);
    store.close().await;
}

/// The files of a database as a disk has them that keeps nothing but what it was told to sync.
#[derive(Default)]
struct Platter {
    log: Vec<u8>,
}

/// Copies the log whenever it is synced; fails from the `good`th time on.
fn onto(platter: &Arc<Mutex<Platter>>, good: usize) -> impl OpenSync {
    let platter = Arc::clone(platter);
    move |log: &Path| {
        let log = PathBuf::from(log);
        let mut syncs = 0;
        let sync = move || {
            syncs += 1;
            if syncs > good {
                return Err(io::Error::other("worn out"));
            }
            platter.lock().log = std::fs::read(&log)?;
            Ok(())
        };
        Ok(Box::new(sync) as SyncFn)
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_at_any_time() {
    for good in 0..12 {
        let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let platter = Arc::new(Mutex::new(Platter::default()));
        let store = Store::open_with(&in_dir(dir.path()), onto(&platter, good)).unwrap();
        // Opening syncs by itself.
        copy_files(dir.path(), after.path());

        let mut acknowledged = Vec::new();
        for n in 0..6 {
            let Ok(thread) = store.create_thread(new_thread(&acme(), &n.to_string())).await else { break };
            acknowledged.push((thread.id.clone(), false));
            let turn = turn(&acme(), &thread.id, 0, "hi");
            store.open_turn(turn.clone()).await.unwrap();
            let Ok(_) = store.settle(settle(&turn, Status::Complete, "ho")).await else { break };
            acknowledged.last_mut().unwrap().1 = true;
        }
        assert_eq!(acknowledged.len(), good.div_ceil(2));
        store.close().await;

        let log = std::mem::take(&mut platter.lock().log);
        if !log.is_empty() {
            std::fs::write(after.path().join("weir.db-wal"), log).unwrap();
        }
        let next = Store::open(&in_dir(after.path())).unwrap();
        for (thread, is_settled) in acknowledged {
            let (_, messages) = read(&next, &acme(), &thread).await;
            assert!(!is_settled || texts(&messages) == ["hi", "ho"], "{good} good syncs: {messages:?}");
        }
        next.close().await;
        assert!(is_whole(&after.path().join("weir.db")));
    }
}
