//! The tables against a model that is too simple to be wrong: lists that are searched from end to end.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::tables::{Ask, Decision, Limits, REQUEST_BYTES, Tables, TurnIds};
use crate::chat::{
    ChatMessage, ChatRequest, MessageId, OrgId, ProviderName, RequestId, RequestKey, Role, Scope, StreamId, ThreadId,
};
use crate::failure::{Code, Failure};

const LIMITS: Limits = Limits {
    streams_max: 3,
    listeners_max: 4,
    requests_max: 9,
    error_ttl: Duration::from_millis(2_000),
    retain: Duration::from_millis(10_000),
    retained_bytes_max: 80_000,
    cancel_intent: Duration::from_millis(3_000),
};

#[derive(Debug, Clone)]
enum Op {
    Join { org: usize, request: usize, key: usize, thread: Option<usize>, idempotency: Option<usize>, body: u8 },
    Ended { which: usize, fails: bool, retain: Option<usize> },
    TurnEnded { which: usize, thread: usize },
    Left { org: usize, request: usize },
    NotTaken { org: usize, request: usize },
    IntendCancel { org: usize, request: usize },
    Pass { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let maybe = |range| prop::option::of(range);
    prop_oneof![
        12 => (0_usize..2, 0_usize..8, 0_usize..3, maybe(0_usize..2), prop::option::weighted(0.2, 0_usize..2), 0_u8..2)
            .prop_map(|(org, request, key, thread, idempotency, body)| {
                Op::Join { org, request, key, thread, idempotency, body }
            }),
        4 => (0_usize..3, any::<bool>(), maybe(0_usize..15_000))
            .prop_map(|(which, fails, retain)| Op::Ended { which, fails, retain }),
        1 => (0_usize..3, 0_usize..2).prop_map(|(which, thread)| Op::TurnEnded { which, thread }),
        1 => (0_usize..2, 0_usize..8).prop_map(|(org, request)| Op::Left { org, request }),
        1 => (0_usize..2, 0_usize..8).prop_map(|(org, request)| Op::NotTaken { org, request }),
        1 => (0_usize..2, 0_usize..8).prop_map(|(org, request)| Op::IntendCancel { org, request }),
        4 => (0_u64..4_000).prop_map(|ms| Op::Pass { ms }),
    ]
}

fn org(org: usize) -> OrgId {
    OrgId::new(["one", "two"][org])
}

fn request_id(org_of: usize, request: usize) -> RequestId {
    RequestId::parse(org(org_of), &format!("r-{request}")).unwrap()
}

fn thread_id(org: usize, thread: usize) -> ThreadId {
    ThreadId::new(format!("t-{org}-{thread}"))
}

fn key(of: usize, key: usize) -> RequestKey {
    let chat = ChatRequest {
        provider: ProviderName::new("p"),
        model: "m".into(),
        system: None,
        messages: vec![ChatMessage::text(Role::User, format!("question {key}"))],
        temperature: None,
        max_tokens: None,
        tools: Vec::new(),
        extra: serde_json::Map::new(),
    };
    RequestKey::new(&Scope::Org(org(of)), &chat)
}

#[derive(Debug, Clone)]
struct Request {
    id: RequestId,
    stream: StreamId,
    body: u8,
    idempotency: Option<String>,
}

#[derive(Debug, Clone)]
struct Flight {
    stream: StreamId,
    key: RequestKey,
    joined: Vec<RequestId>,
}

#[derive(Debug, Clone)]
struct ThreadTurn {
    stream: StreamId,
    ids: TurnIds,
    members: Vec<RequestId>,
}

/// What the tables ought to contain.
#[derive(Debug, Default)]
struct Model {
    requests: Vec<Request>,
    running: Vec<Flight>,
    turns: Vec<ThreadTurn>,
    ended: Vec<(StreamId, Vec<RequestId>, usize, Instant)>,
    errors: Vec<(RequestKey, Instant)>,
    intents: Vec<(RequestId, Instant)>,
}

impl Model {
    fn join(&mut self, ask: &Ask, now: Instant) -> Decision {
        let reject = |code| Decision::Reject(Failure::new(code, ""));
        let same_key = |known: &&Request| {
            ask.idempotency_key.is_some()
                && known.idempotency == ask.idempotency_key
                && known.id.org() == ask.request.org()
        };
        if let Some(known) = self.requests.iter().find(|known| known.id == ask.request) {
            let is_same = known.body == ask.body_digest[0];
            return if is_same { Decision::Repeat(known.id.clone()) } else { reject(Code::RequestIdInUse) };
        }
        if let Some(known) = self.requests.iter().find(same_key) {
            let is_same = known.body == ask.body_digest[0];
            return if is_same { Decision::Repeat(known.id.clone()) } else { reject(Code::IdempotencyConflict) };
        }
        if self.intents.iter().any(|(id, until)| *id == ask.request && now < *until) {
            return Decision::Withdrawn;
        }
        let flight = self.running.iter().find(|flight| flight.key == ask.key).cloned();
        let turn = ask.turn.as_ref().and_then(|ids| self.turns.iter().find(|turn| turn.ids.thread == ids.thread));
        let turn = turn.cloned();
        if turn.as_ref().is_some_and(|turn| flight.as_ref().is_none_or(|flight| flight.stream != turn.stream)) {
            return reject(Code::TurnInProgress);
        }
        while self.requests.len() >= LIMITS.requests_max {
            if !self.forget_oldest() {
                return reject(Code::Overloaded);
            }
        }
        if let Some(flight) = flight {
            if flight.joined.len() >= LIMITS.listeners_max {
                return reject(Code::Overloaded);
            }
            self.take_in(ask, &flight.stream);
            let opens = ask.turn.is_some() && turn.is_none();
            let turn = turn.map(|turn| turn.ids).or_else(|| ask.turn.clone());
            return Decision::Follow { stream: flight.stream, turn, opens };
        }
        if self.errors.iter().any(|(key, until)| *key == ask.key && now < *until) {
            return reject(Code::UpstreamError);
        }
        if self.running.len() >= LIMITS.streams_max {
            return reject(Code::Overloaded);
        }
        self.running.push(Flight { stream: ask.stream.clone(), key: ask.key.clone(), joined: Vec::new() });
        self.take_in(ask, &ask.stream);
        Decision::Lead
    }

