//! Coalescer: decides which upstream call answers a request.
//!
//! Owns the in-flight tables ([`tables`] has the decisions) and the running streams' addresses. Starts streams, routes
//! cancels to the stream that owns the request, finds answers for those who come back, and keeps listeners of silent
//! streams informed that they are alive. Never touches the bytes.

mod routing;
pub mod tables;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use utoipa::ToSchema;

use self::tables::{Ask, Decision, Tables, TurnIds};
use super::guardian::Link;
use super::stream::{self, Environment, Identity, JoinReply, NotJoined, Reply, Stream};
use super::target::Target;
use crate::accounts::{Refusal, Ticket};
use crate::chat::{
    Asker, ChatRequest, MessageId, OrgId, ProviderName, RequestId, RequestKey, StreamId, ThreadId, View,
};
use crate::event::Status;
use crate::failure::{Code, Failure};
use crate::fanout::{StreamLog, Subscription, SubscriptionFacts};
use crate::providers::upstream;
use crate::store::{CallRole, NewRequest, NewUserMessage, OpenTurn};

/// How often silent streams are looked after and old answers are forgotten.
const TICK: Duration = Duration::from_millis(500);

// --- Protocol ---------------------------------------------------------------

/// Asks for an answer. The reply comes when the request has been taken in, or cannot be.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    /// The request's id.
    pub request: RequestId,
    /// How a repetition is recognised.
    pub identity: Identity,
    /// What makes it equal to others; `None`: it shares with nobody.
    pub key: Option<RequestKey>,
    /// See [`Ask::twin`].
    pub twin: Option<RequestKey>,
    /// The turn to be opened in a thread.
    pub turn: Option<NewTurn>,
    /// What goes upstream.
    pub chat: ChatRequest,
    /// On whose behalf.
    pub asker: Asker,
    /// Its place among those of its key, or why it has none.
    pub ticket: Result<Ticket, Refusal>,
    /// When the request came in.
    pub arrived: Instant,
    /// Gets the answer.
    pub reply: JoinReply,
}

/// A turn to be opened.
#[derive(Debug, Clone)]
pub struct NewTurn {
    /// The thread.
    pub thread: ThreadId,
    /// See [`OpenTurn::expected_sequence`].
    pub expected_sequence: Option<i64>,
    /// The new user message; `None` when an answer is regenerated.
    pub user: Option<NewUserMessage>,
    /// The user message that is answered, new or old.
    pub user_message: Option<MessageId>,
    /// The id of the answer to be.
    pub answer: MessageId,
}

impl NewTurn {
    /// The messages of the turn.
    pub fn ids(&self) -> TurnIds {
        let Self { thread, user_message, answer, .. } = self;
        TurnIds { thread: thread.clone(), user_message: user_message.clone(), answer: answer.clone() }
    }

    /// The write that opens it, for `request`.
    pub fn into_open(self, request: NewRequest) -> OpenTurn {
        OpenTurn {
            thread: self.thread,
            expected_sequence: self.expected_sequence,
            user: self.user,
            answer: self.answer,
            provider: request.provider.clone(),
            model: request.model.clone(),
            stream: request.stream.clone(),
            request,
        }
    }
}

/// Withdraws one request.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Cancel {
    /// Which one.
    pub request: RequestId,
    /// When the call came in.
    pub asked: Instant,
    /// Hears what came of it.
    pub reply: oneshot::Sender<Cancellation>,
}

/// What came of a [`Cancel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancellation {
    /// The request was withdrawn.
    Withdrawn(stream::Cancelled),
    /// It had ended like this before.
    Ended(Status),
    /// It is not known here; should it still come, it will be answered as cancelled.
    Unknown,
}

/// Ends the running answer of a thread, of a stream, or of everybody.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// Whose answer.
    pub whose: Whose,
    /// `Cancelled` or `Interrupted`.
    pub status: Status,
    /// Hears how many requests' streams were told to stop.
    pub reply: oneshot::Sender<usize>,
}

/// Whose answer a [`Stop`] ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// One thread's; other threads that share it go on.
    Thread(ThreadId),
    /// One stream's, for all who listen, if the view shows it.
    Stream(View, StreamId),
    /// Every stream's.
    Everybody,
}

/// Looks for a request that runs or ended not long ago.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Option<Found>")]
pub struct Find(pub RequestId);

/// Looks for the running answer of a thread.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Option<Found>")]
pub struct FindTurn {
    /// The organisation that asks: another one's thread is not found.
    pub org: OrgId,
    /// The thread.
    pub thread: ThreadId,
}

/// Forgets the requests of a thread that has been deleted, and ends its answer if one runs.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Forget {
    /// The thread.
    pub thread: ThreadId,
}

/// A request that was found. Looking at it is not listening: who listens makes an [`Attachment`].
#[derive(Debug)]
pub struct Found(pub Arc<Subscription>);

