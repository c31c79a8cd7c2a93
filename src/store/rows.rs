//! Rows to values and back: the words, the JSON columns, the order of columns.

use rusqlite::types::Type;
use rusqlite::{Error, Row};
use serde::Serialize;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{Deserialize, DeserializeOwned, IntoDeserializer};
use serde_json::Value;

use super::{CallRole, Message, StoredRequest, Thread};
use crate::chat::{Content, MessageId, OrgId, Part, RequestId, StreamId, ThreadId};
use crate::event::FinishReason;

/// The columns that [`message`] reads, in its order.
macro_rules! message_columns {
    () => {
        "id, role, content, parts, status, provider, model, sequence, created_at, finish_reason, usage, citations, \
         reasoning, tool_calls, meta, opaque"
    };
}
pub(super) use message_columns;

/// How many columns [`message`] reads.
pub(super) const MESSAGE_COLUMNS_LEN: usize = 16;

/// The columns that [`thread`] reads, in its order.
macro_rules! thread_columns {
    () => {
        "id, org_id, title, description, user_id, last_message_preview, last_provider, last_model, created_at, \
         updated_at, pinned"
    };
}
pub(super) use thread_columns;

/// The columns that [`request`] reads, in its order.
macro_rules! request_columns {
    () => {
        "id, body_digest, thread_id, user_message_id, message_id, stream_id, role, provider, model, status, \
         finish_reason, facts, created_at, ended_at"
    };
}
pub(super) use request_columns;

pub(super) fn thread(row: &Row<'_>) -> rusqlite::Result<Thread> {
    Ok(Thread {
        id: ThreadId::new(text(row, 0)?),
        org_id: OrgId::new(text(row, 1)?),
        title: row.get(2)?,
        description: row.get(3)?,
        user_id: row.get(4)?,
        last_message_preview: row.get(5)?,
        last_provider: row.get(6)?,
        last_model: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
        pinned: row.get(10)?,
    })
}

pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let content = match json::<Vec<Part>>(row, 3)? {
        Some(parts) => Content::Parts(parts),
        None => Content::Text(row.get(2)?),
    };
    Ok(Message {
        id: MessageId::new(text(row, 0)?),
        role: word(row, 1)?,
        content,
        status: word(row, 4)?,
        provider: row.get(5)?,
        model: row.get(6)?,
        sequence: row.get(7)?,
        created_at: row.get(8)?,
        finish_reason: word_or_null(row, 9)?,
        usage: json(row, 10)?,
        citations: json(row, 11)?.unwrap_or_default(),
        reasoning: row.get(12)?,
        tool_calls: json(row, 13)?.unwrap_or_default(),
        meta: json(row, 14)?.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        opaque: json(row, 15)?.unwrap_or_default(),
    })
}

pub(super) fn request(row: &Row<'_>, org: &OrgId) -> rusqlite::Result<StoredRequest> {
    let id = RequestId::parse(org.clone(), text(row, 0)?).ok_or_else(|| bad_row(0, "not a request id"))?;
    Ok(StoredRequest {
        id,
        body_digest: row.get(1)?,
        thread: text_or_null(row, 2)?.map(ThreadId::new),
        user_message: text_or_null(row, 3)?.map(MessageId::new),
        answer: text_or_null(row, 4)?.map(MessageId::new),
        stream: StreamId::new(text(row, 5)?),
        role: word(row, 6)?,
        provider: row.get(7)?,
        model: row.get(8)?,
        status: word(row, 9)?,
        finish_reason: word_or_null(row, 10)?,
        facts: json(row, 11)?.unwrap_or_default(),
        created_at: row.get(12)?,
        ended_at: row.get(13)?,
    })
}

/// The two columns of a message's content: its text, and its parts when it is more than text.
pub(super) fn content_columns(content: &Content) -> (std::borrow::Cow<'_, str>, Option<String>) {
    let parts = match content {
        Content::Text(_) => None,
        Content::Parts(parts) => Some(to_json(parts)),
    };
    (content.text(), parts)
}

pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the store's values have string keys and finite numbers")
}

/// JSON for a list, or NULL when it is empty.
pub(super) fn list_to_json<T: Serialize>(list: &[T]) -> Option<String> {
    (!list.is_empty()).then(|| to_json(&list))
}

/// JSON for an object, or NULL when there is nothing in it.
pub(super) fn object_to_json(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Object(map) if map.is_empty() => None,
        value => Some(to_json(value)),
    }
}

pub(super) fn finish_reason_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Cancelled => "cancelled",
        FinishReason::Error => "error",
        FinishReason::Other => "other",
    }
}

pub(super) fn call_role_word(role: CallRole) -> &'static str {
    match role {
        CallRole::Leader => "leader",
        CallRole::Follower => "follower",
    }
}

fn text<'row>(row: &'row Row<'_>, index: usize) -> rusqlite::Result<&'row str> {
    row.get_ref(index)?.as_str().map_err(|error| bad_row(index, error))
}

fn text_or_null<'row>(row: &'row Row<'_>, index: usize) -> rusqlite::Result<Option<&'row str>> {
    row.get_ref(index)?.as_str_or_null().map_err(|error| bad_row(index, error))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>> {
    let text = text_or_null(row, index)?;
    // The parser's message may quote the text: it stays out of the log.
    text.map(serde_json::from_str).transpose().map_err(|_| bad_row(index, "not the JSON that was written"))
}

fn word<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    parse_word(text(row, index)?).map_err(|error| bad_row(index, error))
}

fn word_or_null<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>> {
    text_or_null(row, index)?.map(parse_word).transpose().map_err(|error| bad_row(index, error))
}

fn parse_word<'de, T: Deserialize<'de>>(word: &'de str) -> Result<T, WordError> {
    let word: StrDeserializer<'de, WordError> = word.into_deserializer();
    T::deserialize(word)
}

fn bad_row(index: usize, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::FromSqlConversionFailure(index, Type::Text, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;
    use crate::event::Status;

    #[test]
    fn words_are_read_as_they_are_written() {
        use FinishReason::{Cancelled, ContentFilter, Error, Length, Other, Stop, ToolCalls};
        for reason in [Stop, Length, ToolCalls, ContentFilter, Cancelled, Error, Other] {
            assert_eq!(parse_word::<FinishReason>(finish_reason_word(reason)), Ok(reason));
        }
        for role in [CallRole::Leader, CallRole::Follower] {
            assert_eq!(parse_word::<CallRole>(call_role_word(role)), Ok(role));
        }
        for role in [Role::System, Role::User, Role::Assistant, Role::Tool] {
            assert_eq!(parse_word::<Role>(role.as_str()), Ok(role));
        }
        for status in [Status::Streaming, Status::Complete, Status::Cancelled, Status::Interrupted, Status::Error] {
            assert_eq!(parse_word::<Status>(status.as_str()), Ok(status));
        }
    }
}
