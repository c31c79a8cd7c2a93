//! A power cut: whatever part of what was not synced has reached the disk, the database opens with a whole past.

use std::fs::{read as bytes_of, write as write_file};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::{schema, wal};

/// A database and its log as a disk has them.
#[derive(Clone, Default, PartialEq)]
struct Image {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Image {
    /// The files as they are now. Right only while nobody moves the log.
    fn of(dir: &Path) -> Self {
        Self { database: bytes_of(dir.join("weir.db")).unwrap(), log: bytes_of(dir.join("weir.db-wal")).unwrap() }
    }

    fn put(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_file(dir.path().join("weir.db"), &self.database).unwrap();
        write_file(dir.path().join("weir.db-wal"), &self.log).unwrap();
        dir
    }
}

/// What a disk has where it did not get what was written.
#[derive(Debug, Clone, Copy)]
enum Tail {
    /// The file ends there.
    Missing,
    /// The file is longer, with nothing in it.
    Zeroes,
    /// Something that was there before.
    Rubbish,
}

fn tail() -> impl Strategy<Value = Tail> {
    prop_oneof![Just(Tail::Missing), Just(Tail::Zeroes), Just(Tail::Rubbish)]
}

fn cut(bytes: &mut Vec<u8>, at: usize, tail: Tail) {
    match tail {
        Tail::Missing => bytes.truncate(at),
        Tail::Zeroes => bytes[at..].fill(0),
        Tail::Rubbish => bytes[at..].fill(0x5A),
    }
}

fn cases(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) })
}

fn in_runtime<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run)
}

// --- Among many writers ---------------------------------------------------------------------------------------------

const WRITERS: usize = 4;
const TURNS: usize = 6;

/// Copies of the files from the midst of turns that follow each other in several threads.
async fn images_of_turns() -> (Vec<ThreadId>, Vec<Image>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let mut threads = Vec::new();
    for _ in 0..WRITERS {
        threads.push(thread_of(&store, &acme()).await);
    }
    let writer = async |thread: &ThreadId| {
        for n in 0..TURNS {
            let turn = open(&store, &acme(), thread, &format!("q{n}")).await;
            store.checkpoint(checkpoint(&turn, "half"));
            store.settle(settle(&turn, Status::Complete, &"whole ".repeat(2_000))).await.unwrap();
        }
    };
    let copies = async {
        let mut images = Vec::new();
        for _ in 0..10 {
            store.ping().await.unwrap();
            images.push(Image::of(dir.path()));
        }
        images
    };
    let writers = futures_util::future::join_all(threads.iter().map(writer));
    let (_, images) = futures_util::future::join(writers, copies).await;
    store.close().await;
    (threads, images)
}

/// Opens it; the messages in each thread, which must make sense.
async fn messages_in(image: &Image, threads: &[ThreadId]) -> Vec<usize> {
    let dir = image.put();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let mut counts = Vec::new();
    for thread in threads {
        let messages = store.thread(&acme(), thread, 100, None).await.unwrap();
        let messages = messages.map(|(_, messages)| messages).unwrap_or_default();
        assert!(messages.iter().map(|message| message.sequence).eq(0..messages.len() as i64), "{messages:?}");
        assert_eq!(messages.len() % 2, 0, "half a turn");
        let (last, settled) = messages.split_last().unzip();
        assert!(settled.unwrap_or_default().iter().all(|message| message.status == Status::Complete));
        assert!(last.is_none_or(|last: &Message| last.status != Status::Streaming));
        counts.push(messages.len());
    }
    store.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
    counts
}

