//! Reload: reads the configuration again and takes what can change to where it is used. Requests under way go on with
//! what they have begun with.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{self, Data};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::caller::Operator;
use super::error::{ApiError, ApiResult};
use crate::actors::pacer::Change;
use crate::config::{Provider, Reloaded};
use crate::failure::{Code, Failure};

/// What a reload has done, by keys of the configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct ReloadDone {
    status: &'static str,
    /// Those that have another value now.
    changed: Vec<String>,
    /// Those whose other value the next start will bring.
    needs_restart: Vec<String>,
}

pub(super) async fn reload(api: Data<Api>, _operator: Operator) -> ApiResult {
    // A client that leaves does not leave it half done.
    let reloading = actix_web::rt::spawn(api.into_inner().reload());
    let reloaded = reloading.await.unwrap_or_else(|_| Err(not_processed())).map_err(ApiError)?;
    let Reloaded { changed, needs_restart, .. } = reloaded;
    Ok(HttpResponse::Ok().json(ReloadDone { status: "reloaded", changed, needs_restart }))
}

impl Api {
    /// Reads the configuration again. If anything is wrong with it nothing changes; either way the log says so in a line.
    pub async fn reload(self: Arc<Self>) -> Result<Reloaded, Failure> {
        let _turn = self.live.turn().await;
        let live = self.live.clone();
        let read = web::block(move || live.reload()).await.map_err(|_| not_processed())?;
        let reloaded = read.map_err(|error| {
            let why = error.to_string();
            log::error!("the configuration is refused and stays as it was: {}", why.replace('\n', "; "));
            Failure::new(Code::Unprocessable, why)
        })?;
        self.metrics.set_alerts(&reloaded.now.metrics.alerts);
        self.change_pacers(&reloaded).await;
        log::info!(
            changed = reloaded.changed.join(" "),
            needs_restart = reloaded.needs_restart.join(" ");
            "the configuration has been read again"
        );
        Ok(reloaded)
    }

    /// Tells the pacers what is configured differently. What an operator has changed besides stays.
    async fn change_pacers(&self, Reloaded { before, now, .. }: &Reloaded) {
        for (name, pacer) in &self.pacers {
            let providers = before.providers.get(name.as_str()).zip(now.providers.get(name.as_str()));
            if let Some(change) = providers.and_then(|(old, new)| difference(old, new)) {
                // A pacer that has just died takes its limits from the new configuration when it is back.
                let _ = pacer.ask(change).await;
            }
        }
    }
}

/// What a pacer has to be told; nothing where its limits are the same.
fn difference(old: &Provider, new: &Provider) -> Option<Change> {
    let (was, is) = (old.pace, new.pace);
    let is_different = (was, old.queue_max) != (is, new.queue_max);
    is_different.then(|| Change {
        rps: Some(is.rps).filter(|rps| *rps != was.rps),
        concurrency: Some(is.concurrency).filter(|concurrency| *concurrency != was.concurrency),
        burst: Some(is.burst).filter(|burst| *burst != was.burst),
        tpm: Some(is.tpm).filter(|tpm| *tpm != was.tpm),
        queue_max: Some(new.queue_max).filter(|queue_max| *queue_max != old.queue_max),
    })
}

fn not_processed() -> Failure {
    Failure::new(Code::Internal, "the configuration could not be read again")
}
