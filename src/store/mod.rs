//! Store: threads, messages and requests, kept in SQLite.
//!
//! One thread writes; it commits in groups and answers each write at one of two levels: *written* (survives the end
//! of the process) or *durable* (survives the end of the machine); `sync.rs` says how and why that is so. Readers
//! have connections of their own. [`Store::inline`] does the same work on the caller's thread, in memory, for
//! simulations.
//!
//! | file | what it does |
//! |---|---|
//! | `handle.rs` | [`Store`]: what everybody else calls |
//! | `options.rs`, `watch.rs`, `error.rs` | what it is told, what it tells, what goes wrong |
//! | `service.rs` | the threads and the queues to them |
//! | `jobs.rs`, `writer.rs` | a write, a group of writes, the thread that commits them |
//! | `sync.rs`, `wal.rs` | durable acknowledgements; moving the log into the database |
//! | `repairs.rs` | ends of answers that could not be written yet |
//! | `readers.rs`, `near.rs` | the threads that read; what is answered without them |
//! | `files.rs` | the lock, and whether the files are still there |
//! | `inspect.rs` | looks at a database without opening it |
//! | `schema.rs`, `recovery.rs`, `migrations/` | opening, migrating, what a crash left behind |
//! | `refusal.rs` | why a database cannot be used, in words |
//! | `threads.rs`, `turns.rs`, `requests.rs`, `history.rs` | the SQL, by subject |
//! | `rows.rs`, `cursor.rs` | rows to values, the place in a list |

mod cursor;
mod error;
mod files;
mod handle;
mod history;
mod inspect;
mod jobs;
mod near;
mod options;
mod readers;
mod recovery;
mod refusal;
mod repairs;
mod requests;
mod rows;
mod schema;
mod service;
mod sync;
#[cfg(test)]
mod tests;
mod threads;
mod turns;
mod wal;
mod watch;
mod writer;

pub use cursor::{BadCursor, Cursor};
pub use error::StoreError;
pub use handle::Store;
pub use inspect::{Inspection, inspect};
pub use options::{Clock, StoreOptions};
pub use watch::{Health, Recovered, Stats};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::chat::{Content, MessageId, OrgId, RequestId, Role, StreamId, ThreadId};
use crate::event::{Citation, FinishReason, Status, ToolCall, Usage};

/// Milliseconds since the Unix epoch.
pub type UnixMs = i64;

/// A thread without its messages.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Thread {
    /// Its id.
    pub id: ThreadId,
    /// Whose it is.
    pub org_id: OrgId,
    /// Its title.
    pub title: String,
    /// Its description.
    #[schema(required)]
    pub description: Option<String>,
    /// Who made it, if the client said so.
    #[schema(required)]
    pub user_id: Option<String>,
    /// The first characters of its last message.
    #[schema(required)]
    pub last_message_preview: Option<String>,
    /// Who answered last.
    #[schema(required)]
    pub last_provider: Option<String>,
    /// What answered last.
    #[schema(required)]
    pub last_model: Option<String>,
    /// When it was made.
    #[schema(value_type = i64)]
    pub created_at: UnixMs,
    /// When a message last changed it. A new title or a pin does not move a thread up the list.
    #[schema(value_type = i64)]
    pub updated_at: UnixMs,
    /// Whether the client keeps it on top.
    pub pinned: bool,
}

/// A thread to be made.
#[derive(Debug, Clone)]
pub struct NewThread {
    /// Whose it will be.
    pub org: OrgId,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: Option<String>,
    /// Who makes it.
    pub user_id: Option<String>,
}

/// One message of a thread.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// How its answer ended; user messages are `complete`.
    pub status: Status,
    /// Who answered.
    #[schema(required)]
    pub provider: Option<String>,
    /// What answered.
    #[schema(required)]
    pub model: Option<String>,
    /// Its place in the thread, from 0, without gaps.
    pub sequence: i64,
    /// When it was made.
    #[schema(value_type = i64)]
    pub created_at: UnixMs,
    /// Why the answer ended.
    #[schema(required)]
    pub finish_reason: Option<FinishReason>,
    /// What the answer cost.
    #[schema(required)]
    pub usage: Option<Usage>,
    /// The answer's sources.
    pub citations: Vec<Citation>,
    /// The answer's visible reasoning.
    #[schema(required)]
    pub reasoning: Option<String>,
    /// The client's tools that the answer called.
    pub tool_calls: Vec<ToolCall>,
    /// Whatever else is worth keeping, as a JSON object.
    pub meta: Value,
    /// Signatures of reasoning for the provider; never leaves the server towards clients.
    #[serde(skip)]
    pub opaque: Vec<Value>,
}

/// A thread as a new turn needs it.
#[derive(Debug, Clone)]
pub struct History {
    /// The thread's settled messages, oldest first, at most as many as asked for: what belongs into a prompt.
    ///
    /// Not among them: the messages of a turn that still runs, answers without text and tool calls, and answers that
    /// a later usable answer to the same user message replaces. Begins with a user message when older ones were left
    /// out. Two user messages stand in a row where the first one's answer failed.
    pub messages: Vec<Message>,
    /// The sequence that the next message gets, if no turn is opened before.
    pub next_sequence: i64,
    /// The last settled user message, with which a turn can be regenerated. The prompt of that is `messages` up to
    /// its sequence.
    pub last_user: Option<Message>,
}

