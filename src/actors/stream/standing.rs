//! Standing: where an attempt stands, for whoever stops it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::actors::target::Target;
use crate::failure::Phase;

/// See the module. Shared between the attempt and its stream, on one thread.
pub(super) struct Standing {
    /// How far it has come.
    pub(super) phase: Cell<Phase>,
    /// Who is called.
    target: RefCell<Rc<Target>>,
}

impl Standing {
    /// Nothing has begun; `target` is asked first.
    pub(super) fn new(target: Rc<Target>) -> Self {
        Self { phase: Cell::new(Phase::Queue), target: RefCell::new(target) }
    }

    /// Who is called.
    pub(super) fn target(&self) -> Rc<Target> {
        self.target.borrow().clone()
    }

    /// Somebody else is called from now on.
    pub(super) fn turn_to(&self, target: Rc<Target>) {
        self.target.replace(target);
    }
}
