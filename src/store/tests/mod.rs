//! The store's promises, by subject. Here: what several of them need.

mod costs;
mod disk;
mod durability;
mod files;
mod history;
mod log;
mod migrations;
mod model;
mod near;
mod opening;
mod pages;
mod power;
mod queue;
mod recovery;
mod repairs;
mod requests;
mod threads;
mod turns;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;

use super::jobs::Level;
use super::requests::{KeyAge, purge};
use super::{
    CallRole, Checkpoint, Clock, EndedRequest, History, Message, NewRequest, NewThread, NewUserMessage, OpenTurn,
    Settle, Store, StoreOptions, Thread, UnixMs,
};
use crate::chat::{Content, MessageId, OrgId, RequestId, StreamId, ThreadId};
use crate::event::{FinishReason, Status};

/// A clock that a test sets by hand.
#[derive(Clone)]
struct HandClock(Arc<AtomicI64>);

impl HandClock {
    fn at(now: UnixMs) -> Self {
        Self(Arc::new(AtomicI64::new(now)))
    }

    fn set(&self, now: UnixMs) {
        self.0.store(now, Relaxed);
    }

    fn advance(&self, ms: UnixMs) {
        self.0.fetch_add(ms, Relaxed);
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Clock::new(move || now.load(Relaxed))
    }
}

/// Waits for what comes within milliseconds; fails, rather than hangs, when it does not come.
async fn soon<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), coming).await.expect("it never comes")
}

fn acme() -> OrgId {
    OrgId::new("acme")
}

fn other_org() -> OrgId {
    OrgId::new("other")
}

fn in_memory() -> Store {
    Store::inline(&StoreOptions::default()).unwrap()
}

/// A store in memory, and the clock that it reads.
fn in_memory_at(now: UnixMs) -> (Store, HandClock) {
    let clock = HandClock::at(now);
    let store = Store::inline(&StoreOptions { clock: clock.clock(), ..StoreOptions::default() }).unwrap();
    (store, clock)
}

/// Options for a database file in `dir`.
fn in_dir(dir: &Path) -> StoreOptions {
    StoreOptions { path: dir.join("weir.db"), ..StoreOptions::default() }
}

/// Copies the files of a database as they are now: what the next process would find if this one died.
fn copy_files(from: &Path, to: &Path) {
    for name in ["weir.db", "weir.db-wal"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn new_thread(org: &OrgId, title: &str) -> NewThread {
    NewThread { org: org.clone(), title: title.into(), description: None, user_id: None }
}

async fn thread_of(store: &Store, org: &OrgId) -> ThreadId {
    store.create_thread(new_thread(org, "")).await.unwrap().id
}

/// A request without a thread.
fn request(org: &OrgId) -> NewRequest {
    NewRequest {
        id: RequestId::generate(org.clone()),
        idempotency_key: None,
        body_digest: [7; 32],
        role: CallRole::Leader,
        turn: None,
        stream: StreamId::generate(),
        provider: "demo".into(),
        model: "words".into(),
    }
}

/// A turn that answers a new message.
fn turn(org: &OrgId, thread: &ThreadId, expected_sequence: i64, text: &str) -> OpenTurn {
    let content = Content::Text(text.into());
    let user = NewUserMessage { id: MessageId::generate(), content, meta: json!({}), replaces: None };
    OpenTurn { user: Some(user), ..regeneration(org, thread, expected_sequence) }
}

/// A turn that answers the last message anew.
fn regeneration(org: &OrgId, thread: &ThreadId, expected_sequence: i64) -> OpenTurn {
    let request = request(org);
    OpenTurn {
        thread: thread.clone(),
        expected_sequence: Some(expected_sequence),
        user: None,
        answer: MessageId::generate(),
        provider: request.provider.clone(),
        model: request.model.clone(),
        stream: request.stream.clone(),
        request,
    }
}

fn checkpoint(turn: &OpenTurn, text: &str) -> Checkpoint {
    Checkpoint {
        answers: vec![turn.answer.clone()],
        stream: turn.stream.clone(),
        text: text.into(),
        reasoning: String::new(),
    }
}

/// The last write of a turn, with the end of its request.
fn settle(turn: &OpenTurn, status: Status, text: &str) -> Settle {
    let finish_reason = match status {
        Status::Complete => FinishReason::Stop,
        Status::Cancelled => FinishReason::Cancelled,
        _ => FinishReason::Error,
    };
    Settle {
        answers: vec![turn.answer.clone()],
        stream: turn.stream.clone(),
        status,
        finish_reason,
        text: text.into(),
        reasoning: String::new(),
        usage: None,
        citations: Vec::new(),
        tool_calls: Vec::new(),
        opaque: Vec::new(),
        meta: json!({}),
        answered_by: None,
        requests: vec![EndedRequest {
            id: turn.request.id.clone(),
            status,
            finish_reason,
            facts: json!({}),
            answered_by: None,
        }],
    }
}

/// Opens a turn at the end of the thread.
async fn open(store: &Store, org: &OrgId, thread: &ThreadId, text: &str) -> OpenTurn {
    let turn = turn(org, thread, history(store, org, thread).await.next_sequence, text);
    store.open_turn(turn.clone()).await.unwrap();
    turn
}

/// Lets the store look for what is old, and for what has ended.
async fn purge_all(store: &Store) {
    let keys = KeyAge::new(StoreOptions::default().idempotency_ms);
    while store.write(Level::Written, move |db, now| purge(db, keys, now)).await.unwrap() {}
}

/// A whole turn at the end of the thread.
async fn talk(store: &Store, org: &OrgId, thread: &ThreadId, text: &str, answer: &str) -> OpenTurn {
    let turn = open(store, org, thread, text).await;
    store.settle(settle(&turn, Status::Complete, answer)).await.unwrap();
    turn
}

/// Answers the last user message anew.
async fn regenerate(store: &Store, org: &OrgId, thread: &ThreadId, status: Status, answer: &str) -> OpenTurn {
    let turn = regeneration(org, thread, history(store, org, thread).await.next_sequence);
    store.open_turn(turn.clone()).await.unwrap();
    store.settle(settle(&turn, status, answer)).await.unwrap();
    turn
}

/// Says something else in the place of the last user message.
async fn edit(store: &Store, org: &OrgId, thread: &ThreadId, text: &str) -> OpenTurn {
    let History { next_sequence, last_user, .. } = history(store, org, thread).await;
    let mut turn = turn(org, thread, next_sequence, text);
    turn.user.as_mut().unwrap().replaces = Some(last_user.unwrap().id);
    store.open_turn(turn.clone()).await.unwrap();
    turn
}

async fn history(store: &Store, org: &OrgId, thread: &ThreadId) -> History {
    store.history(org, thread, 50, None).await.unwrap()
}

/// A thread and all of its messages.
async fn read(store: &Store, org: &OrgId, thread: &ThreadId) -> (Thread, Vec<Message>) {
    store.thread(org, thread, usize::MAX, None).await.unwrap().unwrap()
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.content.text().into_owned()).collect()
}

fn is_whole(store_file: &Path) -> bool {
    let db = rusqlite::Connection::open(store_file).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let foreign: i64 = db.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
    verdict == "ok" && foreign == 0
}
