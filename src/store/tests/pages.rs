//! Pages: a turn changes few of them. Each one that a commit changes goes to the log as a whole.

use rusqlite::Connection;

use super::*;
use crate::store::requests::KeyAge;
use crate::store::{schema, threads, turns};

const THREADS: i64 = 3_000;
const ROUNDS: i64 = 100;

fn in_transaction(db: &Connection, work: impl FnOnce(&Connection)) {
    let transaction = db.unchecked_transaction().unwrap();
    work(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_turn_of_an_old_thread_in_a_full_database_changes_few_pages() {
    let dir = tempfile::tempdir().unwrap();
    let db = schema::open_writer(&in_dir(dir.path())).unwrap();
    let keys = KeyAge::new(1_000_000);
    let pages = || db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1)).unwrap();
    let mut ids = Vec::new();
    let answer = "an answer of some length, ".repeat(12);
    in_transaction(&db, |db| {
        for now in 0..THREADS {
            let id = ThreadId::generate();
            threads::create(db, &id, &new_thread(&acme(), "title"), now).unwrap();
            let turn = turn(&acme(), &id, 0, "a question of some length, as they are");
            turns::open(db, &turn, keys, now).unwrap();
            turns::settle(db, &settle(&turn, Status::Complete, &answer), now).unwrap();
            ids.push(id);
        }
    });

    let (mut to_open, mut to_settle) = (0, 0);
    for n in 0..ROUNDS {
        let turn = turn(&acme(), &ids[n as usize * 7], 2, "a question of some length, as they are");
        let before = pages();
        in_transaction(&db, |db| turns::open(db, &turn, keys, THREADS + n).unwrap());
        let opened = pages();
        let last = settle(&turn, Status::Complete, &answer);
        in_transaction(&db, |db| assert_eq!(turns::settle(db, &last, THREADS + n).unwrap().answers, 1));
        to_open += opened - before;
        to_settle += pages() - opened;
    }

    // The thread and its place in the list, before and after; two messages, by id and by place; the request, by id.
    // What is beyond eight is for new pages.
    assert!(to_open <= ROUNDS * 11, "{to_open} pages for {ROUNDS} turns to open");
    assert!(to_settle <= ROUNDS * 5, "{to_settle} pages for {ROUNDS} turns to settle");
}
