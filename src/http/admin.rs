//! Operations: the performance report, the pacers, the running streams, the profiles.

use std::collections::BTreeMap;

use actix::Message;
use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Query};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::Api;
use super::caller::Operator;
use super::error::{ApiError, ApiResult};
use super::fields::Fields;
use crate::actors::coalescer::{self, Connections, Whose};
use crate::actors::pacer::{self, Change};
use crate::chat::{ProviderName, StreamId};
use crate::event::Status;
use crate::failure::{Code, Failure};

/// Requests in a report when the client does not say.
pub(super) const LAST_N_DEFAULT: usize = 100;
/// The least and the most that a pacer may be changed to: calls a second.
pub(super) const RPS: (f64, f64) = (0.001, 1_000_000.0);
/// The same for calls at once.
pub(super) const CONCURRENCY: (u64, u64) = (1, 10_000);
/// The same for calls at once after a quiet time.
pub(super) const BURST: (u64, u64) = (1, 1_000_000);
/// The same for tokens a minute.
pub(super) const TPM: (u64, u64) = (0, 1_000_000_000);

/// What a report is to cover.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    last_n: Option<String>,
}

/// A stream that has been stopped.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamStopped {
    status: &'static str,
}

/// A profile that is in effect now.
#[derive(Serialize, ToSchema)]
pub(super) struct Switched<'a> {
    profile: &'a str,
    /// The changed pacers, by provider.
    pacers: BTreeMap<&'a str, PacerRow>,
}

pub(super) async fn performance(api: Data<Api>, operator: Operator, report: Query<Report>) -> ApiResult {
    let max = api.config().metrics.window_max;
    let last_n =
        match &report.last_n {
            None => LAST_N_DEFAULT,
            Some(text) => text.parse().ok().filter(|last_n| (1..=max).contains(last_n)).ok_or_else(|| {
                ApiError::field("last_n", format!("last_n must be a whole number between 1 and {max}"))
            })?,
        };
    Ok(HttpResponse::Ok().json(api.metrics.performance(&operator.view, last_n)))
}

/// A pacer with its provider's connections.
#[derive(Serialize, ToSchema)]
pub(super) struct PacerRow {
    #[serde(flatten)]
    pacer: pacer::Status,
    http: &'static str,
    warm: usize,
}

impl PacerRow {
    fn new(pacer: pacer::Status, connections: &<Connections as Message>::Result) -> Self {
        let (http, warm) = connections.get(&pacer.provider).map_or(("none", 0), |status| (status.http, status.warm));
        Self { pacer, http, warm }
    }
}

pub(super) async fn pacers(api: Data<Api>, _operator: Operator) -> ApiResult {
    Ok(HttpResponse::Ok().json(pacer_rows(&api).await?))
}

/// Every pacer as operators see it.
pub(super) async fn pacer_rows(api: &Api) -> ApiResult<Vec<PacerRow>> {
    let connections = api.coalescer.ask(Connections).await?;
    let mut rows = Vec::with_capacity(api.pacers.len());
    for pacer in api.pacers.values() {
        rows.push(PacerRow::new(pacer.ask(pacer::Snapshot).await?, &connections));
    }
    Ok(rows)
}

pub(super) async fn change_pacer(
    api: Data<Api>,
    _operator: Operator,
    provider: Path<String>,
    mut fields: Fields,
) -> ApiResult {
    let name = ProviderName::new(provider.into_inner());
    let Some(pacer) = api.pacers.get(&name) else {
        return Err(ApiError(Failure::new(Code::NotFound, "there is no pacer of this name").param("provider")));
    };
    let rps = fields.number("rps", RPS.0, RPS.1)?;
    let mut whole = |name, (min, max): (u64, u64)| fields.whole(name, min, max);
    let change = Change {
        rps,
        concurrency: whole("concurrency", CONCURRENCY)?.and_then(|slots| usize::try_from(slots).ok()),
        burst: whole("burst", BURST)?.and_then(|burst| u32::try_from(burst).ok()),
        tpm: whole("tpm", TPM)?.and_then(|tpm| u32::try_from(tpm).ok()),
        queue_max: None,
    };
    fields.finish()?;
    let status = pacer.ask(change).await?;
    Ok(HttpResponse::Ok().json(PacerRow::new(status, &api.coalescer.ask(Connections).await?)))
}

pub(super) async fn streams(api: Data<Api>, operator: Operator) -> ApiResult {
    Ok(HttpResponse::Ok().json(api.coalescer.ask(coalescer::Snapshot(operator.view)).await?))
}

pub(super) async fn stop_stream(api: Data<Api>, operator: Operator, stream: Path<String>) -> ApiResult {
    let whose = Whose::Stream(operator.view, StreamId::new(stream.into_inner()));
    let (reply, answer) = oneshot::channel();
    api.coalescer.ask(coalescer::Stop { whose, status: Status::Cancelled, reply }).await?;
    match answer.await {
        Ok(0) => Err(ApiError::new(Code::NotFound, "no such stream runs")),
        Ok(_) => Ok(HttpResponse::Ok().json(StreamStopped { status: "cancelled" })),
        Err(_) => Err(ApiError::new(Code::Internal, "the stop could not be processed")),
    }
}

pub(super) async fn switch_profile(api: Data<Api>, _operator: Operator, profile: Path<String>) -> ApiResult {
    let config = api.config();
    let Some(paces) = config.profile(&profile) else {
        let mut names: Vec<_> = config.profiles.keys().map(String::as_str).collect();
        names.push("production");
        let message = format!("there is no profile of this name; there are {}", names.join(", "));
        return Err(ApiError(Failure::new(Code::NotFound, message).param("profile")));
    };
    let connections = api.coalescer.ask(Connections).await?;
    let mut changed = BTreeMap::new();
    for (name, pace) in paces {
        if let Some(pacer) = api.pacers.get(&ProviderName::new(name)) {
            let change = Change {
                rps: Some(pace.rps),
                concurrency: Some(pace.concurrency),
                burst: Some(pace.burst),
                tpm: Some(pace.tpm),
                queue_max: None,
            };
            changed.insert(name, PacerRow::new(pacer.ask(change).await?, &connections));
        }
    }
    Ok(HttpResponse::Ok().json(Switched { profile: &profile, pacers: changed }))
}
