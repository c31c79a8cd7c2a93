//! The SQL of requests: their ids and idempotency keys, how they ended, and what is forgotten with time.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::is_conflict;
use super::rows::{self, call_role_word, finish_reason_word, request_columns, to_json};
use super::{EndedRequest, NewRequest, OrgId, RequestId, StoreError, StoredRequest, ThreadId, UnixMs, threads};

/// How long a request without a thread is remembered, unless its key is for longer. One with a thread lives as long as
/// the thread.
const STATELESS_AGE_MAX_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// The most rows of each kind that one purge touches.
pub(super) const PURGE_ROWS_MAX: usize = 256;

/// How long idempotency keys are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyAge {
    max_ms: i64,
}

impl KeyAge {
    pub(super) fn new(max_ms: u64) -> Self {
        Self { max_ms: i64::try_from(max_ms).unwrap_or(i64::MAX) }
    }

    /// The oldest moment whose keys are still remembered at `now`.
    fn since(self, now: UnixMs) -> UnixMs {
        now.saturating_sub(self.max_ms)
    }
}

/// Adds a request that joins a turn, or has none.
pub(super) fn add(db: &Connection, new: &NewRequest, keys: KeyAge, now: UnixMs) -> Result<(), StoreError> {
    if let Some((thread, _, _)) = &new.turn {
        threads::check_exists(db, new.id.org(), thread)?;
    }
    insert(db, new, FoundBy::Thread, keys, now)?;
    Ok(())
}

/// How a request is found when its thread is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundBy {
    /// By the answer that it asked for first, which has its number.
    Answer,
    /// By an index, if it has a thread.
    Thread,
}

/// Inserts a row; its number.
pub(super) fn insert(
    db: &Connection,
    new: &NewRequest,
    found_by: FoundBy,
    keys: KeyAge,
    now: UnixMs,
) -> Result<i64, StoreError> {
    if let Some(key) = &new.idempotency_key {
        // The purge comes when it comes; a key must not live longer than promised because of that.
        let mut forget = db.prepare_cached(
            "UPDATE requests SET idempotency_key = NULL
             WHERE org_id = ?1 AND idempotency_key = ?2 AND created_at < ?3",
        )?;
        forget.execute(params![new.id.org().as_str(), key, keys.since(now)])?;
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO requests
         (org_id, id, idempotency_key, body_digest, role, thread_id, user_message_id, message_id, stream_id, provider,
          model, status, created_at, found_by_thread)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'streaming', ?12, ?13)",
    )?;
    let (thread, user, answer) = match &new.turn {
        Some((thread, user, answer)) => (Some(thread.as_str()), user.as_ref().map(|id| id.as_str()), Some(answer)),
        None => (None, None, None),
    };
    let inserted = insert.execute(params![
        new.id.org().as_str(),
        new.id.as_str(),
        new.idempotency_key,
        new.body_digest,
        call_role_word(new.role),
        thread,
        user,
        answer.map(|id| id.as_str()),
        new.stream.as_str(),
        new.provider,
        new.model,
        now,
        found_by == FoundBy::Thread && new.turn.is_some(),
    ]);
    match inserted {
        Ok(_) => Ok(db.last_insert_rowid()),
        Err(error) if is_conflict(&error) => Err(conflict(db, new, error)?),
        Err(error) => Err(error.into()),
    }
}

/// Ends the requests that still run; says how many did.
pub(super) fn end(db: &Connection, requests: &[EndedRequest], now: UnixMs) -> Result<usize, StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE requests SET status = ?3, finish_reason = ?4, facts = ?5, ended_at = ?6,
         provider = coalesce(?7, provider), model = coalesce(?8, model)
         WHERE org_id = ?1 AND id = ?2 AND status = 'streaming'",
    )?;
    let mut ended = 0;
    for request in requests {
        let (provider, model) = request.answered_by.as_ref().map(|(provider, model)| (provider, model)).unzip();
        ended += update.execute(params![
            request.id.org().as_str(),
            request.id.as_str(),
            request.status.as_str(),
            finish_reason_word(request.finish_reason),
            to_json(&request.facts),
            now,
            provider,
            model,
        ])?;
    }
    Ok(ended)
}

pub(super) fn find(db: &Connection, id: &RequestId) -> Result<Option<StoredRequest>, StoreError> {
    let mut select =
        db.prepare_cached(concat!("SELECT ", request_columns!(), " FROM requests WHERE org_id = ?1 AND id = ?2"))?;
    let read = |row: &Row<'_>| rows::request(row, id.org());
    Ok(select.query_row([id.org().as_str(), id.as_str()], read).optional()?)
}

