//! Near: questions that are answered on the asker's own thread, because what they are about is in memory.
//!
//! The way to a reader's thread and back is two changes of thread, which cost more than most answers on the path to
//! the first token do. Whoever asks here runs an event loop, and must wait neither for the disk nor for anybody else:
//!
//! - *Not for the disk.* Asked is only about threads that this process has made, read or written among the last few
//!   thousand: all pages that such an answer takes went through the kernel's cache then, and those few thousand threads
//!   are a fraction of what it holds. Or about one request in a database so small that it was read as a whole when it
//!   was opened, and has been in the cache since. SQLite's own memory is no part of this: a connection forgets its
//!   pages whenever another one has written. Should the kernel, short of memory, have dropped pages all the same, it
//!   costs as many reads of the disk as there are pages, a few for a message, and no promise.
//! - *Not for others.* Whoever finds the one connection in use, or hears from SQLite that something is locked, asks the
//!   readers. Nobody who writes or moves the log keeps a reader out, but for the microseconds in which a log begins
//!   anew.
//! - *Not for long.* A history of more than some tens of messages, or of more than some tens of kilobytes, is left to
//!   the readers; SQLite itself refuses to load a longer value here. That a thread is long, or could not be read here
//!   for another reason, is remembered.
//!
//! Each question sees the database as it is then: what was answered as written before is seen. The connection can only
//! read, has no part in moving the log, and is closed before the writer's.

use std::collections::HashMap;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{StoreError, readers, schema};
use crate::chat::{OrgId, ThreadId};

/// The most messages that are looked at here for one question.
pub(super) const ROWS_MAX: usize = 32;
/// The most bytes that are read here for one question; also the longest row.
pub(super) const BYTES_MAX: usize = 64 * 1024;

/// What a question is about. A thread of another organisation is another thread, so that how long an answer takes tells
/// nobody what others do.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    Thread(&'a OrgId, &'a ThreadId),
    Anything,
}

/// The connection for such questions, and what is known to be in memory.
pub(super) struct Near {
    /// None when the store is closed.
    db: Mutex<Option<Connection>>,
    recent: Mutex<Recent>,
}

impl Near {
    /// With a connection of [`schema::open_near`], and how many threads count as recent.
    pub(super) fn new(db: Connection, threads_max: usize) -> Self {
        Self { db: Mutex::new(Some(db)), recent: Mutex::new(Recent::new(threads_max)) }
    }

    /// The answer, on this thread and at once; `None`: the readers are to be asked. So says `work`, too, when it finds
    /// that there is too much to be read.
    pub(super) fn ask<T>(
        &self,
        about: About<'_>,
        work: impl FnOnce(&Connection) -> Result<Option<T>, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        match (about, self.length_of(about)) {
            (About::Thread(..), Some(Length::Short)) | (About::Anything, _) => {}
            (About::Thread(..), Some(Length::Long) | None) => return None,
        }
        let answer = {
            let db = self.db.try_lock()?;
            let db = db.as_ref()?;
            let answer = readers::look(db, |db| match about {
                About::Anything if !schema::is_small(db)? => Ok(None),
                _ => work(db).map(Some),
            });
            if !db.is_autocommit() {
                // Cannot fail in a way that matters: nothing was written.
                let _ = db.execute_batch("ROLLBACK");
            }
            answer
        };
        match answer {
            Ok(Some(Some(answer))) => {
                self.touch(about);
                Some(Ok(answer))
            }
            // The readers say what is wrong, if anything is: it may be the length of a row.
            Ok(Some(None)) | Err(StoreError::Failed(_)) => {
                self.note_long(about);
                None
            }
            Ok(None) => None,
            Err(refusal) => Some(Err(refusal)),
        }
    }

    /// A thread was made, read or written.
    pub(super) fn touch(&self, about: About<'_>) {
        if let About::Thread(org, thread) = about {
            self.recent.lock().touch((org.clone(), thread.clone()));
        }
    }

    /// Closes the connection, after whoever uses it. Everything is left to the readers from then on.
    pub(super) fn close(&self) {
        drop(self.db.lock().take());
    }

    fn length_of(&self, about: About<'_>) -> Option<Length> {
        match about {
            About::Thread(org, thread) => self.recent.lock().get(&(org.clone(), thread.clone())),
            About::Anything => None,
        }
    }

    fn note_long(&self, about: About<'_>) {
        if let About::Thread(org, thread) = about {
            self.recent.lock().note_long((org.clone(), thread.clone()));
        }
    }

    /// Keeps the connection in use until it is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.db.lock()
    }
}

type Key = (OrgId, ThreadId);

/// Whether a thread is short enough, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Short,
    Long,
}

/// The last threads that were touched. In two halves: when the younger one is full, it becomes the older one, and what
/// was in that is forgotten.
struct Recent {
    young: HashMap<Key, Length>,
    old: HashMap<Key, Length>,
    half_max: usize,
}

impl Recent {
    fn new(threads_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half_max: threads_max / 2 }
    }

    fn get(&self, key: &Key) -> Option<Length> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn touch(&mut self, key: Key) {
        if !self.young.contains_key(&key) {
            let length = self.old.remove(&key).unwrap_or(Length::Short);
            self.put(key, length);
        }
    }

    /// Threads hardly ever become shorter, so that this stays until the thread is forgotten.
    fn note_long(&mut self, key: Key) {
        self.old.remove(&key);
        self.put(key, Length::Long);
    }

    fn put(&mut self, key: Key, length: Length) {
        if self.young.len() >= self.half_max {
            self.old = std::mem::take(&mut self.young);
        }
        if self.half_max > 0 {
            self.young.insert(key, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        (OrgId::new("acme"), ThreadId::new(format!("t_{n}")))
    }

    #[test]
    fn threads_are_forgotten_by_age_and_their_number_is_bounded() {
        let mut recent = Recent::new(8);
        for n in 0..100 {
            recent.touch(key(0));
            recent.touch(key(n));
            assert!(recent.young.len() + recent.old.len() <= 8);
            assert!((n.saturating_sub(2)..=n).all(|n| recent.get(&key(n)) == Some(Length::Short)), "{n}");
        }

        assert_eq!(recent.get(&key(0)), Some(Length::Short), "it was touched again and again");
        assert_eq!(recent.get(&key(50)), None);
    }

    #[test]
    fn a_thread_stays_long_until_it_is_forgotten() {
        let mut recent = Recent::new(4);
        recent.note_long(key(0));
        for n in 0..20 {
            recent.touch(key(0));
            recent.touch(key(n));
            assert_eq!(recent.get(&key(0)), Some(Length::Long));
        }
        for n in 1..20 {
            recent.touch(key(n));
        }
        assert_eq!(recent.get(&key(0)), None);
    }

    #[test]
    fn nothing_is_recent_where_nothing_may_be() {
        let mut recent = Recent::new(0);
        recent.touch(key(1));
        recent.note_long(key(1));
        assert_eq!(recent.get(&key(1)), None);
    }
}
