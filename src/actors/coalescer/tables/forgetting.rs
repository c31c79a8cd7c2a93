//! What the tables forget: with time, to make room, and with a thread that is deleted.

use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::Tables;
use crate::chat::{RequestId, StreamId, ThreadId};

impl<T> Tables<T> {
    /// Forgets what has outlived its time.
    pub fn expire(&mut self, now: Instant) {
        self.errors.retain(|_, recent| now < recent.until);
        self.intents.retain(|_, intent| now < intent.until);
        while self.ended.front().is_some_and(|ended| ended.until <= now) {
            self.forget_oldest();
        }
    }

    /// Forgets every request of a thread, running or ended: it cannot be found or repeated any more. What an ended
    /// answer weighs is counted until its time is over.
    pub fn forget_thread(&mut self, thread: &ThreadId) {
        for request in self.by_thread.remove(thread).unwrap_or_default() {
            if let Some(stream) = self.stream_of(&request).cloned() {
                self.forget(&stream, &request);
            }
        }
        for intent in self.intents.values_mut().filter(|intent| intent.thread.as_ref() == Some(thread)) {
            intent.payload = None;
        }
        let streams: Vec<_> = self.streams_of(thread).cloned().collect();
        streams.iter().for_each(|stream| self.tidy_turn(stream, Some(thread)));
    }

    /// Makes room. `false` when there is nothing to forget.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let Some(ended) = self.ended.pop_front() else { return false };
        self.retained_bytes = self.retained_bytes.saturating_sub(ended.bytes);
        ended.requests.iter().for_each(|request| self.forget(&ended.stream, request));
        true
    }

    /// Forgets a request, unless its id stands for another answer by now.
    pub(super) fn forget(&mut self, stream: &StreamId, request: &RequestId) {
        if self.stream_of(request) != Some(stream) {
            return;
        }
        let Some(known) = self.requests.remove(request) else { return };
        if let Some(Entry::Occupied(mut of_thread)) = known.thread.map(|thread| self.by_thread.entry(thread)) {
            of_thread.get_mut().remove(request);
            if of_thread.get().is_empty() {
                of_thread.remove();
            }
        }
        if let Some(idempotency_key) = known.idempotency_key {
            self.idempotency.remove(&(request.org().clone(), idempotency_key));
        }
    }
}
