//! Run: an answer under way at its provider. Where closing the connection does not end it there, a call does.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::actors::target::Target;
use crate::failure::{Code, Failure};
use crate::fanout::StreamLog;
use crate::providers::Call;

/// Calls of one provider that end answers, at once; more are left out.
const ENDINGS_MAX: usize = 32;
/// For one of them, with its answer's head.
const ENDING_WAIT_MAX: Duration = Duration::from_secs(5);

/// The calls that end answers of one provider. They take no permit: they make room.
#[derive(Debug, Default)]
pub struct Endings {
    under_way: Rc<Cell<usize>>,
}

/// One of them, as long as it exists.
struct Ending(Rc<Cell<usize>>);

impl Endings {
    fn begin(&self) -> Option<Ending> {
        if self.under_way.get() >= ENDINGS_MAX {
            return None;
        }
        self.under_way.set(self.under_way.get() + 1);
        Some(Ending(self.under_way.clone()))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// See the module. Dropped before it is over, it is ended at the provider; nobody waits for that.
pub(super) struct Run {
    target: Rc<Target>,
    /// Knows what the provider calls it.
    log: Arc<StreamLog>,
    is_over: bool,
}

impl Run {
    /// The provider has begun to answer.
    pub(super) fn new(target: Rc<Target>, log: Arc<StreamLog>) -> Self {
        Self { target, log, is_over: false }
    }

    /// The provider has come to its end.
    pub(super) fn over(&mut self) {
        self.is_over = true;
    }

    /// The provider has said why it goes no further, unless it was not understood.
    pub(super) fn failed(&mut self, failure: Failure) -> Failure {
        self.is_over = failure.code != Code::UpstreamProtocol;
        failure
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let upstream_id = self.log.with_transcript(|transcript| transcript.upstream_id.clone());
        let Some(call) = upstream_id.and_then(|id| self.target.adapter.cancel_call(&id)) else { return };
        let provider = self.target.provider.name.clone();
        let Some(ending) = self.target.endings.begin() else {
            log::debug!(provider = provider.as_str(); "an answer is not ended at the provider: too many are");
            return;
        };
        // Without a runtime the process is ending.
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(end(self.target.clone(), call, ending));
        }
    }
}

async fn end(target: Rc<Target>, call: Call, ending: Ending) {
    let provider = target.provider.name.as_str();
    match timeout(ENDING_WAIT_MAX, target.transport.open(call)).await {
        Ok(Ok(opened)) => {
            let status = opened.head.status;
            log::debug!(provider, status; "an answer was ended at the provider");
            target.transport.recycle(opened.body);
        }
        Ok(Err(error)) => log::debug!(provider; "an answer could not be ended at the provider: {error}"),
        Err(_) => log::debug!(provider; "an answer could not be ended at the provider in time"),
    }
    drop(ending);
}
