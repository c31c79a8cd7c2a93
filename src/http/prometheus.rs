//! `GET /metrics`: the totals of the metrics, and how everything stands at this moment, for Prometheus.

use std::time::Duration;

use actix::Message;
use actix_web::HttpResponse;
use actix_web::web::Data;

use super::Api;
use super::caller::Operator;
use super::error::{ApiError, ApiResult};
use crate::accounts::Limit;
use crate::actors::coalescer::{Connections, Snapshot, StreamStatus};
use crate::actors::pacer;
use crate::actors::pacer::breaker::BreakerState;
use crate::chat::View;
use crate::failure::Code;
use crate::metrics::{self, Exposition, Kind};
use crate::store::Health;

/// How long the actors may take to answer. What they do not tell is left out; the rest is told all the same, because
/// it is now that somebody wants to know it.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The phases of running answers, as the coalescer names them.
const PHASES: [&str; 3] = ["queue", "upstream", "streaming"];

pub(super) async fn metrics(api: Data<Api>, operator: Operator) -> ApiResult {
    if operator.view != View::Everything {
        let message = "these are totals of all organisations: they need a key with org = \"*\", and no x-org-id";
        return Err(ApiError::new(Code::Forbidden, message));
    }
    let mut out = Exposition::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.metric("weir_build_info", Kind::Gauge, "1, for the version that runs.").sample(&version, 1);
    let draining = u8::from(api.drain.has_begun());
    out.metric("weir_draining", Kind::Gauge, "1 while the server is about to stop.").sample(&[], draining);
    api.metrics.write_totals(&mut out);
    write_store(&api, &mut out);
    write_keys(&api, &mut out);
    let (streams, pacers, connections) = tokio::join!(
        tokio::time::timeout(WAIT_MAX, api.coalescer.ask(Snapshot(View::Everything))),
        tokio::time::timeout(WAIT_MAX, pacers(&api)),
        tokio::time::timeout(WAIT_MAX, api.coalescer.ask(Connections)),
    );
    if let Ok(Ok(streams)) = streams {
        write_streams(&api, &streams, &mut out);
    }
    write_pacers(&pacers.unwrap_or_default(), &mut out);
    if let Ok(Ok(connections)) = connections {
        write_connections(&connections, &mut out);
    }
    Ok(HttpResponse::Ok().content_type(Exposition::MEDIA_TYPE).body(out.into_text()))
}

fn write_store(api: &Api, out: &mut Exposition) {
    let failed = u8::from(api.store.health() != Health::Ok);
    out.metric("weir_store_failed", Kind::Gauge, "1 when only a restart helps the store.").sample(&[], failed);
    metrics::write_store_stats(&api.store.stats(), out);
}

/// What clients have used of what they may. Their names are those of the configuration.
fn write_keys(api: &Api, out: &mut Exposition) {
    let config = api.config();
    let keys: Vec<_> = config.auth.clients().map(|key| (&*key.id, api.accounts.counts(&key.id))).collect();
    let mut metric = out.metric("weir_key_streams", Kind::Gauge, "Requests of the key whose answer runs.");
    keys.iter().for_each(|(id, counts)| metric.sample(&[("key", id)], counts.streams));
    let help = "Tokens of the key's answers that have ended since midnight, in UTC.";
    let mut metric = out.metric("weir_key_tokens_today", Kind::Gauge, help);
    keys.iter().for_each(|(id, counts)| metric.sample(&[("key", id)], counts.tokens_today));
    let help = "Requests of the key that were refused, by the limit that it had reached.";
    let mut metric = out.metric("weir_key_refused_total", Kind::Counter, help);
    for (id, counts) in &keys {
        for (limit, refused) in Limit::ALL.iter().zip(counts.refused) {
            metric.sample(&[("key", id), ("limit", limit.as_str())], refused);
        }
    }
}

/// Running answers and those who listen to them.
fn write_streams(api: &Api, streams: &[StreamStatus], out: &mut Exposition) {
    let mut metric = out.metric("weir_streams", Kind::Gauge, "Answers that run, by how far they are.");
    for provider in api.pacers.keys() {
        for phase in PHASES {
            let count = streams.iter().filter(|row| row.provider == *provider && row.phase == phase).count();
            metric.sample(&[("provider", provider.as_str()), ("phase", phase)], count);
        }
    }
    let mut metric = out.metric("weir_listeners", Kind::Gauge, "Those who listen to running answers.");
    for provider in api.pacers.keys() {
        let of_provider = streams.iter().filter(|row| row.provider == *provider);
        let count: usize = of_provider.map(|row| row.listeners).sum();
        metric.sample(&[("provider", provider.as_str())], count);
    }
}

/// How the pacers stand that answer.
async fn pacers(api: &Api) -> Vec<pacer::Status> {
    let mut rows = Vec::with_capacity(api.pacers.len());
    for pacer in api.pacers.values() {
        rows.extend(pacer.ask(pacer::Snapshot).await.ok());
    }
    rows
}

fn write_pacers(pacers: &[pacer::Status], out: &mut Exposition) {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let breaker = |state: BreakerState| match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    let mut write = |name, help, value: &dyn Fn(&pacer::Status) -> Option<f64>| {
        let mut metric = out.metric(name, Kind::Gauge, help);
        for pacer in pacers {
            if let Some(value) = value(pacer) {
                metric.sample(&[("provider", pacer.provider.as_str())], value);
            }
        }
    };
    write("weir_queued", "Calls that wait for the pacer.", &|pacer| Some(pacer.queued as f64));
    write("weir_oldest_wait_seconds", "How long the first of them has waited.", &|pacer| {
        Some(seconds(pacer.oldest_wait_ms))
    });
    write("weir_in_flight", "Calls to the provider.", &|pacer| Some(pacer.in_flight as f64));
    write("weir_concurrency_limit", "The most calls at the same time.", &|pacer| Some(pacer.concurrency as f64));
    write("weir_rps_limit", "The configured rate, calls per second.", &|pacer| Some(pacer.rps));
    write("weir_effective_rps", "The rate that is applied, calls per second.", &|pacer| Some(pacer.effective_rps));
    write("weir_paused_seconds", "For how long nobody is called because the provider wants a pause.", &|pacer| {
        Some(seconds(pacer.paused_ms))
    });
    write("weir_tpm_available", "Tokens that may be spent at once; below zero, what is owed.", &|pacer| {
        pacer.tpm_available.map(|tokens| tokens as f64)
    });
    write("weir_breaker_state", "0 closed, 1 half open, 2 open.", &|pacer| Some(breaker(pacer.breaker)));
}

fn write_connections(connections: &<Connections as Message>::Result, out: &mut Exposition) {
    let help = "Connections to the provider that could take a call at once.";
    let mut metric = out.metric("weir_warm_connections", Kind::Gauge, help);
    for (provider, status) in connections {
        metric.sample(&[("provider", provider.as_str())], status.warm);
    }
}
