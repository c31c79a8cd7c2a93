//! Failures: the last requests that ended in an error, for whoever has to find out why.
//!
//! What a failure says is weir's own: no prompt, no answer, nothing that a provider said.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

use crate::chat::{OrgId, RequestId, View};
use crate::failure::{Code, Failure, Phase};

/// A request that ended in an error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Failed {
    /// When, in milliseconds since 1970.
    at: u64,
    #[schema(value_type = String)]
    request_id: Box<str>,
    /// Who answered it, or was asked last.
    #[schema(value_type = String)]
    provider: Arc<str>,
    code: Code,
    message: Cow<'static, str>,
    /// How far it had come.
    #[schema(required)]
    phase: Option<Phase>,
    /// The provider's own id of the call.
    #[schema(required, value_type = Option<String>)]
    upstream_request_id: Option<Box<str>>,
}

impl Failed {
    /// It ends now.
    pub(super) fn new(request: &RequestId, failure: &Failure) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            request_id: request.as_str().into(),
            provider: "".into(),
            code: failure.code,
            message: failure.message.clone(),
            phase: failure.phase,
            upstream_request_id: failure.upstream_request_id.clone(),
        }
    }
}

/// The last of them, of all organisations.
#[derive(Debug)]
pub(super) struct Failures {
    max: usize,
    last: VecDeque<(OrgId, Failed)>,
}

impl Failures {
    pub(super) fn new(max: usize) -> Self {
        Self { max, last: VecDeque::new() }
    }

    pub(super) fn add(&mut self, org: OrgId, provider: Arc<str>, failed: Failed) {
        self.last.push_back((org, Failed { provider, ..failed }));
        while self.last.len() > self.max {
            self.last.pop_front();
        }
    }

    /// Those that `view` shows, the newest first.
    pub(super) fn newest(&self, view: &View, count: usize) -> Vec<Failed> {
        let shown = self.last.iter().rev().filter(|(org, _)| view.shows(org));
        shown.take(count).map(|(_, failed)| failed.clone()).collect()
    }
}
