//! `GET /v1/models`, `/v1/models/{id}`: what can be asked for, by names that every request can use.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::Api;
use crate::http::caller::Caller;
use crate::http::error::ApiResult;

/// A list, as OpenAI writes it.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// A model that can be asked for.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Model {
    /// `provider/model`
    id: String,
    object: &'static str,
    /// When a model was made is not known here: 0.
    created: u64,
    /// The provider.
    owned_by: String,
}

/// The models of all providers that can be called.
pub(in crate::http) async fn list(api: Data<Api>, _: Caller) -> HttpResponse {
    let config = api.config();
    let callable = config.providers.values().filter(|provider| provider.available().is_ok());
    let models = callable.flat_map(|provider| {
        let provider_name = provider.name.as_str();
        provider.models.iter().map(move |listed| model(provider_name, listed))
    });
    HttpResponse::Ok().json(ModelList { object: "list", data: models.collect() })
}

/// One model, by any name that a request may use for it.
pub(in crate::http) async fn read(api: Data<Api>, _: Caller, name: Path<String>) -> ApiResult {
    let config = api.config();
    let (provider, found) = config.resolve_name(&name)?;
    Ok(HttpResponse::Ok().json(model(provider.name.as_str(), &found)))
}

fn model(provider: &str, name: &str) -> Model {
    Model { id: format!("{provider}/{name}"), object: "model", created: 0, owned_by: provider.to_owned() }
}
