//! Costs: every statement uses an index, and no call becomes slower because there is more in the database.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

use super::*;
use crate::store::requests::KeyAge;
use crate::store::{Cursor, history, recovery, requests, schema, threads, turns};

const PAGE: usize = 20;

fn keys() -> KeyAge {
    KeyAge::new(1_000)
}

/// A database whose statements are watched: each with the number of steps that SQLite took for it.
struct Traced {
    db: Connection,
    steps: Arc<Mutex<BTreeMap<String, i32>>>,
    /// How often each was planned again.
    replanned: Arc<Mutex<BTreeMap<String, i32>>>,
}

impl Traced {
    fn new() -> Self {
        let mut db = schema::open_in_memory().unwrap();
        let steps = Arc::new(Mutex::new(BTreeMap::new()));
        let replanned = Arc::new(Mutex::new(BTreeMap::new()));
        let (seen, seen_again) = (Arc::clone(&steps), Arc::clone(&replanned));
        let note = move |event: TraceEvent<'_>| {
            if let TraceEvent::Profile(statement, _) = event {
                let sql = statement.sql().into_owned();
                seen_again.lock().insert(sql.clone(), statement.get_status(StatementStatus::RePrepare));
                seen.lock().insert(sql, statement.get_status(StatementStatus::VmStep));
            }
        };
        db.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(note)).unwrap();
        Self { db, steps, replanned }
    }

    /// How many steps SQLite takes for `work`.
    fn cost(&self, work: impl FnOnce(&Connection)) -> i32 {
        // The counters live as long as the prepared statements.
        self.db.flush_prepared_statement_cache();
        self.steps.lock().clear();
        work(&self.db);
        self.steps.lock().values().sum()
    }

    fn thread(&self, now: UnixMs) -> ThreadId {
        let id = ThreadId::generate();
        threads::create(&self.db, &id, &new_thread(&acme(), "title"), now).unwrap();
        id
    }

    fn open(&self, thread: &ThreadId, sequence: i64, key: &str) -> OpenTurn {
        let mut turn = turn(&acme(), thread, sequence, "question");
        turn.request.idempotency_key = Some(key.into());
        turns::open(&self.db, &turn, keys(), 1_000).unwrap();
        turn
    }

    fn talk(&self, thread: &ThreadId, sequence: i64, key: &str) -> OpenTurn {
        let turn = self.open(thread, sequence, key);
        turns::settle(&self.db, &settle(&turn, Status::Complete, "answer"), 1_000).unwrap();
        turn
    }
}

/// What each call costs in a database with `others` further threads, in a thread of `turns` turns whose last answer
/// was generated `turns` times.
fn costs(others: i64, turns: i64) -> Vec<(&'static str, i32)> {
    let traced = Traced::new();
    let ids: Vec<_> = (0..others).map(|n| traced.thread(n)).collect();
    for (n, id) in ids.iter().enumerate() {
        traced.talk(id, 0, &format!("other {n}"));
    }
    let thread = traced.thread(2_000);
    for n in 0..turns {
        traced.talk(&thread, n * 2, &n.to_string());
    }
    for n in 0..turns {
        let again = regeneration(&acme(), &thread, turns * 2 + n);
        turns::open(&traced.db, &again, keys(), 1_000).unwrap();
        turns::settle(&traced.db, &settle(&again, Status::Complete, "answer"), 1_000).unwrap();
    }
    // What has ended is looked at once, and costs nothing afterwards.
    while requests::purge(&traced.db, keys(), 1_500).unwrap() {}
    let (sequence, small) = (turns * 3, ids[0].clone());
    let cursor: Cursor = threads::list(&traced.db, &acme(), 1, None).unwrap().1.unwrap();
    let read_history = |db: &Connection, messages_max| {
        let history = history::read(db, &acme(), &thread, messages_max, None).unwrap();
        assert_eq!(history.messages.len(), messages_max);
    };

    let mut costs = vec![
        ("history", traced.cost(|db| read_history(db, PAGE))),
        ("history of none", traced.cost(|db| read_history(db, 0))),
        ("list", traced.cost(|db| drop(threads::list(db, &acme(), PAGE, None).unwrap()))),
        ("next page", traced.cost(|db| drop(threads::list(db, &acme(), PAGE, Some(&cursor)).unwrap()))),
        ("thread", traced.cost(|db| drop(threads::read(db, &acme(), &thread, PAGE, None).unwrap()))),
        ("older", traced.cost(|db| drop(threads::read(db, &acme(), &thread, PAGE, Some(30)).unwrap()))),
        ("purge", traced.cost(|db| assert!(!requests::purge(db, keys(), 1_500).unwrap()))),
        ("patch", traced.cost(|db| drop(threads::patch(db, &acme(), &small, Some("x"), Some(true)).unwrap()))),
    ];
    let turn = turn(&acme(), &thread, sequence, "question");
    let request = turn.request.id.clone();
    costs.extend([
        ("open", traced.cost(|db| turns::open(db, &turn, keys(), 1_000).unwrap())),
        ("checkpoint", traced.cost(|db| turns::checkpoint(db, &checkpoint(&turn, "so far")).unwrap())),
        ("message", traced.cost(|db| drop(threads::message(db, &acme(), &thread, &turn.answer).unwrap()))),
        ("recovery", traced.cost(|db| assert_eq!(recovery::run(db, 1_000).unwrap().messages, 1))),
        ("request", traced.cost(|db| drop(requests::find(db, &request).unwrap()))),
        ("key", traced.cost(|db| drop(requests::find_by_key(db, &acme(), "0", keys(), 1_000).unwrap()))),
        ("regenerate", {
            let again = regeneration(&acme(), &thread, sequence + 2);
            traced.cost(|db| turns::open(db, &again, keys(), 1_000).unwrap())
        }),
        ("delete", traced.cost(|db| threads::delete(db, &acme(), &small).unwrap())),
    ]);
    costs
}

