//! What the report promises: its windows, its percentiles, whose requests it counts.

use super::*;
use crate::chat::RequestId;
use crate::failure::Failure;

pub(crate) fn finished(ttft_ms: u32, status: Status) -> Finished {
    Finished {
        org: OrgId::new("acme"),
        at: Instant::now(),
        stream: "s".into(),
        role: CallRole::Leader,
        status,
        error: (status == Status::Error).then_some(Code::UpstreamError),
        failed: None,
        ttft_ms: Some(ttft_ms),
        ttfb_ms: Some(1),
        queue_wait_ms: Some(0),
        latency_ms: 2 * ttft_ms,
        usage: None,
        is_fallback: false,
    }
}

fn report(metrics: &Metrics, last_n: usize) -> serde_json::Value {
    serde_json::to_value(metrics.performance(&View::Everything, last_n)).unwrap()
}

#[test]
fn without_data_percentiles_are_null_and_never_zero() {
    let report = report(&Metrics::new(&config::Metrics::default()), 100);

    assert_eq!(report["ttft_ms"]["p95"], serde_json::Value::Null);
    assert_eq!(report["error_rate"], serde_json::Value::Null);
    assert_eq!(report["coalesce"]["ratio"], serde_json::Value::Null);
}

#[test]
fn a_report_covers_the_newest_requests_alone() {
    let metrics = Metrics::new(&config::Metrics::default());
    for ttft_ms in [9_000, 9_000, 10, 20, 30] {
        metrics.finished("demo", finished(ttft_ms, Status::Complete));
    }

    let report = report(&metrics, 3);

    assert_eq!(report["window"], serde_json::json!({"last_n": 3, "count": 3}));
    assert_eq!(report["ttft_ms"]["max"], 30.0);
    assert_eq!(report["ttft_ms"]["p50"], 20.0);
    assert_eq!(report["providers"]["demo"]["count"], 3);
}

#[test]
fn a_cancelled_request_is_no_error() {
    let metrics = Metrics::new(&config::Metrics::default());
    metrics.finished("demo", finished(1, Status::Cancelled));
    metrics.finished("demo", finished(1, Status::Error));

    let report = report(&metrics, 100);

    assert_eq!(report["error_rate"], 0.5);
    assert_eq!(report["errors"], serde_json::json!({"total": 1, "by_code": {"upstream_error": 1}}));
}

#[test]
fn a_bill_that_comes_late_takes_the_place_of_the_estimate_of_whoever_pays() {
    let metrics = Metrics::new(&config::Metrics::default());
    let usage = |output| Usage { output, ..Usage::default() };
    let role = CallRole::Follower;
    for (stream, role) in [("a", CallRole::Leader), ("b", CallRole::Leader), ("a", role)] {
        let usage = (role == CallRole::Leader).then(|| usage(5));
        metrics.finished("demo", Finished { stream: stream.into(), role, usage, ..finished(1, Status::Cancelled) });
    }

    metrics.billed("a", usage(100));
    metrics.billed("unknown", usage(1_000));

    assert_eq!(report(&metrics, 100)["tokens"]["output"], 105);
}

#[test]
fn a_provider_that_bills_nonsense_breaks_no_sum() {
    let metrics = Metrics::new(&config::Metrics::default());
    for _ in 0..2 {
        let usage = Some(Usage { input: u64::MAX, ..Usage::default() });
        metrics.finished("demo", Finished { usage, ..finished(1, Status::Complete) });
    }

    assert_eq!(report(&metrics, 100)["tokens"]["input"], u64::MAX);
}

#[test]
fn a_long_time_is_reported_as_it_was() {
    let metrics = Metrics::new(&config::Metrics::default());
    metrics.finished("demo", finished(600_000, Status::Complete));

    let longest = report(&metrics, 100)["ttft_ms"]["max"].as_f64().unwrap();

    assert!((longest - 600_000.0).abs() < 600.0, "{longest}");
}

fn of(org: &str, ttft_ms: u32, status: Status) -> Finished {
    Finished { org: OrgId::new(org), ..finished(ttft_ms, status) }
}

