//! Coalescer: the decision which answer a request gets, and what is forgotten afterwards.

use std::time::Duration;

use tokio::time::Instant;
use weir::actors::coalescer::tables::{Ask, Decision, Limits, Tables, TurnIds};
use weir::chat::{MessageId, OrgId, Principal, RequestId, RequestKey, Scope, StreamId, ThreadId};

use crate::Case;
use crate::answers::request;

const REQUESTS: usize = 1_000;
/// Of an answer that can be resumed.
const ANSWER_BYTES: usize = 10_000;

/// Fewer requests are remembered than one run makes: each run finds full tables, and none of its requests in them.
const LIMITS: Limits = Limits {
    streams_max: REQUESTS,
    listeners_max: REQUESTS,
    requests_max: REQUESTS / 2,
    error_ttl: Duration::from_secs(2),
    retain: Duration::from_secs(600),
    retained_bytes_max: usize::MAX,
    cancel_intent: Duration::from_secs(10),
};

pub(crate) fn cases() -> Vec<Case> {
    vec![lead(), follow()]
}

fn ask(org: &OrgId, key: &RequestKey, thread: &ThreadId, n: usize) -> Ask {
    let turn = TurnIds { thread: thread.clone(), user_message: None, answer: MessageId::generate() };
    Ask {
        request: RequestId::generate(org.clone()),
        idempotency_key: Some(format!("key-{n}")),
        body_digest: [0; 32],
        key: key.clone(),
        twin: None,
        turn: Some(turn),
        stream: StreamId::generate(),
        renews: false,
        has_place: true,
    }
}

fn key(org: &OrgId, messages: usize) -> RequestKey {
    let scope = Scope::Principal(org.clone(), Principal::new("chat-ui"));
    RequestKey::new(&scope, &request(messages))
}

/// Every request asks for something else, in a thread of its own.
fn lead() -> Case {
    let org = OrgId::new("acme");
    let asks: Vec<_> = (0..REQUESTS)
        .map(|n| ask(&org, &RequestKey::unshared(&StreamId::generate()), &ThreadId::generate(), n))
        .collect();
    let (mut tables, now) = (Tables::<()>::new(LIMITS), Instant::now());
    Case::new("coalescer/lead_and_end", REQUESTS, move || {
        for ask in &asks {
            assert_eq!(tables.join(ask, now), Decision::Lead);
            tables.ended(&ask.stream, None, Some(ANSWER_BYTES), now);
        }
    })
}

/// All requests ask for the same, in one thread.
fn follow() -> Case {
    let (org, thread) = (OrgId::new("acme"), ThreadId::generate());
    let key = key(&org, 50);
    let asks: Vec<_> = (0..REQUESTS).map(|n| ask(&org, &key, &thread, n)).collect();
    let limits = Limits { requests_max: 2 * REQUESTS, ..LIMITS };
    let (mut tables, now) = (Tables::<()>::new(limits), Instant::now());
    Case::new("coalescer/follow_and_end", REQUESTS, move || {
        let followers = asks.iter().filter(|ask| matches!(tables.join(ask, now), Decision::Follow { .. })).count();
        assert_eq!(followers, REQUESTS - 1);
        // Nobody was told of it: it is forgotten at once, and the next run begins anew.
        tables.ended(&asks[0].stream, None, None, now);
    })
}
