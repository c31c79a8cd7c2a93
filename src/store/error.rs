//! Why the store did not do as asked.

use std::fmt;

/// Why the store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// No such thread in this organisation.
    ThreadNotFound,
    /// The thread has moved on since its history was read.
    SequenceMoved,
    /// Another request of this organisation has this id.
    RequestIdInUse,
    /// Another request of this organisation has this idempotency key.
    IdempotencyKeyInUse,
    /// The queue is full.
    Busy,
    /// SQLite or the disk refused; the text is for the log.
    Failed(String),
    /// The store has stopped.
    Stopped,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::ThreadNotFound => f.write_str("no such thread"),
            StoreError::SequenceMoved => f.write_str("the thread has moved on"),
            StoreError::RequestIdInUse => f.write_str("the request id is in use"),
            StoreError::IdempotencyKeyInUse => f.write_str("the idempotency key is in use"),
            StoreError::Busy => f.write_str("the store's queue is full"),
            StoreError::Failed(text) => write!(f, "the store failed: {text}"),
            StoreError::Stopped => f.write_str("the store has stopped"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite's texts name tables, columns and our own SQL, never a bound value.
        StoreError::Failed(error.to_string())
    }
}

/// Whether a row was refused because it contradicts another one.
pub(super) fn is_conflict(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}
