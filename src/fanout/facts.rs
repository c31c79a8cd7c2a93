//! Facts: what is told of a request beside its messages, the same by the store, which keeps them, and by a subscription.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{End, Outcome, Subscription};
use crate::event::Usage;
use crate::failure::FailureBody;

/// What the way of a request and its end add to it. What is not known is null.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = RequestFacts)]
#[serde(default)]
pub struct Facts<'a> {
    /// Who was asked, when another provider answers.
    #[schema(required)]
    pub fallback_from: Option<Cow<'a, str>>,
    /// See [`Spans`].
    #[serde(flatten)]
    pub spans: Spans,
    /// From its arrival to its end.
    #[schema(required)]
    pub latency_ms: Option<u32>,
    /// What it cost.
    #[schema(required)]
    pub usage: Option<Usage>,
    /// The provider's word for the finish reason.
    #[schema(required)]
    pub native_finish_reason: Option<Cow<'a, str>>,
    /// The number of the answer's last event.
    #[schema(required)]
    pub last_seq: Option<u64>,
    /// What went wrong.
    #[schema(required, value_type = Option<FailureBody>)]
    pub error: Option<Value>,
}

/// How long a request took to get where it got, from its arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Spans {
    /// To the first piece of content.
    #[schema(required)]
    pub ttft_ms: Option<u32>,
    /// To the provider's first byte.
    #[schema(required)]
    pub ttfb_ms: Option<u32>,
    /// To the pacer's permit.
    #[schema(required)]
    pub queue_wait_ms: Option<u32>,
    /// What connecting took.
    #[schema(required)]
    pub connect_ms: Option<u32>,
}

impl<'a> Facts<'a> {
    /// What is known of a request now.
    pub fn of(subscription: &'a Subscription) -> Self {
        match subscription.end() {
            Some(End { outcome, last_seq, latency_ms, spans, .. }) => {
                Self::new(subscription, outcome, *spans, *last_seq, *latency_ms)
            }
            None => Self {
                fallback_from: fallback_from(subscription),
                spans: subscription.spans(Instant::now()),
                usage: subscription.log.with_transcript(|transcript| transcript.usage),
                ..Self::default()
            },
        }
    }

    /// What is to be kept of a request that ends `at` this moment.
    pub fn at_end(subscription: &'a Subscription, outcome: &'a Outcome, at: Instant) -> Self {
        let latency_ms = subscription.since_arrival_ms(Some(at)).unwrap_or(0);
        Self::new(subscription, outcome, subscription.spans(at), subscription.log.last_seq(), latency_ms)
    }

    fn new(subscription: &'a Subscription, outcome: &'a Outcome, spans: Spans, last_seq: u64, latency_ms: u32) -> Self {
        let request_id = subscription.facts.request.as_str();
        Self {
            fallback_from: fallback_from(subscription),
            spans,
            latency_ms: Some(latency_ms),
            usage: outcome.usage,
            native_finish_reason: outcome.finish.native.as_deref().map(Cow::from),
            last_seq: Some(last_seq),
            error: outcome.failure.as_ref().map(|failure| json!(failure.body(Some(request_id)))),
        }
    }
}

fn fallback_from(subscription: &Subscription) -> Option<Cow<'static, str>> {
    subscription.log.fallback().map(|fallback| fallback.from.to_string().into())
}
