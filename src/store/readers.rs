//! Readers: threads with read-only connections that answer questions, each in a transaction of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// A question in the queue.
pub(super) type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The end of the queue that the threads share: whoever holds the lock takes the next question.
pub(super) type Questions = Arc<Mutex<mpsc::Receiver<Question>>>;

/// A question, and where its answer comes. A question whose asker has left is not worked on.
pub(super) fn question<T, F>(work: F) -> (Question, oneshot::Receiver<Result<T, StoreError>>)
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let question = move |db: &Connection| {
        if !reply.is_closed() {
            let _ = reply.send(look(db, work));
        }
    };
    (Box::new(question), answer)
}

/// Runs `work` on one state of the database.
fn look<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    db.prepare_cached("BEGIN")?.execute([])?;
    let result = work(db);
    // SQLite itself ends the transaction on some errors of the disk.
    if !db.is_autocommit() {
        db.prepare_cached("COMMIT")?.execute([])?;
    }
    result
}

/// The body of a thread.
pub(super) fn run(db: &Connection, questions: &Questions) {
    loop {
        let question = questions.lock().blocking_recv();
        match question {
            Some(question) => question(db),
            None => return,
        }
    }
}