    fn take_in(&mut self, ask: &Ask, stream: &StreamId) {
        let flight = self.running.iter_mut().find(|flight| flight.stream == *stream).unwrap();
        flight.joined.push(ask.request.clone());
        self.requests.push(Request {
            id: ask.request.clone(),
            stream: stream.clone(),
            body: ask.body_digest[0],
            idempotency: ask.idempotency_key.clone(),
        });
        let Some(ids) = &ask.turn else { return };
        match self.turns.iter_mut().find(|turn| turn.ids.thread == ids.thread) {
            Some(turn) => turn.members.push(ask.request.clone()),
            None => {
                let members = vec![ask.request.clone()];
                self.turns.push(ThreadTurn { stream: stream.clone(), ids: ids.clone(), members });
            }
        }
    }

    fn forget(&mut self, stream: &StreamId, request: &RequestId) {
        self.requests.retain(|known| known.id != *request || known.stream != *stream);
    }

    fn forget_oldest(&mut self) -> bool {
        if self.ended.is_empty() {
            return false;
        }
        let (stream, requests, ..) = self.ended.remove(0);
        requests.iter().for_each(|request| self.forget(&stream, request));
        true
    }

    fn end(&mut self, which: usize, fails: bool, retain: Option<usize>, now: Instant) {
        let Flight { stream, key, joined } = self.running.remove(which);
        self.turns.retain(|turn| turn.stream != stream);
        if fails {
            self.errors.retain(|(known, _)| *known != key);
            self.errors.push((key, now + LIMITS.error_ttl));
        }
        let Some(bytes) = retain else {
            return joined.iter().for_each(|request| self.forget(&stream, request));
        };
        let still_its =
            |request: &&RequestId| self.requests.iter().any(|known| known.id == **request && known.stream == stream);
        let requests: Vec<_> = joined.iter().filter(still_its).cloned().collect();
        let bytes = bytes + REQUEST_BYTES * requests.len();
        self.ended.push((stream, requests, bytes, now + LIMITS.retain));
        while self.retained_bytes() > LIMITS.retained_bytes_max && self.forget_oldest() {}
    }

