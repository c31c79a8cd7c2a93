//! `GET /health`, `/ready` and `/api/providers`: whether the process serves, whether it wants work, and who can answer.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::{Value, json};

use super::Api;
use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use crate::config::Provider;
use crate::failure::Code;

/// How long the store may take to show that it can write.
const STORE_WAIT_MAX: Duration = Duration::from_secs(1);

pub(super) async fn health() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn ready(api: Data<Api>) -> ApiResult {
    if api.drain.has_begun() {
        return Err(ApiError::new(Code::Draining, "the server is about to stop"));
    }
    match tokio::time::timeout(STORE_WAIT_MAX, api.store.ping()).await {
        Ok(Ok(())) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Ok(Err(_)) | Err(_) => Err(ApiError::new(Code::Storage, "the store does not answer")),
    }
}

pub(super) async fn providers(api: Data<Api>, _caller: Caller) -> HttpResponse {
    let default = &api.config.default_provider().name;
    let list: Vec<_> = api.config.providers.values().map(|provider| row(provider, &provider.name == default)).collect();
    HttpResponse::Ok().json(list)
}

fn row(provider: &Provider, is_default: bool) -> Value {
    let unavailable = provider.available().err();
    json!({
        "name": provider.name,
        "models": provider.models,
        "default_model": provider.default_model,
        "any_model": provider.any_model,
        "available": unavailable.is_none(),
        "why_not": unavailable,
        "default": is_default,
    })
}
