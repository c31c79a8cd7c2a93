//! App: the one file that knows everybody. Builds the store, the actors and the server, links them, and ends them in
//! order.
//!
//! The actors live on one thread, the upstream arbiter, together with the connections to the providers. It is the first
//! of those that serve clients: with one such thread, a request and its answer never change threads.
//! The order of the end: new messages are refused; running answers finish, or are interrupted when their time is over;
//! every listener gets its `done`; the server closes its connections; the store writes what is queued and closes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use actix_web::web::Data;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::accounts::Accounts;
use crate::actors::coalescer::{self, Coalescer, Streams, Whose, tables};
use crate::actors::guardian::{Address, Guardian, Ready};
use crate::actors::pacer::breaker::BreakerSettings;
use crate::actors::pacer::{InFlight, Pacer, schedule};
use crate::actors::stream::{Checkpoints, Environment};
use crate::actors::subscriber::OnDisconnect;
use crate::actors::target::{Target, Targets};
use crate::chat::ProviderName;
use crate::config::{self, Config, Dialect, Live, Origin, Provider};
use crate::event::Status;
use crate::event_loop::{EventLoop, Spawner};
use crate::http::accept::Serving;
use crate::http::openapi::Descriptions;
use crate::http::session::Sessions;
use crate::http::{Api, Drain, server};
use crate::metrics::Metrics;
use crate::providers::upstream::{self, Transport, demo::Demo};
use crate::providers::{Adapter, registry};
use crate::store::{Store, StoreError, StoreOptions};

/// How often the alarms' conditions are looked at.
const ALERTS_INTERVAL: Duration = Duration::from_secs(10);
/// How often the end looks whether the running answers have ended.
const END_INTERVAL: Duration = Duration::from_millis(20);
/// How long interrupted answers may take to be written.
const INTERRUPT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Makes what carries the calls to a provider. Tests bring their own.
pub type MakeTransport = dyn Fn(&Provider, &dyn Adapter) -> Result<Rc<dyn Transport>, String> + Send + Sync;

/// Carries calls over the network, and to the demo without one.
pub fn transport(provider: &Provider, adapter: &dyn Adapter) -> Result<Rc<dyn Transport>, String> {
    match provider.dialect {
        Dialect::Demo => Ok(Rc::new(Demo::new())),
        _ => upstream::network(provider, adapter).map_err(|error| error.to_string()),
    }
}

