//! `GET /api/openapi.json`: what the server offers, in the words of OpenAPI 3.1.
//!
//! Schemas of answers are derived from the types that are answered with; what operations read and fail with stands in a
//! table beside the routes. Bounds are those of the configuration in effect.
//!
//! | file | what it has |
//! |---|---|
//! | `table.rs` | every operation, and the parameters and headers that they share |
//! | `operation.rs` | one operation, and how it is written |
//! | `failures.rs` | which error codes come of what, and their responses |
//! | `bodies.rs`, `v1.rs` | what is taken: by weir's own paths, by OpenAI's |
//! | `events.rs` | what streams consist of |
//! | `schemas.rs` | derived schemas, collected; small ones by hand |

mod bodies;
mod events;
mod failures;
mod operation;
mod schemas;
mod table;
mod v1;

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::header::ContentType;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use self::schemas::Schemas;
use super::Api;
use super::server::Surface;
use crate::config::Config;

/// What each kind of server offers, encoded once for the configuration that is in effect.
#[derive(Debug, Default)]
pub struct Descriptions(Mutex<BTreeMap<Surface, (Arc<Config>, Bytes)>>);

impl Descriptions {
    fn get(&self, surface: Surface, config: Arc<Config>) -> Bytes {
        let mut known = self.0.lock();
        if let Some((_, encoded)) = known.get(&surface).filter(|(of, _)| Arc::ptr_eq(of, &config)) {
            return encoded.clone();
        }
        let encoded: Bytes = description(&config, surface).to_string().into();
        known.insert(surface, (config, encoded.clone()));
        encoded
    }
}

/// `GET /api/openapi.json`
pub(super) async fn describe(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    let surface = request.app_data::<Surface>().copied().unwrap_or(Surface::Everything);
    HttpResponse::Ok().insert_header(ContentType::json()).body(api.descriptions.get(surface, api.config()))
}

/// The whole document.
fn description(config: &Config, surface: Surface) -> Value {
    let mut schemas = Schemas::default();
    let is_open = config.auth.keys.is_empty();
    let mut paths: BTreeMap<_, Map<String, Value>> = BTreeMap::new();
    let operations = table::operations(config, &mut schemas);
    for operation in operations.iter().filter(|operation| operation.surfaces.contains(&surface)) {
        let written = operation.written(is_open, &mut schemas);
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), written);
    }
    let mut components = json!({
        "parameters": table::parameters(),
        "headers": table::headers(),
        "securitySchemes": {
            "key": { "type": "http", "scheme": "bearer", "description": "A key of `[auth]` in the configuration." },
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": "weir",
                "description": "A browser that has signed in. Over HTTPS the cookie is `__Host-weir`.",
            },
        },
    });
    for (kind, entries) in schemas.into_components() {
        components[kind] = entries;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
            "description": INTRODUCTION,
        },
        "paths": paths,
        "components": components,
    })
}

const INTRODUCTION: &str = "\
A streaming backend for LLM chat. Times are milliseconds, wall-clock times since 1970, sizes bytes. Paths work with and \
without a trailing slash; `HEAD` follows from `GET`, except for event streams; another method is a 405 whose `Allow` \
names those that there are, another path a 404. In bodies `null` is the same as leaving a field out. Answers may get \
further fields.

Every response carries `X-Request-Id`: the client's, if it can be one, else a new one. An error is the schema `Error`, \
which OpenAI's clients can read; the responses list the codes that each operation can be answered with.

A `text/event-stream` is described by its single event, with the fields of server-sent events.";
