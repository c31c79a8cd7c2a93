//! The SQL of history: which messages of a thread belong into the next prompt. On the path to the first token.

use rusqlite::{Connection, Row, params};

use super::rows::{self, MESSAGE_COLUMNS_LEN, message_columns};
use super::{History, Message, OrgId, StoreError, ThreadId, threads};
use crate::chat::Role;
use crate::event::Status;

/// Reads the thread backwards until the history is full.
pub(super) fn read(
    db: &Connection,
    org: &OrgId,
    thread: &ThreadId,
    messages_max: usize,
) -> Result<History, StoreError> {
    threads::check_exists(db, org, thread)?;
    let mut select = db.prepare_cached(concat!(
        "SELECT ",
        message_columns!(),
        ", parent_id FROM messages WHERE thread_id = ?1 ORDER BY sequence DESC"
    ))?;
    let mut rows = select.query(params![thread.as_str()])?;
    let mut pick = Pick::new(messages_max);
    while !pick.is_done()
        && let Some(row) = rows.next()?
    {
        pick.offer(row)?;
    }
    Ok(pick.finish())
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
    /// Whether a message that belonged into the history found no room.
    is_cut: bool,
}

impl Pick {
    fn new(messages_max: usize) -> Self {
        Self {
            messages_max,
            newest_first: Vec::new(),
            next_sequence: None,
            last_user: None,
            running_at: None,
            answered: None,
            is_cut: false,
        }
    }

    fn is_done(&self) -> bool {
        self.is_cut && self.last_user.is_some()
    }

    fn offer(&mut self, row: &Row<'_>) -> Result<(), StoreError> {
        let message = rows::message(row)?;
        let sequence = message.sequence;
        self.next_sequence.get_or_insert(sequence + 1);
        if message.status == Status::Streaming {
            self.running_at = Some(sequence);
            return Ok(());
        }
        match message.role {
            Role::User => {
                if self.running_at == Some(sequence + 1) {
                    return Ok(());
                }
                if self.last_user.is_none() {
                    self.last_user = Some(message.clone());
                }
            }
            Role::Assistant => {
                let parent = row.get::<_, Option<String>>(MESSAGE_COLUMNS_LEN)?;
                let is_replaced = parent.is_some() && parent == self.answered;
                if is_replaced || !says_something(&message) {
                    return Ok(());
                }
                self.answered = parent;
            }
            Role::System | Role::Tool => {}
        }
        if self.newest_first.len() < self.messages_max {
            self.newest_first.push(message);
        } else {
            self.is_cut = true;
        }
        Ok(())
    }

    fn finish(self) -> History {
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

/// Whether an answer has anything that the model could be shown.
fn says_something(message: &Message) -> bool {
    !message.content.text().trim().is_empty() || !message.tool_calls.is_empty()
}