/// Why weir could not start.
#[derive(Debug)]
pub enum StartError {
    /// The store.
    Store(StoreError),
    /// An address to listen on.
    Bind(SocketAddr, std::io::Error),
    /// A provider.
    Provider(String),
    /// The threads of the server.
    Server(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(error) => error.fmt(f),
            StartError::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            StartError::Provider(why) => f.write_str(why),
            StartError::Server(error) => write!(f, "cannot start the server: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        StartError::Store(error)
    }
}

/// The actors' public addresses.
pub struct Upstream {
    /// Takes in, finds and cancels requests.
    pub coalescer: Address<Coalescer>,
    /// The pacer of each provider that can be called.
    pub pacers: BTreeMap<ProviderName, Address<Pacer>>,
    /// Hears when permanent actors die too often.
    pub given_up: oneshot::Receiver<()>,
}

impl Upstream {
    /// Starts the actors on this thread.
    pub async fn start(live: &Live, store: Store, metrics: Arc<Metrics>, make: &MakeTransport) -> Result<Self, String> {
        let config = live.get();
        let (give_up, given_up) = oneshot::channel();
        let mut guardian = Guardian::new(give_up);
        let mut pacers = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for provider in config.providers.values().filter(|provider| provider.available().is_ok()) {
            warn_of_missing_routes(&config, provider);
            let adapter = registry::of(provider);
            let pacer = guard_pacer(&mut guardian, provider, live);
            let transport = make(provider, &*adapter)?;
            tokio::task::spawn_local(transport.keep_warm());
            pacers.insert(provider.name.clone(), pacer.clone());
            let target = Target::new(provider.clone(), adapter, transport, pacer);
            targets.insert(provider.name.clone(), Rc::new(target));
        }
        let coalescer = guard_coalescer(&mut guardian, &config, store, metrics.clone(), Rc::new(targets));
        let ready = guardian.start().send(Ready).await;
        debug_assert!(ready.is_ok(), "the guardian lives as long as its thread");
        tokio::task::spawn_local(watch_alerts(metrics));
        Ok(Self { coalescer, pacers, given_up })
    }
}

/// Says which fallbacks lead nowhere, so that nobody relies on them.
fn warn_of_missing_routes(config: &Config, provider: &Provider) {
    for route in &provider.fallback {
        let other = config.providers.get(route.provider.as_str());
        if let Some(Err(why)) = other.map(Provider::available) {
            log::warn!("providers.{}.fallback: {route} is left out: {why}", provider.name);
        }
    }
}

fn guard_pacer(guardian: &mut Guardian, provider: &Provider, live: &Live) -> Address<Pacer> {
    let address = Address::default();
    let (name, out) = (provider.name.clone(), InFlight::default());
    let (live, limits_at_first) = (live.clone(), limits(provider));
    let breaker = BreakerSettings::of(provider);
    guardian.guard(format!("pacer {name}"), &address, move |link| {
        // When it is started again, the configuration may be another.
        let limits = live.get().providers.get(name.as_str()).map_or(limits_at_first, limits);
        Pacer::new(name.clone(), limits, breaker, out.clone(), link)
    });
    address
}

fn limits(provider: &Provider) -> schedule::Limits {
    let config::Pace { rps, concurrency, burst, tpm } = provider.pace;
    schedule::Limits { rps, concurrency, burst, tpm, queue_max: provider.queue_max }
}

fn guard_coalescer(
    guardian: &mut Guardian,
    config: &Config,
    store: Store,
    metrics: Arc<Metrics>,
    targets: Targets,
) -> Address<Coalescer> {
    let address = Address::default();
    let config::Stream { on_disconnect, disconnect_grace_ms, answer_bytes_max, .. } = config.stream;
    let environment = Rc::new(Environment {
        store,
        metrics,
        coalescer: address.clone(),
        targets: targets.clone(),
        on_disconnect: match on_disconnect {
            config::OnDisconnect::Continue => OnDisconnect::Continue,
            config::OnDisconnect::Cancel => OnDisconnect::CancelAfter(Duration::from_millis(disconnect_grace_ms)),
        },
        write_wait_max: Duration::from_millis(config.store.write_wait_max_ms),
        checkpoints: Checkpoints::every(Duration::from_millis(config.store.checkpoint_interval_ms)),
        answer_bytes_max,
    });
    let settings = Rc::new(settings(config));
    let streams: Streams = Rc::default();
    guardian.guard("coalescer", &address, move |link| {
        Coalescer::new(targets.clone(), environment.clone(), settings.clone(), streams.clone(), link)
    });
    address
}

fn settings(config: &Config) -> coalescer::Settings {
    let millis = Duration::from_millis;
    coalescer::Settings {
        limits: tables::Limits {
            streams_max: config.stream.streams_max,
            listeners_max: config.stream.listeners_max,
            requests_max: config.stream.requests_max,
            error_ttl: millis(config.coalesce.error_ttl_ms),
            retain: millis(config.stream.retain_ms),
            retained_bytes_max: config.stream.retained_bytes_max,
            cancel_intent: millis(config.stream.cancel_intent_ms),
        },
        log_bytes_max: config.stream.log_bytes_max,
    }
}

/// Says in the log when an alarm begins.
async fn watch_alerts(metrics: Arc<Metrics>) {
    let mut known: Vec<&'static str> = Vec::new();
    loop {
        tokio::time::sleep(ALERTS_INTERVAL).await;
        let alerts = metrics.evaluate_alerts();
        for alert in alerts.iter().filter(|alert| !known.contains(&alert.name)) {
            log::warn!(alert = alert.name, value = alert.value, threshold = alert.threshold; "{}", alert.message);
        }
        known = alerts.iter().map(|alert| alert.name).collect();
    }
}

/// A running weir.
pub struct App {
    /// Where the API is.
    pub address: SocketAddr,
    /// Where metrics and administration are; `None`: there, too.
    pub admin_address: Option<SocketAddr>,
    api: Data<Api>,
    servers: Vec<Serving>,
    /// The threads that serve. The first one has the actors, too.
    loops: Vec<EventLoop>,
    given_up: oneshot::Receiver<()>,
}

impl App {
    /// Opens the store, starts the actors and serves. `origin` is where `config` came from and can be read again.
    pub async fn start(config: Config, origin: Origin, make: Arc<MakeTransport>) -> Result<Self, StartError> {
        let listen = |address| server::listen(address).map_err(|error| StartError::Bind(address, error));
        let listener = listen(config.server.bind)?;
        let admin_listener = config.server.admin_bind.map(listen).transpose()?;
        let store = Store::open(&StoreOptions::new(&config.store))?;
        let metrics = Arc::new(Metrics::new(&config.metrics).counting(callable(&config)).with_routes(routes(&config)));
        let live = Live::new(config, origin);
        let start = |n| EventLoop::start(&format!("weir-serve-{n}")).map_err(StartError::Server);
        let loops = (0..server::threads(&live.get())).map(start).collect::<Result<Vec<_>, _>>()?;
        let threads: Vec<_> = loops.iter().map(EventLoop::spawner).collect();
        let upstream = start_on(&threads[0], live.clone(), store.clone(), metrics.clone(), make).await;
        let Upstream { coalescer, pacers, given_up } = upstream.map_err(StartError::Provider)?;
        let drain = Drain::default();
        let config = live.get();
        let (accounts, sessions, descriptions) = (Accounts::default(), Sessions::default(), Descriptions::default());
        let renderings = Arc::new(Semaphore::new(config.server.renderings_max));
        let api = Data::new(Api {
            live,
            coalescer,
            pacers,
            store,
            metrics,
            accounts,
            sessions,
            renderings,
            descriptions,
            drain,
        });

        let address = listener.local_addr().map_err(StartError::Server)?;
        let admin_address = admin_listener.as_ref().map(std::net::TcpListener::local_addr).transpose();
        let admin_address = admin_address.map_err(StartError::Server)?;
        let surface = if admin_listener.is_some() { server::Surface::Chat } else { server::Surface::Everything };
        let mut servers = Vec::new();
        let listeners = [Some((listener, surface)), admin_listener.map(|other| (other, server::Surface::Operations))];
        for (listener, surface) in listeners.into_iter().flatten() {
            let running = server::serve(&listener, &threads, api.clone(), surface, &config);
            servers.push(running.map_err(StartError::Server)?);
        }
        Ok(Self { address, admin_address, api, servers, loops, given_up })
    }