pub(super) fn find_by_key(
    db: &Connection,
    org: &OrgId,
    key: &str,
    keys: KeyAge,
    now: UnixMs,
) -> Result<Option<StoredRequest>, StoreError> {
    let mut select = db.prepare_cached(concat!(
        "SELECT ",
        request_columns!(),
        " FROM requests WHERE org_id = ?1 AND idempotency_key = ?2 AND created_at >= ?3"
    ))?;
    let read = |row: &Row<'_>| rows::request(row, org);
    Ok(select.query_row(params![org.as_str(), key, keys.since(now)], read).optional()?)
}

/// Deletes the requests of a thread that is there.
pub(super) fn delete_of_thread(db: &Connection, thread: &ThreadId) -> Result<(), StoreError> {
    let mut by_answer = db.prepare_cached(
        "DELETE FROM requests WHERE number IN (SELECT request_number FROM messages WHERE thread_id = ?1)",
    )?;
    by_answer.execute([thread.as_str()])?;
    let mut by_thread = db.prepare_cached("DELETE FROM requests WHERE thread_id = ?1 AND found_by_thread = 1")?;
    by_thread.execute([thread.as_str()])?;
    Ok(())
}

/// Notes that requests have ended from which on the next start need not look for what runs, a bounded number at a time.
/// True when there may be more.
///
/// So each is looked at once after its end, and no index of what runs has to be changed when one begins and when one
/// ends. It has ended with its answer, which may run longer, and neither begins again.
fn note_ended(db: &Connection) -> Result<bool, StoreError> {
    let mut bounds = db.prepare_cached(
        "SELECT running_from, (SELECT coalesce(max(number), 0) + 1 FROM requests) FROM store WHERE id = 1",
    )?;
    let (from, end): (i64, i64) = bounds.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let to = end.min(from.saturating_add(PURGE_ROWS_MAX as i64));
    let mut first_running = db.prepare_cached(
        "SELECT number FROM requests WHERE number >= ?1 AND number < ?2
         AND (status = 'streaming' OR (SELECT status FROM messages WHERE id = requests.message_id) = 'streaming')
         ORDER BY number LIMIT 1",
    )?;
    let running: Option<i64> = first_running.query_row([from, to], |row| row.get(0)).optional()?;
    let next = running.unwrap_or(to);
    if next > from {
        db.prepare_cached("UPDATE store SET running_from = ?1 WHERE id = 1")?.execute([next])?;
    }
    Ok(running.is_none() && to < end)
}

/// Forgets what is older than promised, a bounded number of rows at a time. True when there may be more.
pub(super) fn purge(db: &Connection, keys: KeyAge, now: UnixMs) -> Result<bool, StoreError> {
    let rows_max = PURGE_ROWS_MAX as i64;
    let mut forget_keys = db.prepare_cached(
        "UPDATE requests SET idempotency_key = NULL WHERE rowid IN
         (SELECT rowid FROM requests WHERE idempotency_key IS NOT NULL AND created_at < ?1 LIMIT ?2)",
    )?;
    let forgotten = forget_keys.execute(params![keys.since(now), rows_max])?;
    let mut forget_stateless = db.prepare_cached(
        "DELETE FROM requests WHERE rowid IN
         (SELECT rowid FROM requests
          WHERE thread_id IS NULL AND status <> 'streaming' AND created_at < ?1 LIMIT ?2)",
    )?;
    let since = now.saturating_sub(STATELESS_AGE_MAX_MS).min(keys.since(now));
    let deleted = forget_stateless.execute(params![since, rows_max])?;
    Ok(note_ended(db)? || forgotten.max(deleted) >= PURGE_ROWS_MAX)
}

/// Which promise an insert would have broken.
fn conflict(db: &Connection, new: &NewRequest, error: rusqlite::Error) -> Result<StoreError, StoreError> {
    let org = new.id.org().as_str();
    let mut by_id = db.prepare_cached("SELECT 1 FROM requests WHERE org_id = ?1 AND id = ?2")?;
    if by_id.exists([org, new.id.as_str()])? {
        return Ok(StoreError::RequestIdInUse);
    }
    let mut by_key = db.prepare_cached("SELECT 1 FROM requests WHERE org_id = ?1 AND idempotency_key = ?2")?;
    if by_key.exists(params![org, new.idempotency_key])? {
        return Ok(StoreError::IdempotencyKeyInUse);
    }
    Ok(error.into())
}
