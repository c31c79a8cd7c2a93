//! HTTP/1.1: the transport of most providers. awc writes the call and reads the head of the answer, no more.
//!
//! How the work is shared with awc, and why:
//! - Connections are made and kept here ([`Dial`], [`Connections`]). awc borrows one from a call to the head of its
//!   answer ([`Loan`]); its own pool is never of use.
//! - Bodies are read here, from the connection itself ([`Rest`]). A body that is dropped closes the connection; one
//!   that is read to its end gives it back. See [`Transport::recycle`].
//! - awc reports a call that was sent and never answered as a failed connection. See [`Server::error`].
//! - awc takes an interim answer (1xx) for the final one, and the final one would be the answer to the next call. So
//!   the connection is closed, and the call fails.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use actix_http::error::ParseError;
use awc::error::{ConnectError, SendRequestError};
use awc::http::uri::Authority;
use awc::http::{Method, Uri, header};
use awc::{ClientRequest, ClientResponse, SendClientRequest};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use super::connect::{Dial, Endpoint};
use super::connections::{Connection, Connections, IDLE_MAX};
use super::loan::Loan;
use super::recycle::{self, drain};
use super::rest::Rest;
use super::settings::{self, BaseUrl, BuildError, USER_AGENT};
use super::visit::Question;
use super::{Body, Opened, Status, Transport, TransportError, warm};
use crate::chat::ProviderName;
use crate::config;
use crate::providers::{Adapter, Call, Head};

/// A connection from the pool that is lost this soon after the call was written was closed before.
pub(super) const STALE_WITHIN: Duration = Duration::from_millis(500);
/// How long a call that only warms may take as a whole.
const WARM_TIME_MAX: Duration = Duration::from_secs(10);
/// How much it may bring; lists of models have hundreds of kilobytes.
const WARM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// See the module. One per provider; lives on the upstream arbiter.
pub struct Http1 {
    server: Rc<Server>,
    /// What keeps connections warm asks for, and how many those are.
    warm: Option<(&'static str, usize)>,
}

/// The provider's server.
pub(super) struct Server {
    name: ProviderName,
    client: awc::Client,
    authority: Authority,
    path_prefix: String,
    accept: &'static str,
    connect_timeout: Duration,
    connections: Rc<Connections>,
}

impl Http1 {
    /// The transport of `provider`, which `adapter` speaks to.
    pub fn new(provider: &config::Provider, adapter: &dyn Adapter) -> Result<Self, BuildError> {
        let base = BaseUrl::of(provider)?;
        let trust = settings::trust(provider)?;
        let authorization = settings::authorization(provider, adapter)?;
        let connections = Rc::<Connections>::default();
        let connect_timeout = Duration::from_millis(provider.connect_timeout_ms);
        let endpoint = Endpoint::new(base.authority.host(), base.port, base.secure.then_some(trust));
        let endpoint = endpoint.ok_or_else(|| BuildError::BaseUrl { provider: provider.name.clone() })?;
        let dial = Dial::new(endpoint, Rc::clone(&connections));
        // How many calls run at once is the pacer's business.
        let connector = awc::Connector::new().connector(dial).timeout(connect_timeout).limit(0);
        let mut client = awc::Client::builder().connector(connector).disable_timeout().disable_redirects();
        client = client.add_default_header((header::USER_AGENT, USER_AGENT));
        client = client.add_default_header((header::ACCEPT_ENCODING, "identity"));
        if let Some(authorization) = authorization {
            client = client.add_default_header(authorization);
        }
        let warm = adapter.warm_path().map(|path| (path, provider.warm_connections));
        let server = Server {
            name: provider.name.clone(),
            client: client.finish(),
            authority: base.authority,
            path_prefix: base.path_prefix,
            accept: settings::accept(adapter),
            connect_timeout,
            connections,
        };
        Ok(Self {
            server: Rc::new(server),
            warm: warm.filter(|(_, connections)| *connections > 0 && provider.available().is_ok()),
        })
    }

    /// How many connections have been made so far, each with its handshake.
    pub fn connections_opened(&self) -> u64 {
        self.server.connections.opened()
    }

    /// Asks whatever it is, once.
    pub(super) async fn ask(&self, question: &Question) -> Result<Opened, TransportError> {
        self.server.ask(question).await
    }

    /// Takes over connections that were made to find out that the server speaks HTTP/1.1.
    pub(super) fn adopt(&self, spares: Vec<Connection>) {
        spares.into_iter().for_each(|spare| self.server.connections.adopt(spare));
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { name, authority, .. } = &*self.server;
        f.debug_struct("Http1").field("name", name).field("authority", authority).finish_non_exhaustive()
    }
}

impl Transport for Http1 {
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>> {
        let server = Rc::clone(&self.server);
        Box::pin(async move { server.open(call).await })
    }

    fn recycle(&self, body: Body) {
        recycle::recycle(body);
    }

