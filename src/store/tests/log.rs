//! The log: moved into the database while the store works, without holding it up.

use std::sync::mpsc::sync_channel;

use rusqlite::Connection;

use super::*;
use crate::store::watch::Watch;
use crate::store::{Health, schema, wal};

/// Makes the log longer by at least `pages`.
fn write(db: &Connection, pages: i64) {
    db.execute("CREATE TABLE IF NOT EXISTS filling (bytes BLOB)", []).unwrap();
    db.execute("INSERT INTO filling VALUES (zeroblob(?1))", [pages * 4096]).unwrap();
}

fn log_bytes(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("weir.db-wal")).unwrap().len()
}

/// The writer's connection and the log's.
fn connections(dir: &Path) -> (Connection, Connection) {
    let writer = schema::open_writer(&in_dir(dir)).unwrap();
    (writer, schema::open_for_log(&in_dir(dir)).unwrap())
}

#[test]
fn a_short_log_is_left_alone_and_a_long_one_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    let db_bytes = || std::fs::metadata(dir.path().join("weir.db")).unwrap().len();
    let before = db_bytes();

    write(&writer, 20);
    wal::tidy(&log, 1_000, 2_000).unwrap();
    assert_eq!(db_bytes(), before);

    wal::tidy(&log, 10, 2_000).unwrap();
    assert!(db_bytes() > before + 20 * 4096);
}

#[test]
fn the_log_does_not_grow_for_ever_under_constant_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    // The writer is always a step ahead of the one who moves, and never more than two.
    let (bell, rings) = sync_channel(1);
    let writing = std::thread::spawn(move || {
        for _ in 0..300 {
            write(&writer, 20);
            bell.send(()).unwrap();
        }
        writer
    });

    while rings.recv().is_ok() {
        wal::tidy(&log, 10, 100).unwrap();
    }

    assert!(log_bytes(dir.path()) < 1_000 * 4096, "{} bytes of 300 * 20 pages", log_bytes(dir.path()));
    drop(writing.join().unwrap());
}

#[test]
fn somebody_who_reads_for_long_neither_fails_the_move_nor_holds_it_up_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    write(&writer, 20);
    let reader = schema::open_reader(&in_dir(dir.path())).unwrap();
    let reading = reader.unchecked_transaction().unwrap();
    let _: i64 = reading.query_row("SELECT count(*) FROM threads", [], |row| row.get(0)).unwrap();
    write(&writer, 20);

    let pages = wal::tidy(&log, 1, 1).unwrap();

    assert!(pages > 20, "the reader still needs them");
    let patience_ms: i64 = log.pragma_query_value(None, "busy_timeout", |row| row.get(0)).unwrap();
    assert!(patience_ms <= 50, "it holds up the writer while it waits");
    write(&writer, 1);
}

#[test]
fn a_transaction_that_is_under_way_does_not_fail_the_move() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    write(&writer, 20);
    let busy = writer.unchecked_transaction().unwrap();
    write(&busy, 1);

    assert!(wal::tidy(&log, 1, 1).unwrap() > 20, "it waits for the writer in vain");

    busy.commit().unwrap();
    wal::tidy(&log, 1, 1).unwrap();
}

#[test]
fn a_move_that_finds_no_room_is_tried_again_and_one_that_broke_is_not() {
    let failed = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let watch = Watch::default();

    for code in [rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_BUSY, rusqlite::ffi::SQLITE_LOCKED] {
        wal::note(&failed(code), &watch);
        assert_eq!(watch.health(), Health::Ok);
    }
    wal::note(&failed(rusqlite::ffi::SQLITE_IOERR_FSYNC), &watch);
    assert!(matches!(watch.health(), Health::Failed(why) if why.contains("could not be moved")));
}

#[test]
fn a_store_that_has_failed_does_not_move_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    write(&writer, 2_100);
    let before = std::fs::read(dir.path().join("weir.db")).unwrap();
    let (bell, rings) = sync_channel(1);
    let watch = Watch::default();
    watch.fail("the disk is gone".into());

    bell.send(()).unwrap();
    drop(bell);
    wal::run(&log, &rings, &watch);

    assert!(std::fs::read(dir.path().join("weir.db")).unwrap() == before);
}

#[tokio::test]
async fn a_store_that_works_moves_its_log_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let long = "long answer ".repeat(35_000);

    // Each write is a group of its own and about a hundred pages; the move comes when enough of them have come.
    while std::fs::metadata(dir.path().join("weir.db")).unwrap().len() < 100 * 4096 {
        store.checkpoint(checkpoint(&turn, &long));
        store.ping().await.unwrap();
        assert!(log_bytes(dir.path()) < 100_000 * 4096, "the log is never moved");
    }

    store.settle(settle(&turn, Status::Complete, &long)).await.unwrap();
    store.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
}
