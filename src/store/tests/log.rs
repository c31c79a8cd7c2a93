//! The log: moved into the database while the store works, without holding it up.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use rusqlite::Connection;

use super::*;
use crate::store::watch::Watch;
use crate::store::{Health, schema, wal};

/// A log that may have this many pages.
fn mover(pages_max: i64) -> wal::Mover {
    wal::Mover::new(wal::Limits { pages_max })
}

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
    mover(4_000).tidy(&log).unwrap();
    assert_eq!(db_bytes(), before);

    mover(40).tidy(&log).unwrap();
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

    let mut mover = mover(100);
    while rings.recv().is_ok() {
        mover.tidy(&log).unwrap();
    }

    assert!(log_bytes(dir.path()) < 400 * 4096, "{} bytes of 300 * 20 pages", log_bytes(dir.path()));
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

    let pages = mover(1).tidy(&log).unwrap();

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

    assert!(mover(1).tidy(&log).unwrap() > 20, "it waits for the writer in vain");

    busy.commit().unwrap();
    mover(1).tidy(&log).unwrap();
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
    wal::run(&log, &rings, &watch, wal::Limits { pages_max: 100 });

    assert!(std::fs::read(dir.path().join("weir.db")).unwrap() == before);
}

#[test]
fn the_bell_rings_once_for_each_stretch_that_is_worth_it() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    let (rope, rings) = sync_channel(100);
    let mut bell = wal::Bell::new(rope, wal::Limits { pages_max: 400 });
    let mut rung = |pages: i64| {
        if pages > 0 {
            write(&writer, pages);
        }
        bell.ring_if_worth(&writer);
        rings.try_iter().count()
    };

    assert_eq!([rung(50), rung(60), rung(0), rung(50), rung(60), rung(0)], [0, 1, 0, 0, 1, 0]);
    wal::finish(&log).unwrap();
    // It begins anew, and so does the count.
    assert_eq!([rung(1), rung(50), rung(60)], [0, 0, 1]);
}

#[test]
fn a_log_that_a_reader_made_long_is_cut_when_the_reader_has_gone() {
    const PAGES_MAX: u32 = 100;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { log_pages_max: PAGES_MAX, ..in_dir(dir.path()) };
    let writer = schema::open_writer(&options).unwrap();
    let log = schema::open_for_log(&options).unwrap();
    let mut mover = mover(PAGES_MAX.into());
    let reader = schema::open_reader(&options).unwrap();
    let reading = reader.unchecked_transaction().unwrap();
    let _: i64 = reading.query_row("SELECT count(*) FROM threads", [], |row| row.get(0)).unwrap();
    for _ in 0..50 {
        write(&writer, 20);
        mover.tidy(&log).unwrap();
    }
    assert!(log_bytes(dir.path()) > 1_000 * 4096, "the reader needs all of it");

    drop(reading);
    for _ in 0..20 {
        write(&writer, 20);
        mover.tidy(&log).unwrap();
    }

    // As long as it may be, and one write; a page has a head of its own in the log.
    assert!(log_bytes(dir.path()) < 130 * 4200, "{} bytes", log_bytes(dir.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_writes_without_a_pause_keeps_its_log_short_while_others_read() {
    const PAGES_MAX: u32 = 500;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreOptions { log_pages_max: PAGES_MAX, ..in_dir(dir.path()) }).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    // Each write is about fifty pages.
    let long = "long answer ".repeat(17_000);
    let is_over = Arc::new(AtomicBool::new(false));
    let readers = (0..4).map(|_| {
        let (store, thread, is_over) = (store.clone(), thread.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut reads = 0;
            while !is_over.load(Relaxed) {
                read(&store, &acme(), &thread).await;
                reads += 1;
            }
            reads
        })
    });
    let readers: Vec<_> = readers.collect();

    let (mut longest_bytes, mut slowest) = (0, Duration::ZERO);
    for _ in 0..200 {
        store.checkpoint(checkpoint(&turn, &long));
        let asked = tokio::time::Instant::now();
        store.ping().await.unwrap();
        slowest = slowest.max(asked.elapsed());
        longest_bytes = longest_bytes.max(log_bytes(dir.path()));
    }
    is_over.store(true, Relaxed);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }

    println!("the log had {longest_bytes} bytes at most, the slowest write took {slowest:?}, {reads} reads");
    assert!(reads > 0);
    assert!(longest_bytes < 4 * u64::from(PAGES_MAX) * 4096, "{longest_bytes} bytes of 200 * 50 pages");
    store.settle(settle(&turn, Status::Complete, &long)).await.unwrap();
    store.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
}
