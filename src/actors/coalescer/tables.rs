//! The coalescer's tables: which answer runs for which key, thread and request. Pure: time is an argument.

mod ending;
mod forgetting;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::chat::{MessageId, OrgId, RequestId, RequestKey, StreamId, ThreadId};
use crate::failure::{Code, Failure};
use crate::fanout::{Audience, Seat};

/// What one remembered request weighs beside the answer, roughly: its ids, its end, its places in the tables.
/// Measured with answers of one word, on connections of their own.
pub(super) const REQUEST_BYTES: usize = 4096;

/// The sizes and times of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Answers that may run at once.
    pub streams_max: usize,
    /// Who may listen to one answer at once.
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
    /// The message that it is, also when it shares with nobody: it may run beside the same message in its thread.
    /// `None`: it runs beside nothing.
    pub twin: Option<RequestKey>,
    /// The turn that it opens, unless its thread is being given the same answer already.
    pub turn: Option<TurnIds>,
    /// The generation to start, when it leads.
    pub stream: StreamId,
    /// Whether the known request of its id, if there is one, has come to nothing: it makes way unless it has a turn.
    pub renews: bool,
    /// Whether its key has a place for it. A repetition needs none.
    pub has_place: bool,
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
    /// Its thread's former answer is about to be kept: it can be asked again when this request has ended.
    Wait(RequestId),
    /// It would need a place of its key's.
    NoPlace,
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
    /// The place of its listener, until it is given out.
    seat: Option<Seat>,
    payload: Option<T>,
}

/// A cancel that came before its request.
#[derive(Debug)]
struct Intent<T> {
    until: Instant,
    /// The thread of the request, once that has come.
    thread: Option<ThreadId>,
    payload: Option<T>,
}

/// The running turn of a thread.
#[derive(Debug)]
struct Turn {
    stream: StreamId,
    /// The requests that share it, in order of arrival; the first one has not left.
    requests: VecDeque<RequestId>,
    ids: TurnIds,
    ending: Option<Ending>,
}

/// How a turn is about to end, from the moment when that is certain until the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its answer is all there: identical requests may still share it.
    Answered,
    /// Its clients want it no more: whoever asks now asks anew.
    Withdrawn,
}