    fn keep_warm(&self) -> LocalBoxFuture<'static, ()> {
        match self.warm {
            Some((path, wanted)) => Box::pin(warm::keep(Rc::clone(&self.server), path, wanted)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn status(&self) -> Status {
        Status { http: "1.1", warm: self.server.connections.idle(IDLE_MAX) }
    }
}

/// An answer that has begun.
struct Answered {
    head: Head,
    rest: Rest,
    connect: Duration,
}

impl From<Answered> for Opened {
    fn from(Answered { head, rest, connect }: Answered) -> Self {
        Opened::new(head, Box::pin(rest), connect)
    }
}

/// Why there is no answer.
struct Unanswered {
    error: TransportError,
    /// The connection came from the pool, and the provider had closed it before the call.
    stale: bool,
}

impl Server {
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Sends a call; sends it again if it met a connection that was already closed.
    ///
    /// A provider closes an idle connection when it likes, and its word of it may cross with the call: the pool looks at
    /// a connection before it gives it out, but cannot see what is under way. So a call is repeated, once, if its connection
    /// had waited in the pool, was lost right after the call was written, and brought not one byte back. A provider
    /// that takes the call and falls over within [`STALE_WITHIN`] looks the same; then an answer was perhaps begun
    /// that nobody reads, and nothing worse. Lost later, or on a connection of its own, a call may well have been
    /// worked on: that is the caller's decision. The second try gets a new connection, as the others in the pool have
    /// likely been closed too.
    async fn open(&self, call: Call) -> Result<Opened, TransportError> {
        let Call { path, headers, body } = call;
        let body = Bytes::from(body);
        let mut answer = self.send(self.post(&path, &headers)?.send_body(body.clone())).await;
        if let Err(Unanswered { stale: true, .. }) = answer {
            log::debug!(provider = self.name(); "the connection was closed meanwhile; trying a new one");
            self.connections.close_idle();
            answer = self.send(self.post(&path, &headers)?.send_body(body)).await;
        }
        answer.map(Opened::from).map_err(|unanswered| unanswered.error)
    }

    /// Makes a call only so that its connection is open and idle afterwards. Tells whether it is.
    pub(super) async fn warm_up(&self, path: &str) -> bool {
        let call = async {
            let request = self.request(Method::GET, path).ok()?.insert_header((header::ACCEPT, "*/*"));
            let Answered { mut rest, .. } = self.send(request.send()).await.ok()?;
            drain(&mut rest, WARM_BYTES_MAX).await;
            Some(rest.has_freed_its_connection())
        };
        matches!(timeout(WARM_TIME_MAX, call).await, Ok(Some(true)))
    }

    async fn ask(&self, question: &Question) -> Result<Opened, TransportError> {
        let method = Method::from_bytes(question.method.as_bytes()).map_err(|_| TransportError::Unsendable)?;
        let mut request = self.request(method, &question.path)?;
        request = request.insert_header((header::CONTENT_TYPE, "application/json"));
        for (name, value) in &question.headers {
            request = request.insert_header((*name, value.as_str()));
        }
        let sent = match question.body.as_slice() {
            [] => request.send(),
            body => request.send_body(body.to_vec()),
        };
        self.send(sent).await.map(Opened::from).map_err(|unanswered| unanswered.error)
    }

    fn post(&self, path: &str, headers: &[(&'static str, String)]) -> Result<ClientRequest, TransportError> {
        let mut request = self.request(Method::POST, path)?;
        request = request.insert_header((header::CONTENT_TYPE, "application/json"));
        request = request.insert_header((header::ACCEPT, self.accept));
        for (name, value) in headers {
            request = request.insert_header((*name, value.as_str()));
        }
        Ok(request)
    }

    fn request(&self, method: Method, path: &str) -> Result<ClientRequest, TransportError> {
        // TLS is the connector's business: to awc the scheme is always the plain one.
        let uri = Uri::builder().scheme("http").authority(self.authority.clone());
        let uri = uri.path_and_query(format!("{}{path}", self.path_prefix)).build();
        let uri = uri.map_err(|_| TransportError::Unsendable)?;
        Ok(self.client.request(method, uri).no_decompress())
    }

    async fn send(&self, sent: SendClientRequest) -> Result<Answered, Unanswered> {
        let (answer, loan) = Loan::during(sent).await;
        match (answer, loan) {
            (Ok(response), Some(loan)) if !response.status().is_informational() => {
                let (connection, beginning) = loan.after_head();
                let connect = connection.connect();
                let rest = Rest::of(&response, connection, beginning, &self.connections);
                Ok(Answered { head: head(&response), rest, connect })
            }
            // An interim answer, or one to a call that was never written.
            (Ok(_), _) => Err(Unanswered { error: TransportError::Protocol, stale: false }),
            (Err(error), loan) => {
                let error = self.error(error);
                let waited = |loan: Loan| {
                    loan.connection.is_used() && !loan.is_answered() && loan.since.elapsed() < STALE_WITHIN
                };
                let stale = error == TransportError::Lost && loan.is_some_and(waited);
                Err(Unanswered { error, stale })
            }
        }
    }

    /// What awc's error means. Only what certainly came before the call was sent is a failed connection.
    fn error(&self, error: SendRequestError) -> TransportError {
        match error {
            SendRequestError::Connect(ConnectError::Io(error)) => {
                let ours = error.get_ref().and_then(|error| error.downcast_ref::<TransportError>());
                ours.cloned().unwrap_or(TransportError::Connect)
            }
            SendRequestError::Connect(ConnectError::Timeout) => TransportError::ConnectTimeout(self.connect_timeout),
            // "Disconnected" is awc's word for a connection that ended where an answer should have begun.
            SendRequestError::Connect(ConnectError::Disconnected)
            | SendRequestError::Send(_)
            | SendRequestError::Response(ParseError::Io(_)) => TransportError::Lost,
            SendRequestError::Url(_) | SendRequestError::Http(_) => TransportError::Unsendable,
            _ => TransportError::Protocol,
        }
    }
}

/// awc takes at most 96 headers and 128 KiB.
fn head(response: &ClientResponse) -> Head {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())));
    Head { status: response.status().as_u16(), headers: headers.collect() }
}
