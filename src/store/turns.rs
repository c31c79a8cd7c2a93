//! The SQL of turns: opened once, checkpointed while they run, settled exactly once.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::requests::{FoundBy, KeyAge};
use super::rows::{self, content_columns, finish_reason_word, list_to_json, object_to_json, to_json};
use super::{
    Bill, Checkpoint, NewRequest, NewUserMessage, OpenTurn, OrgId, Settle, Settled, StoreError, StreamId, ThreadId,
    UnixMs, requests, threads,
};
use crate::chat::MessageId;

/// The first write of a turn.
pub(super) fn open(db: &Connection, turn: &OpenTurn, keys: KeyAge, now: UnixMs) -> Result<(), StoreError> {
    let place = place_in_thread(db, turn.request.id.org(), &turn.thread)?;
    if turn.expected_sequence.is_some_and(|expected| expected != place.next_sequence) {
        return Err(StoreError::SequenceMoved);
    }
    let asked_by = match &turn.user {
        Some(user) => {
            // The turn before may have run when the history was read, and only the message before that one was known.
            if user.replaces.is_some() && user.replaces != last_user_id(db, &turn.thread)? {
                return Err(StoreError::SequenceMoved);
            }
            insert_user(db, &turn.thread, &place, user, now)?;
            Some(user.id.clone())
        }
        None => last_user_id(db, &turn.thread)?,
    };
    let ids = (turn.thread.clone(), asked_by.clone(), turn.answer.clone());
    let request = NewRequest { turn: Some(ids), ..turn.request.clone() };
    let request_number = requests::insert(db, &request, FoundBy::Answer, keys, now)?;
    let sequence = place.next_sequence + i64::from(turn.user.is_some());
    let mut insert = db.prepare_cached(
        "INSERT INTO messages
         (id, thread_id, sequence, parent_id, role, content, status, provider, model, created_at, stream_id,
          request_number)
         VALUES (?1, ?2, ?3, ?4, 'assistant', '', 'streaming', ?5, ?6, ?7, ?8, ?9)",
    )?;
    let answer = turn.answer.as_str();
    let thread = turn.thread.as_str();
    insert.execute(params![
        answer,
        thread,
        sequence,
        asked_by.as_ref().map(MessageId::as_str),
        turn.provider,
        turn.model,
        now,
        turn.stream.as_str(),
        request_number
    ])?;
    touch_for_turn(db, turn, now)
}

/// The text of a running answer so far. Nothing happens when the answer does not run any more.
pub(super) fn checkpoint(db: &Connection, so_far: &Checkpoint) -> Result<(), StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE messages SET content = ?3, reasoning = ?4
         WHERE id = ?1 AND stream_id = ?2 AND status = 'streaming'",
    )?;
    let reasoning = (!so_far.reasoning.is_empty()).then_some(&so_far.reasoning);
    for answer in &so_far.answers {
        update.execute(params![answer.as_str(), so_far.stream.as_str(), so_far.text, reasoning])?;
    }
    Ok(())
}

/// The last write of an answer: compare-and-set on its generation and on `streaming`.
pub(super) fn settle(db: &Connection, last: &Settle, now: UnixMs) -> Result<Settled, StoreError> {
    let mut settled = Settled { answers: 0, requests: 0 };
    let preview = threads::preview(&last.text);
    for answer in &last.answers {
        if settle_answer(db, answer, &last.stream, last)? {
            touch_for_answer(db, answer, last, preview.as_deref(), now)?;
            settled.answers += 1;
        }
    }
    settled.requests = requests::end(db, &last.requests, now)?;
    Ok(settled)
}

/// The cost of what was settled with another one.
pub(super) fn correct_usage(db: &Connection, bill: &Bill) -> Result<(), StoreError> {
    let usage = to_json(&bill.usage);
    let mut update =
        db.prepare_cached("UPDATE messages SET usage = ?3 WHERE id = ?1 AND stream_id = ?2 AND status <> 'streaming'")?;
    for answer in &bill.answers {
        update.execute(params![answer.as_str(), bill.stream.as_str(), usage])?;
    }
    let mut update = db.prepare_cached(
        "UPDATE requests SET facts = json_set(facts, '$.usage', json(?4))
         WHERE org_id = ?1 AND id = ?2 AND stream_id = ?3 AND status <> 'streaming'",
    )?;
    for request in &bill.requests {
        update.execute(params![request.org().as_str(), request.as_str(), bill.stream.as_str(), usage])?;
    }
    Ok(())
}

/// Where a thread's next message goes.
struct Place {
    next_sequence: i64,
    last_message: Option<String>,
}