    fn retained_bytes(&self) -> usize {
        self.ended.iter().map(|(_, _, bytes, _)| bytes).sum()
    }

    fn expire(&mut self, now: Instant) {
        while self.ended.first().is_some_and(|(_, _, _, until)| *until <= now) {
            self.forget_oldest();
        }
    }
}

/// The tables and their model side by side.
struct Pair {
    tables: Tables<usize>,
    model: Model,
    now: Instant,
    generation: usize,
}

impl Pair {
    fn new() -> Self {
        Self { tables: Tables::new(LIMITS), model: Model::default(), now: Instant::now(), generation: 0 }
    }

    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Join { org: of, request, key: which, thread, idempotency, body } => {
                self.generation += 1;
                let ids = |thread| TurnIds {
                    thread: thread_id(of, thread),
                    user_message: None,
                    answer: MessageId::new(format!("m-{}", self.generation)),
                };
                let ask = Ask {
                    request: request_id(of, request),
                    idempotency_key: idempotency.map(|key| format!("i-{key}")),
                    body_digest: [body; 32],
                    key: key(of, which),
                    turn: thread.map(ids),
                    stream: StreamId::new(format!("s-{}", self.generation)),
                };
                self.join(&ask);
            }
            Op::Ended { which, fails, retain } => {
                if let Some(flight) = self.model.running.get(which) {
                    let failure = fails.then(|| Failure::new(Code::UpstreamError, "broken"));
                    self.tables.ended(&flight.stream, failure, retain, self.now);
                    self.model.end(which, fails, retain, self.now);
                }
            }
            Op::TurnEnded { which, thread } => {
                if let Some(Flight { stream, .. }) = self.model.running.get(which) {
                    for of in 0..2 {
                        let thread = thread_id(of, thread);
                        self.tables.turn_ended(stream, &thread);
                        self.model.turns.retain(|turn| turn.stream != *stream || turn.ids.thread != thread);
                    }
                }
            }
            Op::Left { org, request } => {
                let request = request_id(org, request);
                self.tables.left(&request);
                self.model.turns.iter_mut().for_each(|turn| turn.members.retain(|member| *member != request));
            }
            Op::NotTaken { org, request } => {
                let request = request_id(org, request);
                let Some(known) = self.model.requests.iter().find(|known| known.id == request).cloned() else { return };
                self.tables.not_taken(&known.stream, &request);
                self.model.forget(&known.stream, &request);
                self.model.turns.iter_mut().for_each(|turn| turn.members.retain(|member| *member != request));
            }
            Op::IntendCancel { org, request } => {
                let request = request_id(org, request);
                assert!(self.tables.intend_cancel(request.clone(), self.now) || self.model.intents.len() >= 9);
                self.model.intents.retain(|(known, _)| *known != request);
                self.model.intents.push((request, self.now + LIMITS.cancel_intent));
            }
            Op::Pass { ms } => {
                self.now += Duration::from_millis(ms);
                self.tables.expire(self.now);
                self.model.expire(self.now);
                self.model.intents.retain(|(_, until)| self.now < *until);
            }
        }
        self.compare();
    }

    fn join(&mut self, ask: &Ask) {
        let expected = self.model.join(ask, self.now);
        let decision = self.tables.join(ask, self.now);
        match (&decision, &expected) {
            (Decision::Reject(failure), Decision::Reject(expected)) => {
                assert_eq!(failure.code, expected.code);
                assert!(failure.code != Code::Overloaded || failure.retry_after_ms.is_some());
                if failure.code == Code::TurnInProgress {
                    let thread = &ask.turn.as_ref().unwrap().thread;
                    let turn = self.model.turns.iter().find(|turn| turn.ids.thread == *thread).unwrap();
                    let first = turn.members.first().map(|first| first.as_str());
                    assert_eq!(failure.conflicting_request_id.as_deref(), first);
                }
            }
            _ => assert_eq!(decision, expected),
        }
        if matches!(decision, Decision::Lead | Decision::Follow { .. }) {
            self.tables.attach(&ask.request, self.generation);
        }
        if let Decision::Repeat(original) = &decision {
            assert_eq!(original.org(), ask.request.org());
            assert!(self.tables.payload(original).is_some());
        }
    }

    fn compare(&self) {
        let Self { tables, model, .. } = self;
        assert_eq!(tables.running(), model.running.len());
        assert_eq!(tables.requests(), model.requests.len());
        assert_eq!(tables.retained(), model.ended.len());
        assert_eq!(tables.retained_bytes(), model.retained_bytes());
        assert!(tables.retained_bytes() <= LIMITS.retained_bytes_max);
        assert!(tables.requests() <= LIMITS.requests_max && tables.running() <= LIMITS.streams_max);
        for known in &model.requests {
            assert_eq!(tables.stream_of(&known.id), Some(&known.stream));
        }
        for (of, thread) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let thread = thread_id(of, thread);
            let turn = model.turns.iter().find(|turn| turn.ids.thread == thread);
            let expected = turn.and_then(|turn| Some((&turn.stream, turn.members.first()?)));
            assert_eq!(tables.turn_of(&thread), expected);
        }
    }

    /// Everything ends and its time passes.
    fn finish(mut self) {
        while !self.model.running.is_empty() {
            self.apply(&Op::Ended { which: 0, fails: true, retain: Some(100) });
        }
        self.apply(&Op::Pass { ms: 60_000 });
        assert_eq!(format!("{:?}", self.tables), format!("{:?}", Tables::<usize>::new(LIMITS)));
    }
}

