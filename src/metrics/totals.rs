//! Totals: what has happened since the process began, for a monitoring system that reads it again and again.
//!
//! Every series is there from the beginning: providers are those that are configured, codes those of the table. Nothing
//! that a client says becomes a label, so nothing that clients do makes more of them. Counting is a few atomic
//! additions, without a lock and without memory.
//!
//! Names are Prometheus' way of writing what OpenTelemetry's conventions for generative AI call:
//!
//! | here | there |
//! |---|---|
//! | `weir_ttft_seconds` | `gen_ai.server.time_to_first_token` |
//! | `weir_latency_seconds` | `gen_ai.server.request.duration` |
//! | `weir_tokens_total` | `gen_ai.client.token.usage` |
//! | the labels `provider`, `code`, `type` | `gen_ai.provider.name`, `error.type`, `gen_ai.token.type` |

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::Finished;
use super::exposition::{Exposition, Kind, Metric};
use crate::event::{Status, Usage};
use crate::failure::Code;
use crate::store::CallRole;

/// Upper bounds for times of an answer, in microseconds. The thresholds of the alarms are among them, so that they are
/// compared with what was counted and not with a guess between two bounds.
const ANSWER_BOUNDS_US: &[u64] = &[
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    1_500_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];
/// Upper bounds for the time of a cancel, in microseconds.
const CANCEL_BOUNDS_US: &[u64] =
    &[50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 300_000, 1_000_000];

/// How requests end.
const ENDS: [Status; 4] = [Status::Complete, Status::Cancelled, Status::Interrupted, Status::Error];
/// How requests come to their call.
const ROLES: [CallRole; 2] = [CallRole::Leader, CallRole::Follower];

/// See the module.
#[derive(Debug)]
pub(super) struct Totals {
    providers: BTreeMap<Box<str>, OfProvider>,
    cancel: Histogram,
    error_responses: Codes,
    pub(super) connections: AtomicUsize,
}

/// What has happened with one provider.
#[derive(Debug)]
struct OfProvider {
    ttft: Histogram,
    ttfb: Histogram,
    queue_wait: Histogram,
    latency: Histogram,
    requests: [[AtomicU64; ENDS.len()]; ROLES.len()],
    errors: Codes,
    input: AtomicU64,
    output: AtomicU64,
    /// Answers that another provider has taken over from this one, by that one.
    fallbacks: BTreeMap<Box<str>, AtomicU64>,
}

/// How often there was each of the codes.
#[derive(Debug)]
struct Codes([AtomicU64; Code::ALL.len()]);

