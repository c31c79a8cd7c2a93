//! Metrics: what has become of the last requests, in percentiles, and what is worth an alarm.
//!
//! Requests are recorded once, when they end, before their clients read `done`. Percentiles come from an HDR histogram
//! (three significant digits) over the newest requests of a ring. There is one ring for all organisations, so that it
//! needs no more memory when there are many; a report is made for a [`View`] and knows of nothing else in the ring.
//!
//! Beside it, everything is counted for as long as the process lives, over all organisations ([`Metrics::write_totals`]).

mod alerts;
mod exposition;
mod failures;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod totals;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

pub use self::alerts::Alert;
use self::alerts::Watch;
pub use self::exposition::{Exposition, Kind};
pub use self::failures::Failed;
use self::failures::Failures;
pub use self::store::write_store_stats;
use self::totals::Totals;
use crate::chat::{OrgId, View};
use crate::config;
use crate::event::{Status, Usage};
use crate::failure::Code;
use crate::fanout::{Outcome, Subscription};
use crate::store::CallRole;

/// What rates are taken over.
const RATE_SPAN: Duration = Duration::from_secs(10);

/// One finished request.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Whose it was.
    pub org: OrgId,
    /// When it ended.
    pub at: Instant,
    /// The id of the answer that it heard.
    pub stream: Arc<str>,
    /// Whether it started its upstream call.
    pub role: CallRole,
    /// How it ended.
    pub status: Status,
    /// Why it failed.
    pub error: Option<Code>,
    /// What operators are told of the failure. Kept apart, because fewer of these are.
    pub failed: Option<Failed>,
    /// Arrival to the first piece of content.
    pub ttft_ms: Option<u32>,
    /// Arrival to the provider's first byte.
    pub ttfb_ms: Option<u32>,
    /// Arrival to the pacer's permit.
    pub queue_wait_ms: Option<u32>,
    /// Arrival to the end.
    pub latency_ms: u32,
    /// What the provider billed; followers cost nothing.
    pub usage: Option<Usage>,
    /// Whether another provider answered than the one that was asked.
    pub is_fallback: bool,
}

impl Finished {
    /// The record of a request that ends now.
    pub fn new(subscription: &Subscription, outcome: &Outcome, latency_ms: u32) -> Self {
        let timings = subscription.log.timings();
        let role = subscription.facts.role;
        let request = &subscription.facts.request;
        let failure = outcome.failure.as_ref();
        Self {
            org: request.org().clone(),
            at: Instant::now(),
            stream: subscription.facts.stream.as_str().into(),
            role,
            status: outcome.status,
            error: failure.map(|failure| failure.code),
            failed: failure.filter(|_| outcome.status == Status::Error).map(|failure| Failed::new(request, failure)),
            ttft_ms: subscription.ttft_ms(),
            ttfb_ms: subscription.since_arrival_ms(timings.first_byte),
            queue_wait_ms: subscription.since_arrival_ms(timings.granted),
            latency_ms,
            usage: outcome.usage.filter(|_| role == CallRole::Leader),
            is_fallback: subscription.log.fallback().is_some(),
        }
    }
}

/// The records of one server. See the module.
#[derive(Debug)]
pub struct Metrics {
    window_max: usize,
    began: Instant,
    inner: Mutex<Inner>,
    totals: Totals,
}

/// A client's connection is open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<Metrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.totals.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Inner {
    requests: VecDeque<(Arc<str>, Finished)>,
    /// Names are shared by all records of a provider.
    names: BTreeMap<Arc<str>, ()>,
    cancels_us: VecDeque<(OrgId, u32)>,
    failures: Failures,
    watch: Watch,
}