/// The first write of a turn: the user message, the empty answer, the request.
#[derive(Debug, Clone)]
pub struct OpenTurn {
    /// The thread.
    pub thread: ThreadId,
    /// What [`History::next_sequence`] said; else [`StoreError::SequenceMoved`]. `None`: wherever the thread is.
    pub expected_sequence: Option<i64>,
    /// The user message, or `None` when an answer is regenerated.
    pub user: Option<NewUserMessage>,
    /// The id of the answer.
    pub answer: MessageId,
    /// Who will answer.
    pub provider: String,
    /// What will answer.
    pub model: String,
    /// The generation that writes the answer. Only it may settle it.
    pub stream: StreamId,
    /// The request that opens the turn.
    pub request: NewRequest,
}

/// The user's half of a turn.
#[derive(Debug, Clone)]
pub struct NewUserMessage {
    /// Its id.
    pub id: MessageId,
    /// What is said.
    pub content: Content,
    /// Whatever else is worth keeping, as a JSON object.
    pub meta: Value,
    /// The message in whose place it is said: the conversation goes on from what was before that one.
    pub replaces: Option<MessageId>,
}

/// A request as the store keeps it.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Its id; carries the organisation.
    pub id: RequestId,
    /// The client's idempotency key.
    pub idempotency_key: Option<String>,
    /// Digest of the request's body, to tell a repetition from another request.
    pub body_digest: [u8; 32],
    /// `leader` or `follower`.
    pub role: CallRole,
    /// The thread, the user message and the answer, unless the request is stateless. [`Store::open_turn`] takes them
    /// from the turn itself.
    pub turn: Option<(ThreadId, Option<MessageId>, MessageId)>,
    /// The generation that it listens to.
    pub stream: StreamId,
    /// Who answers.
    pub provider: String,
    /// What answers.
    pub model: String,
}

/// Whether a request started its upstream call or joined it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallRole {
    /// It started the call.
    Leader,
    /// It joined a running call.
    Follower,
}

impl CallRole {
    /// The name in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            CallRole::Leader => "leader",
            CallRole::Follower => "follower",
        }
    }
}

/// The text of a running answer so far.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The answers that this generation writes.
    pub answers: Vec<MessageId>,
    /// The generation.
    pub stream: StreamId,
    /// The text so far.
    pub text: String,
    /// The reasoning so far.
    pub reasoning: String,
}

/// The last write of an answer. Applies only while the answer is `streaming` and belongs to `stream`.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The answers.
    pub answers: Vec<MessageId>,
    /// The generation.
    pub stream: StreamId,
    /// How it ended.
    pub status: Status,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The final text.
    pub text: String,
    /// The final reasoning.
    pub reasoning: String,
    /// What it cost.
    pub usage: Option<Usage>,
    /// Its sources.
    pub citations: Vec<Citation>,
    /// The tools that it called.
    pub tool_calls: Vec<ToolCall>,
    /// Signatures for the next turn.
    pub opaque: Vec<Value>,
    /// Whatever else is worth keeping, as a JSON object (native finish reason, error code, upstream id …).
    pub meta: Value,
    /// Who answered and with what, when that is not who the turn was opened for.
    pub answered_by: Option<(String, String)>,
    /// The requests that end with it.
    pub requests: Vec<EndedRequest>,
}

/// What a [`Settle`] changed. Settling a second time changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// How many answers were running and are settled now.
    pub answers: usize,
    /// How many requests were running and have ended now.
    pub requests: usize,
}

impl Settled {
    /// Whether there was nothing left to settle.
    pub fn already(self) -> bool {
        self.answers == 0 && self.requests == 0
    }
}

/// How one request ended.
#[derive(Debug, Clone)]
pub struct EndedRequest {
    /// Which one.
    pub id: RequestId,
    /// How it ended.
    pub status: Status,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Its timings, usage and error, as `GET /api/requests/{id}` shows them.
    pub facts: Value,
    /// See [`Settle::answered_by`].
    pub answered_by: Option<(String, String)>,
}

/// What an answer that was settled with an estimate really costs.
#[derive(Debug, Clone)]
pub struct Bill {
    /// The generation.
    pub stream: StreamId,
    /// The answers' messages.
    pub answers: Vec<MessageId>,
    /// The requests that ended with it.
    pub requests: Vec<RequestId>,
    /// What it costs.
    pub usage: Usage,
}

/// A request as it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRequest {
    /// Its id.
    pub id: RequestId,
    /// Digest of its body.
    pub body_digest: [u8; 32],
    /// Its thread.
    pub thread: Option<ThreadId>,
    /// The user message of its turn, new or, for an answer generated anew, old.
    pub user_message: Option<MessageId>,
    /// The answer of its turn.
    pub answer: Option<MessageId>,
    /// The generation that it listened to.
    pub stream: StreamId,
    /// Leader or follower.
    pub role: CallRole,
    /// Who answered.
    pub provider: String,
    /// What answered.
    pub model: String,
    /// How it ended, or `streaming`.
    pub status: Status,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
    /// Its timings, usage and error.
    pub facts: Value,
    /// When it came in.
    pub created_at: UnixMs,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
}