/// How often something took how long.
#[derive(Debug)]
struct Histogram {
    bounds_us: &'static [u64],
    /// One for each bound, and one for what is beyond them.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// One of a provider's histograms.
type Choice = fn(&OfProvider) -> &Histogram;

impl Totals {
    /// Of these providers; what happens with others is not counted.
    pub(super) fn new<'a>(providers: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            providers: providers.into_iter().map(|name| (name.into(), OfProvider::new())).collect(),
            cancel: Histogram::new(CANCEL_BOUNDS_US),
            error_responses: Codes::new(),
            connections: AtomicUsize::new(0),
        }
    }

    /// Answers may go from one provider to another. What is not said so is not counted.
    pub(super) fn may_fall_back(&mut self, from: &str, to: &str) {
        if let Some(of) = self.providers.get_mut(from) {
            of.fallbacks.insert(to.into(), AtomicU64::new(0));
        }
    }

    /// One has gone this way.
    pub(super) fn fell_back(&self, from: &str, to: &str) {
        if let Some(count) = self.providers.get(from).and_then(|of| of.fallbacks.get(to)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A request has ended.
    pub(super) fn finished(&self, provider: &str, finished: &Finished) {
        if let Some(of) = self.providers.get(provider) {
            of.finished(finished);
        }
    }

    /// An answer has cost this.
    pub(super) fn spent(&self, provider: &str, usage: Usage) {
        let Some(of) = self.providers.get(provider) else { return };
        // No answer has more than this; a provider that bills nonsense must not turn the counter over.
        let plausible = |tokens: u64| tokens.min(u64::from(u32::MAX));
        of.input.fetch_add(plausible(usage.input), Relaxed);
        of.output.fetch_add(plausible(usage.output), Relaxed);
    }

    /// A cancel has been carried out.
    pub(super) fn cancelled(&self, took: Duration) {
        self.cancel.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A response is an error.
    pub(super) fn refused(&self, code: Code) {
        self.error_responses.count(code);
    }

    /// Writes everything.
    pub(super) fn write(&self, out: &mut Exposition) {
        self.write_counters(out);
        let times: [(_, _, Choice); 4] = [
            ("weir_ttft_seconds", "Time from a request's arrival to its first piece of content.", |of| &of.ttft),
            ("weir_ttfb_seconds", "Time from a request's arrival to the provider's first byte.", |of| &of.ttfb),
            ("weir_queue_wait_seconds", "Time from a request's arrival to the pacer's permit.", |of| &of.queue_wait),
            ("weir_latency_seconds", "Time from a request's arrival to its end.", |of| &of.latency),
        ];
        for (name, help, of) in times {
            let mut metric = out.metric(name, Kind::Histogram, help);
            for (provider, totals) in &self.providers {
                of(totals).write(&mut metric, &[("provider", provider)]);
            }
        }
        let help = "Time from a cancel's arrival to the abort of the provider's call.";
        self.cancel.write(&mut out.metric("weir_cancel_seconds", Kind::Histogram, help), &[]);
        let connections = self.connections.load(Relaxed);
        out.metric("weir_connections", Kind::Gauge, "Connections of clients.").sample(&[], connections);
    }

    fn write_counters(&self, out: &mut Exposition) {
        let help = "Requests that have ended, by how, and by whether they started their call or joined one.";
        let mut metric = out.metric("weir_requests_total", Kind::Counter, help);
        for (provider, of) in &self.providers {
            for (role, ends) in ROLES.iter().zip(&of.requests) {
                for (status, count) in ENDS.iter().zip(ends) {
                    let labels = [("provider", &**provider), ("role", role.as_str()), ("status", status.as_str())];
                    metric.sample(&labels, count.load(Relaxed));
                }
            }
        }
        let help = "Requests that have ended in an error, by its code.";
        let mut metric = out.metric("weir_request_errors_total", Kind::Counter, help);
        for (provider, of) in &self.providers {
            of.errors.write(&mut metric, Some(provider));
        }
        let help = "Responses that were an error, by its code; streams that have begun are not among them.";
        self.error_responses.write(&mut out.metric("weir_error_responses_total", Kind::Counter, help), None);
        let mut metric = out.metric("weir_tokens_total", Kind::Counter, "Tokens that answers have cost.");
        for (provider, of) in &self.providers {
            for (kind, count) in [("input", &of.input), ("output", &of.output)] {
                metric.sample(&[("provider", provider), ("type", kind)], count.load(Relaxed));
            }
        }
        let help = "Answers that another provider has taken over from the one that was asked.";
        let mut metric = out.metric("weir_fallbacks_total", Kind::Counter, help);
        for (from, of) in &self.providers {
            for (to, count) in &of.fallbacks {
                metric.sample(&[("from", from), ("to", to)], count.load(Relaxed));
            }
        }
    }
}

impl OfProvider {
    fn new() -> Self {
        let answer_time = || Histogram::new(ANSWER_BOUNDS_US);
        Self {
            ttft: answer_time(),
            ttfb: answer_time(),
            queue_wait: answer_time(),
            latency: answer_time(),
            requests: Default::default(),
            errors: Codes::new(),
            input: AtomicU64::new(0),
            output: AtomicU64::new(0),
            fallbacks: BTreeMap::new(),
        }
    }

    fn finished(&self, finished: &Finished) {
        let of_role = match finished.role {
            CallRole::Leader => &self.requests[0],
            CallRole::Follower => &self.requests[1],
        };
        if let Some(count) = ENDS.iter().position(|end| *end == finished.status).and_then(|at| of_role.get(at)) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(code) = finished.error.filter(|_| finished.status == Status::Error) {
            self.errors.count(code);
        }
        let times = [
            (&self.ttft, finished.ttft_ms),
            (&self.ttfb, finished.ttfb_ms),
            (&self.queue_wait, finished.queue_wait_ms),
            (&self.latency, Some(finished.latency_ms)),
        ];
        for (histogram, took_ms) in times {
            if let Some(took_ms) = took_ms {
                histogram.observe(u64::from(took_ms) * 1_000);
            }
        }
    }
}

impl Codes {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn count(&self, code: Code) {
        // The table lists the codes in the order of their declaration.
        self.0[code as usize].fetch_add(1, Relaxed);
    }

    fn write(&self, metric: &mut Metric<'_>, provider: Option<&str>) {
        for (code, count) in Code::ALL.iter().zip(&self.0) {
            let labels = [("provider", provider.unwrap_or_default()), ("code", code.as_str())];
            let from = usize::from(provider.is_none());
            metric.sample(&labels[from..], count.load(Relaxed));
        }
    }
}

impl Histogram {
    fn new(bounds_us: &'static [u64]) -> Self {
        let counts = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_us, counts, sum_us: AtomicU64::new(0) }
    }

    fn observe(&self, took_us: u64) {
        let at = self.bounds_us.partition_point(|bound_us| *bound_us < took_us);
        self.counts[at].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took_us, Relaxed);
    }

    /// The count is the sum of what was read for the bounds, so that one text never contradicts itself.
    fn write(&self, metric: &mut Metric<'_>, labels: &[(&str, &str)]) {
        let mut count = 0;
        for (at, in_bound) in self.counts.iter().enumerate() {
            count += in_bound.load(Relaxed);
            let bound = self.bounds_us.get(at).map_or_else(|| "+Inf".to_owned(), |us| seconds(*us).to_string());
            metric.part("_bucket", &[labels, &[("le", &bound)]].concat(), count);
        }
        metric.part("_sum", labels, seconds(self.sum_us.load(Relaxed)));
        metric.part("_count", labels, count);
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::finished;
    use super::*;

    fn text(totals: &Totals) -> String {
        let mut out = Exposition::default();
        totals.write(&mut out);
        out.into_text()
    }

    #[track_caller]
    fn assert_has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_time_is_counted_up_to_and_with_its_bound() {
        let totals = Totals::new(["demo"]);
        for ttft_ms in [5, 6, 1_500, 1_501, u32::MAX / 2] {
            totals.finished("demo", &finished(ttft_ms, Status::Complete));
        }
        totals.cancelled(Duration::from_micros(50));

        assert_has(
            &text(&totals),
            &[
                r#"weir_ttft_seconds_bucket{provider="demo",le="0.005"} 1"#,
                r#"weir_ttft_seconds_bucket{provider="demo",le="0.01"} 2"#,
                r#"weir_ttft_seconds_bucket{provider="demo",le="1.5"} 3"#,
                r#"weir_ttft_seconds_bucket{provider="demo",le="2.5"} 4"#,
                r#"weir_ttft_seconds_bucket{provider="demo",le="600"} 4"#,
                r#"weir_ttft_seconds_bucket{provider="demo",le="+Inf"} 5"#,
                r#"weir_ttft_seconds_count{provider="demo"} 5"#,
                r#"weir_cancel_seconds_bucket{le="0.00005"} 1"#,
                "weir_cancel_seconds_sum 0.00005",
            ],
        );
    }

    #[test]
    fn every_code_is_counted_as_itself() {
        for code in Code::ALL {
            let totals = Totals::new(["demo"]);
            totals.refused(*code);
            totals.finished("demo", &Finished { error: Some(*code), ..finished(1, Status::Error) });

            let name = code.as_str();
            assert_has(
                &text(&totals),
                &[
                    &format!("weir_error_responses_total{{code=\"{name}\"}} 1"),
                    &format!("weir_request_errors_total{{provider=\"demo\",code=\"{name}\"}} 1"),
                ],
            );
        }
    }

    #[test]
    fn what_is_not_configured_makes_no_series() {
        let totals = Totals::new(["demo"]);
        let before = text(&totals);

        totals.finished("other", &finished(1, Status::Complete));

        assert_eq!(text(&totals), before);
    }

    #[test]
    fn a_fallback_is_counted_if_it_is_configured() {
        let mut totals = Totals::new(["demo", "other"]);
        totals.may_fall_back("other", "demo");
        for (from, to) in [("other", "demo"), ("other", "demo"), ("demo", "other"), ("nobody", "demo")] {
            totals.fell_back(from, to);
        }

        let text = text(&totals);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("weir_fallbacks_total")).collect();
        assert_eq!(lines, [r#"weir_fallbacks_total{from="other",to="demo"} 2"#]);
    }

    #[test]
    fn a_provider_that_bills_nonsense_turns_no_counter_over() {
        let totals = Totals::new(["demo"]);
        for input in [1, u64::MAX, 1] {
            totals.spent("demo", Usage { input, ..Usage::default() });
        }

        let sum = 2 + u64::from(u32::MAX);
        assert_has(&text(&totals), &[&format!("weir_tokens_total{{provider=\"demo\",type=\"input\"}} {sum}")]);
    }
}
