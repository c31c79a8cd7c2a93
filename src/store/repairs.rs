//! Repairs: the ends of answers that could not be written are written again, until they are or the store closes.
//!
//! A row without its end stays `streaming`. Its client has heard by then that it is not kept, and the disk that was
//! full, or the lock that was held, will be free at some time: minutes or days later. What waits is bounded; beyond
//! that the oldest are left to the next start, which ends them as `interrupted`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::handle::WeakStore;
use super::{EndedRequest, Settle};

/// The most ends that wait.
pub(super) const WAITING_MAX: usize = 1_024;
/// The most bytes that they may have together. One alone may have more.
pub(super) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// The pauses between two attempts.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The end of something that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum End {
    Answers(Arc<Settle>),
    Requests(Arc<[EndedRequest]>),
}

impl End {
    /// What it holds, roughly: that which grows with the answer, and something for the rest.
    fn bytes(&self) -> usize {
        const REST: usize = 1024;
        match self {
            End::Answers(last) => {
                let calls: usize = last.tool_calls.iter().map(|call| call.arguments.len() + REST).sum();
                let opaque: usize = last.opaque.iter().map(|value| value.to_string().len()).sum();
                let rest = 1 + last.answers.len() + last.requests.len() + last.citations.len();
                last.text.len() + last.reasoning.len() + calls + opaque + rest * REST
            }
            End::Requests(ended) => ended.len() * REST,
        }
    }
}

/// How a round of attempts went.
pub(super) enum Round {
    /// Nothing waits any more.
    Over,
    /// Something was written, and then something was not.
    Some,
    /// Nothing was written.
    None,
}

/// What waits, oldest first.
#[derive(Default)]
pub(super) struct Repairs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(End, usize)>,
    bytes: usize,
    /// How many are being written just now.
    in_hand: u64,
    /// How many found no room since all was well.
    left: u64,
    task: Option<JoinHandle<()>>,
}

impl Repairs {
    /// Takes an end that could not be written, and sees to it that somebody writes it.
    pub(super) fn keep(&self, end: End, store: impl FnOnce() -> WeakStore) {
        // Without a runtime the process is ending.
        let Ok(runtime) = Handle::try_current() else { return };
        self.push(end);
        let mut state = self.state.lock();
        if state.task.as_ref().is_none_or(JoinHandle::is_finished) {
            state.task = Some(runtime.spawn(run(store())));
        }
    }

    /// Puts an end behind all others, so that one that can never be written is not in the way of those that can.
    pub(super) fn push(&self, end: End) {
        let bytes = end.bytes();
        let mut state = self.state.lock();
        while state.waiting.len() >= WAITING_MAX || (state.bytes + bytes > BYTES_MAX && !state.waiting.is_empty()) {
            state.drop_oldest();
        }
        state.bytes += bytes;
        state.waiting.push_back((end, bytes));
    }

    /// The next one to write, until it is [put down](Self::put_down). None: the task is over.
    pub(super) fn next(&self) -> Option<End> {
        let mut state = self.state.lock();
        let Some((end, bytes)) = state.waiting.pop_front() else {
            state.task = None;
            match std::mem::take(&mut state.left) {
                0 => log::info!("all ends of answers are written now"),
                left => log::warn!(left; "the ends of answers are written now, but for the oldest"),
            }
            return None;
        };
        state.bytes -= bytes;
        state.in_hand += 1;
        Some(end)
    }

    /// One that was taken is written, or back in the queue.
    pub(super) fn put_down(&self) {
        self.state.lock().in_hand -= 1;
    }

    /// Leaves everything to the next start.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        let count = state.waiting.len() as u64 + std::mem::take(&mut state.left);
        state.waiting.clear();
        state.bytes = 0;
        if count > 0 {
            log::warn!(count; "the ends of answers are not written: the next start will interrupt them");
        }
    }

    /// How many are not written yet.
    pub(super) fn len(&self) -> u64 {
        let state = self.state.lock();
        state.waiting.len() as u64 + state.in_hand
    }
}

impl State {
    fn drop_oldest(&mut self) {
        let Some((_, bytes)) = self.waiting.pop_front() else { return };
        self.bytes -= bytes;
        if self.left == 0 {
            log::error!("more ends of answers wait to be written than may: the next start will interrupt the oldest");
        }
        self.left += 1;
    }
}

/// The body of the task: attempts with growing pauses, for as long as there is a store.
async fn run(store: WeakStore) {
    let mut pause = PAUSE_MIN;
    loop {
        sleep(pause).await;
        let Some(store) = store.upgrade() else { return };
        pause = match store.repair().await {
            Round::Over => return,
            Round::Some => PAUSE_MIN,
            Round::None => (pause * 2).min(PAUSE_MAX),
        };
    }
}
