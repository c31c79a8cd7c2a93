//! Counters: what the mock has seen, so that a test can ask for it or wait until it is so.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

/// Calls that are remembered, newest last.
const CALLS_KEPT_MAX: usize = 2_000;
/// How much of a request's body is remembered.
const BODY_KEPT_BYTES_MAX: usize = 64 * 1024;

/// The totals since the start or the last reset, and what is live now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls for an answer whose request has arrived.
    pub calls_started: u64,
    /// Calls whose script came to its own end, a failure included.
    pub calls_finished: u64,
    /// Calls whose caller closed the connection before that.
    pub calls_aborted: u64,
    /// Calls beyond the enforced rate, answered with 429. They are finished calls as well.
    pub calls_refused: u64,
    /// When the last caller left.
    #[serde(skip)]
    pub last_abort: Option<Instant>,
    /// Answers that are being given now.
    pub streams_live: u64,
    /// The most answers that were given at once.
    pub streams_peak: u64,
    /// Answers that wait at their gate now.
    pub answers_held: u64,
    /// Connections accepted.
    pub connections_opened: u64,
    /// Connections that are open now.
    pub connections_live: u64,
    /// Requests for the list of models.
    pub models_listed: u64,
    /// Requests that end an answer by its id.
    pub runs_cancelled: u64,
    /// Requests for anything else.
    pub strays: u64,
}

/// One call, as it arrived and ended.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its number, from 1.
    pub number: u64,
    /// Its headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The beginning of its body.
    pub body: Bytes,
    /// The length of its whole body.
    pub body_len: usize,
    /// When its request was complete.
    pub started: Instant,
    /// How it ended, and when; `None` while it runs.
    pub ended: Option<(Outcome, Instant)>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its script came to its end.
    Finished,
    /// Its caller left before.
    Aborted,
}

impl Call {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body; `null` if it is no JSON, or too long to be remembered.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Counts, remembers, and wakes those who wait.
#[derive(Debug)]
pub(super) struct Counters {
    counts: watch::Sender<Counts>,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    numbered: u64,
    kept: VecDeque<Call>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self { counts: watch::Sender::new(Counts::default()), calls: Mutex::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    pub(super) async fn wait_until(&self, condition: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.counts.subscribe();
        let found = counts.wait_for(condition).await.map(|counts| *counts);
        found.expect("the sender is borrowed for as long as this waits")
    }

    /// A call has arrived. Returns its number.
    pub(super) fn call_started(&self, headers: Vec<(String, String)>, body: &Bytes) -> u64 {
        let number = {
            let mut calls = self.calls.lock();
            calls.numbered += 1;
            let number = calls.numbered;
            if calls.kept.len() == CALLS_KEPT_MAX {
                calls.kept.pop_front();
            }
            let kept = Bytes::copy_from_slice(&body[..body.len().min(BODY_KEPT_BYTES_MAX)]);
            let (started, ended, body_len) = (Instant::now(), None, body.len());
            calls.kept.push_back(Call { number, headers, body: kept, body_len, started, ended });
            number
        };
        self.count(|counts| {
            counts.calls_started += 1;
            counts.streams_live += 1;
            counts.streams_peak = counts.streams_peak.max(counts.streams_live);
        });
        number
    }

    pub(super) fn call_ended(&self, number: u64, outcome: Outcome) {
        let now = Instant::now();
        if let Some(call) = self.calls.lock().find(number) {
            call.ended = Some((outcome, now));
        }
        self.count(|counts| {
            counts.streams_live -= 1;
            match outcome {
                Outcome::Finished => counts.calls_finished += 1,
                Outcome::Aborted => {
                    counts.calls_aborted += 1;
                    counts.last_abort = Some(now);
                }
            }
        });
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().kept.iter().cloned().collect()
    }

    pub(super) fn last_call(&self) -> Option<Call> {
        self.calls.lock().kept.back().cloned()
    }

    /// Forgets the calls and begins to count anew; what is live stays so.
    pub(super) fn reset(&self) {
        self.calls.lock().kept.clear();
        self.count(|counts| {
            let Counts { streams_live, answers_held, connections_live, .. } = *counts;
            let live = Counts { streams_live, answers_held, connections_live, ..Counts::default() };
            *counts = Counts { streams_peak: streams_live, ..live };
        });
    }
}

impl Calls {
    fn find(&mut self, number: u64) -> Option<&mut Call> {
        let first = self.kept.front()?.number;
        self.kept.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_keeps_what_is_live() {
        let counters = Counters::new();
        let running = counters.call_started(Vec::new(), &Bytes::new());
        let ended = counters.call_started(Vec::new(), &Bytes::new());
        counters.call_ended(ended, Outcome::Finished);

        counters.reset();
        assert_eq!(counters.counts(), Counts { streams_live: 1, streams_peak: 1, ..Counts::default() });
        counters.call_ended(running, Outcome::Aborted);

        let counts = counters.counts();
        assert_eq!((counts.streams_live, counts.calls_aborted), (0, 1));
        assert!(counters.calls().is_empty());
    }

    #[test]
    fn old_calls_are_forgotten_and_new_ones_still_found() {
        let counters = Counters::new();
        let numbers: Vec<_> =
            (0..CALLS_KEPT_MAX + 5).map(|_| counters.call_started(Vec::new(), &Bytes::new())).collect();

        numbers.iter().for_each(|number| counters.call_ended(*number, Outcome::Finished));

        let calls = counters.calls();
        assert_eq!(calls.len(), CALLS_KEPT_MAX);
        assert_eq!(calls.last().map(|call| call.number), numbers.last().copied());
        assert!(calls.iter().all(|call| call.ended.is_some()));
    }

    #[test]
    fn a_large_body_is_kept_in_part() {
        let counters = Counters::new();
        counters.call_started(Vec::new(), &Bytes::from(vec![b'x'; BODY_KEPT_BYTES_MAX + 1]));

        let call = counters.last_call().unwrap();
        assert_eq!((call.body.len(), call.body_len), (BODY_KEPT_BYTES_MAX, BODY_KEPT_BYTES_MAX + 1));
        assert_eq!(call.json(), Value::Null);
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_it_is_so() {
        let counters = Counters::new();
        let wait = counters.wait_until(|counts| counts.calls_finished == 2);
        let work = async {
            for _ in 0..2 {
                let number = counters.call_started(Vec::new(), &Bytes::new());
                tokio::task::yield_now().await;
                counters.call_ended(number, Outcome::Finished);
            }
        };

        let (counts, ()) = tokio::join!(wait, work);

        assert_eq!(counts.calls_finished, 2);
    }
}
