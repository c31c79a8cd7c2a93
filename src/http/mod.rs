//! HTTP: the whole public API on one screen, and what its handlers share. Handlers read a request, ask, and write the
//! answer; they decide nothing. What asks again is `turns.rs`, when a thread has moved on meanwhile, `openai/joining.rs`,
//! when the answer that was to be shared has just ended, and `stored.rs`, when a request has begun or ended in between.

pub mod accept;
mod admin;
mod caller;
mod cancel;
mod connection;
mod cors;
mod edge;
mod error;
mod feed;
mod fields;
pub mod files;
mod health;
mod messages;
mod openai;
pub mod openapi;
mod page;
mod path;
mod prometheus;
mod reload;
mod rendering;
mod requests;
pub mod server;
pub mod session;
mod sse;
mod stored;
mod streams;
mod threads;
mod timing;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::HttpRequest;
use actix_web::web::{self, ServiceConfig};
use tokio::sync::Semaphore;

use self::error::{ApiError, ApiResult};
use self::openapi::Descriptions;
use self::path::at;
use self::server::Surface;
use self::session::Sessions;
use crate::accounts::Accounts;
use crate::actors::coalescer::Coalescer;
use crate::actors::guardian::Address;
use crate::actors::pacer::Pacer;
use crate::chat::ProviderName;
use crate::config::{Config, Live};
use crate::failure::Code;
use crate::metrics::Metrics;
use crate::store::Store;

/// The routes of a server.
pub fn routes(app: &mut ServiceConfig, surface: Surface) {
    app.service(at("/health").document(health::health)).service(at("/ready").document(health::ready));
    app.app_data(surface).service(at("/api/openapi.json").document(openapi::describe));
    app.service(at("/api/session").document(session::show).post(session::begin).delete(session::end));
    if surface != Surface::Operations {
        chat(app);
    }
    if surface != Surface::Chat {
        operations(app);
    }
    app.service(at("/assets/{file}").document(page::asset));
    app.default_service(web::to(no_such_path));
}

/// What clients use.
fn chat(app: &mut ServiceConfig) {
    app.service(at("/api/threads").post(threads::create).document(threads::list))
        .service(at("/api/threads/cancel/{request}").post(cancel::cancel))
        .service(at("/api/threads/{thread}").document(threads::read).patch(threads::change).delete(threads::remove))
        .service(at("/api/threads/{thread}/messages").post(messages::send))
        .service(at("/api/threads/{thread}/messages/stream").post(messages::stream))
        .service(at("/api/threads/{thread}/messages/{message}").document(rendering::message))
        .service(at("/api/threads/{thread}/regenerate").post(messages::regenerate))
        .service(at("/api/threads/{thread}/stream").stream(streams::of_thread))
        .service(at("/api/threads/{thread}/stop").post(cancel::stop))
        .service(at("/api/requests/{request}").document(requests::state))
        .service(at("/api/requests/{request}/stream").stream(streams::of_request))
        .service(at("/api/render").post(rendering::growing))
        .service(at("/api/providers").document(health::providers))
        .service(at("/").document(page::index));
    app.service(at("/v1/chat/completions").post(openai::chat::complete))
        .service(at("/v1/responses").post(openai::responses::create))
        .service(at("/v1/models").document(openai::models::list))
        .service(at("/v1/models/{model:.+}").document(openai::models::read));
}

/// What operators use.
fn operations(app: &mut ServiceConfig) {
    app.service(at("/metrics").document(prometheus::metrics))
        .service(at("/api/metrics/performance").document(admin::performance))
        .service(at("/api/admin/pacers").document(admin::pacers))
        .service(at("/api/admin/pacers/{provider}").patch(admin::change_pacer))
        .service(at("/api/admin/keys").document(admin::keys))
        .service(at("/api/admin/streams").document(admin::streams))
        .service(at("/api/admin/streams/{stream}/stop").post(admin::stop_stream))
        .service(at("/api/admin/feed").stream(feed::feed))
        .service(at("/api/admin/profile/{profile}").post(admin::switch_profile))
        .service(at("/api/admin/reload").post(reload::reload))
        .service(at("/admin").document(page::admin));
}

async fn no_such_path() -> ApiResult {
    Err(ApiError::new(Code::NotFound, "there is no such path"))
}

/// What the handlers of all threads share.
pub struct Api {
    /// The configuration in effect.
    pub live: Live,
    /// Takes in, finds and cancels requests.
    pub coalescer: Address<Coalescer>,
    /// The pacer of each provider.
    pub pacers: BTreeMap<ProviderName, Address<Pacer>>,
    /// Keeps threads and messages.
    pub store: Store,
    /// Tells what has become of requests.
    pub metrics: Arc<Metrics>,
    /// What each key has of what it may ask for.
    pub accounts: Accounts,
    /// Who has signed in.
    pub sessions: Sessions,
    /// Places for texts that are being rendered.
    pub renderings: Arc<Semaphore>,
    /// What is offered, for programs.
    pub descriptions: Descriptions,
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
    /// The configuration in effect. A request takes it once for what belongs together: the next time it may be another.
    fn config(&self) -> Arc<Config> {
        self.live.get()
    }

    /// What belongs to the application that serves `request`.
    fn of(request: &HttpRequest) -> Arc<Api> {
        let api = request.app_data::<web::Data<Api>>().expect("the application is built with its Api");
        Arc::clone(api)
    }
}