/// News from a stream: a thread's turn, or everybody's, is about to end. What comes of it follows.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Ending {
    /// Which answer.
    pub stream: StreamId,
    /// Which thread; `None`: all that the answer runs for.
    pub thread: Option<ThreadId>,
    /// How it ends.
    pub how: tables::Ending,
}

/// News from a stream: a thread's turn is over, the answer goes on for others.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct TurnEnded {
    /// Which answer.
    pub stream: StreamId,
    /// Which thread.
    pub thread: ThreadId,
}

/// News from a stream: a request has left, its turn goes on for others.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Left(pub RequestId);

/// News from a stream: it has not taken a request in, which may therefore be asked again.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct NotTaken {
    /// Which stream.
    pub stream: StreamId,
    /// Which request.
    pub request: RequestId,
}

/// News from a stream: the answer is over.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Ended {
    /// Which one.
    pub stream: StreamId,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether its requests can be resumed for a while.
    pub retain: bool,
}

/// Asks what runs, as far as the view shows it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<StreamStatus>")]
pub struct Snapshot(pub View);

/// A running stream, for operators.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StreamStatus {
    /// Its id.
    pub stream_id: StreamId,
    /// Whose it is; told to those who see more than one organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    /// Who answers.
    pub provider: ProviderName,
    /// What answers.
    #[schema(value_type = String)]
    pub model: Arc<str>,
    /// Since it began.
    pub age_ms: u64,
    /// `queue`, `upstream` or `streaming`.
    pub phase: &'static str,
    /// Bodies that send it at present.
    pub listeners: usize,
    /// Events so far.
    pub events: u64,
    /// Bytes of events so far.
    pub bytes: u64,
    /// How many events the slowest listener is behind.
    pub slowest_lag: u64,
}

/// Asks how the connections to the providers stand.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BTreeMap<ProviderName, upstream::Status>")]
pub struct Connections;

/// Asks how full the tables are.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Load")]
pub struct Weigh;

/// How full the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, MessageResponse)]
pub struct Load {
    /// Answers that run.
    pub running: usize,
    /// Answers that have ended and can be resumed.
    pub retained: usize,
    /// Requests remembered.
    pub requests: usize,
}

// --- Actor ------------------------------------------------------------------

/// What the coalescer needs to know.
pub struct Settings {
    /// The sizes and times of the tables.
    pub limits: tables::Limits,
    /// What one answer's log may hold.
    pub log_bytes_max: usize,
}

/// The streams that run, by id. Outlives the coalescer, so that a restarted one can end what it does not know.
pub type Streams = Rc<RefCell<HashMap<StreamId, RunningStream>>>;

/// A stream that runs.
pub struct RunningStream {
    addr: Addr<Stream>,
    org: OrgId,
    log: Arc<StreamLog>,
    provider: ProviderName,
    model: Arc<str>,
    began: Instant,
}

#[cfg(test)]
impl RunningStream {
    /// The stream itself.
    pub(super) fn addr(&self) -> &Addr<Stream> {
        &self.addr
    }
}

/// See the module.
pub struct Coalescer {
    tables: Tables<Arc<Subscription>>,
    streams: Streams,
    targets: Rc<BTreeMap<ProviderName, Rc<Target>>>,
    environment: Rc<Environment>,
    settings: Rc<Settings>,
    /// Everybody has been stopped: nothing begins any more.
    is_ending: bool,
    _link: Link,
}

impl Coalescer {
    /// A coalescer with empty tables. Streams that a former one has left behind are ended.
    pub fn new(
        targets: Rc<BTreeMap<ProviderName, Rc<Target>>>,
        environment: Rc<Environment>,
        settings: Rc<Settings>,
        streams: Streams,
        link: Link,
    ) -> Self {
        for orphan in streams.borrow_mut().drain().map(|(_, stream)| stream) {
            routing::stop(&orphan.addr, None, Status::Interrupted, None);
        }
        Self {
            tables: Tables::new(settings.limits),
            streams,
            targets,
            environment,
            settings,
            is_ending: false,
            _link: link,
        }
    }

    /// Starts the stream that answers `join` and those who will share it.
    fn lead(&mut self, join: Join, stream_id: StreamId) {
        let Some(target) = self.targets.get(&join.chat.provider).cloned() else {
            self.tables.ended(&stream_id, None, None, Instant::now());
            let failure = Failure::new(Code::UnknownProvider, "no provider of this name is configured");
            let _ = join.reply.send(Err(NotJoined::Failed(failure)));
            return;
        };
        let log = Arc::new(StreamLog::new(StreamLog::FENCE, self.settings.log_bytes_max));
        let (provider, model) = (join.chat.provider.clone(), join.chat.model.clone());
        let environment = self.environment.clone();
        let org = join.asker.org.clone();
        // Who leads has a place.
        let ticket = join.ticket.unwrap_or_default();
        let (asker, chat, bill) = (join.asker, join.chat, ticket.bill());
        let stream = Stream::new(stream_id.clone(), asker, bill, chat, target, log.clone(), environment).start();
        let running = RunningStream { addr: stream, org, log, provider, model, began: Instant::now() };
        let ids = join.turn.as_ref().map(NewTurn::ids);
        let facts = Facts { request: join.request, ids, role: CallRole::Leader, arrived: join.arrived, ticket };
        self.forward(&running, facts, stream_id.clone(), join.turn, join.identity, join.reply);
        self.streams.borrow_mut().insert(stream_id, running);
    }

