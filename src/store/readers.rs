//! Readers: threads with read-only connections that answer questions, each in a transaction of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;

/// A question in the queue.
pub(super) type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The queue that the threads share. A question wakes one of them, and whoever waits holds no lock.
pub(super) struct Questions {
    state: Mutex<State>,
    bell: Condvar,
    len_max: usize,
    /// The threads that answer.
    readers: AtomicUsize,
}

struct State {
    queue: VecDeque<Question>,
    is_closed: bool,
}

impl Questions {
    /// An empty queue of at most `len_max` questions.
    pub(super) fn new(len_max: usize) -> Self {
        let state = State { queue: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), bell: Condvar::new(), len_max, readers: AtomicUsize::new(0) }
    }

    /// Queues a question.
    pub(super) fn ask(&self, question: Question) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(StoreError::Stopped);
        }
        if state.queue.len() >= self.len_max {
            return Err(StoreError::Busy);
        }
        state.queue.push_back(question);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// Whether no questions are taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Takes no more questions; the threads end when those that wait are answered.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.bell.notify_all();
    }

    /// Nobody answers any more: whoever waits is told so, as the questions are dropped.
    fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let left = std::mem::take(&mut state.queue);
        drop(state);
        drop(left);
    }

    /// The next question; waits for one. `None` when closed.
    fn next(&self) -> Option<Question> {
        let mut state = self.state.lock();
        loop {
            match state.queue.pop_front() {
                None if !state.is_closed => self.bell.wait(&mut state),
                next => return next,
            }
        }
    }
}

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
pub(super) fn look<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    db.prepare_cached("BEGIN")?.execute([])?;
    let result = work(db);
    // SQLite itself ends the transaction on some errors of the disk.
    if !db.is_autocommit() {
        db.prepare_cached("COMMIT")?.execute([])?;
    }
    result
}

/// The part of one thread in the queue. When the last of them has gone, nobody answers any more.
pub(super) struct Reader(Arc<Questions>);

impl Reader {
    /// A thread's part in this queue.
    pub(super) fn of(questions: &Arc<Questions>) -> Self {
        questions.readers.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(questions))
    }

    /// The body of the thread.
    pub(super) fn run(&self, db: &Connection) {
        while let Some(question) = self.0.next() {
            question(db);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.abandon();
        }
    }
}
