//! VirtualWeir: the whole app without a socket and without waiting: pipes in memory, a store in memory, paused time.
//!
//! Everything runs on one thread, so that a seed replays the same run. The mock provider sits at the other end of a
//! pipe for each call; the time jumps to the next timer whenever nobody has anything to do.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::HttpServiceBuilder;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::dev::AppConfig;
use actix_web::web::Data;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream;
use load::client::{ClientError, Connection, Events, Request, Response};
use load::mock::{Ending, Provider, Rate};
use tokio::io::DuplexStream;
use tokio::sync::Semaphore;
use weir::accounts::Accounts;
use weir::app::Upstream;
use weir::config::{self, Config, Live, Origin};
use weir::http::openapi::Descriptions;
use weir::http::server::{self, Surface};
use weir::http::session::Sessions;
use weir::http::{Api, Drain};
use weir::metrics::Metrics;
use weir::providers::upstream::{Body, Opened, Status, Transport, TransportError};
use weir::providers::{Call, Head};
use weir::store::{Store, StoreOptions};

/// What a pipe holds: little, so that slow readers hold writers up.
const PIPE_BYTES: usize = 4 * 1024;

/// See the module.
pub(crate) struct VirtualWeir {
    pub(crate) api: Data<Api>,
    pub(crate) mock: Arc<Provider>,
    connect: Box<dyn Fn() -> DuplexStream>,
}

impl VirtualWeir {
    /// To be called in paused time, in a `LocalSet`.
    pub(crate) async fn start(toml: &str) -> Self {
        Self::before(Provider::new(None), toml).await
    }

    /// In front of a provider that refuses calls beyond `rate`.
    pub(crate) async fn with_rate(toml: &str, rate: Rate) -> Self {
        Self::before(Provider::new(Some(rate)), toml).await
    }

    async fn before(mock: Provider, toml: &str) -> Self {
        let config = Config::load(Some(("test.toml", toml)), []).unwrap_or_else(|error| panic!("{error}"));
        let store = Store::inline(&StoreOptions::default()).unwrap();
        let metrics = Arc::new(Metrics::new(&config.metrics));
        let live = Live::new(config, Origin::new(None, []));
        let mock = Arc::new(mock);
        let provider = mock.clone();
        let make = move |_: &config::Provider, _: &dyn weir::providers::Adapter| {
            Ok(Rc::new(Pipes { provider: provider.clone() }) as Rc<dyn Transport>)
        };
        let upstream = Upstream::start(&live, store.clone(), metrics.clone(), &make).await.unwrap();
        let Upstream { coalescer, pacers, .. } = upstream;
        let (accounts, sessions, drain) = (Accounts::default(), Sessions::default(), Drain::default());
        let (renderings, descriptions) = (Arc::new(Semaphore::new(1)), Descriptions::default());
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
        let app = server::app(api.clone(), Surface::Everything);
        let service = HttpServiceBuilder::<DuplexStream, _, _, _>::default()
            .h1_allow_half_closed(false)
            .h1(map_config(app.into_factory(), |()| AppConfig::default()))
            .new_service(())
            .await
            .unwrap_or_else(|_| panic!("the app can be built"));
        let service = Rc::new(service);
        let connect = Box::new(move || {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            tokio::task::spawn_local(service.call((theirs, None)));
            ours
        });
        Self { api, mock, connect }
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Connection<DuplexStream> {
        Connection::new((self.connect)(), "weir")
    }

    /// Sends a request on a new connection.
    pub(crate) async fn send(&self, request: Request) -> Response {
        let mut connection = self.connect();
        let head = connection.send(&request).await.unwrap();
        connection.whole(head).await.unwrap()
    }

    /// Opens an event stream on a new connection.
    pub(crate) async fn open(&self, request: &Request) -> Result<Events<DuplexStream>, ClientError> {
        Events::open(self.connect(), request).await
    }
}

/// Carries each call over a pipe of its own.
struct Pipes {
    provider: Arc<Provider>,
}

impl Transport for Pipes {
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>> {
        let provider = self.provider.clone();
        Box::pin(async move {
            let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
            tokio::task::spawn_local(async move { provider.serve(&mut theirs).await == Ending::Reset });
            let mut connection = Connection::new(ours, "provider");
            let mut request = Request::new("POST", format!("/v1{}", call.path)).body(call.body);
            for (name, value) in call.headers {
                request = request.header(name, value);
            }
            let head = connection.send(&request).await.map_err(|_| TransportError::Lost)?;
            let head = Head { status: head.status, headers: head.headers };
            Ok(Opened { head, body: pieces(connection), connect_ms: 0 })
        })
    }

    fn recycle(&self, _body: Body) {}

    fn status(&self) -> Status {
        Status { http: "1.1", warm: 0 }
    }
}

/// The pieces of an answer. A cut one ends like a whole one, as over real connections.
fn pieces(connection: Connection<DuplexStream>) -> Body {
    Box::pin(stream::unfold(connection, |mut connection| async move {
        let piece = connection.next_piece().await.ok().flatten()?;
        Some((Ok::<Bytes, TransportError>(piece), connection))
    }))
}

/// A generator of choices that a seed replays: xorshift64*, by Vigna (2016).
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }

    /// One of `choices`.
    pub(crate) fn pick<'c, T>(&self, choices: &'c [T]) -> &'c T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}
