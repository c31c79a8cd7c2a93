//! Requests: one of an id and of an idempotency key in an organisation, for as long as promised.

use super::*;
use crate::store::requests::PURGE_ROWS_MAX;
use crate::store::{StoreError, StoredRequest};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn with_key(org: &OrgId, key: &str) -> NewRequest {
    NewRequest { idempotency_key: Some(key.into()), ..request(org) }
}

fn end(request: &NewRequest) -> Vec<EndedRequest> {
    vec![EndedRequest {
        id: request.id.clone(),
        status: Status::Complete,
        finish_reason: FinishReason::Stop,
        facts: json!({"ttft_ms": 412}),
        answered_by: None,
    }]
}

/// Lets the store look for what is old, as it does now and then.
async fn purge(store: &Store, clock: &HandClock) {
    clock.advance(61_000);
    store.ping().await.unwrap();
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    store.read(move |db| Ok(db.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn a_request_is_kept_as_it_came_and_as_it_ended() {
    let (store, clock) = in_memory_at(1_000);
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    let running = StoredRequest {
        id: turn.request.id.clone(),
        body_digest: [7; 32],
        thread: Some(thread),
        user_message: turn.user.as_ref().map(|user| user.id.clone()),
        answer: Some(turn.answer.clone()),
        stream: turn.stream.clone(),
        role: CallRole::Leader,
        provider: "demo".into(),
        model: "words".into(),
        status: Status::Streaming,
        finish_reason: None,
        facts: json!({}),
        created_at: 1_000,
        ended_at: None,
    };
    assert_eq!(store.request(&turn.request.id).await, Ok(Some(running.clone())));

    clock.set(3_000);
    let mut last = settle(&turn, Status::Complete, "ho");
    last.requests[0].facts = json!({"ttft_ms": 412, "usage": {"total": 8}});
    store.settle(last).await.unwrap();

    let ended = StoredRequest {
        status: Status::Complete,
        finish_reason: Some(FinishReason::Stop),
        facts: json!({"ttft_ms": 412, "usage": {"total": 8}}),
        ended_at: Some(3_000),
        ..running
    };
    assert_eq!(store.request(&turn.request.id).await, Ok(Some(ended)));
}

#[tokio::test]
async fn a_request_ends_once_and_alone() {
    let store = in_memory();
    let (a, b) = (request(&acme()), request(&acme()));
    store.add_request(a.clone()).await.unwrap();
    store.add_request(b.clone()).await.unwrap();

    assert_eq!(store.end_requests([end(&a), end(&a)].concat()).await, Ok(1));
    assert_eq!(store.end_requests(end(&a)).await, Ok(0));
    assert_eq!(store.end_requests(vec![]).await, Ok(0));
    assert_eq!(store.end_requests(end(&request(&acme()))).await, Ok(0));

    assert_eq!(store.request(&b.id).await.unwrap().unwrap().status, Status::Streaming);
}

#[tokio::test]
async fn an_id_is_used_once_in_an_organisation_and_is_free_in_another() {
    let store = in_memory();
    let first = request(&acme());
    store.add_request(first.clone()).await.unwrap();
    let again = NewRequest { body_digest: [8; 32], ..first.clone() };
    assert_eq!(store.add_request(again.clone()).await, Err(StoreError::RequestIdInUse));
    store.end_requests(end(&first)).await.unwrap();
    assert_eq!(store.add_request(again).await, Err(StoreError::RequestIdInUse), "also after its end");

    let theirs = NewRequest { id: RequestId::parse(other_org(), first.id.as_str()).unwrap(), ..request(&acme()) };
    assert_eq!(store.add_request(theirs.clone()).await, Ok(()));
    assert_eq!(store.end_requests(end(&theirs)).await, Ok(1));
    assert_eq!(store.request(&first.id).await.unwrap().unwrap().body_digest, [7; 32]);
}

#[tokio::test]
async fn an_idempotency_key_leads_to_its_request_in_its_organisation_alone() {
    let store = in_memory();
    let first = with_key(&acme(), "k1");
    store.add_request(first.clone()).await.unwrap();

    assert_eq!(store.add_request(with_key(&acme(), "k1")).await, Err(StoreError::IdempotencyKeyInUse));
    assert_eq!(store.add_request(with_key(&acme(), "k2")).await, Ok(()));
    assert_eq!(store.request_by_idempotency_key(&other_org(), "k1").await, Ok(None));
    let theirs = with_key(&other_org(), "k1");
    assert_eq!(store.add_request(theirs.clone()).await, Ok(()));

    let found = async |org: OrgId, key: &'static str| {
        store.request_by_idempotency_key(&org, key).await.unwrap().map(|request| request.id)
    };
    assert_eq!(found(acme(), "k1").await, Some(first.id.clone()));
    assert_eq!(found(other_org(), "k1").await, Some(theirs.id));
    assert_eq!(found(acme(), "k").await, None);
    // The same id with the same key is a repetition: the id says so first.
    assert_eq!(store.add_request(first).await, Err(StoreError::RequestIdInUse));
}

#[tokio::test]
async fn a_key_in_use_takes_the_turn_back() {
    let store = in_memory();
    let thread = thread_of(&store, &acme()).await;
    store.add_request(with_key(&acme(), "k")).await.unwrap();
    let turn = OpenTurn { request: with_key(&acme(), "k"), ..turn(&acme(), &thread, 0, "hi") };

    assert_eq!(store.open_turn(turn).await, Err(StoreError::IdempotencyKeyInUse));

    assert!(read(&store, &acme(), &thread).await.1.is_empty());
}

#[tokio::test]
async fn a_key_is_remembered_for_a_day_and_not_longer() {
    let (store, clock) = in_memory_at(5 * DAY_MS);
    let first = with_key(&acme(), "k");
    store.add_request(first.clone()).await.unwrap();

    clock.set(6 * DAY_MS);
    assert!(store.request_by_idempotency_key(&acme(), "k").await.unwrap().is_some());
    assert_eq!(store.add_request(with_key(&acme(), "k")).await, Err(StoreError::IdempotencyKeyInUse));

    clock.advance(1);
    assert_eq!(store.request_by_idempotency_key(&acme(), "k").await, Ok(None));
    let second = with_key(&acme(), "k");
    store.add_request(second.clone()).await.unwrap();
    assert_eq!(
        store.request_by_idempotency_key(&acme(), "k").await.unwrap().map(|request| request.id),
        Some(second.id)
    );
    assert!(store.request(&first.id).await.unwrap().is_some(), "the request itself is still known");
}

#[tokio::test]
async fn the_age_of_keys_is_an_option() {
    let clock = HandClock::at(DAY_MS);
    let options = StoreOptions { clock: clock.clock(), idempotency_ms: 1_000, ..StoreOptions::default() };
    let store = Store::inline(&options).unwrap();
    store.add_request(with_key(&acme(), "k")).await.unwrap();

    clock.advance(1_000);
    assert!(store.request_by_idempotency_key(&acme(), "k").await.unwrap().is_some());
    clock.advance(1);
    assert_eq!(store.request_by_idempotency_key(&acme(), "k").await, Ok(None));
    assert_eq!(store.add_request(with_key(&acme(), "k")).await, Ok(()));
}

#[tokio::test]
async fn old_keys_are_purged_and_young_ones_are_not() {
    let (store, clock) = in_memory_at(5 * DAY_MS);
    store.add_request(with_key(&acme(), "old")).await.unwrap();
    clock.advance(DAY_MS);
    store.add_request(with_key(&acme(), "young")).await.unwrap();

    purge(&store, &clock).await;

    assert_eq!(count(&store, "SELECT count(*) FROM requests").await, 2);
    assert_eq!(count(&store, "SELECT count(*) FROM requests WHERE idempotency_key = 'young'").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM requests WHERE idempotency_key IS NOT NULL").await, 1);
}

#[tokio::test]
async fn requests_without_a_thread_go_after_a_week_and_the_others_stay() {
    let (store, clock) = in_memory_at(5 * DAY_MS);
    let thread = thread_of(&store, &acme()).await;
    let in_thread = talk(&store, &acme(), &thread, "a", "b").await.request;
    let (ended, running) = (request(&acme()), request(&acme()));
    store.add_request(ended.clone()).await.unwrap();
    store.add_request(running.clone()).await.unwrap();
    store.end_requests(end(&ended)).await.unwrap();

    clock.set(12 * DAY_MS - 61_000);
    purge(&store, &clock).await;
    assert!(store.request(&ended.id).await.unwrap().is_some(), "a week is not over yet");
    purge(&store, &clock).await;

    assert_eq!(store.request(&ended.id).await, Ok(None));
    assert!(store.request(&running.id).await.unwrap().is_some());
    assert!(store.request(&in_thread.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_request_whose_key_is_remembered_longer_than_a_week_stays_with_it() {
    let clock = HandClock::at(50 * DAY_MS);
    let idempotency_ms = 30 * DAY_MS.cast_unsigned();
    let store =
        Store::inline(&StoreOptions { clock: clock.clock(), idempotency_ms, ..StoreOptions::default() }).unwrap();
    let first = with_key(&acme(), "k");
    store.add_request(first.clone()).await.unwrap();
    store.end_requests(end(&first)).await.unwrap();

    clock.advance(20 * DAY_MS);
    purge(&store, &clock).await;

    assert!(store.request_by_idempotency_key(&acme(), "k").await.unwrap().is_some());
}

#[tokio::test]
async fn the_purge_keeps_up_with_any_number_of_old_requests() {
    let (store, clock) = in_memory_at(5 * DAY_MS);
    let total = PURGE_ROWS_MAX * 2 + 10;
    for n in 0..total {
        let request = with_key(&acme(), &n.to_string());
        store.add_request(request.clone()).await.unwrap();
        store.end_requests(end(&request)).await.unwrap();
    }

    // One write after another finds more to forget, without waiting for the next minute.
    clock.advance(10 * DAY_MS);
    store.ping().await.unwrap();
    assert_eq!(count(&store, "SELECT count(*) FROM requests").await as usize, total - PURGE_ROWS_MAX, "bounded");
    store.ping().await.unwrap();
    store.ping().await.unwrap();

    assert_eq!(count(&store, "SELECT count(*) FROM requests").await, 0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_end_the_purges() {
    let (store, clock) = in_memory_at(50 * DAY_MS);
    store.ping().await.unwrap();
    clock.set(5 * DAY_MS);
    let request = with_key(&acme(), "k");
    store.add_request(request).await.unwrap();

    clock.set(7 * DAY_MS);
    store.ping().await.unwrap();

    assert_eq!(count(&store, "SELECT count(*) FROM requests WHERE idempotency_key IS NOT NULL").await, 0);
}
