//! What the last end of the process left running: it is `interrupted` now, with the text that was kept.

use rusqlite::{Connection, params};

use super::{Recovered, UnixMs, rows, threads};
use crate::failure::{Code, Failure};

/// Each running answer has a request, and those before `running_from` have ended with their answers.
macro_rules! running_messages {
    () => {
        "status = 'streaming' AND id IN \
         (SELECT message_id FROM requests WHERE number >= (SELECT running_from FROM store WHERE id = 1))"
    };
}

/// Ends everything that claims to run. Only right after opening, when nothing can.
pub(super) fn run(db: &Connection, now: UnixMs) -> rusqlite::Result<Recovered> {
    show_in_threads(db)?;
    let messages = db.execute(
        concat!("UPDATE messages SET status = 'interrupted', finish_reason = 'error' WHERE ", running_messages!()),
        [],
    )?;
    let failure = Failure::new(Code::Interrupted, "the server stopped while this answer was being written");
    let requests = db.execute(
        "UPDATE requests SET status = 'interrupted', finish_reason = 'error', ended_at = ?1,
         facts = json_set(CASE json_type(facts) WHEN 'object' THEN facts ELSE '{}' END,
                          '$.error', json(?2), '$.error.request_id', id)
         WHERE number >= (SELECT running_from FROM store WHERE id = 1) AND status = 'streaming'",
        params![now, rows::to_json(&failure.body(None))],
    )?;
    db.execute("UPDATE store SET running_from = (SELECT coalesce(max(number), 0) + 1 FROM requests) WHERE id = 1", [])?;
    Ok(Recovered { messages: messages as u64, requests: requests as u64 })
}

/// What the answers have said so far is the last message of their threads, as if they had been settled.
fn show_in_threads(db: &Connection) -> rusqlite::Result<()> {
    let mut running = db.prepare(concat!("SELECT thread_id, content FROM messages WHERE ", running_messages!()))?;
    let mut update = db.prepare("UPDATE threads SET last_message_preview = ?2 WHERE id = ?1")?;
    let mut rows = running.query([])?;
    while let Some(row) = rows.next()? {
        let (thread, text): (String, String) = (row.get(0)?, row.get(1)?);
        if let Some(preview) = threads::preview(&text) {
            update.execute([thread, preview])?;
        }
    }
    Ok(())
}
