//! Pool: the HTTP/2 connections to one provider, and who waits for a place on one.
//!
//! A call takes a place on the connection with the fewest calls. If all are full, it waits, and a new connection is
//! made: as few as the waiting calls need, so that a herd of calls on a cold start shares one. A task makes it, not the
//! call: the call may go, the others stay.
//!
//! How many calls a connection takes is the server's word, and known only when it has spoken. Until then it gets as
//! many as the one before took, the very first a single one; the others wait for the word, which is under way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, Slot, Unanswered};
use super::driver::Pings;
use crate::providers::upstream::TransportError;
use crate::providers::upstream::connect::Endpoint;
use crate::providers::upstream::connections;

/// How many calls a connection will take, probably, before the first server has told. Few servers take fewer.
const CALLS_GUESSED: usize = 100;

/// What a pool is told.
pub(super) struct Settings {
    /// Where the server is.
    pub(super) endpoint: Endpoint,
    /// How long a connection may take, with its handshake.
    pub(super) connect_timeout: Duration,
    /// More connections are not open to new calls at once.
    pub(super) connections_max: usize,
    /// How many are kept although they are idle.
    pub(super) keep: usize,
    /// Whether HTTP/2 is spoken to a server that has not chosen it, because the connection has no handshake to choose in.
    pub(super) prior_knowledge: bool,
    /// Whether the server may choose HTTP/1.1.
    pub(super) or_http1: bool,
    pub(super) pings: Pings,
}

/// What became of the making of a connection, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
    /// It is in the pool.
    Http2,
    Failed,
    /// The server has chosen HTTP/1.1.
    Http1,
}

type Answer = Result<Slot, Unanswered>;