    /// Waits until permanent actors have died too often to go on.
    pub async fn given_up(&mut self) {
        // The sender goes with the guardian, and the guardian with the whole thread: that is as bad.
        let _ = (&mut self.given_up).await;
    }

    /// What its handlers share; to reload the configuration by.
    pub fn api(&self) -> Arc<Api> {
        self.api.clone().into_inner()
    }

    /// Ends everything, in order. `hurry` cuts the wait for running answers short.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        self.api.drain.begin();
        let drain_max = Duration::from_millis(self.api.live.get().server.drain_timeout_ms);
        tokio::select! {
            () = self.until_idle(drain_max) => {}
            () = hurry => {}
        }
        let (reply, stopped) = oneshot::channel();
        let stop = coalescer::Stop { whose: Whose::Everybody, status: Status::Interrupted, reply };
        if self.api.coalescer.ask(stop).await.is_ok()
            && let Ok(count @ 1..) = stopped.await
        {
            log::warn!(count; "running answers were interrupted");
        }
        self.until_idle(INTERRUPT_WAIT_MAX).await;
        for server in self.servers {
            server.stop().await;
        }
        self.api.store.close().await;
        let loops = self.loops;
        let _ = actix_web::web::block(move || loops.into_iter().for_each(EventLoop::stop)).await;
    }

    /// Waits until no answer runs, but not longer than `wait_max`.
    async fn until_idle(&self, wait_max: Duration) {
        let deadline = Instant::now() + wait_max;
        while Instant::now() < deadline {
            match self.api.coalescer.ask(coalescer::Weigh).await {
                Ok(load) if load.running == 0 => return,
                Ok(_) | Err(_) => tokio::time::sleep(END_INTERVAL).await,
            }
        }
    }
}

/// The names of the providers that can be called.
fn callable(config: &Config) -> impl Iterator<Item = &str> {
    config.providers.values().filter(|provider| provider.available().is_ok()).map(|provider| provider.name.as_str())
}

/// The ways that answers can go when a provider fails.
fn routes(config: &Config) -> impl Iterator<Item = (&str, &str)> {
    let to_callable = |name: &&str| config.providers.get(*name).is_some_and(|other| other.available().is_ok());
    config.providers.values().flat_map(move |provider| {
        let others = provider.fallback.iter().map(|route| route.provider.as_str()).filter(to_callable);
        others.map(|other| (provider.name.as_str(), other))
    })
}

/// Starts the actors on `thread`.
async fn start_on(
    thread: &Spawner,
    live: Live,
    store: Store,
    metrics: Arc<Metrics>,
    make: Arc<MakeTransport>,
) -> Result<Upstream, String> {
    let (started, upstream) = oneshot::channel();
    thread.spawn(async move || drop(started.send(Upstream::start(&live, store, metrics, &*make).await)));
    upstream.await.unwrap_or_else(|_| Err("the actors could not be started".to_owned()))
}
