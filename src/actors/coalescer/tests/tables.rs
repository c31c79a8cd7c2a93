//! The tables against a model that is too simple to be wrong: lists that are searched from end to end.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::tables::{Ask, Decision, Ending, Limits, REQUEST_BYTES, Tables, TurnIds};
use crate::chat::{
    ChatMessage, ChatRequest, MessageId, OrgId, ProviderName, RequestId, RequestKey, Role, Scope, StreamId, ThreadId,
};
use crate::failure::{Code, Failure};
use crate::fanout::Seat;

pub(super) const LIMITS: Limits = Limits {
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
    Join {
        org: usize,
        request: usize,
        key: usize,
        shares: bool,
        thread: Option<usize>,
        idempotency: Option<usize>,
        body: u8,
        renews: bool,
    },
    Ending {
        which: usize,
        thread: Option<usize>,
        how: Ending,
    },
    Ended {
        which: usize,
        fails: bool,
        retain: Option<usize>,
    },
    TurnEnded {
        which: usize,
        thread: usize,
    },
    Left {
        org: usize,
        request: usize,
    },
    NotTaken {
        org: usize,
        request: usize,
    },
    IntendCancel {
        org: usize,
        request: usize,
    },
    Leaves {
        which: usize,
    },
    Forget {
        org: usize,
        thread: usize,
    },
    Pass {
        ms: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let maybe = |range| prop::option::of(range);
    prop_oneof![
        12 => (
            (0_usize..2, 0_usize..8, 0_usize..3, prop::bool::weighted(0.8)),
            (maybe(0_usize..2), prop::option::weighted(0.2, 0_usize..2), 0_u8..2, prop::bool::weighted(0.3)),
        )
            .prop_map(|((org, request, key, shares), (thread, idempotency, body, renews))| {
                Op::Join { org, request, key, shares, thread, idempotency, body, renews }
            }),
        2 => (0_usize..3, maybe(0_usize..2), prop_oneof![Just(Ending::Answered), Just(Ending::Withdrawn)])
            .prop_map(|(which, thread, how)| Op::Ending { which, thread, how }),
        4 => (0_usize..3, any::<bool>(), maybe(0_usize..15_000))
            .prop_map(|(which, fails, retain)| Op::Ended { which, fails, retain }),
        1 => (0_usize..3, 0_usize..2).prop_map(|(which, thread)| Op::TurnEnded { which, thread }),
        1 => (0_usize..2, 0_usize..8).prop_map(|(org, request)| Op::Left { org, request }),
        1 => (0_usize..2, 0_usize..8).prop_map(|(org, request)| Op::NotTaken { org, request }),
        1 => (0_usize..2, 0_usize..8).prop_map(|(org, request)| Op::IntendCancel { org, request }),
        4 => (0_usize..8).prop_map(|which| Op::Leaves { which }),
        1 => (0_usize..2, 0_usize..2).prop_map(|(org, thread)| Op::Forget { org, thread }),
        4 => (0_u64..4_000).prop_map(|ms| Op::Pass { ms }),
    ]
}

pub(super) fn org(org: usize) -> OrgId {
    OrgId::new(["one", "two"][org])
}

pub(super) fn request_id(org_of: usize, request: usize) -> RequestId {
    RequestId::parse(org(org_of), &format!("r-{request}")).unwrap()
}

pub(super) fn thread_id(org: usize, thread: usize) -> ThreadId {
    ThreadId::new(format!("t-{org}-{thread}"))
}

pub(super) fn key(of: usize, key: usize) -> RequestKey {
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
    thread: Option<ThreadId>,
    stream: StreamId,
    body: u8,
    idempotency: Option<String>,
}

#[derive(Debug, Clone)]
struct Flight {
    stream: StreamId,
    key: RequestKey,
    twin: Option<RequestKey>,
    joined: Vec<RequestId>,
    takes_more: bool,
}

#[derive(Debug, Clone)]
struct ThreadTurn {
    stream: StreamId,
    ids: TurnIds,
    members: Vec<RequestId>,
    ending: Option<Ending>,
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
    /// The answers that somebody listens to, once for each listener.
    attached: Vec<StreamId>,
}

impl Model {
    fn join(&mut self, ask: &Ask, now: Instant) -> Decision {
        let reject = |code| Decision::Reject(Failure::new(code, ""));
        let same_key = |known: &&Request| {
            ask.idempotency_key.is_some()
                && known.idempotency == ask.idempotency_key
                && known.id.org() == ask.request.org()
                && known.id != ask.request
        };
        let makes_way = |known: &Request| ask.renews && known.thread.is_none() && ask.turn.is_none();
        let known = self.requests.iter().find(|known| known.id == ask.request);
        if let Some(known) = known.filter(|known| !makes_way(known) || known.body != ask.body_digest[0]) {
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
        let flight = self.running.iter().find(|flight| flight.key == ask.key && flight.takes_more).cloned();
        let of_thread = |turn: &&ThreadTurn| ask.turn.as_ref().is_some_and(|ids| turn.ids.thread == ids.thread);
        let turns: Vec<_> = self.turns.iter().filter(of_thread).cloned().collect();
        let is_flight = |turn: &&ThreadTurn| flight.as_ref().is_some_and(|flight| flight.stream == turn.stream);
        let turn = turns.iter().find(is_flight).cloned();
        if turn.as_ref().is_none_or(|turn| turn.ending == Some(Ending::Withdrawn))
            && let Some(other) = turns.iter().find(|turn| !self.is_twin(turn, ask))
        {
            return match (other.ending, other.members.first()) {
                (Some(_), Some(first)) => Decision::Wait(first.clone()),
                _ => reject(Code::TurnInProgress),
            };
        }
        while self.requests.len() >= LIMITS.requests_max {
            if !self.forget_oldest() {
                return reject(Code::Overloaded);
            }
        }
        if let Some(flight) = flight {
            if self.attached.iter().filter(|stream| **stream == flight.stream).count() >= LIMITS.listeners_max {
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
        let (stream, key, twin) = (ask.stream.clone(), ask.key.clone(), ask.twin.clone());
        self.running.push(Flight { stream, key, twin, joined: Vec::new(), takes_more: true });
        self.take_in(ask, &ask.stream);
        Decision::Lead
    }

    fn is_twin(&self, turn: &ThreadTurn, ask: &Ask) -> bool {
        let flight = self.running.iter().find(|flight| flight.stream == turn.stream).unwrap();
        ask.twin.is_some() && flight.twin == ask.twin && turn.ending != Some(Ending::Withdrawn)
    }

    fn ending(&mut self, stream: &StreamId, thread: Option<&ThreadId>, how: Ending) {
        let flight = self.running.iter_mut().find(|flight| flight.stream == *stream).unwrap();
        flight.takes_more &= thread.is_some() || how == Ending::Answered;
        let of_stream = self.turns.iter_mut().filter(|turn| turn.stream == *stream);
        let meant = of_stream.filter(|turn| thread.is_none_or(|thread| *thread == turn.ids.thread));
        meant.for_each(|turn| turn.ending = Some(how));
    }

    fn take_in(&mut self, ask: &Ask, stream: &StreamId) {
        let flight = self.running.iter_mut().find(|flight| flight.stream == *stream).unwrap();
        if !flight.joined.contains(&ask.request) {
            flight.joined.push(ask.request.clone());
        }
        self.attached.push(stream.clone());
        self.requests.retain(|known| known.id != ask.request);
        self.requests.push(Request {
            id: ask.request.clone(),
            thread: ask.turn.as_ref().map(|ids| ids.thread.clone()),
            stream: stream.clone(),
            body: ask.body_digest[0],
            idempotency: ask.idempotency_key.clone(),
        });
        let Some(ids) = &ask.turn else { return };
        match self.turns.iter_mut().find(|turn| turn.ids.thread == ids.thread && turn.stream == *stream) {
            Some(turn) => turn.members.push(ask.request.clone()),
            None => {
                let members = vec![ask.request.clone()];
                self.turns.push(ThreadTurn { stream: stream.clone(), ids: ids.clone(), members, ending: None });
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
        let Flight { stream, key, joined, .. } = self.running.remove(which);
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

    fn forget_thread(&mut self, thread: &ThreadId) {
        self.requests.retain(|request| request.thread.as_ref() != Some(thread));
        let is_known = |member: &RequestId| self.requests.iter().any(|known| known.id == *member);
        self.turns.iter_mut().for_each(|turn| turn.members.retain(is_known));
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
    /// Of those who listen, as `Model::attached`.
    seats: Vec<Seat>,
    now: Instant,
    generation: usize,
}

impl Pair {
    fn new() -> Self {
        let (tables, model) = (Tables::new(LIMITS), Model::default());
        Self { tables, model, seats: Vec::new(), now: Instant::now(), generation: 0 }
    }

    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Join { org: of, request, key: which, shares, thread, idempotency, body, renews } => {
                self.generation += 1;
                let stream = StreamId::new(format!("s-{}", self.generation));
                let ids = |thread| TurnIds {
                    thread: thread_id(of, thread),
                    user_message: None,
                    answer: MessageId::new(format!("m-{}", self.generation)),
                };
                let ask = Ask {
                    request: request_id(of, request),
                    idempotency_key: idempotency.map(|key| format!("i-{key}")),
                    body_digest: [body; 32],
                    key: if shares { key(of, which) } else { RequestKey::unshared(&stream) },
                    twin: Some(key(of, which)),
                    turn: thread.map(ids),
                    stream,
                    renews,
                    has_place: true,
                };
                self.join(&ask);
            }
            Op::Ending { which, thread, how } => {
                if let Some(Flight { stream, .. }) = self.model.running.get(which).cloned() {
                    let thread = thread.map(|thread| thread_id(0, thread));
                    self.tables.ending(&stream, thread.as_ref(), how);
                    self.model.ending(&stream, thread.as_ref(), how);
                }
            }
            Op::Ended { which, fails, retain } => {
                if let Some(flight) = self.model.running.get(which) {
                    let failure = fails.then(|| Failure::new(Code::UpstreamError, "broken"));
                    self.tables.ended(&flight.stream, failure, retain, self.now);
                    self.model.end(which, fails, retain, self.now);
                }
            }
            Op::TurnEnded { which, thread } => {
                [0, 1].into_iter().for_each(|of| self.turn_ended(which, &thread_id(of, thread)));
            }
            Op::Left { org, request } => {
                let request = request_id(org, request);
                self.tables.left(&request);
                self.model.turns.iter_mut().for_each(|turn| turn.members.retain(|member| *member != request));
            }
            Op::NotTaken { org, request } => {
                self.not_taken(&request_id(org, request));
            }
            Op::IntendCancel { org, request } => {
                let request = request_id(org, request);
                assert!(self.tables.intend_cancel(request.clone(), self.now) || self.model.intents.len() >= 9);
                self.model.intents.retain(|(known, _)| *known != request);
                self.model.intents.push((request, self.now + LIMITS.cancel_intent));
            }
            Op::Leaves { which } => self.leave(which),
            Op::Forget { org, thread } => {
                let thread = thread_id(org, thread);
                self.tables.forget_thread(&thread);
                self.model.forget_thread(&thread);
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

    fn turn_ended(&mut self, which: usize, thread: &ThreadId) {
        let Some(Flight { stream, .. }) = self.model.running.get(which) else { return };
        self.tables.turn_ended(stream, thread);
        self.model.turns.retain(|turn| turn.stream != *stream || turn.ids.thread != *thread);
    }

    fn not_taken(&mut self, request: &RequestId) {
        let Some(known) = self.model.requests.iter().find(|known| known.id == *request).cloned() else { return };
        self.tables.not_taken(&known.stream, request);
        self.model.forget(&known.stream, request);
        self.model.turns.iter_mut().for_each(|turn| turn.members.retain(|member| member != request));
    }

    fn leave(&mut self, which: usize) {
        if which < self.seats.len() {
            self.seats.remove(which);
            self.model.attached.remove(which);
        }
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
                    let turns = self.model.turns.iter().filter(|turn| turn.ids.thread == *thread);
                    let mut firsts = turns.map(|turn| turn.members.first().map(|first| first.as_str()));
                    assert!(firsts.any(|first| first == failure.conflicting_request_id.as_deref()));
                }
            }
            _ => assert_eq!(decision, expected),
        }
        if matches!(decision, Decision::Lead | Decision::Follow { .. }) {
            self.tables.attach(&ask.request, self.generation);
            self.seats.push(self.tables.take_seat(&ask.request).expect("who is let in has a place"));
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
            let mut turns = model.turns.iter().filter(|turn| turn.ids.thread == thread);
            let expected = turns.find_map(|turn| Some((&turn.stream, turn.members.first()?)));
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
