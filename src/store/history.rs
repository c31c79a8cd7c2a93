//! The SQL of history: which messages of a thread belong into the next prompt. On the path to the first token.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{self, MESSAGE_COLUMNS_LEN, message_columns};
use super::{History, Message, OrgId, StoreError, ThreadId, threads};
use crate::chat::{Content, Role};
use crate::event::Status;

/// Reads the thread backwards until the history is full. Answers and turns that were replaced are jumped over, however
/// many; turns that failed before the same message was sent again are left out.
pub(super) fn read(
    db: &Connection,
    org: &OrgId,
    thread: &ThreadId,
    messages_max: usize,
    next: Option<Content>,
) -> Result<History, StoreError> {
    let history = read_within(db, org, thread, messages_max, next, Bounds::NONE)?;
    Ok(history.expect("nothing is too long where there is no bound"))
}

/// How much may be read of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    const NONE: Self = Self { rows: usize::MAX, bytes: usize::MAX };

    /// Whether this row is within them, after those before it.
    fn take(&mut self, row: &Row<'_>) -> rusqlite::Result<bool> {
        if self.bytes == usize::MAX {
            return Ok(true);
        }
        let mut bytes = 0;
        for column in 0..MESSAGE_COLUMNS_LEN {
            if let ValueRef::Text(text) = row.get_ref(column)? {
                bytes += text.len();
            }
        }
        let (rows_left, bytes_left) = (self.rows.checked_sub(1), self.bytes.checked_sub(bytes));
        self.rows = rows_left.unwrap_or(0);
        self.bytes = bytes_left.unwrap_or(0);
        Ok(rows_left.is_some() && bytes_left.is_some())
    }
}

/// As [`read`]; `None` when more than that had to be read.
pub(super) fn read_within(
    db: &Connection,
    org: &OrgId,
    thread: &ThreadId,
    messages_max: usize,
    next: Option<Content>,
    mut bounds: Bounds,
) -> Result<Option<History>, StoreError> {
    threads::check_exists(db, org, thread)?;
    let mut select = db.prepare_cached(concat!(
        "SELECT ",
        message_columns!(),
        ", parent_id FROM messages WHERE thread_id = ?1 AND sequence <= ?2 ORDER BY sequence DESC"
    ))?;
    let mut pick = Pick::new(messages_max, next);
    let mut newest = Some(i64::MAX);
    while let Some(from) = newest.take() {
        let mut rows = select.query(params![thread.as_str(), from])?;
        while !pick.is_done()
            && let Some(row) = rows.next()?
        {
            if !bounds.take(row)? {
                return Ok(None);
            }
            if let Some(Replaced { sequence, before }) = pick.offer(row)? {
                newest = match before {
                    Some(before) => Some(sequence_of(db, thread, &before)?.unwrap_or(i64::MAX).min(sequence - 1)),
                    None => None,
                };
                break;
            }
        }
    }
    Ok(Some(pick.finish()))
}

/// Decides message by message, newest first.
struct Pick {
    messages_max: usize,
    newest_first: Vec<Message>,
    next_sequence: Option<i64>,
    last_user: Option<Message>,
    /// Where the newest running answer stands. A user message right before it belongs to the running turn; an
    /// answer that is generated anew has an older answer before it.
    running_at: Option<i64>,
    /// Which message the answer that was kept last answers.
    answered: Option<String>,
    /// What is said after the turn that is being read.
    next: Option<Content>,
    /// Whether the turn that is being read has failed, with what came of its answer.
    failed: Option<Option<Message>>,
    /// After a user message: the message that it follows, or that it is the first. It may be said in the place of
    /// another, and then whole turns are between.
    follows: Option<Option<String>>,
    /// Whether a message that belonged into the history found no room.
    is_cut: bool,
}

impl Pick {
    fn new(messages_max: usize, next: Option<Content>) -> Self {
        Self {
            messages_max,
            newest_first: Vec::new(),
            next_sequence: None,
            last_user: None,
            running_at: None,
            answered: None,
            next,
            failed: None,
            follows: None,
            is_cut: false,
        }
    }

    fn is_done(&self) -> bool {
        self.is_cut && self.last_user.is_some()
    }

    /// Takes the next older message. At one that is replaced, says so.
    fn offer(&mut self, row: &Row<'_>) -> Result<Option<Replaced>, StoreError> {
        let message = rows::message(row)?;
        let sequence = message.sequence;
        if let Some(before) = self.follows.take()
            && before.as_deref() != Some(message.id.as_str())
        {
            return Ok(Some(Replaced { sequence, before }));
        }
        self.next_sequence.get_or_insert(sequence + 1);
        if message.status == Status::Streaming {
            self.running_at = Some(sequence);
            return Ok(None);
        }
        match message.role {
            Role::User => {
                if self.running_at == Some(sequence + 1) {
                    return Ok(None);
                }
                self.follows = Some(row.get(MESSAGE_COLUMNS_LEN)?);
                if self.last_user.is_none() {
                    self.last_user = Some(message.clone());
                }
                let failed = self.failed.take();
                if failed.is_some() && self.next.as_ref() == Some(&message.content) {
                    return Ok(None);
                }
                failed.flatten().into_iter().for_each(|answer| self.keep(answer));
                self.next = Some(message.content.clone());
            }
            Role::Assistant => {
                let parent = row.get::<_, Option<String>>(MESSAGE_COLUMNS_LEN)?;
                if let Some(parent) = parent.clone().filter(|_| parent == self.answered) {
                    return Ok(Some(Replaced { sequence, before: Some(parent) }));
                }
                let says_something = says_something(&message);
                if says_something {
                    self.answered = parent;
                }
                if message.status == Status::Error {
                    self.failed = Some(Some(message).filter(|_| says_something));
                    return Ok(None);
                }
                self.failed = None;
                if !says_something {
                    return Ok(None);
                }
            }
            Role::System | Role::Tool => {}
        }
        self.keep(message);
        Ok(None)
    }

    fn keep(&mut self, message: Message) {
        if self.newest_first.len() < self.messages_max {
            self.newest_first.push(message);
        } else {
            self.is_cut = true;
        }
    }

    fn finish(mut self) -> History {
        if let Some(answer) = self.failed.take().flatten() {
            self.keep(answer);
        }
        let mut messages = self.newest_first;
        if self.is_cut {
            // A conversation that begins with an answer to nothing is refused by some providers.
            let kept = messages.iter().rposition(|message| message.role == Role::User).map_or(0, |last| last + 1);
            messages.truncate(kept);
        }
        messages.reverse();
        History { messages, next_sequence: self.next_sequence.unwrap_or(0), last_user: self.last_user }
    }
}

/// An answer that a later one to the same user message replaces, or a message of a turn that was replaced by another.
struct Replaced {
    sequence: i64,
    /// The message to go on with; none when the conversation begins after this.
    before: Option<String>,
}

/// Where a message stands.
fn sequence_of(db: &Connection, thread: &ThreadId, message: &str) -> Result<Option<i64>, StoreError> {
    let mut select = db.prepare_cached("SELECT sequence FROM messages WHERE id = ?1 AND thread_id = ?2")?;
    Ok(select.query_row([message, thread.as_str()], |row| row.get(0)).optional()?)
}

/// Whether an answer has anything that the model could be shown.
fn says_something(message: &Message) -> bool {
    !message.content.text().trim().is_empty() || !message.tool_calls.is_empty()
}