fn place_in_thread(db: &Connection, org: &OrgId, thread: &ThreadId) -> Result<Place, StoreError> {
    threads::check_exists(db, org, thread)?;
    let mut select =
        db.prepare_cached("SELECT sequence, id FROM messages WHERE thread_id = ?1 ORDER BY sequence DESC LIMIT 1")?;
    let last = select.query_row([thread.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
    Ok(match last {
        Some((sequence, id)) => Place { next_sequence: sequence + 1, last_message: Some(id) },
        None => Place { next_sequence: 0, last_message: None },
    })
}

fn insert_user(
    db: &Connection,
    thread: &ThreadId,
    place: &Place,
    user: &NewUserMessage,
    now: UnixMs,
) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO messages (id, thread_id, sequence, parent_id, role, content, parts, status, created_at, meta)
         VALUES (?1, ?2, ?3, ?4, 'user', ?5, ?6, 'complete', ?7, ?8)",
    )?;
    let (text, parts) = content_columns(&user.content);
    let (id, meta) = (user.id.as_str(), object_to_json(&user.meta));
    let parent = match &user.replaces {
        Some(replaced) => parent_of(db, thread, replaced)?,
        None => place.last_message.clone(),
    };
    insert.execute(params![id, thread.as_str(), place.next_sequence, parent, text, parts, now, meta])?;
    Ok(())
}

/// What was said before a message; nothing before the first one.
fn parent_of(db: &Connection, thread: &ThreadId, message: &MessageId) -> Result<Option<String>, StoreError> {
    let mut select = db.prepare_cached("SELECT parent_id FROM messages WHERE id = ?1 AND thread_id = ?2")?;
    Ok(select.query_row([message.as_str(), thread.as_str()], |row| row.get(0)).optional()?.flatten())
}

fn last_user_id(db: &Connection, thread: &ThreadId) -> Result<Option<MessageId>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT id FROM messages WHERE thread_id = ?1 AND role = 'user' ORDER BY sequence DESC LIMIT 1",
    )?;
    let read = |row: &Row<'_>| row.get::<_, String>(0).map(MessageId::new);
    Ok(select.query_row([thread.as_str()], read).optional()?)
}

fn touch_for_turn(db: &Connection, turn: &OpenTurn, now: UnixMs) -> Result<(), StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE threads SET updated_at = ?2, last_provider = ?3, last_model = ?4,
         last_message_preview = coalesce(?5, last_message_preview),
         title = CASE title WHEN '' THEN coalesce(?6, '') ELSE title END WHERE id = ?1",
    )?;
    let text = turn.user.as_ref().map(|user| user.content.text());
    let preview = text.as_deref().and_then(threads::preview);
    let title = text.as_deref().and_then(threads::title_of);
    update.execute(params![turn.thread.as_str(), now, turn.provider, turn.model, preview, title])?;
    Ok(())
}

fn settle_answer(db: &Connection, answer: &MessageId, stream: &StreamId, last: &Settle) -> Result<bool, StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE messages SET status = ?3, finish_reason = ?4, content = ?5, reasoning = ?6, usage = ?7,
         citations = ?8, tool_calls = ?9, opaque = ?10, meta = ?11, provider = coalesce(?12, provider),
         model = coalesce(?13, model)
         WHERE id = ?1 AND stream_id = ?2 AND status = 'streaming'",
    )?;
    let (provider, model) = last.answered_by.as_ref().map(|(provider, model)| (provider, model)).unzip();
    let changed = update.execute(params![
        answer.as_str(),
        stream.as_str(),
        last.status.as_str(),
        finish_reason_word(last.finish_reason),
        last.text,
        (!last.reasoning.is_empty()).then_some(&last.reasoning),
        last.usage.as_ref().map(to_json),
        list_to_json(&last.citations),
        list_to_json(&last.tool_calls),
        list_to_json(&last.opaque),
        rows::object_to_json(&last.meta),
        provider,
        model,
    ])?;
    Ok(changed > 0)
}

fn touch_for_answer(
    db: &Connection,
    answer: &MessageId,
    last: &Settle,
    preview: Option<&str>,
    now: UnixMs,
) -> Result<(), StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE threads SET updated_at = ?2, last_message_preview = coalesce(?3, last_message_preview),
         last_provider = coalesce(?4, last_provider), last_model = coalesce(?5, last_model)
         WHERE id = (SELECT thread_id FROM messages WHERE id = ?1)",
    )?;
    let (provider, model) = last.answered_by.as_ref().map(|(provider, model)| (provider, model)).unzip();
    update.execute(params![answer.as_str(), now, preview, provider, model])?;
    Ok(())
}
