//! What the fan-out promises: whoever listens, from wherever, hears the same.

mod log;
mod subscription;
mod transcript;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;
use crate::event::Event;

/// Counts how often it is woken.
#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self::default());
        (bell.clone(), Waker::from(bell))
    }

    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn delta(text: &str) -> Event<'_> {
    Event::Delta { delta: text.into() }
}
