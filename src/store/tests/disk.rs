//! A full disk or a held lock: what cannot be written is refused as a whole, and the store goes on when it can.

use futures_util::future::join_all;

use super::*;
use crate::store::jobs::Level;
use crate::store::{Health, StoreError};

/// Leaves the database room for some pages more; `None` for as many as there are.
pub(super) async fn set_room(store: &Store, pages: Option<i64>) {
    let resize = move |db: &rusqlite::Connection, _: UnixMs| {
        let used: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let limit = pages.map_or(i64::from(u32::MAX - 1), |pages| used + pages);
        db.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?;
        Ok(())
    };
    store.write(Level::Written, resize).await.unwrap();
}

/// About a hundred pages.
fn much() -> String {
    "text ".repeat(80_000)
}

fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed(why) if why.contains("full"))
}

#[tokio::test]
async fn what_does_not_fit_is_refused_as_a_whole_and_fits_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let running = open(&store, &acme(), &thread, "hi").await;
    let before = (read(&store, &acme(), &thread).await, store.request(&running.request.id).await);
    set_room(&store, Some(10)).await;

    let large = settle(&running, Status::Complete, &much());
    assert!(is_full(&store.settle(large.clone()).await.unwrap_err()));
    let other = turn(&acme(), &thread, 2, &much());
    assert!(is_full(&store.open_turn(other.clone()).await.unwrap_err()));
    store.checkpoint(checkpoint(&running, &much()));

    // Nothing of it is there, and what fits goes on.
    assert_eq!((read(&store, &acme(), &thread).await, store.request(&running.request.id).await), before);
    assert_eq!(store.request(&other.request.id).await, Ok(None));
    store.checkpoint(checkpoint(&running, "half"));
    store.ping().await.unwrap();
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", "half"]);
    assert_eq!(store.health(), Health::Ok, "a full disk is no broken disk");

    set_room(&store, None).await;
    assert_eq!(store.settle(large).await.map(|settled| (settled.answers, settled.requests)), Ok((1, 1)));
    assert_eq!(store.open_turn(other).await, Ok(()));
    assert_eq!(read(&store, &acme(), &thread).await.1[1].content, Content::Text(much()));
    store.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
}

#[tokio::test]
async fn the_small_writes_of_a_group_are_kept_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let mut threads = Vec::new();
    for _ in 0..9 {
        threads.push(thread_of(&store, &acme()).await);
    }
    set_room(&store, Some(10)).await;

    let turns: Vec<_> = threads
        .iter()
        .enumerate()
        .map(|(n, thread)| turn(&acme(), thread, 0, if n % 3 == 1 { much() } else { "hi".into() }.as_str()))
        .collect();
    let opened = join_all(turns.iter().map(|turn| store.open_turn(turn.clone()))).await;

    for ((turn, opened), n) in turns.iter().zip(&opened).zip(0..) {
        let (_, messages) = read(&store, &acme(), &turn.thread).await;
        let is_kept = store.request(&turn.request.id).await.unwrap().is_some();
        assert_eq!((messages.len(), is_kept), if opened.is_ok() { (2, true) } else { (0, false) });
        assert_eq!(opened.is_ok(), n % 3 != 1, "{opened:?}");
    }
    store.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
}

#[tokio::test]
async fn a_lock_that_another_program_holds_too_long_fails_writes_and_no_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreOptions { busy_timeout_ms: 10, ..in_dir(dir.path()) }).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = turn(&acme(), &thread, 0, "hi");
    let other = rusqlite::Connection::open(dir.path().join("weir.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let locked = Err(StoreError::Failed("database is locked".into()));
    let failed = futures_util::future::join(store.open_turn(turn.clone()), store.ping()).await;
    assert_eq!(failed, (locked.clone(), locked));
    assert!(read(&store, &acme(), &thread).await.1.is_empty());
    assert_eq!(store.health(), Health::Ok);

    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.open_turn(turn).await, Ok(()));
    store.close().await;
}
