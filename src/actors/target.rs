//! Target: a configured provider with everything needed to call it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::guardian::Address;
use super::pacer::Pacer;
use super::stream::budget::RetryBudget;
use crate::config;
use crate::providers::Adapter;
use crate::providers::upstream::Transport;

/// See the module. Lives on the upstream arbiter.
pub struct Target {
    /// How it is configured.
    pub provider: config::Provider,
    /// How it is spoken to.
    pub adapter: Arc<dyn Adapter>,
    /// What carries the calls.
    pub transport: Rc<dyn Transport>,
    /// Who says when.
    pub pacer: Address<Pacer>,
    /// How often its failed calls may be made again.
    pub retries: RefCell<RetryBudget>,
}
