//! Server: the sockets in front of the routes. HTTP/1.1 only, without Nagle's delay, and a closed client is noticed.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::KeepAlive;
use actix_web::middleware::{NormalizePath, from_fn};
use actix_web::web::Data;
use actix_web::{App, Error, HttpServer};
use actix_web_lab::middleware::CatchPanic;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Api, edge, routes};
use crate::config::Config;

/// Connections that the system may hold until they are accepted: a burst of clients comes at once.
const BACKLOG: i32 = 4_096;

/// Which part of the API a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Starts to serve on `listener`. The caller decides when to stop.
pub fn serve(listener: TcpListener, api: Data<Api>, surface: Surface, config: &Config) -> io::Result<Server> {
    let server = &config.server;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = if server.workers == 0 { cores() } else { server.workers };
    let keep_alive = match server.keep_alive_ms {
        0 => KeepAlive::Disabled,
        keep_alive_ms => KeepAlive::Timeout(Duration::from_millis(keep_alive_ms)),
    };
    let stalled_after = Duration::from_millis(config.stream.slow_reader_timeout_ms);
    let running = HttpServer::new(move || app(api.clone(), surface))
        .workers(workers)
        .max_connections(server.connections_max.div_ceil(workers))
        .keep_alive(keep_alive)
        .client_request_timeout(Duration::from_millis(server.head_timeout_ms))
        .client_disconnect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .h1_allow_half_closed(false)
        .on_connect(move |connection, _| set_up(connection, stalled_after))
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?
        .run();
    Ok(running)
}

/// Lets the system close a connection whose reader takes nothing, or is gone without a word, for `stalled_after`.
///
/// The framework does not ask a body for more while its socket is full, so nothing above the socket could notice.
fn set_up(connection: &dyn Any, stalled_after: Duration) {
    let Some(socket) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
    let socket = SockRef::from(socket);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket.set_tcp_user_timeout(Some(stalled_after)) {
        log::warn!(error:%; "slow readers of a connection will not be noticed");
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (socket, stalled_after);
}