pub(super) struct Pool {
    settings: Settings,
    this: Weak<Pool>,
    open: RefCell<Vec<Rc<Connection>>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Answer>>>,
    /// Connections that are being made.
    dialling: Cell<usize>,
    /// How many calls a connection takes; 0 before the first server has told.
    calls_known: Cell<usize>,
    opened: Cell<u64>,
    /// Connections on which the server has chosen HTTP/1.1.
    spares: RefCell<Vec<connections::Connection>>,
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            settings,
            this: Weak::clone(this),
            open: RefCell::default(),
            waiting: RefCell::default(),
            dialling: Cell::new(0),
            calls_known: Cell::new(0),
            opened: Cell::new(0),
            spares: RefCell::default(),
        })
    }

    /// How many connections have been made so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How many connections could take a call at once.
    pub(super) fn ready(&self) -> usize {
        self.open.borrow().iter().filter(|connection| connection.room() > 0).count()
    }

    /// Those on which the server has chosen HTTP/1.1.
    pub(super) fn take_spares(&self) -> Vec<connections::Connection> {
        self.spares.take()
    }

    /// A place for a call, and how long it took to get one; zero if there was one.
    pub(super) async fn slot(&self) -> Result<(Slot, Duration), Unanswered> {
        if let Some(slot) = self.free() {
            return Ok((slot, Duration::ZERO));
        }
        let began = Instant::now();
        let (sender, slot) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        self.changed();
        let limit = self.settings.connect_timeout;
        match timeout(limit, slot).await {
            Ok(Ok(answer)) => answer.map(|slot| (slot, began.elapsed())),
            Ok(Err(_)) => Err(Unanswered::Failed(TransportError::Connect)),
            Err(_) => Err(Unanswered::Failed(TransportError::ConnectTimeout(limit))),
        }
    }

    /// Takes those out of use that carry nothing: another one was just found dead.
    pub(super) fn retire_idle(&self) {
        self.open.borrow().iter().filter(|connection| connection.running() == 0).for_each(|idle| idle.retire());
        self.changed();
    }

    /// Makes connections until as many are there, or under way, as are to be kept. Tells what became of them. The very
    /// first is made alone: it may tell that the server speaks HTTP/1.1.
    pub(super) async fn fill(&self) -> Made {
        self.changed();
        if self.opened.get() == 0 && self.missing() > 0 {
            let first = self.dial().await.unwrap_or(Made::Failed);
            if first != Made::Http2 {
                return first;
            }
        }
        let made: Vec<_> = (0..self.missing()).map(|_| self.dial()).collect();
        let mut worst = Made::Http2;
        for made in made {
            worst = worst.max(made.await.unwrap_or(Made::Failed));
        }
        worst
    }

    fn missing(&self) -> usize {
        self.settings.keep.saturating_sub(self.open.borrow().len() + self.dialling.get())
    }

    /// To be called when something has changed that others may wait for: hands out places and makes connections.
    pub(super) fn changed(&self) {
        self.tidy();
        self.serve();
        self.dial_for_those_who_wait();
    }

    /// Drops the connections that are leaving. Those that still carry calls live until these have ended.
    fn tidy(&self) {
        let mut left = self.settings.keep;
        let leaving = {
            let mut open = self.open.borrow_mut();
            for connection in open.iter() {
                connection.retire_if_spent(left > 0);
                left = left.saturating_sub(usize::from(!connection.is_leaving()));
                if !connection.is_unsettled() {
                    self.calls_known.set(connection.calls_max());
                }
            }
            open.extract_if(.., |connection| connection.is_leaving()).collect::<Vec<_>>()
        };
        drop(leaving);
    }

    fn free(&self) -> Option<Slot> {
        let open = self.open.borrow();
        let free = open.iter().filter(|connection| connection.room() > 0);
        let connection = free.min_by_key(|connection| connection.running())?;
        Some(Slot::new(Rc::clone(connection), Weak::clone(&self.this)))
    }

    /// Gives places to those who wait, in their order.
    fn serve(&self) {
        loop {
            self.waiting.borrow_mut().retain(|waiting| !waiting.is_closed());
            if self.waiting.borrow().is_empty() {
                return;
            }
            let Some(slot) = self.free() else { return };
            let Some(first) = self.waiting.borrow_mut().pop_front() else { return };
            // If nobody takes it, it comes back by itself.
            drop(first.send(Ok(slot)));
        }
    }

    fn dial_for_those_who_wait(&self) {
        let waiting = self.waiting.borrow().len();
        while self.room_to_come() < waiting && self.has_room_for_another() {
            // The task is not waited for: those who wait hear of it.
            drop(self.dial());
        }
    }

    /// How many calls those connections will take, probably, that are being made or have just been made.
    fn room_to_come(&self) -> usize {
        let guess = match self.calls_known.get() {
            0 => CALLS_GUESSED,
            known => known,
        };
        let open = self.open.borrow();
        let unsettled = open.iter().filter(|connection| connection.is_unsettled());
        let there: usize = unsettled.map(|connection| guess.saturating_sub(connection.running())).sum();
        self.dialling.get().saturating_mul(guess).saturating_add(there)
    }

    fn has_room_for_another(&self) -> bool {
        self.open.borrow().len() + self.dialling.get() < self.settings.connections_max
    }

    /// Makes a connection, in a task that the connect timeout bounds.
    fn dial(&self) -> JoinHandle<Made> {
        self.dialling.set(self.dialling.get() + 1);
        let this = Weak::clone(&self.this);
        actix_rt::spawn(async move {
            let Some(pool) = this.upgrade() else { return Made::Failed };
            let limit = pool.settings.connect_timeout;
            let made = timeout(limit, pool.connect()).await;
            pool.dialling.set(pool.dialling.get() - 1);
            let made = made.unwrap_or(Err(Unanswered::Failed(TransportError::ConnectTimeout(limit))));
            pool.made(made)
        })
    }

    async fn connect(&self) -> Result<Rc<Connection>, Unanswered> {
        let settings = &self.settings;
        let began = Instant::now();
        let stream = settings.endpoint.connect().await.map_err(Unanswered::Failed)?;
        if stream.protocol() != Some(b"h2") && !settings.prior_knowledge {
            if !settings.or_http1 {
                log::warn!("a provider that is to be called by HTTP/2 does not speak it");
                return Err(Unanswered::Failed(TransportError::Protocol));
            }
            self.spares.borrow_mut().push(connections::Connection::new(stream, began.elapsed()));
            return Err(Unanswered::Http1);
        }
        let calls_max = self.calls_known.get().max(1);
        let begun = Connection::begin(stream, calls_max, settings.pings, &self.this).await;
        begun.map_err(Unanswered::Failed)
    }

    fn made(&self, made: Result<Rc<Connection>, Unanswered>) -> Made {
        match made {
            Ok(connection) => {
                self.opened.set(self.opened.get() + 1);
                self.open.borrow_mut().push(connection);
                self.changed();
                Made::Http2
            }
            Err(Unanswered::Http1) => {
                self.turn_away(&Unanswered::Http1);
                Made::Http1
            }
            Err(reason) => {
                let hope = self.dialling.get() > 0 || self.open.borrow().iter().any(|there| there.is_unsettled());
                if !hope {
                    self.turn_away(&reason);
                }
                Made::Failed
            }
        }
    }

    /// Answers all who wait.
    fn turn_away(&self, reason: &Unanswered) {
        for waiting in self.waiting.take() {
            drop(waiting.send(Err(reason.clone())));
        }
    }
}
