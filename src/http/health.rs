//! `GET /health`, `/ready` and `/api/providers`: whether the process serves, whether it wants work, and who can answer.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::caller::Client;
use super::error::{ApiError, ApiResult};
use crate::actors::coalescer;
use crate::chat::ProviderName;
use crate::config::Provider;
use crate::failure::Code;
use crate::store::Health;

/// How long the store may take to show that it can write, and the actors that they can answer.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The process serves.
#[derive(Serialize, ToSchema)]
pub(super) struct Healthy {
    status: &'static str,
    version: &'static str,
}

/// The process wants work.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    status: &'static str,
}

/// A configured provider.
#[derive(Serialize, ToSchema)]
pub(super) struct Listed<'a> {
    name: &'a ProviderName,
    /// Its models, the first ones of interest first.
    #[schema(value_type = Vec<String>)]
    models: &'a [Arc<str>],
    #[schema(required, value_type = Option<String>)]
    default_model: Option<&'a str>,
    /// Whether it takes models that are not listed.
    any_model: bool,
    /// Whether it can be called.
    available: bool,
    /// Why it cannot.
    #[schema(required)]
    why_not: Option<String>,
    /// Whether it answers requests that name no provider.
    default: bool,
}

pub(super) async fn health() -> HttpResponse {
    HttpResponse::Ok().json(Healthy { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

pub(super) async fn ready(api: Data<Api>) -> ApiResult {
    if api.drain.has_begun() {
        return Err(ApiError::new(Code::Draining, "the server is about to stop"));
    }
    let (store, actors) = tokio::join!(
        tokio::time::timeout(WAIT_MAX, api.store.ping()),
        tokio::time::timeout(WAIT_MAX, api.coalescer.ask(coalescer::Weigh)),
    );
    match (store, actors) {
        (Ok(Ok(())), Ok(Ok(_))) => Ok(HttpResponse::Ok().json(Ready { status: "ready" })),
        (Ok(Ok(())), _) => Err(ApiError::new(Code::Overloaded, "the actors do not answer")),
        _ if matches!(api.store.health(), Health::Failed(_)) => {
            Err(ApiError::new(Code::Storage, "the store has failed and must be restarted; the log says why"))
        }
        _ => Err(ApiError::new(Code::Storage, "the store does not answer")),
    }
}

pub(super) async fn providers(api: Data<Api>, _client: Client) -> HttpResponse {
    let config = api.config();
    let default = &config.default_provider().name;
    let list: Vec<_> = config.providers.values().map(|provider| row(provider, &provider.name == default)).collect();
    HttpResponse::Ok().json(list)
}

fn row(provider: &Provider, is_default: bool) -> Listed<'_> {
    let unavailable = provider.available().err();
    Listed {
        name: &provider.name,
        models: &provider.models,
        default_model: provider.default_model.as_deref(),
        any_model: provider.any_model,
        available: unavailable.is_none(),
        why_not: unavailable,
        default: is_default,
    }
}