/// The performance report, as clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Performance {
    window: Window,
    rates: Rates,
    ttft_ms: Percentiles,
    ttfb_ms: Percentiles,
    latency_ms: Percentiles,
    queue_wait_ms: Percentiles,
    cancel_ms: Percentiles,
    #[schema(required)]
    error_rate: Option<f64>,
    errors: Errors,
    /// Requests that another provider answered than the one that was asked.
    fallbacks: usize,
    coalesce: Coalesce,
    tokens: Tokens,
    #[schema(value_type = BTreeMap<String, ProviderReport>)]
    providers: BTreeMap<Arc<str>, ProviderReport>,
    alerts: Vec<Alert>,
    /// The newest first.
    failures: Vec<Failed>,
}

/// What a report covers.
#[derive(Debug, Serialize, ToSchema)]
struct Window {
    last_n: usize,
    count: usize,
}

/// How much ends each second: means over the last `span_ms`.
#[derive(Debug, Serialize, ToSchema)]
struct Rates {
    span_ms: u64,
    requests_per_s: f64,
    /// Tokens that providers have made; followers cost nothing.
    tokens_per_s: f64,
}

/// Percentiles in milliseconds; null without data.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Percentiles {
    #[schema(required)]
    p50: Option<f64>,
    #[schema(required)]
    p95: Option<f64>,
    #[schema(required)]
    p99: Option<f64>,
    #[schema(required)]
    max: Option<f64>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ErrorCounts)]
struct Errors {
    total: usize,
    by_code: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Coalesce {
    leaders: usize,
    followers: usize,
    #[schema(required)]
    ratio: Option<f64>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Tokens {
    input: u64,
    output: u64,
}

/// One provider's part of a report.
#[derive(Debug, Serialize, ToSchema)]
struct ProviderReport {
    count: usize,
    ttft_ms: Percentiles,
    latency_ms: Percentiles,
    queue_wait_ms: Percentiles,
    #[schema(required)]
    error_rate: Option<f64>,
    errors: Errors,
    /// Requests that it answered in another one's place.
    fallbacks: usize,
    tokens: Tokens,
}

impl Metrics {
    /// No records yet.
    pub fn new(config: &config::Metrics) -> Self {
        let watch = Watch::new(config.alerts.clone());
        let inner = Inner {
            requests: VecDeque::new(),
            names: BTreeMap::new(),
            cancels_us: VecDeque::new(),
            failures: Failures::new(config.failures_max),
            watch,
        };
        let (window_max, began) = (config.window_max, Instant::now());
        Self { window_max, began, inner: Mutex::new(inner), totals: Totals::new([]) }
    }

    /// With totals of these providers.
    #[must_use]
    pub fn counting<'a>(self, providers: impl IntoIterator<Item = &'a str>) -> Self {
        Self { totals: Totals::new(providers), ..self }
    }

    /// With totals of these ways from a provider to its fallbacks.
    #[must_use]
    pub fn with_routes<'a>(mut self, routes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        routes.into_iter().for_each(|(from, to)| self.totals.may_fall_back(from, to));
        self
    }

    /// Another provider has taken an answer over.
    pub fn fell_back(&self, from: &str, to: &str) {
        self.totals.fell_back(from, to);
    }

    /// Other conditions for alarms from now on. Since when one holds is not forgotten.
    pub fn set_alerts(&self, config: &config::Alerts) {
        self.inner.lock().watch.configure(config.clone());
    }

    /// Records a finished request. Providers are configured, so their names are few.
    pub fn finished(&self, provider: &str, mut finished: Finished) {
        self.totals.finished(provider, &finished);
        let mut inner = self.inner.lock();
        let name = match inner.names.get_key_value(provider) {
            Some((name, ())) => name.clone(),
            None => {
                let name: Arc<str> = provider.into();
                inner.names.insert(name.clone(), ());
                name
            }
        };
        if let Some(failed) = finished.failed.take() {
            inner.failures.add(finished.org.clone(), name.clone(), failed);
        }
        if inner.requests.len() >= self.window_max {
            inner.requests.pop_front();
        }
        inner.requests.push_back((name, finished));
    }

    /// Counts what an answer has cost, once for each answer, whoever of its requests still were there.
    pub fn spent(&self, provider: &str, usage: Usage) {
        self.totals.spent(provider, usage);
    }