    fn follow(&mut self, join: Join, stream_id: StreamId, ids: Option<TurnIds>, opens: bool) {
        let streams = self.streams.clone();
        let streams = streams.borrow();
        let Some(running) = streams.get(&stream_id) else {
            self.tables.not_taken(&stream_id, &join.request);
            let _ = join.reply.send(Err(NotJoined::JustEnded));
            return;
        };
        let turn = join.turn.filter(|_| opens);
        let (request, arrived, ticket) = (join.request, join.arrived, join.ticket.unwrap_or_default());
        let facts = Facts { request, ids, role: CallRole::Follower, arrived, ticket };
        self.forward(running, facts, stream_id, turn, join.identity, join.reply);
    }

    /// Hands a request on to its stream.
    fn forward(
        &mut self,
        running: &RunningStream,
        facts: Facts,
        stream: StreamId,
        turn: Option<NewTurn>,
        identity: Identity,
        reply: JoinReply,
    ) {
        let Facts { request, ids, role, arrived, ticket } = facts;
        let Some(seat) = self.tables.take_seat(&request) else {
            let _ = reply.send(Err(NotJoined::JustEnded));
            return;
        };
        let subscription = Arc::new(Subscription::new(
            SubscriptionFacts {
                request: request.clone(),
                stream,
                role,
                provider: running.provider.clone(),
                model: running.model.clone(),
                thread: ids.as_ref().map(|ids| ids.thread.clone()),
                user_message: ids.as_ref().and_then(|ids| ids.user_message.clone()),
                answer: ids.as_ref().map(|ids| ids.answer.clone()),
                arrived,
            },
            running.log.clone(),
            seat.audience().clone(),
        ));
        self.tables.attach(&request, subscription.clone());
        let reply = Reply::new(reply, subscription.clone(), seat, self.environment.coalescer.clone());
        routing::join(&running.addr, stream::Join { subscription, turn, ids, identity, ticket, reply });
    }
}

/// A request on its way to its stream.
struct Facts {
    request: RequestId,
    ids: Option<TurnIds>,
    role: CallRole,
    arrived: Instant,
    ticket: Ticket,
}

impl Actor for Coalescer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, |coalescer, _| {
            coalescer.tables.expire(Instant::now());
            coalescer.nudge_silent();
        });
    }
}

impl Handler<Join> for Coalescer {
    type Result = ();

    fn handle(&mut self, mut join: Join, _: &mut Context<Self>) {
        if self.is_ending {
            let failure = Failure::new(Code::Draining, "the server is about to stop").retry_after_ms(1_000);
            let _ = join.reply.send(Err(NotJoined::Failed(failure)));
            return;
        }
        let stream = StreamId::generate();
        if let Some(turn) = join.turn.as_mut()
            && self.tables.turn_of(&turn.thread).is_some()
        {
            // Should it begin a turn, then beside one that is the same message: in whatever order they come.
            turn.expected_sequence = None;
        }
        let ask = Ask {
            request: join.request.clone(),
            idempotency_key: join.identity.idempotency_key.clone(),
            body_digest: join.identity.body_digest,
            key: join.key.clone().unwrap_or_else(|| RequestKey::unshared(&stream)),
            twin: join.twin.clone(),
            turn: join.turn.as_ref().map(NewTurn::ids),
            stream: stream.clone(),
            renews: self.has_failed(&join.request),
            has_place: join.ticket.is_ok(),
        };
        let decision = self.tables.join(&ask, Instant::now());
        if !matches!(decision, Decision::Lead | Decision::Follow { .. } | Decision::NoPlace) {
            // The place that it does not need is free before it hears so.
            join.ticket = Ok(Ticket::default());
        }
        match decision {
            Decision::Lead => self.lead(join, stream),
            Decision::Follow { stream, turn, opens } => self.follow(join, stream, turn, opens),
            Decision::Repeat(original) => {
                routing::repeat(self.tables.payload(&original).cloned(), join.reply);
            }
            Decision::Withdrawn => self.answer_withdrawn(join, stream),
            Decision::Wait(former) => {
                let _ = join.reply.send(Err(NotJoined::TurnEnding(former)));
            }
            Decision::NoPlace => {
                if let Err(refusal) = join.ticket {
                    let _ = join.reply.send(Err(NotJoined::Failed(refusal.into_failure())));
                }
            }
            Decision::Reject(failure) => {
                let _ = join.reply.send(Err(NotJoined::Failed(failure)));
            }
        }
    }
}
