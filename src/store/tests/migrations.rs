//! Databases of older versions: brought to this one with all that is in them.

use rusqlite::{Connection, params};

use super::*;
use crate::store::{Recovered, schema};

/// A database as the first schema had it: thread `t_1` with an ended turn, `t_2` with a running one whose request was
/// withdrawn, and a running request without a thread.
fn first_in(dir: &Path) {
    let db = Connection::open(dir.join("weir.db")).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON").unwrap();
    db.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    db.execute_batch(schema::MIGRATIONS[0]).unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    for thread in ["t_1", "t_2"] {
        let insert = "INSERT INTO threads (id, org_id, title, created_at, updated_at) VALUES (?1, 'acme', 'Old', 1, 1)";
        db.execute(insert, [thread]).unwrap();
    }
    let messages = [
        ("m_1", "t_1", 0, None, "user", "hi", "complete", None),
        ("m_2", "t_1", 1, Some("m_1"), "assistant", "ho", "complete", Some("s_1")),
        ("m_3", "t_2", 0, None, "user", "and?", "complete", None),
        ("m_4", "t_2", 1, Some("m_3"), "assistant", "so", "streaming", Some("s_2")),
    ];
    for (id, thread, sequence, parent, role, content, status, stream) in messages {
        let insert = "INSERT INTO messages
                      (id, thread_id, sequence, parent_id, role, content, status, stream_id, created_at)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1)";
        db.execute(insert, params![id, thread, sequence, parent, role, content, status, stream]).unwrap();
    }
    let requests = [
        ("opened", Some("t_1"), Some("m_2"), "complete", Some("key"), "s_1"),
        ("joined", Some("t_1"), Some("m_2"), "cancelled", None, "s_1"),
        ("withdrawn", Some("t_2"), Some("m_4"), "cancelled", None, "s_2"),
        ("alone", None, None, "streaming", None, "s_3"),
    ];
    for (id, thread, answer, status, key, stream) in requests {
        let insert = "INSERT INTO requests (org_id, id, thread_id, message_id, status, idempotency_key, stream_id,
                                            body_digest, role, provider, model, facts, created_at)
                      VALUES ('acme', ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'leader', 'demo', 'words', '{\"ttft_ms\":412}', ?8)";
        db.execute(insert, params![id, thread, answer, status, key, stream, [7_u8; 32], i64::from(u32::MAX)]).unwrap();
    }
}

fn named(id: &str) -> RequestId {
    RequestId::parse(acme(), id).unwrap()
}

#[tokio::test]
async fn a_database_of_the_first_schema_keeps_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    first_in(dir.path());
    let clock = HandClock::at(i64::from(u32::MAX));
    let options = StoreOptions { clock: clock.clock(), ..in_dir(dir.path()) };

    let store = Store::open(&options).unwrap();

    // The answer runs though its one request was withdrawn.
    assert_eq!(store.stats().recovered, Recovered { messages: 1, requests: 1 });
    let (ended, running) = (ThreadId::new("t_1"), ThreadId::new("t_2"));
    assert_eq!(texts(&read(&store, &acme(), &ended).await.1), ["hi", "ho"]);
    let (_, messages) = read(&store, &acme(), &running).await;
    assert_eq!((messages[1].content.text(), messages[1].status), ("so".into(), Status::Interrupted));
    let opened = store.request(&named("opened")).await.unwrap().unwrap();
    assert_eq!((opened.status, opened.facts), (Status::Complete, json!({"ttft_ms": 412})));
    assert_eq!((opened.thread, opened.answer), (Some(ended.clone()), Some(MessageId::new("m_2"))));
    assert_eq!(store.request(&named("alone")).await.unwrap().unwrap().status, Status::Interrupted);
    let by_key = store.request_by_idempotency_key(&acme(), "key").await.unwrap();
    assert_eq!(by_key.map(|request| request.id), Some(named("opened")));

    // Old and new turns go on, and go, side by side.
    let new = talk(&store, &acme(), &ended, "more", "yes").await;
    assert_eq!(texts(&history(&store, &acme(), &ended).await.messages), ["hi", "ho", "more", "yes"]);
    store.delete_thread(&acme(), &ended).await.unwrap();
    for gone in [named("opened"), named("joined"), new.request.id] {
        assert_eq!(store.request(&gone).await, Ok(None));
    }
    assert!(store.request(&named("withdrawn")).await.unwrap().is_some());
    store.close().await;
    assert!(is_whole(&dir.path().join("weir.db")));
    let next = Store::open(&options).unwrap();
    assert_eq!(next.stats().recovered, Recovered::default());
    next.close().await;
}

#[tokio::test]
async fn an_old_database_has_the_same_schema_as_a_new_one() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    first_in(old.path());
    let schema_in = async |dir: &Path| {
        Store::open(&in_dir(dir)).unwrap().close().await;
        let db = Connection::open(dir.join("weir.db")).unwrap();
        let mut select = db.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<Vec<(String, Option<String>)>, _>>().unwrap()
    };

    assert_eq!(schema_in(old.path()).await, schema_in(new.path()).await);
}