    /// Corrects what the request that began an answer has cost, when it ended before that was known. It is one of the
    /// newest.
    pub fn billed(&self, stream: &str, usage: Usage) {
        let mut inner = self.inner.lock();
        let mut newest = inner.requests.iter_mut().rev().map(|(_, finished)| finished);
        let payer = newest.find(|finished| finished.role == CallRole::Leader && *finished.stream == *stream);
        if let Some(payer) = payer {
            payer.usage = Some(usage);
        }
    }

    /// Records how long it took from a cancel's arrival to the abort of the upstream call.
    pub fn cancelled(&self, org: &OrgId, took: Duration) {
        self.totals.cancelled(took);
        let mut inner = self.inner.lock();
        if inner.cancels_us.len() == self.window_max {
            inner.cancels_us.pop_front();
        }
        inner.cancels_us.push_back((org.clone(), u32::try_from(took.as_micros()).unwrap_or(u32::MAX)));
    }

    /// Counts a response that is an error.
    pub fn refused(&self, code: Code) {
        self.totals.refused(code);
    }

    /// Counts a client's connection.
    pub fn connected(self: &Arc<Self>) -> OpenConnection {
        self.totals.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }

    /// Writes what has happened since the process began, of all organisations together.
    pub fn write_totals(&self, out: &mut Exposition) {
        self.totals.write(out);
    }

    /// Looks at the alarms' conditions, in each organisation and in all together, so that they are noticed when nobody
    /// asks. Tells those of all together.
    pub fn evaluate_alerts(&self) -> Vec<Alert> {
        let mut inner = self.inner.lock();
        let Inner { requests, watch, .. } = &mut *inner;
        let now = Instant::now();
        let newest = requests.iter().rev().map(|(_, finished)| finished);
        let mut by_org: HashMap<&OrgId, Vec<&Finished>> = HashMap::new();
        for finished in newest.clone() {
            by_org.entry(&finished.org).or_default().push(finished);
        }
        watch.keep_only(|org| by_org.contains_key(org));
        for (org, newest) in by_org {
            watch.evaluate(&View::Org(org.clone()), newest.into_iter(), now);
        }
        watch.evaluate(&View::Everything, newest, now)
    }

    /// The report over the newest `last_n` requests that `view` shows.
    pub fn performance(&self, view: &View, last_n: usize) -> Performance {
        let mut inner = self.inner.lock();
        let Inner { requests, cancels_us, failures, watch, .. } = &mut *inner;
        let now = Instant::now();
        // A full ring may reach back less far than the span.
        let oldest = requests.front().filter(|_| requests.len() >= self.window_max);
        let since = oldest.map_or(self.began, |(_, oldest)| oldest.at.max(self.began));
        let shown = requests.iter().rev().filter(|(_, finished)| view.shows(&finished.org));
        let rates = Rates::of(shown.clone().map(|(_, finished)| finished), (now - since).min(RATE_SPAN), now);
        let alerts = watch.evaluate(view, shown.clone().map(|(_, finished)| finished), now);
        let newest: Vec<_> = shown.take(last_n).collect();
        let requests = || newest.iter().map(|(_, finished)| finished);
        let cancels = cancels_us.iter().rev().filter(|(org, _)| view.shows(org)).take(last_n).map(|(_, us)| Some(*us));
        let mut by_provider: BTreeMap<Arc<str>, Vec<&Finished>> = BTreeMap::new();
        for (name, finished) in &newest {
            by_provider.entry(name.clone()).or_default().push(finished);
        }
        let reports = by_provider.into_iter().map(|(name, requests)| (name, ProviderReport::new(&requests)));
        Performance {
            window: Window { last_n, count: newest.len() },
            rates,
            ttft_ms: Percentiles::of(requests().map(|request| request.ttft_ms), 1.0),
            ttfb_ms: Percentiles::of(requests().map(|request| request.ttfb_ms), 1.0),
            latency_ms: Percentiles::of(requests().map(|request| Some(request.latency_ms)), 1.0),
            queue_wait_ms: Percentiles::of(requests().map(|request| request.queue_wait_ms), 1.0),
            cancel_ms: Percentiles::of(cancels, 1_000.0),
            error_rate: error_rate(requests()),
            errors: Errors::of(requests()),
            fallbacks: fallbacks(requests()),
            coalesce: Coalesce::of(requests()),
            tokens: Tokens::of(requests()),
            providers: reports.collect(),
            alerts,
            failures: failures.newest(view, last_n),
        }
    }
}