#[test]
fn a_log_that_is_cut_among_many_writers_leaves_a_past_of_all_threads() {
    let (threads, images) = in_runtime(images_of_turns());
    let check = |(image, cut_at, tail): (Index, Index, Tail)| {
        let whole = image.get(&images);
        let mut torn = whole.clone();
        let at = cut_at.index(whole.log.len() + 1);
        cut(&mut torn.log, at, tail);
        // What was cut off at an earlier place is no more than what was cut off here.
        let mut shorter = whole.clone();
        shorter.log.truncate(at / 2);

        let (all, some, fewer) = in_runtime(async {
            (
                messages_in(whole, &threads).await,
                messages_in(&torn, &threads).await,
                messages_in(&shorter, &threads).await,
            )
        });

        let no_more = |a: &[usize], b: &[usize]| a.iter().zip(b).all(|(a, b)| a <= b);
        assert!(no_more(&some, &all) && no_more(&fewer, &some), "{fewer:?} {some:?} {all:?}");
        Ok(())
    };
    cases(48).run(&(any::<Index>(), any::<Index>(), tail()), check).unwrap();
}

// --- While the log is moved -----------------------------------------------------------------------------------------

/// A connection that writes, one that moves the log.
fn connections(dir: &Path) -> (Connection, Connection) {
    (schema::open_writer(&in_dir(dir)).unwrap(), schema::open_for_log(&in_dir(dir)).unwrap())
}

/// Writes rows with the next numbers, each in a transaction of its own, over several pages.
fn count_on(db: &Connection, rows: usize) {
    db.execute("CREATE TABLE IF NOT EXISTS counted (n INTEGER PRIMARY KEY, bytes BLOB)", []).unwrap();
    for _ in 0..rows {
        db.execute("INSERT INTO counted SELECT count(*), randomblob(9000) FROM counted", []).unwrap();
    }
}

/// Opens it as a store would; how many rows it has, which must be the first ones.
fn counted_in(image: &Image) -> i64 {
    let dir = image.put();
    let db = schema::open_writer(&in_dir(dir.path())).unwrap();
    let rows = "SELECT count(*), coalesce(max(n) + 1, 0) FROM counted";
    let (count, next): (i64, i64) = db.query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    drop(db);
    assert_eq!(count, next, "there is a gap");
    assert!(is_whole(&dir.path().join("weir.db")));
    count
}

#[test]
fn a_move_that_was_cut_off_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    count_on(&writer, 10);
    wal::finish(&log).unwrap();
    count_on(&writer, 20);
    let before = Image::of(dir.path());
    assert!(wal::save(&log).unwrap());
    let after = Image::of(dir.path());
    assert!(before.log == after.log && before.database != after.database);

    // Of each page of the database that is moved, the disk has the old or the new one, or half of it. The log is
    // synced before the first of them is written.
    let check = |fates: Vec<u8>| {
        let mut torn = after.clone();
        let old = |page: usize| before.database.get(page * 4096..(page + 1) * 4096);
        for (page, fate) in (0..after.database.len() / 4096).zip(fates.into_iter().cycle()) {
            let new = &mut torn.database[page * 4096..(page + 1) * 4096];
            let kept = match fate % 3 {
                0 => 4096,
                1 => 512,
                _ => 0,
            };
            match old(page) {
                Some(old) => new[kept..].copy_from_slice(&old[kept..]),
                None => new[kept..].fill(0),
            }
        }
        assert_eq!(counted_in(&torn), 30);
        Ok(())
    };
    cases(32).run(&vec(any::<u8>(), 64), check).unwrap();
}

#[test]
fn a_log_that_began_anew_and_is_cut_never_shows_what_stood_in_it_before() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, log) = connections(dir.path());
    count_on(&writer, 30);
    // As when the log has grown too far: all is moved, the file stays.
    wal::Mover::new(wal::Limits { pages_max: 1 }).tidy(&log).unwrap();
    let moved = Image::of(dir.path());
    count_on(&writer, 10);
    let anew = Image::of(dir.path());
    assert!(moved.log.len() == anew.log.len() && moved.log != anew.log && moved.database == anew.database);

    let check = |at: Index| {
        let at = at.index(anew.log.len() + 1);
        let mut torn = anew.clone();
        torn.log[at..].copy_from_slice(&moved.log[at..]);
        let count = counted_in(&torn);
        assert!((30..=40).contains(&count), "{count}");
        Ok(())
    };
    cases(48).run(&any::<Index>(), check).unwrap();
    assert_eq!(counted_in(&anew), 40);
}