proptest! {
    #[test]
    fn the_tables_do_what_the_model_does_and_leave_nothing_behind(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new();
        for op in ops {
            pair.apply(&op);
        }
        pair.finish();
    }
}

fn ask(of: usize, request: usize) -> Ask {
    let ids = TurnIds { thread: ThreadId::new("t"), user_message: None, answer: MessageId::new("m") };
    Ask {
        request: request_id(of, request),
        idempotency_key: None,
        body_digest: [0; 32],
        key: key(of, request),
        turn: Some(ids),
        stream: StreamId::new(format!("s-{of}-{request}")),
    }
}

#[test]
fn a_foreign_turn_does_not_exist() {
    let mut tables = Tables::<()>::new(LIMITS);
    tables.join(&ask(0, 1), Instant::now());

    let Decision::Reject(foreign) = tables.join(&ask(1, 2), Instant::now()) else { panic!("joined") };
    let Decision::Reject(own) = tables.join(&ask(0, 2), Instant::now()) else { panic!("joined") };

    assert_eq!((foreign.code, foreign.conflicting_request_id), (Code::ThreadNotFound, None));
    assert_eq!((own.code, own.conflicting_request_id.as_deref()), (Code::TurnInProgress, Some("r-1")));
}

#[test]
fn a_request_that_was_cancelled_before_it_came_stays_so_when_it_is_sent_again() {
    let mut tables = Tables::<()>::new(LIMITS);
    let now = Instant::now();
    tables.intend_cancel(request_id(0, 1), now);

    assert_eq!(tables.join(&ask(0, 1), now), Decision::Withdrawn);
    assert_eq!(tables.join(&ask(0, 1), now + Duration::from_secs(2)), Decision::Withdrawn);
    assert_eq!(tables.join(&ask(0, 1), now + LIMITS.cancel_intent), Decision::Lead);
}

#[test]
fn a_request_that_was_asked_again_elsewhere_is_not_forgotten_with_its_first_answer() {
    let mut tables = Tables::<()>::new(LIMITS);
    let now = Instant::now();
    let first = ask(0, 1);
    tables.join(&first, now);
    tables.not_taken(&first.stream, &first.request);
    tables.ended(&first.stream, None, Some(0), now);
    let again = Ask { stream: StreamId::new("s-again"), ..first };
    assert_eq!(tables.join(&again, now), Decision::Lead);

    tables.expire(now + LIMITS.retain);

    assert_eq!(tables.stream_of(&again.request), Some(&again.stream));
}

#[test]
fn an_answer_too_large_to_be_retained_is_not() {
    let mut tables = Tables::<()>::new(LIMITS);
    let only = ask(0, 1);
    tables.join(&only, Instant::now());

    tables.ended(&only.stream, None, Some(LIMITS.retained_bytes_max), Instant::now());

    assert_eq!((tables.retained(), tables.requests(), tables.retained_bytes()), (0, 0, 0));
}