#[tokio::test(start_paused = true)]
async fn a_report_for_an_organisation_is_what_it_would_be_if_there_were_no_other() {
    let (shared, alone) = (Metrics::new(&config::Metrics::default()), Metrics::new(&config::Metrics::default()));
    let ours = OrgId::new("ours");
    for n in 0..40 {
        let status = if n % 4 == 0 { Status::Error } else { Status::Complete };
        for metrics in [&shared, &alone] {
            metrics.finished("demo", of("ours", 10 * n, status));
            metrics.cancelled(&ours, Duration::from_millis(u64::from(n)));
        }
        shared.finished("secret", of("theirs", 9_000, Status::Error));
        shared.cancelled(&OrgId::new("theirs"), Duration::from_secs(9));
    }

    let report = |metrics: &Metrics, view: View| serde_json::to_value(metrics.performance(&view, 30)).unwrap();

    assert_eq!(report(&shared, View::Org(ours)), report(&alone, View::Everything));
    assert_eq!(report(&alone, View::Everything)["window"]["count"], 30, "the last 30 of its own");
    assert_eq!(report(&shared, View::Everything)["errors"]["total"], 15 + 3);
    let nobody = report(&shared, View::Org(OrgId::new("nobody")));
    assert_eq!((&nobody["window"]["count"], &nobody["ttft_ms"]["max"]), (&0.into(), &serde_json::Value::Null));
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_shown_to_those_whose_requests_it_is_about() {
    let metrics = Metrics::new(&config::Metrics::default());
    let slow = |view: &View| !metrics.performance(view, 1).alerts.is_empty();
    let (slow_org, fast_org) = (View::Org(OrgId::new("slow")), View::Org(OrgId::new("fast")));
    for _ in 0..=32 {
        metrics.finished("demo", of("slow", 5_000, Status::Complete));
        (0..100).for_each(|_| metrics.finished("demo", of("fast", 10, Status::Complete)));
        assert_eq!(metrics.evaluate_alerts(), [], "a hundred to one, all together are fast");
        tokio::time::advance(Duration::from_secs(10)).await;
    }

    assert_eq!((slow(&slow_org), slow(&fast_org), slow(&View::Everything)), (true, false, false));
    assert!(metrics.inner.lock().watch.size() <= 1, "nothing is remembered of those who are well");
    metrics.inner.lock().requests.clear();
    metrics.evaluate_alerts();
    assert_eq!(metrics.inner.lock().watch.size(), 0, "nor of those who are gone");
}

#[test]
fn the_ring_holds_no_more_than_its_window() {
    let metrics = Metrics::new(&config::Metrics { window_max: 100, ..config::Metrics::default() });
    (0..1_000).for_each(|_| metrics.finished("demo", finished(1, Status::Complete)));

    assert_eq!(report(&metrics, 10_000)["window"]["count"], 100);
}

fn failing(org: &str, request: &str) -> Finished {
    let org = OrgId::new(org);
    let failure = Failure::new(Code::UpstreamTimeout, "the provider did not begin its answer in time");
    let failed = Failed::new(&RequestId::parse(org.clone(), request).unwrap(), &failure);
    Finished { org, failed: Some(failed), ..finished(1, Status::Error) }
}

#[test]
fn the_last_failures_are_told_the_newest_first_and_no_more_than_may_be_kept() {
    let metrics = Metrics::new(&config::Metrics { failures_max: 3, ..config::Metrics::default() });
    for request in ["r1", "r2", "r3", "r4"] {
        metrics.finished("demo", failing("acme", request));
        metrics.finished("demo", finished(1, Status::Complete));
    }

    let failures = report(&metrics, 100)["failures"].clone();

    let ids: Vec<_> =
        failures.as_array().unwrap().iter().map(|failed| failed["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["r4", "r3", "r2"]);
    assert_eq!((&failures[0]["provider"], &failures[0]["code"]), (&"demo".into(), &"upstream_timeout".into()));
    assert_eq!(failures[0]["message"], "the provider did not begin its answer in time");
    assert!(failures[0]["at"].as_u64().unwrap() > 1_700_000_000_000);
}

#[test]
fn an_organisation_hears_of_its_own_failures_alone() {
    let metrics = Metrics::new(&config::Metrics::default());
    metrics.finished("demo", failing("acme", "r1"));
    metrics.finished("demo", failing("rival", "r2"));

    let report = metrics.performance(&View::Org(OrgId::new("acme")), 100);

    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["failures"].as_array().unwrap().len(), 1);
    assert!(!report.to_string().contains("r2") && !report.to_string().contains("rival"));
}

#[tokio::test(start_paused = true)]
async fn rates_are_means_over_the_last_seconds() {
    let metrics = Metrics::new(&config::Metrics::default());
    let usage = Some(Usage { output: 50, ..Usage::default() });
    tokio::time::advance(Duration::from_secs(60)).await;
    metrics.finished("demo", Finished { usage, ..finished(1, Status::Complete) });
    tokio::time::advance(Duration::from_secs(8)).await;
    for _ in 0..3 {
        metrics.finished("demo", Finished { usage, ..finished(1, Status::Complete) });
    }

    let busy = report(&metrics, 1)["rates"].clone();
    tokio::time::advance(Duration::from_secs(5)).await;
    let calmer = report(&metrics, 1)["rates"].clone();

    assert_eq!(busy, serde_json::json!({ "span_ms": 10_000, "requests_per_s": 0.4, "tokens_per_s": 20.0 }));
    assert_eq!(calmer["requests_per_s"], 0.3);
}

#[tokio::test(start_paused = true)]
async fn rates_of_a_full_ring_are_means_over_what_it_holds() {
    let metrics = Metrics::new(&config::Metrics { window_max: 100, ..config::Metrics::default() });
    for _ in 0..400 {
        tokio::time::advance(Duration::from_millis(20)).await;
        metrics.finished("demo", finished(1, Status::Complete));
    }

    let rates = report(&metrics, 1)["rates"].clone();

    assert_eq!(rates["span_ms"], 1_980);
    assert!((50.0..51.0).contains(&rates["requests_per_s"].as_f64().unwrap()), "{rates}");
}
