//! The coalescer's tables: which answer runs for which key, thread and request. Pure: time is an argument.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::chat::{MessageId, OrgId, RequestId, RequestKey, StreamId, ThreadId};
use crate::failure::{Code, Failure};

/// What one remembered request weighs beside the answer, roughly: its ids, its end, its places in the tables.
/// Measured with answers of one word, on connections of their own.
pub(super) const REQUEST_BYTES: usize = 4096;

/// The sizes and times of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Answers that may run at once.
    pub streams_max: usize,
    /// Requests that may share one answer.
    pub listeners_max: usize,
    /// Requests remembered, running and ended.
    pub requests_max: usize,
    /// How long a failure answers identical requests.
    pub error_ttl: Duration,
    /// How long an ended answer can be resumed.
    pub retain: Duration,
    /// What all ended answers may weigh together, in bytes.
    pub retained_bytes_max: usize,
    /// How long a cancel waits for its request.
    pub cancel_intent: Duration,
}

/// What a request brings to the tables.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its id.
    pub request: RequestId,
    /// The client's idempotency key.
    pub idempotency_key: Option<String>,
    /// Digest of its body, to tell a repetition from another request.
    pub body_digest: [u8; 32],
    /// What it asks for.
    pub key: RequestKey,
    /// The turn that it opens, unless its thread is being given the same answer already.
    pub turn: Option<TurnIds>,
    /// The generation to start, when it leads.
    pub stream: StreamId,
}

/// The messages of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnIds {
    /// The thread.
    pub thread: ThreadId,
    /// What is answered.
    pub user_message: Option<MessageId>,
    /// The answer.
    pub answer: MessageId,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It starts the upstream call, as `Ask::stream`.
    Lead,
    /// It joins a running answer.
    Follow {
        /// Which one.
        stream: StreamId,
        /// The turn that it belongs to.
        turn: Option<TurnIds>,
        /// Whether that turn is new, because the answer runs for other threads so far.
        opens: bool,
    },
    /// It is a repetition of this known request.
    Repeat(RequestId),
    /// It was cancelled before it came.
    Withdrawn,
    /// It cannot be served.
    Reject(Failure),
}

/// A remembered request, with whatever the owner of the tables wants to find by it.
#[derive(Debug)]
struct Known<T> {
    stream: StreamId,
    body_digest: [u8; 32],
    idempotency_key: Option<String>,
    thread: Option<ThreadId>,
    has_left: bool,
    payload: Option<T>,
}

/// The running turn of a thread.
#[derive(Debug)]
struct Turn {
    stream: StreamId,
    /// The requests that share it, in order of arrival; the first one has not left.
    requests: VecDeque<RequestId>,
    ids: TurnIds,
}

/// A running answer.
#[derive(Debug)]
struct Running {
    key: RequestKey,
    threads: HashSet<ThreadId>,
    requests: Vec<RequestId>,
}

/// An answer that has ended and can still be resumed.
#[derive(Debug)]
struct Ended {
    stream: StreamId,
    requests: Vec<RequestId>,
    bytes: usize,
    until: Instant,
}

/// A failure that answers identical requests for a while.
#[derive(Debug)]
struct RecentError {
    failure: Failure,
    until: Instant,
}

/// The tables. See the module.
#[derive(Debug)]
pub struct Tables<T> {
    limits: Limits,
    running: HashMap<StreamId, Running>,
    flights: HashMap<RequestKey, StreamId>,
    turns: HashMap<ThreadId, Turn>,
    requests: HashMap<RequestId, Known<T>>,
    idempotency: HashMap<(OrgId, String), RequestId>,
    errors: HashMap<RequestKey, RecentError>,
    intents: HashMap<RequestId, Instant>,
    ended: VecDeque<Ended>,
    retained_bytes: usize,
}

