//! What the tables decide about one request after the other.

use std::time::Duration;

use tokio::time::Instant;

use super::super::tables::{Ask, Decision, Ending, Tables, TurnIds};
use super::tables::{LIMITS, key, request_id};
use crate::chat::{MessageId, RequestKey, StreamId, ThreadId};
use crate::failure::Code;

fn ask(of: usize, request: usize) -> Ask {
    let ids = TurnIds { thread: ThreadId::new("t"), user_message: None, answer: MessageId::new("m") };
    Ask {
        request: request_id(of, request),
        idempotency_key: None,
        body_digest: [0; 32],
        key: key(of, request),
        twin: Some(key(of, request)),
        turn: Some(ids),
        stream: StreamId::new(format!("s-{of}-{request}")),
        renews: false,
        has_place: true,
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

#[test]
fn another_message_waits_for_a_turn_that_is_about_to_end() {
    let mut tables = Tables::<()>::new(LIMITS);
    let (first, now) = (ask(0, 1), Instant::now());
    tables.join(&first, now);

    tables.ending(&first.stream, None, Ending::Answered);

    assert_eq!(tables.join(&ask(0, 2), now), Decision::Wait(first.request.clone()));
    let Decision::Reject(foreign) = tables.join(&ask(1, 2), now) else { panic!("joined") };
    assert_eq!(foreign.code, Code::ThreadNotFound);
    tables.ended(&first.stream, None, Some(0), now);
    assert_eq!(tables.join(&ask(0, 2), now), Decision::Lead);
}

#[test]
fn an_identical_message_shares_an_answer_that_is_being_kept_and_none_that_was_given_up() {
    for (how, joins) in [(Ending::Answered, true), (Ending::Withdrawn, false)] {
        for everybody in [true, false] {
            let mut tables = Tables::<()>::new(LIMITS);
            let (first, now) = (ask(0, 1), Instant::now());
            let thread = first.turn.as_ref().map(|turn| turn.thread.clone()).filter(|_| !everybody);
            tables.join(&first, now);

            tables.ending(&first.stream, thread.as_ref(), how);

            let identical = Ask { request: request_id(0, 2), ..first.clone() };
            let decision = tables.join(&identical, now);
            assert_eq!(matches!(decision, Decision::Follow { .. }), joins, "{how:?}: {decision:?}");
            assert_eq!(decision == Decision::Wait(first.request), !joins);
        }
    }
}

#[test]
fn the_same_message_runs_beside_itself_when_it_shares_nothing_and_another_one_does_not() {
    let mut tables = Tables::<()>::new(LIMITS);
    let now = Instant::now();
    let alone = |request: usize, twin| {
        let ask = ask(0, request);
        Ask { key: RequestKey::unshared(&ask.stream), twin, ..ask }
    };
    let message = Some(key(0, 1));
    assert_eq!(tables.join(&alone(1, message.clone()), now), Decision::Lead);

    assert_eq!(tables.join(&alone(2, message), now), Decision::Lead);
    for other in [None, Some(key(0, 2))] {
        let Decision::Reject(failure) = tables.join(&alone(3, other), now) else { panic!("joined") };
        assert_eq!(failure.code, Code::TurnInProgress);
    }

    let thread = ThreadId::new("t");
    assert_eq!(tables.streams_of(&thread).count(), 2);
    tables.ended(&StreamId::new("s-0-1"), None, Some(0), now);
    assert_eq!(tables.turn_of(&thread), Some((&StreamId::new("s-0-2"), &request_id(0, 2))));
}

#[test]
fn without_a_place_nothing_begins_and_what_has_begun_is_found_again() {
    let mut tables = Tables::<()>::new(LIMITS);
    let (first, now) = (ask(0, 1), Instant::now());
    let without = |ask: &Ask| Ask { has_place: false, ..ask.clone() };
    assert_eq!(tables.join(&without(&first), now), Decision::NoPlace);
    assert_eq!(tables.requests(), 0, "it left nothing behind");
    tables.join(&first, now);

    assert_eq!(tables.join(&without(&first), now), Decision::Repeat(first.request.clone()));
    let follower = Ask { request: request_id(0, 2), ..first.clone() };
    assert_eq!(tables.join(&without(&follower), now), Decision::NoPlace, "who shares an answer needs one, too");
    tables.ending(&first.stream, None, Ending::Withdrawn);
    assert_eq!(tables.join(&without(&follower), now), Decision::Wait(first.request), "it may have one afterwards");
}