impl ProviderReport {
    fn new(requests: &[&Finished]) -> Self {
        let requests = || requests.iter().copied();
        Self {
            count: requests().count(),
            ttft_ms: Percentiles::of(requests().map(|request| request.ttft_ms), 1.0),
            latency_ms: Percentiles::of(requests().map(|request| Some(request.latency_ms)), 1.0),
            queue_wait_ms: Percentiles::of(requests().map(|request| request.queue_wait_ms), 1.0),
            error_rate: error_rate(requests()),
            errors: Errors::of(requests()),
            fallbacks: fallbacks(requests()),
            tokens: Tokens::of(requests()),
        }
    }
}

impl Rates {
    /// Of requests, the newest first, that ended within `span` of `now`.
    fn of<'a>(newest: impl Iterator<Item = &'a Finished> + Clone, span: Duration, now: Instant) -> Self {
        let recent = newest.take_while(|request| now - request.at <= span);
        // Shorter spans say nothing about a second.
        let seconds = span.as_secs_f64().max(1.0);
        Self {
            span_ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            requests_per_s: recent.clone().count() as f64 / seconds,
            tokens_per_s: Tokens::of(recent).output as f64 / seconds,
        }
    }
}

impl Percentiles {
    /// Of whole numbers; `scale` of them make a millisecond.
    fn of(values: impl Iterator<Item = Option<u32>>, scale: f64) -> Self {
        let mut histogram = Histogram::<u32>::new(3).expect("three digits are allowed");
        for value in values.flatten() {
            histogram.record(u64::from(value)).expect("the histogram grows with its values");
        }
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| Some(histogram.value_at_quantile(quantile) as f64 / scale);
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: Some(histogram.max() as f64 / scale) }
    }
}

impl Errors {
    fn of<'a>(requests: impl Iterator<Item = &'a Finished>) -> Self {
        let mut errors = Self::default();
        for request in requests.filter(|request| request.status == Status::Error) {
            errors.total += 1;
            *errors.by_code.entry(request.error.map_or("unknown", Code::as_str)).or_default() += 1;
        }
        errors
    }
}

impl Coalesce {
    fn of<'a>(requests: impl Iterator<Item = &'a Finished>) -> Self {
        let mut coalesce = Self::default();
        for request in requests {
            match request.role {
                CallRole::Leader => coalesce.leaders += 1,
                CallRole::Follower => coalesce.followers += 1,
            }
        }
        coalesce.ratio = (coalesce.leaders > 0).then(|| coalesce.followers as f64 / coalesce.leaders as f64);
        coalesce
    }
}

impl Tokens {
    fn of<'a>(requests: impl Iterator<Item = &'a Finished>) -> Self {
        requests.filter_map(|request| request.usage).fold(Self::default(), |sum, usage| Self {
            input: sum.input.saturating_add(usage.input),
            output: sum.output.saturating_add(usage.output),
        })
    }
}

fn fallbacks<'a>(requests: impl Iterator<Item = &'a Finished>) -> usize {
    requests.filter(|request| request.is_fallback).count()
}

/// The share of requests that ended in an error; cancelled ones are none.
fn error_rate<'a>(requests: impl Iterator<Item = &'a Finished>) -> Option<f64> {
    let (count, errors) = requests.fold((0_usize, 0_usize), |(count, errors), request| {
        (count + 1, errors + usize::from(request.status == Status::Error))
    });
    (count > 0).then(|| errors as f64 / count as f64)
}
