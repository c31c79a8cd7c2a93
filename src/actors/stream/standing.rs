//! Standing: where an attempt stands, for whoever stops it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::drain::Concerned;
use crate::actors::target::Target;
use crate::event::Usage;
use crate::failure::Phase;

/// See the module. Shared between the attempt and its stream, on one thread.
pub(super) struct Standing {
    /// How far it has come.
    pub(super) phase: Cell<Phase>,
    /// Who is called.
    target: RefCell<Rc<Target>>,
    is_drained: Cell<bool>,
    told: Notify,
    concerned: Cell<Option<oneshot::Receiver<Concerned>>>,
    /// What a drained answer costs as far as was known when its listeners were told.
    pub(super) estimated: Cell<Option<Usage>>,
    /// What a drain has learned so far.
    pub(super) learned: Cell<Option<Usage>>,
}

impl Standing {
    /// Nothing has begun; `target` is asked first.
    pub(super) fn new(target: Rc<Target>) -> Self {
        Self {
            phase: Cell::new(Phase::Queue),
            target: RefCell::new(target),
            is_drained: Cell::new(false),
            told: Notify::new(),
            concerned: Cell::new(None),
            estimated: Cell::new(None),
            learned: Cell::new(None),
        }
    }

    /// Who is called.
    pub(super) fn target(&self) -> Rc<Target> {
        self.target.borrow().clone()
    }

    /// Somebody else is called from now on.
    pub(super) fn turn_to(&self, target: Rc<Target>) {
        self.target.replace(target);
    }

    /// Nobody listens any more: nothing goes to the log from now on, and the attempt reads on for the cost alone.
    pub(super) fn drain(&self, concerned: oneshot::Receiver<Concerned>) {
        self.is_drained.set(true);
        self.concerned.set(Some(concerned));
        self.told.notify_one();
    }

    /// Whether nobody listens any more.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained.get()
    }

    /// Waits until nobody listens any more.
    pub(super) async fn drained(&self) {
        self.told.notified().await;
    }

    /// Whom the drain concerns, once, if there is one.
    pub(super) fn take_concerned(&self) -> Option<oneshot::Receiver<Concerned>> {
        self.concerned.take()
    }
}