#[test]
fn no_call_costs_more_because_there_is_more() {
    let (few, many) = (costs(30, 40), costs(300, 400));

    assert_eq!(few, many);
    assert!(few.iter().all(|(_, steps)| *steps > 0), "{few:?}");
}

#[test]
fn history_costs_what_is_asked_for() {
    let traced = Traced::new();
    let thread = traced.thread(0);
    for n in 0..50 {
        traced.talk(&thread, n * 2, &n.to_string());
    }
    let cost = |messages_max| traced.cost(|db| drop(history::read(db, &acme(), &thread, messages_max, None).unwrap()));

    assert!(cost(10) < cost(20) && cost(20) < cost(40));
    assert_eq!(cost(100), cost(1_000), "all there is");
}

#[test]
fn no_statement_is_planned_more_than_once() {
    let traced = Traced::new();
    for n in 0..3 {
        let thread = traced.thread(n);
        let turn = traced.talk(&thread, 0, &format!("key {n}"));
        requests::find(&traced.db, &turn.request.id).unwrap();
        requests::find_by_key(&traced.db, &acme(), &format!("key {n}"), keys(), 1_000).unwrap();
        history::read(&traced.db, &acme(), &thread, PAGE, None).unwrap();
        let again = regeneration(&acme(), &thread, 2);
        turns::open(&traced.db, &again, keys(), 1_000).unwrap();
        turns::checkpoint(&traced.db, &checkpoint(&again, "so far")).unwrap();
        turns::settle(&traced.db, &settle(&again, Status::Complete, "answer"), 1_000).unwrap();
        threads::list(&traced.db, &acme(), PAGE, None).unwrap();
        requests::purge(&traced.db, keys(), 1_000 + n).unwrap();
        threads::delete(&traced.db, &acme(), &thread).unwrap();
    }

    let replanned = traced.replanned.lock().clone();
    let again: Vec<_> = replanned.iter().filter(|(_, times)| **times > 0).collect();
    assert!(replanned.len() >= 20 && again.is_empty(), "{again:#?}");
}

#[test]
fn every_statement_uses_an_index_and_sorts_nothing() {
    let traced = Traced::new();
    let thread = traced.thread(0);
    let turn = traced.talk(&thread, 0, "k");
    let again = regeneration(&acme(), &thread, 2);
    turns::open(&traced.db, &again, keys(), 1_000).unwrap();
    turns::checkpoint(&traced.db, &checkpoint(&again, "so far")).unwrap();
    turns::settle(&traced.db, &settle(&again, Status::Complete, "answer"), 1_000).unwrap();
    requests::add(&traced.db, &request(&acme()), keys(), 1_000).unwrap();
    requests::add(&traced.db, &turn.request, keys(), 1_000).unwrap_err();
    requests::find(&traced.db, &turn.request.id).unwrap();
    requests::find_by_key(&traced.db, &acme(), "k", keys(), 1_000).unwrap();
    requests::purge(&traced.db, keys(), 1_000).unwrap();
    history::read(&traced.db, &acme(), &thread, PAGE, None).unwrap();
    threads::list(&traced.db, &acme(), PAGE, None).unwrap();
    threads::read(&traced.db, &acme(), &thread, PAGE, None).unwrap();
    threads::message(&traced.db, &acme(), &thread, &turn.answer).unwrap();
    traced.open(&thread, 3, "l");
    recovery::run(&traced.db, 1_000).unwrap();
    threads::patch(&traced.db, &acme(), &thread, None, None).unwrap();
    threads::delete(&traced.db, &acme(), &thread).unwrap();

    let statements: Vec<_> = traced.steps.lock().keys().cloned().collect();
    let is_ours = |sql: &&String| ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|verb| sql.starts_with(verb));
    let mut planned = 0;
    for sql in statements.iter().filter(is_ours) {
        let mut plan = traced.db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let mut steps = plan.raw_query();
        while let Some(step) = steps.next().unwrap() {
            let step: String = step.get("detail").unwrap();
            let is_good = !(step.contains("SCAN") || step.contains("TEMP B-TREE"));
            assert!(is_good || step == "SCAN CONSTANT ROW", "{step} in {sql}");
            planned += 1;
        }
    }
    assert!(planned >= 20, "{planned} steps of {} statements", statements.len());
}
