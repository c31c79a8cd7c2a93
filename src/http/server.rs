//! Server: the sockets in front of the routes. HTTP/1.1 only, without Nagle's delay, and a closed client is noticed.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpServiceBuilder;
use actix_service::{IntoServiceFactory, Service, apply_fn_factory, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::KeepAlive;
use actix_web::middleware::{NormalizePath, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use actix_web::{App, Error};
use actix_web_lab::middleware::CatchPanic;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::accept::{Bounds, Serving, Stop};
use super::connection::follow::follow;
use super::connection::places::{Kind, Places};
use super::connection::{Connection, Line, Patience, say};
use super::{Api, edge, files, routes};
use crate::config::Config;
use crate::event_loop::Spawner;
use crate::metrics::Metrics;

/// Connections that the system may hold until they are accepted: a burst of clients comes at once.
const BACKLOG: i32 = 4_096;
/// How long a connection may take that is one too many.
const EXTRA_PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection may take to close.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The same for one that is refused only because there are so many.
const REFUSED_WAIT_MAX: Duration = Duration::from_millis(200);

/// Which part of the API a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surface {
    /// All of it.
    Everything,
    /// What clients use.
    Chat,
    /// Metrics and administration.
    Operations,
}

/// The application of one worker: the routes behind what every request passes.
pub fn app(
    api: Data<Api>,
    surface: Surface,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(api)
        .configure(|app| routes(app, surface))
        .wrap(CatchPanic::default())
        .wrap(from_fn(edge::edge))
        .wrap(NormalizePath::trim())
        .wrap(from_fn(follow))
}

/// Binds `address`. Port 0 takes any that is free.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// How many threads serve: one less than there are cores, unless `config` says; the system and the store need theirs.
pub fn threads(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if config.server.workers == 0 { cores().saturating_sub(1).max(1) } else { config.server.workers }
}

/// Starts to serve on `listener`, on these threads. The caller decides when to stop.
pub fn serve(
    listener: &TcpListener,
    threads: &[Spawner],
    api: Data<Api>,
    surface: Surface,
    config: &Config,
) -> io::Result<Serving> {
    let keep_alive = Duration::from_millis(config.server.keep_alive_ms);
    let patience = Patience { head: Duration::from_millis(config.server.head_timeout_ms), idle: keep_alive };
    let (connections_max, beyond_max) = (files::connections_max(config), files::beyond_max(config));
    let places = Places::new(connections_max, beyond_max);
    let stalled_after = Duration::from_millis(config.stream.slow_reader_timeout_ms);
    let bounds = Bounds { connections_max: connections_max + beyond_max, end_wait_max: CLOSE_WAIT_MAX };
    Serving::start(listener, threads, bounds, move |stop: Stop| {
        let http = HttpServiceBuilder::default()
            .keep_alive(KeepAlive::from(keep_alive))
            // The connection has this clock, for every head.
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(CLOSE_WAIT_MAX)
            .h1_allow_half_closed(false)
            // Undocumented; without it, idle connections would hold up the end.
            .graceful_shutdown_signal(move || stop.clone().asked())
            .on_connect_ext(|connection: &Connection<TcpStream>, data| {
                data.insert(connection.line());
            })
            .h1(map_config(app(api.clone(), surface).into_factory(), |()| AppConfig::default()));
        with_places(http, places, api.metrics.clone(), patience, stalled_after)
    })
}

/// Serves connections by `http`, as far as there is place for them, and tells the others.
fn with_places<F>(
    http: F,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    patience: Patience,
    stalled_after: Duration,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = F::Error, InitError = F::InitError>
where
    F: ServiceFactory<(Connection<TcpStream>, Option<SocketAddr>), Config = (), Response = ()>,
{
    apply_fn_factory(http, move |stream: TcpStream, http: &F::Service| {
        set_up(&stream, stalled_after);
        let (place, counted) = (places.take(), metrics.connected());
        let metrics = metrics.clone();
        let (line, left) = (Line::new(place.kind == Kind::Extra), Rc::new(RefCell::new(None)));
        let (served, refused) = match place.kind {
            Kind::Refused => (None, Some(stream)),
            Kind::Regular | Kind::Extra => {
                let extra_patience = Patience { head: patience.head.min(EXTRA_PATIENCE), ..patience };
                let patience = if line.is_extra() { extra_patience } else { patience };
                let peer = stream.peer_addr().ok();
                let connection = Connection::new(stream, left.clone(), line.clone(), patience);
                (Some(http.call((connection, peer))), None)
            }
        };
        async move {
            if let Some(served) = served {
                // It fails when the client has gone or has sent no HTTP: nothing that an operator could act on.
                let _ = served.await;
            }
            if let (Some(stream), Some(failure)) = (left.take(), line.take_farewell()) {
                metrics.refused(failure.code);
                say(stream, failure, CLOSE_WAIT_MAX).await;
            }
            if let Some(stream) = refused {
                let failure = edge::no_place();
                metrics.refused(failure.code);
                say(stream, failure, REFUSED_WAIT_MAX).await;
            }
            drop((place, counted));
            Ok(())
        }
    })
}

/// Sends without delay, and lets the system close a connection whose reader takes nothing, or is gone without a word,
/// for `stalled_after`.
///
/// The framework does not ask a body for more while its socket is full, so nothing above the socket could notice.
fn set_up(stream: &TcpStream, stalled_after: Duration) {
    // Fails only on a connection that is gone already.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(stalled_after)) {
        log::warn!(error:%; "slow readers of a connection will not be noticed");
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = stalled_after;
}