/// A running answer.
#[derive(Debug)]
struct Running {
    key: RequestKey,
    twin: Option<RequestKey>,
    audience: Arc<Audience>,
    threads: HashSet<ThreadId>,
    requests: HashSet<RequestId>,
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
    /// More than one turn of a thread runs only where the same message was sent several times and shares nothing.
    turns: HashMap<ThreadId, Vec<Turn>>,
    requests: HashMap<RequestId, Known<T>>,
    by_thread: HashMap<ThreadId, HashSet<RequestId>>,
    idempotency: HashMap<(OrgId, String), RequestId>,
    /// By the digests of their keys: what was asked, images and all, is not kept for the sake of a failure.
    errors: HashMap<[u8; 32], RecentError>,
    intents: HashMap<RequestId, Intent<T>>,
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
            by_thread: HashMap::new(),
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
        if let Some(intent) = self.intents.get_mut(&ask.request).filter(|intent| now < intent.until) {
            intent.thread = ask.turn.as_ref().map(|turn| turn.thread.clone());
            return Decision::Withdrawn;
        }
        let flight = self.flights.get(&ask.key).cloned();
        if let Some(other) = self.in_the_way(ask, flight.as_ref()) {
            return not_now(other, ask);
        }
        if !ask.has_place {
            return Decision::NoPlace;
        }
        while self.requests.len() >= self.limits.requests_max {
            if !self.forget_oldest() {
                return Decision::Reject(overloaded("too many requests are running (requests_max)"));
            }
        }
        if let Some(stream) = flight {
            return self.follow(ask, stream);
        }
        if let Some(recent) = self.errors.get(&ask.key.digest()).filter(|recent| now < recent.until) {
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
            if known.body_digest != ask.body_digest {
                let failure = Failure::new(Code::RequestIdInUse, "another request has this id");
                return Some(Decision::Reject(failure.param("request_id")));
            }
            if !ask.renews || ask.turn.is_some() || known.thread.is_some() {
                return Some(Decision::Repeat(ask.request.clone()));
            }
        }
        let idempotency_key = ask.idempotency_key.clone()?;
        let original = self.idempotency.get(&(ask.request.org().clone(), idempotency_key))?;
        if *original == ask.request {
            return None;
        }
        let known = self.requests.get(original)?;
        Some(if known.body_digest == ask.body_digest {
            Decision::Repeat(original.clone())
        } else {
            let message = "the same idempotency key came with another body";
            Decision::Reject(Failure::new(Code::IdempotencyConflict, message).param("Idempotency-Key"))
        })
    }

    /// The turn that keeps a request from its thread.
    fn in_the_way(&self, ask: &Ask, flight: Option<&StreamId>) -> Option<&Turn> {
        let turns = self.turns.get(&ask.turn.as_ref()?.thread)?;
        let shares = |turn: &&Turn| flight == Some(&turn.stream) && turn.ending != Some(Ending::Withdrawn);
        if turns.iter().any(|turn| shares(&turn)) {
            return None;
        }
        turns.iter().find(|turn| {
            let same =
                ask.twin.is_some() && self.running.get(&turn.stream).is_some_and(|running| running.twin == ask.twin);
            !same || turn.ending == Some(Ending::Withdrawn)
        })
    }

    fn lead(&mut self, ask: &Ask) {
        let audience = Audience::new(self.limits.listeners_max);
        let seat = audience.take().ok();
        let (key, twin) = (ask.key.clone(), ask.twin.clone());
        let running = Running { key, twin, audience, threads: HashSet::new(), requests: HashSet::new() };
        self.running.insert(ask.stream.clone(), running);
        self.flights.insert(ask.key.clone(), ask.stream.clone());
        self.remember(ask, ask.stream.clone(), seat);
    }

    fn follow(&mut self, ask: &Ask, stream: StreamId) -> Decision {
        let seat = match self.running.get(&stream).map(|running| running.audience.take()).transpose() {
            Ok(seat) => seat,
            Err(full) => return Decision::Reject(full.into()),
        };
        let opens = self.remember(ask, stream.clone(), seat);
        let turns = ask.turn.as_ref().and_then(|turn| self.turns.get(&turn.thread));
        let turn = turns.and_then(|turns| turns.iter().find(|turn| turn.stream == stream)).map(|turn| turn.ids.clone());
        Decision::Follow { stream, turn, opens }
    }

    /// Enters a request, in the place of the one that makes way for it; tells whether it opened a turn.
    fn remember(&mut self, ask: &Ask, stream: StreamId, seat: Option<Seat>) -> bool {
        if let Some(former) = self.stream_of(&ask.request).cloned() {
            self.forget(&former, &ask.request);
        }
        let mut opened = false;
        if let Some(running) = self.running.get_mut(&stream) {
            running.requests.insert(ask.request.clone());
            if let Some(ids) = &ask.turn {
                opened = running.threads.insert(ids.thread.clone());
                let turns = self.turns.entry(ids.thread.clone()).or_default();
                let request = ask.request.clone();
                match turns.iter_mut().find(|turn| turn.stream == stream) {
                    Some(turn) => turn.requests.push_back(request),
                    None => turns.push(Turn {
                        stream: stream.clone(),
                        requests: VecDeque::from([request]),
                        ids: ids.clone(),
                        ending: None,
                    }),
                }
            }
        }
        if let Some(idempotency_key) = &ask.idempotency_key {
            self.idempotency.insert((ask.request.org().clone(), idempotency_key.clone()), ask.request.clone());
        }
        if let Some(ids) = &ask.turn {
            self.by_thread.entry(ids.thread.clone()).or_default().insert(ask.request.clone());
        }
        let known = Known {
            stream,
            body_digest: ask.body_digest,
            idempotency_key: ask.idempotency_key.clone(),
            thread: ask.turn.as_ref().map(|turn| turn.thread.clone()),
            has_left: false,
            seat,
            payload: None,
        };
        self.requests.insert(ask.request.clone(), known);
        opened
    }

    /// The place that is kept for the listener of a request that leads or follows.
    pub fn take_seat(&mut self, request: &RequestId) -> Option<Seat> {
        self.requests.get_mut(request)?.seat.take()
    }

    /// Keeps `payload` with a request, as long as the request, or its withdrawal before it came, is remembered.
    pub fn attach(&mut self, request: &RequestId, payload: T) {
        if let Some(known) = self.requests.get_mut(request) {
            known.payload = Some(payload);
        } else if let Some(intent) = self.intents.get_mut(request) {
            intent.payload = Some(payload);
        }
    }

    /// What is kept with a request.
    pub fn payload(&self, request: &RequestId) -> Option<&T> {
        match self.requests.get(request) {
            Some(known) => known.payload.as_ref(),
            None => self.intents.get(request)?.payload.as_ref(),
        }
    }

    /// The answer that a request listens to or listened to.
    pub fn stream_of(&self, request: &RequestId) -> Option<&StreamId> {
        self.requests.get(request).map(|known| &known.stream)
    }

    /// The running answer of a thread, with the first of its requests that has not left.
    pub fn turn_of(&self, thread: &ThreadId) -> Option<(&StreamId, &RequestId)> {
        self.turns.get(thread)?.iter().find_map(|turn| Some((&turn.stream, turn.requests.front()?)))
    }

    /// All running answers of a thread.
    pub fn streams_of(&self, thread: &ThreadId) -> impl Iterator<Item = &StreamId> {
        self.turns.get(thread).into_iter().flatten().map(|turn| &turn.stream)
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
        let until = now + self.limits.cancel_intent;
        self.intents.insert(request, Intent { until, thread: None, payload: None });
        true
    }

    /// A request has left its thread's turn, which goes on for the others.
    pub fn left(&mut self, request: &RequestId) {
        let Some(known) = self.requests.get_mut(request) else { return };
        known.has_left = true;
        let (stream, thread) = (known.stream.clone(), known.thread.clone());
        self.tidy_turn(&stream, thread.as_ref());
    }

    /// A request was not taken in by `stream` after all: it can be asked again.
    pub fn not_taken(&mut self, stream: &StreamId, request: &RequestId) {
        let Some(known) = self.requests.get(request).filter(|known| known.stream == *stream) else { return };
        let thread = known.thread.clone();
        self.forget(stream, request);
        if let Some(running) = self.running.get_mut(stream) {
            running.requests.remove(request);
        }
        if let Some(turn) = self.turn_mut(stream, thread.as_ref()) {
            turn.requests.retain(|waiting| waiting != request);
        }
        self.tidy_turn(stream, thread.as_ref());
    }

    /// Sees to it that the first request of a turn is one that is still there.
    fn tidy_turn(&mut self, stream: &StreamId, thread: Option<&ThreadId>) {
        let Some(turns) = thread.and_then(|thread| self.turns.get_mut(thread)) else { return };
        let Some(turn) = turns.iter_mut().find(|turn| turn.stream == *stream) else { return };
        while let Some(first) = turn.requests.front()
            && self.requests.get(first).is_none_or(|known| known.has_left)
        {
            turn.requests.pop_front();
        }
    }

    fn turn_mut(&mut self, stream: &StreamId, thread: Option<&ThreadId>) -> Option<&mut Turn> {
        self.turns.get_mut(thread?)?.iter_mut().find(|turn| turn.stream == *stream)
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
}

/// A table is full. Nobody knows when it will not be; answers end all the time.
fn overloaded(message: &'static str) -> Failure {
    Failure::new(Code::Overloaded, message).retry_after_ms(1_000)
}

/// What becomes of a request that cannot begin a turn, because another one runs in its thread.
fn not_now(running: &Turn, ask: &Ask) -> Decision {
    let first = running.requests.front();
    if first.is_some_and(|first| first.org() != ask.request.org()) {
        return Decision::Reject(Failure::new(Code::ThreadNotFound, "no such thread"));
    }
    if let (Some(_), Some(first)) = (running.ending, first) {
        return Decision::Wait(first.clone());
    }
    Decision::Reject(Failure::turn_in_progress(first.map(RequestId::as_str)))
}
