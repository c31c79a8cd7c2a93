//! Wakers: whom to wake when something has come.

use std::task::Waker;

/// Readers to be woken, once the log is not locked any more. One alone, the usual case, takes no memory of its own.
#[derive(Default)]
pub(super) struct Wakers {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakers {
    /// Adds one.
    pub(super) fn push(&mut self, waker: Waker) {
        match &mut self.first {
            None => self.first = Some(waker),
            Some(_) => self.rest.push(waker),
        }
    }

    /// Wakes them all.
    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.rest).for_each(Waker::wake);
    }
}
