//! How turns and answers end in the tables.

use tokio::time::Instant;

use super::{Ended, Ending, REQUEST_BYTES, RecentError, Tables};
use crate::chat::{StreamId, ThreadId};
use crate::failure::Failure;

impl<T> Tables<T> {
    /// The turn of `thread`, or every turn of the answer, is about to end.
    pub fn ending(&mut self, stream: &StreamId, thread: Option<&ThreadId>, ending: Ending) {
        if thread.is_none() && ending == Ending::Withdrawn {
            self.close(stream);
        }
        let Some(running) = self.running.get(stream) else { return };
        for thread in running.threads.iter().filter(|of_stream| thread.is_none_or(|thread| thread == *of_stream)) {
            let turns = self.turns.get_mut(thread).into_iter().flatten();
            turns.filter(|turn| turn.stream == *stream).for_each(|turn| turn.ending = Some(ending));
        }
    }

    /// A thread's turn is over although its answer goes on for other threads.
    pub fn turn_ended(&mut self, stream: &StreamId, thread: &ThreadId) {
        self.remove_turn(stream, thread);
        if let Some(running) = self.running.get_mut(stream) {
            running.threads.remove(thread);
        }
    }

    fn remove_turn(&mut self, stream: &StreamId, thread: &ThreadId) {
        let Some(turns) = self.turns.get_mut(thread) else { return };
        turns.retain(|turn| turn.stream != *stream);
        if turns.is_empty() {
            self.turns.remove(thread);
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
        running.threads.iter().for_each(|thread| self.remove_turn(stream, thread));
        let room = !self.limits.error_ttl.is_zero() && self.errors.len() < self.limits.requests_max;
        if let Some(failure) = failure.filter(|_| room) {
            self.errors.insert(running.key.digest(), RecentError { failure, until: now + self.limits.error_ttl });
        }
        let Some(answer_bytes) = retain else {
            running.requests.iter().for_each(|request| self.forget(stream, request));
            return;
        };
        let mut requests = Vec::from_iter(running.requests);
        requests.retain(|request| self.stream_of(request) == Some(stream));
        let (stream, until) = (stream.clone(), now + self.limits.retain);
        let bytes = answer_bytes.saturating_add(REQUEST_BYTES.saturating_mul(requests.len()));
        self.retained_bytes = self.retained_bytes.saturating_add(bytes);
        self.ended.push_back(Ended { stream, requests, bytes, until });
        while self.retained_bytes > self.limits.retained_bytes_max && self.forget_oldest() {}
    }
}
