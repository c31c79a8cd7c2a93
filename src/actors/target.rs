//! Target: a configured provider with everything needed to call it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::guardian::Address;
use super::pacer::Pacer;
use super::stream::budget::RetryBudget;
use super::stream::drain::Drains;
use super::stream::run::Endings;
use crate::chat::ProviderName;
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
    /// Its cancelled answers that are read on.
    pub drains: Drains,
    /// The calls that end its answers.
    pub endings: Endings,
}

impl Target {
    /// A provider that has not been called yet.
    pub fn new(
        provider: config::Provider,
        adapter: Arc<dyn Adapter>,
        transport: Rc<dyn Transport>,
        pacer: Address<Pacer>,
    ) -> Self {
        let retries = RefCell::new(RetryBudget::new(Instant::now()));
        let (drains, endings) = (Drains::default(), Endings::default());
        Self { provider, adapter, transport, pacer, retries, drains, endings }
    }
}

/// Everybody who can be called, by name.
pub type Targets = Rc<BTreeMap<ProviderName, Rc<Target>>>;
