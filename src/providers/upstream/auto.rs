//! Auto: lets the server choose between HTTP/2 and HTTP/1.1, in the handshake of the first connection.
//!
//! While it speaks HTTP/2, every new connection asks again. Once it has chosen HTTP/1.1, that is how it is called until
//! no connection can be made: then it may well be another server, and is asked again.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::sync::Notify;

use super::http1::Http1;
use super::http2::driver::Pings;
use super::http2::{Failed, Http2};
use super::settings::BuildError;
use super::{Body, Opened, Status, Transport, TransportError, recycle};
use crate::config;
use crate::providers::{Adapter, Call};

/// See the module. For servers with TLS: without, there is no handshake to choose in.
pub(super) struct Auto(Rc<Both>);

struct Both {
    http1: Http1,
    http2: Http2,
    /// The server has chosen HTTP/1.1.
    is_http1: Cell<bool>,
    undecided: Notify,
}

impl Auto {
    /// The transport of `provider`, which `adapter` speaks to.
    pub(super) fn new(provider: &config::Provider, adapter: &dyn Adapter) -> Result<Self, BuildError> {
        let http1 = Http1::new(provider, adapter)?;
        let http2 = Http2::with(provider, adapter, true, Pings::USUAL)?;
        Ok(Self(Rc::new(Both { http1, http2, is_http1: Cell::new(false), undecided: Notify::new() })))
    }

    /// How many connections have been made so far, each with its handshake.
    #[cfg(test)]
    pub(super) fn connections_opened(&self) -> u64 {
        self.0.http1.connections_opened() + self.0.http2.connections_opened()
    }
}

impl Transport for Auto {
    fn open(&self, call: Call) -> LocalBoxFuture<'static, Result<Opened, TransportError>> {
        let both = Rc::clone(&self.0);
        Box::pin(async move { both.open(call).await })
    }

    fn recycle(&self, body: Body) {
        recycle::recycle(body);
    }

    fn keep_warm(&self) -> LocalBoxFuture<'static, ()> {
        let both = Rc::clone(&self.0);
        Box::pin(async move { both.keep_warm().await })
    }

    fn status(&self) -> Status {
        let Both { http1, http2, is_http1, .. } = &*self.0;
        match is_http1.get() {
            true => http1.status(),
            false if http2.connections_opened() > 0 => http2.status(),
            false => Status { http: "auto", warm: 0 },
        }
    }
}

impl Both {
    async fn open(&self, call: Call) -> Result<Opened, TransportError> {
        if self.is_http1.get() {
            return self.open_by_http1(call).await;
        }
        match self.http2.ask(call).await {
            Ok(opened) => Ok(opened),
            Err(Failed::Call(error)) => Err(error),
            Err(Failed::Http1(call)) => {
                self.is_http1.set(true);
                self.open_by_http1(call).await
            }
        }
    }

    async fn open_by_http1(&self, call: Call) -> Result<Opened, TransportError> {
        self.http1.adopt(self.http2.take_spares());
        let answer = self.http1.open(call).await;
        if let Err(error) = &answer
            && is_unreachable(error)
        {
            self.is_http1.set(false);
            self.undecided.notify_waiters();
        }
        answer
    }

    async fn keep_warm(&self) {
        loop {
            if !self.is_http1.get() {
                self.http2.keep_until_http1().await;
                self.is_http1.set(true);
                self.http1.adopt(self.http2.take_spares());
            }
            tokio::select! {
                () = self.undecided.notified() => {}
                // There may be nothing for it to do.
                () = async { self.http1.keep_warm().await; std::future::pending().await } => {}
            }
        }
    }
}

/// Whether there was not even a connection.
fn is_unreachable(error: &TransportError) -> bool {
    use TransportError as E;
    match error {
        E::Dns | E::Connect | E::ConnectTimeout(_) | E::Tls(_) => true,
        E::Lost | E::Protocol | E::Unsendable => false,
    }
}