impl<T> Tables<T> {
    /// Empty tables.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: HashMap::new(),
            flights: HashMap::new(),
            turns: HashMap::new(),
            requests: HashMap::new(),
            idempotency: HashMap::new(),
            errors: HashMap::new(),
            intents: HashMap::new(),
            ended: VecDeque::new(),
            retained_bytes: 0,
        }
    }

    /// Decides about a request and enters it where it belongs.
    pub fn join(&mut self, ask: &Ask, now: Instant) -> Decision {
        if let Some(decision) = self.known(ask) {
            return decision;
        }
        // The intent stays: a client that sends its request once more has cancelled that one too.
        if self.intents.get(&ask.request).is_some_and(|until| now < *until) {
            return Decision::Withdrawn;
        }
        let flight = self.flights.get(&ask.key).cloned();
        if let Some(running) = ask.turn.as_ref().and_then(|turn| self.turns.get(&turn.thread))
            && flight.as_ref() != Some(&running.stream)
        {
            return Decision::Reject(in_the_way(running, ask));
        }
        while self.requests.len() >= self.limits.requests_max {
            if !self.forget_oldest() {
                return Decision::Reject(overloaded("too many requests are running (requests_max)"));
            }
        }
        if let Some(stream) = flight {
            return self.follow(ask, stream);
        }
        if let Some(recent) = self.errors.get(&ask.key).filter(|recent| now < recent.until) {
            return Decision::Reject(recent.failure.clone());
        }
        if self.running.len() >= self.limits.streams_max {
            return Decision::Reject(overloaded("too many answers are running (streams_max)"));
        }
        self.lead(ask);
        Decision::Lead
    }

    /// A repetition of a known request, or a contradiction to one.
    fn known(&self, ask: &Ask) -> Option<Decision> {
        if let Some(known) = self.requests.get(&ask.request) {
            return Some(if known.body_digest == ask.body_digest {
                Decision::Repeat(ask.request.clone())
            } else {
                Decision::Reject(Failure::new(Code::RequestIdInUse, "another request has this id").param("request_id"))
            });
        }
        let idempotency_key = ask.idempotency_key.clone()?;
        let original = self.idempotency.get(&(ask.request.org().clone(), idempotency_key))?;
        let known = self.requests.get(original)?;
        Some(if known.body_digest == ask.body_digest {
            Decision::Repeat(original.clone())
        } else {
            let message = "the same idempotency key came with another body";
            Decision::Reject(Failure::new(Code::IdempotencyConflict, message).param("Idempotency-Key"))
        })
    }

    fn lead(&mut self, ask: &Ask) {
        self.running.insert(
            ask.stream.clone(),
            Running { key: ask.key.clone(), threads: HashSet::new(), requests: Vec::new() },
        );
        self.flights.insert(ask.key.clone(), ask.stream.clone());
        self.remember(ask, ask.stream.clone());
    }

    fn follow(&mut self, ask: &Ask, stream: StreamId) -> Decision {
        let listeners = self.running.get(&stream).map_or(0, |running| running.requests.len());
        if listeners >= self.limits.listeners_max {
            return Decision::Reject(overloaded("too many requests share this answer (listeners_max)"));
        }
        let opens = self.remember(ask, stream.clone());
        let turn = ask.turn.as_ref().and_then(|turn| self.turns.get(&turn.thread)).map(|turn| turn.ids.clone());
        Decision::Follow { stream, turn, opens }
    }

    /// Enters a request; tells whether it opened a turn.
    fn remember(&mut self, ask: &Ask, stream: StreamId) -> bool {
        let mut opened = false;
        if let Some(running) = self.running.get_mut(&stream) {
            running.requests.push(ask.request.clone());
            if let Some(ids) = &ask.turn {
                opened = running.threads.insert(ids.thread.clone());
                let turn = self.turns.entry(ids.thread.clone()).or_insert_with(|| Turn {
                    stream: stream.clone(),
                    requests: VecDeque::new(),
                    ids: ids.clone(),
                });
                turn.requests.push_back(ask.request.clone());
            }
        }
        if let Some(idempotency_key) = &ask.idempotency_key {
            self.idempotency.insert((ask.request.org().clone(), idempotency_key.clone()), ask.request.clone());
        }
        let known = Known {
            stream,
            body_digest: ask.body_digest,
            idempotency_key: ask.idempotency_key.clone(),
            thread: ask.turn.as_ref().map(|turn| turn.thread.clone()),
            has_left: false,
            payload: None,
        };
        self.requests.insert(ask.request.clone(), known);
        opened
    }

    /// Keeps `payload` with a request, as long as the request is remembered.
    pub fn attach(&mut self, request: &RequestId, payload: T) {
        if let Some(known) = self.requests.get_mut(request) {
            known.payload = Some(payload);
        }
    }

    /// What is kept with a request.
    pub fn payload(&self, request: &RequestId) -> Option<&T> {
        self.requests.get(request)?.payload.as_ref()
    }

    /// The answer that a request listens to or listened to.
    pub fn stream_of(&self, request: &RequestId) -> Option<&StreamId> {
        self.requests.get(request).map(|known| &known.stream)
    }

    /// The running answer of a thread, with the first of its requests that has not left.
    pub fn turn_of(&self, thread: &ThreadId) -> Option<(&StreamId, &RequestId)> {
        self.turns.get(thread).and_then(|turn| Some((&turn.stream, turn.requests.front()?)))
    }

    /// Whether an answer runs.
    pub fn is_running(&self, stream: &StreamId) -> bool {
        self.running.contains_key(stream)
    }

    /// How many answers run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Cancels a request before it comes. `false` when the table of such intents is full.
    pub fn intend_cancel(&mut self, request: RequestId, now: Instant) -> bool {
        if self.intents.len() >= self.limits.requests_max {
            return false;
        }
        self.intents.insert(request, now + self.limits.cancel_intent);
        true
    }

    /// A request has left its thread's turn, which goes on for the others.
    pub fn left(&mut self, request: &RequestId) {
        let Some(known) = self.requests.get_mut(request) else { return };
        known.has_left = true;
        let thread = known.thread.clone();
        self.tidy_turn(thread.as_ref());
    }

    /// A request was not taken in by `stream` after all: it can be asked again.
    pub fn not_taken(&mut self, stream: &StreamId, request: &RequestId) {
        let Some(known) = self.requests.get(request).filter(|known| known.stream == *stream) else { return };
        let thread = known.thread.clone();
        self.forget(stream, request);
        if let Some(turn) = thread.as_ref().and_then(|thread| self.turns.get_mut(thread)) {
            turn.requests.retain(|waiting| waiting != request);
        }
        self.tidy_turn(thread.as_ref());
    }

    /// Sees to it that the first request of a turn is one that is still there.
    fn tidy_turn(&mut self, thread: Option<&ThreadId>) {
        let Some(turn) = thread.and_then(|thread| self.turns.get_mut(thread)) else { return };
        while let Some(first) = turn.requests.front()
            && self.requests.get(first).is_none_or(|known| known.has_left)
        {
            turn.requests.pop_front();
        }
    }

    /// A thread's turn is over although its answer goes on for other threads.
    pub fn turn_ended(&mut self, stream: &StreamId, thread: &ThreadId) {
        if self.turns.get(thread).is_some_and(|turn| turn.stream == *stream) {
            self.turns.remove(thread);
        }
        if let Some(running) = self.running.get_mut(stream) {
            running.threads.remove(thread);
        }
    }

    /// An answer will take nobody any more: identical requests start anew.
    pub fn close(&mut self, stream: &StreamId) {
        if let Some(running) = self.running.get(stream)
            && self.flights.get(&running.key) == Some(stream)
        {
            self.flights.remove(&running.key);
        }
    }

    /// An answer has ended. A failure answers identical requests for a while. Its requests can be resumed for a while,
    /// unless nobody was ever told of them; `retain` says what it weighs.
    pub fn ended(&mut self, stream: &StreamId, failure: Option<Failure>, retain: Option<usize>, now: Instant) {
        self.close(stream);
        let Some(running) = self.running.remove(stream) else { return };
        for thread in &running.threads {
            if self.turns.get(thread).is_some_and(|turn| turn.stream == *stream) {
                self.turns.remove(thread);
            }
        }
        let room = !self.limits.error_ttl.is_zero() && self.errors.len() < self.limits.requests_max;
        if let Some(failure) = failure.filter(|_| room) {
            self.errors.insert(running.key, RecentError { failure, until: now + self.limits.error_ttl });
        }
        let Some(answer_bytes) = retain else {
            running.requests.iter().for_each(|request| self.forget(stream, request));
            return;
        };
        let mut requests = running.requests;
        requests.retain(|request| self.stream_of(request) == Some(stream));
        let (stream, until) = (stream.clone(), now + self.limits.retain);
        let bytes = answer_bytes.saturating_add(REQUEST_BYTES.saturating_mul(requests.len()));
        self.retained_bytes = self.retained_bytes.saturating_add(bytes);
        self.ended.push_back(Ended { stream, requests, bytes, until });
        while self.retained_bytes > self.limits.retained_bytes_max && self.forget_oldest() {}
    }

    /// Forgets what has outlived its time.
    pub fn expire(&mut self, now: Instant) {
        self.errors.retain(|_, recent| now < recent.until);
        self.intents.retain(|_, until| now < *until);
        while self.ended.front().is_some_and(|ended| ended.until <= now) {
            self.forget_oldest();
        }
    }

    /// Answers that have ended and can be resumed.
    pub fn retained(&self) -> usize {
        self.ended.len()
    }

    /// What those weigh together, in bytes.
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }

    /// Requests remembered, running and ended.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(ended) = self.ended.pop_front() else { return false };
        self.retained_bytes = self.retained_bytes.saturating_sub(ended.bytes);
        ended.requests.iter().for_each(|request| self.forget(&ended.stream, request));
        true
    }

    /// Forgets a request, unless its id stands for another answer by now.
    fn forget(&mut self, stream: &StreamId, request: &RequestId) {
        if self.stream_of(request) != Some(stream) {
            return;
        }
        let Some(known) = self.requests.remove(request) else { return };
        if let Some(idempotency_key) = known.idempotency_key {
            self.idempotency.remove(&(request.org().clone(), idempotency_key));
        }
    }
}

/// A table is full. Nobody knows when it will not be; answers end all the time.
fn overloaded(message: &'static str) -> Failure {
    Failure::new(Code::Overloaded, message).retry_after_ms(1_000)
}

/// Why a request cannot begin a turn while another one runs in its thread.
fn in_the_way(running: &Turn, ask: &Ask) -> Failure {
    let first = running.requests.front();
    if first.is_some_and(|first| first.org() != ask.request.org()) {
        return Failure::new(Code::ThreadNotFound, "no such thread");
    }
    let mut failure = Failure::new(Code::TurnInProgress, "another message of this thread is being answered");
    failure.conflicting_request_id = first.map(|request| request.as_str().into());
    failure
}
