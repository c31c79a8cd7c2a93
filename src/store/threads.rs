//! The SQL of threads. The organisation is part of every WHERE: a foreign thread does not exist.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, message_columns, thread_columns};
use super::{Cursor, Message, MessageId, NewThread, OrgId, StoreError, Thread, ThreadId, UnixMs, requests};

/// The longest preview of a message, in characters.
const PREVIEW_CHARS_MAX: usize = 120;
/// The longest title that is taken from a message, in characters.
const TITLE_CHARS_MAX: usize = 60;

pub(super) fn create(db: &Connection, id: &ThreadId, new: &NewThread, now: UnixMs) -> Result<Thread, StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO threads (id, org_id, title, description, user_id, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )?;
    insert.execute(params![id.as_str(), new.org.as_str(), new.title, new.description, new.user_id, now])?;
    Ok(Thread {
        id: id.clone(),
        org_id: new.org.clone(),
        title: new.title.clone(),
        description: new.description.clone(),
        user_id: new.user_id.clone(),
        last_message_preview: None,
        last_provider: None,
        last_model: None,
        created_at: now,
        updated_at: now,
        pinned: false,
    })
}

pub(super) fn list(
    db: &Connection,
    org: &OrgId,
    limit: usize,
    before: Option<&Cursor>,
) -> Result<(Vec<Thread>, Option<Cursor>), StoreError> {
    // One row more than asked for tells whether there is a next page.
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let (updated_at, id) = match before {
        Some(cursor) => (cursor.updated_at, cursor.id.as_str()),
        None => (UnixMs::MAX, ""),
    };
    let mut select = db.prepare_cached(concat!(
        "SELECT ",
        thread_columns!(),
        " FROM threads WHERE org_id = ?1 AND (updated_at, id) < (?2, ?3)
          ORDER BY updated_at DESC, id DESC LIMIT ?4"
    ))?;
    let rows = select.query_map(params![org.as_str(), updated_at, id, rows_max], rows::thread)?;
    let mut threads = rows.collect::<Result<Vec<_>, _>>()?;
    let has_more = threads.len() > limit;
    threads.truncate(limit);
    let last = threads.last().filter(|_| has_more);
    let next = last.map(|thread| Cursor { updated_at: thread.updated_at, id: thread.id.clone() });
    Ok((threads, next))
}

/// The thread with its newest messages before `before_sequence`, oldest first.
pub(super) fn read(
    db: &Connection,
    org: &OrgId,
    id: &ThreadId,
    messages_max: usize,
    before_sequence: Option<i64>,
) -> Result<Option<(Thread, Vec<Message>)>, StoreError> {
    let Some(thread) = find(db, org, id)? else { return Ok(None) };
    let mut select = db.prepare_cached(concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages WHERE thread_id = ?1 AND sequence < ?2 ORDER BY sequence DESC LIMIT ?3"
    ))?;
    let before = before_sequence.unwrap_or(i64::MAX);
    let rows_max = i64::try_from(messages_max).unwrap_or(i64::MAX);
    let rows = select.query_map(params![id.as_str(), before, rows_max], rows::message)?;
    let mut messages = rows.collect::<Result<Vec<_>, _>>()?;
    messages.reverse();
    Ok(Some((thread, messages)))
}

pub(super) fn message(
    db: &Connection,
    org: &OrgId,
    thread: &ThreadId,
    id: &MessageId,
) -> Result<Option<Message>, StoreError> {
    let mut select = db.prepare_cached(concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages WHERE id = ?1 AND thread_id = (SELECT id FROM threads WHERE id = ?2 AND org_id = ?3)"
    ))?;
    let found = select.query_row([id.as_str(), thread.as_str(), org.as_str()], rows::message);
    Ok(found.optional()?)
}

pub(super) fn patch(
    db: &Connection,
    org: &OrgId,
    id: &ThreadId,
    title: Option<&str>,
    pinned: Option<bool>,
) -> Result<Thread, StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE threads SET title = coalesce(?3, title), pinned = coalesce(?4, pinned) WHERE id = ?1 AND org_id = ?2",
    )?;
    update.execute(params![id.as_str(), org.as_str(), title, pinned])?;
    find(db, org, id)?.ok_or(StoreError::ThreadNotFound)
}

pub(super) fn delete(db: &Connection, org: &OrgId, id: &ThreadId) -> Result<(), StoreError> {
    check_exists(db, org, id)?;
    requests::delete_of_thread(db, id)?;
    // Its messages go with it.
    db.prepare_cached("DELETE FROM threads WHERE id = ?1 AND org_id = ?2")?.execute([id.as_str(), org.as_str()])?;
    Ok(())
}

pub(super) fn check_exists(db: &Connection, org: &OrgId, id: &ThreadId) -> Result<(), StoreError> {
    let mut select = db.prepare_cached("SELECT 1 FROM threads WHERE id = ?1 AND org_id = ?2")?;
    if select.exists([id.as_str(), org.as_str()])? { Ok(()) } else { Err(StoreError::ThreadNotFound) }
}

/// The first characters of a text, on one line; `None` when there are none.
pub(super) fn preview(text: &str) -> Option<String> {
    first_chars(text, PREVIEW_CHARS_MAX)
}

/// The title that a thread takes from its first message; `None` when the message has no text.
pub(super) fn title_of(text: &str) -> Option<String> {
    first_chars(text, TITLE_CHARS_MAX)
}

fn first_chars(text: &str, chars_max: usize) -> Option<String> {
    let mut out = String::new();
    let mut room = chars_max;
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
            room -= 1;
        }
        let before = out.len();
        out.extend(word.chars().take(room));
        room -= out[before..].chars().count();
        if room <= 1 {
            break;
        }
    }
    let end = out.trim_end().len();
    out.truncate(end);
    (!out.is_empty()).then_some(out)
}

fn find(db: &Connection, org: &OrgId, id: &ThreadId) -> Result<Option<Thread>, StoreError> {
    let mut select =
        db.prepare_cached(concat!("SELECT ", thread_columns!(), " FROM threads WHERE id = ?1 AND org_id = ?2"))?;
    Ok(select.query_row([id.as_str(), org.as_str()], rows::thread).optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_one_line_cut_between_characters() {
        let check = |text: &str, chars_max, expected: Option<&str>| {
            assert_eq!(first_chars(text, chars_max).as_deref(), expected, "{text:?}");
        };
        check("", 5, None);
        check(" \n\t ", 5, None);
        check("a\n\nb  c", 60, Some("a b c"));
        check("äöüßé", 3, Some("äöü"));
        check("ab cdef", 4, Some("ab c"));
        check("abc def", 4, Some("abc"));
        check("👩‍👩‍👧‍👦x", 2, Some("👩\u{200d}"));
        check("\u{2028}a", 1, Some("a"));
    }
}
