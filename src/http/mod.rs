//! HTTP: the whole public API on one screen, and what its handlers share. Handlers read a request, ask once, and write
//! the answer; they decide nothing. Only `turns.rs` asks again, when a thread has moved on meanwhile.

mod admin;
mod caller;
mod cancel;
mod edge;
mod error;
mod feed;
mod fields;
mod health;
mod messages;
mod openai;
mod page;
mod rendering;
mod requests;
pub mod server;
mod sse;
mod streams;
mod threads;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::web::{self, ServiceConfig, delete, get, head, patch, post};
use actix_web::{HttpRequest, Resource};

use self::error::{ApiError, ApiResult};
use self::server::Surface;
use crate::actors::coalescer::Coalescer;
use crate::actors::guardian::Address;
use crate::actors::pacer::Pacer;
use crate::chat::ProviderName;
use crate::config::Config;
use crate::failure::Code;
use crate::metrics::Metrics;
use crate::store::Store;

/// The routes of a server.
pub fn routes(app: &mut ServiceConfig, surface: Surface) {
    app.service(at("/health").route(get().to(health::health)).route(head().to(health::health)))
        .service(at("/ready").route(get().to(health::ready)).route(head().to(health::ready)));
    if surface != Surface::Operations {
        chat(app);
    }
    if surface != Surface::Chat {
        operations(app);
    }
    app.service(at("/assets/{file}").route(get().to(page::asset)));
    app.default_service(web::to(no_such_path));
}

/// What clients use.
fn chat(app: &mut ServiceConfig) {
    app.service(at("/api/threads").route(post().to(threads::create)).route(get().to(threads::list)))
        .service(at("/api/threads/cancel/{request}").route(post().to(cancel::cancel)))
        .service(
            at("/api/threads/{thread}")
                .route(get().to(threads::read))
                .route(patch().to(threads::change))
                .route(delete().to(threads::remove)),
        )
        .service(at("/api/threads/{thread}/messages").route(post().to(messages::send)))
        .service(at("/api/threads/{thread}/messages/stream").route(post().to(messages::stream)))
        .service(at("/api/threads/{thread}/messages/{message}").route(get().to(rendering::message)))
        .service(at("/api/threads/{thread}/regenerate").route(post().to(messages::regenerate)))
        .service(at("/api/threads/{thread}/stream").route(get().to(streams::of_thread)))
        .service(at("/api/threads/{thread}/stop").route(post().to(cancel::stop)))
        .service(at("/api/requests/{request}").route(get().to(requests::state)))
        .service(at("/api/requests/{request}/stream").route(get().to(streams::of_request)))
        .service(at("/api/providers").route(get().to(health::providers)))
        .service(at("/").route(get().to(page::index)));
    app.service(at("/v1/chat/completions").route(post().to(openai::chat::complete)))
        .service(at("/v1/responses").route(post().to(openai::responses::create)))
        .service(at("/v1/models").route(get().to(openai::models::list)))
        .service(at("/v1/models/{model:.+}").route(get().to(openai::models::read)));
}

/// What operators use.
fn operations(app: &mut ServiceConfig) {
    app.service(at("/api/metrics/performance").route(get().to(admin::performance)))
        .service(at("/api/admin/pacers").route(get().to(admin::pacers)))
        .service(at("/api/admin/pacers/{provider}").route(patch().to(admin::change_pacer)))
        .service(at("/api/admin/streams").route(get().to(admin::streams)))
        .service(at("/api/admin/streams/{stream}/stop").route(post().to(admin::stop_stream)))
        .service(at("/api/admin/feed").route(get().to(feed::feed)))
        .service(at("/api/admin/profile/{profile}").route(post().to(admin::switch_profile)))
        .service(at("/admin").route(get().to(page::admin)));
}

/// A path; other methods than its own are answered as such.
fn at(path: &'static str) -> Resource {
    web::resource(path).default_service(web::to(no_such_method))
}

async fn no_such_path() -> ApiResult {
    Err(ApiError::new(Code::NotFound, "there is no such path"))
}

async fn no_such_method() -> ApiResult {
    Err(ApiError::new(Code::MethodNotAllowed, "this path has other methods"))
}

/// What the handlers of all threads share.
pub struct Api {
    /// The configuration.
    pub config: Arc<Config>,
    /// Takes in, finds and cancels requests.
    pub coalescer: Address<Coalescer>,
    /// The pacer of each provider.
    pub pacers: BTreeMap<ProviderName, Address<Pacer>>,
    /// Keeps threads and messages.
    pub store: Store,
    /// Tells what has become of requests.
    pub metrics: Arc<Metrics>,
    /// Whether the server is about to stop.
    pub drain: Drain,
}

/// Whether the server is about to stop: new messages are refused then, everything else goes on.
#[derive(Debug, Default)]
pub struct Drain(AtomicBool);

impl Drain {
    /// Refuses new messages from now on.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Api {
    /// What belongs to the application that serves `request`.
    fn of(request: &HttpRequest) -> Arc<Api> {
        let api = request.app_data::<web::Data<Api>>().expect("the application is built with its Api");
        Arc::clone(api)
    }
}
