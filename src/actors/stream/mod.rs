//! Stream: owns one answer, from the queue to the last listener's `done`.
//!
//! Owns the log, the interests, the attempt that gets the answer ([`attempt`]) and its cancellation. Starts one
//! subscriber for each request. Tells the coalescer when a turn or the whole answer is over. The turn is written
//! before a request is answered, in parallel to the upstream call; `done` waits until the end is durable.

mod attempt;
pub mod budget;
mod call;
mod checkpoints;
pub mod drain;
mod ending;
mod estimate;
mod fallback;
pub mod interests;
mod joining;
mod leaving;
mod preface;
mod reply;
pub mod run;
mod standing;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::attempt::Attempt;
pub use self::checkpoints::Checkpoints;
use self::drain::Concerned;
use self::interests::Interests;
pub use self::reply::Reply;
use self::standing::Standing;
use super::coalescer::tables::TurnIds;
use super::coalescer::{Coalescer, NewTurn};
use super::guardian::Address;
use super::subscriber::{OnDisconnect, Subscriber};
use super::target::{Target, Targets};
use crate::accounts::{Bill, Ticket};
use crate::chat::{Asker, ChatRequest, MessageId, RequestId, StreamId, ThreadId};
use crate::event::{Finish, FinishReason, Status};
use crate::failure::{Code, Failure, Phase};
use crate::fanout::{Attachment, Kept, Outcome, StreamLog, Subscription};
use crate::metrics::Metrics;
use crate::store::{NewRequest, OpenTurn, Store, StoreError};

// --- Protocol ---------------------------------------------------------------

/// Adds a request to the answer. Replied to when the request's turn is kept by the store.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    /// The request.
    pub subscription: Arc<Subscription>,
    /// Its turn, when this request opens it.
    pub turn: Option<NewTurn>,
    /// Its turn's messages.
    pub ids: Option<TurnIds>,
    /// How it is told from other requests.
    pub identity: Identity,
    /// Its place among those of its key.
    pub ticket: Ticket,
    /// Gets the answer.
    pub reply: Reply,
}

/// What the store needs to recognise a repetition of a request.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The client's idempotency key.
    pub idempotency_key: Option<String>,
    /// Digest of the body.
    pub body_digest: [u8; 32],
}

/// Where the answer to a request goes.
pub type JoinReply = oneshot::Sender<Result<Attachment, NotJoined>>;

/// Why a request has not joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotJoined {
    /// It cannot be served.
    Failed(Failure),
    /// The thread has moved on since its history was read: read it again.
    SequenceMoved,
    /// The answer has just ended: ask again.
    JustEnded,
    /// The thread's former answer is being kept: ask again when this request has ended.
    TurnEnding(RequestId),
}

/// Takes one request's interest back: its client has cancelled, or has gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Withdraw {
    /// Which one.
    pub request: RequestId,
    /// When that was asked for.
    pub asked: Instant,
    /// Hears what came of it.
    pub reply: Option<oneshot::Sender<Cancelled>>,
}

/// What came of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The upstream call was closed.
    Aborted,
    /// The upstream call is read on for a while, to learn what it costs.
    Drained,
    /// Others still listen; the upstream call goes on for them.
    Shared,
    /// The upstream call had not begun.
    NotStarted,
    /// The answer had ended before.
    AlreadyOver,
}

impl Cancelled {
    /// The word for `upstream` in the answer to a cancel.
    pub fn as_str(self) -> &'static str {
        match self {
            Cancelled::Aborted => "aborted",
            Cancelled::Drained => "drained",
            Cancelled::Shared => "shared",
            Cancelled::NotStarted => "not_started",
            Cancelled::AlreadyOver => "none",
        }
    }
}

/// Ends the answer for one thread, or for everybody.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// Whose turn ends; `None`: everybody's.
    pub thread: Option<ThreadId>,
    /// `Cancelled` or `Interrupted`.
    pub status: Status,
    /// Hears of the abort.
    pub reply: Option<oneshot::Sender<Cancelled>>,
}

/// Private: the pacer has taken the request in.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Admitted;

/// Private: the store has, or has not, opened a turn.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Opened {
    answer: MessageId,
    result: Result<(), StoreError>,
}

/// Private: the answer has grown for a while and is worth saving.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Grown;

/// Private: a turn that ended before its answer is settled, and its thread is free.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct TurnSettled {
    answer: MessageId,
}

/// Private: the store has, or has not, written the end.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Settled {
    outcome: Arc<Outcome>,
    at: Instant,
}

/// Private: the attempt is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct AttemptEnded(Result<Finish, Failure>);

// --- Actor ------------------------------------------------------------------

/// What every stream of a server shares.
pub struct Environment {
    /// Where turns are kept.
    pub store: Store,
    /// Where timings are kept.
    pub metrics: Arc<Metrics>,
    /// Who hears of the end.
    pub coalescer: Address<Coalescer>,
    /// Who may be called when the provider that was asked fails.
    pub targets: Targets,
    /// What happens to thread answers without listeners.
    pub on_disconnect: OnDisconnect,
    /// How long the store may take to open a turn.
    pub write_wait_max: Duration,
    /// When growing answers are saved.
    pub checkpoints: Checkpoints,
    /// The longest answer.
    pub answer_bytes_max: usize,
}

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The pacer has not taken it in yet: it may still be refused.
    Asking,
    /// The answer is being got.
    Running,
    /// The answer is over; the store is writing its end.
    Settling,
    /// Everybody has been told.
    Over,
}

/// See the module.
pub struct Stream {
    id: StreamId,
    environment: Rc<Environment>,
    log: Arc<StreamLog>,
    request: Option<ChatRequest>,
    asker: Asker,
    /// Who pays, whoever still listens at its end. A drain may know later what.
    bill: Rc<Bill>,
    interests: Interests<Member, Waiting>,
    /// Turns to open once the pacer has taken the request in.
    unopened: Vec<OpenTurn>,
    /// How many turns the store is opening.
    opening: usize,
    /// The end of the answer, until all turns are open: the store cannot settle what it has not.
    ending: Option<(Outcome, Instant)>,
    /// The answers of turns whose ends are being written while the stream goes on for others.
    settling: Vec<MessageId>,
    /// Requests that came when their turn, or the answer, was about to end.
    late: Vec<Late>,
    standing: Rc<Standing>,
    abort: Option<AbortHandle>,
    /// Where a drain waits to hear whom it concerns.
    drained: Option<oneshot::Sender<Concerned>>,
    state: State,
}

/// One interested request.
#[derive(Debug, Clone)]
struct Member {
    subscription: Arc<Subscription>,
    subscriber: Addr<Subscriber>,
    ticket: Rc<RefCell<Option<Ticket>>>,
}

impl Member {
    /// Nothing more will come for it: its key may have another request in its place, while its end is being written.
    fn leave(&self) {
        self.ticket.take();
    }
}

/// A request that came too late. It hears so when asking again leads further.
struct Late {
    /// The answer of the turn whose end it waits for; otherwise it waits for the end of the stream.
    answer: Option<MessageId>,
    reply: Reply,
}

/// A request that waits for its turn to be opened.
#[derive(Debug)]
struct Waiting {
    reply: Reply,
    /// What the store is to keep of it; nothing when opening the turn keeps it too.
    row: Option<NewRequest>,
}

impl Stream {
    /// A stream that will get the answer to `request`.
    pub fn new(
        id: StreamId,
        asker: Asker,
        bill: Bill,
        request: ChatRequest,
        target: Rc<Target>,
        log: Arc<StreamLog>,
        environment: Rc<Environment>,
    ) -> Self {
        Self {
            id,
            environment,
            log,
            request: Some(request),
            asker,
            bill: Rc::new(bill),
            interests: Interests::default(),
            unopened: Vec::new(),
            opening: 0,
            ending: None,
            settling: Vec::new(),
            late: Vec::new(),
            standing: Rc::new(Standing::new(target)),
            abort: None,
            drained: None,
            state: State::Asking,
        }
    }

    /// Starts to get the answer. The attempt is a task of its own, so that a panic in it fails this answer alone.
    fn start_attempt(&mut self, request: ChatRequest, ctx: &Context<Self>) {
        let me = ctx.address();
        let (admitted, grown) = (me.clone(), me.clone());
        let target = self.standing.target();
        let attempt = Attempt {
            asker: self.asker.clone(),
            routes: fallback::routes(&target, &request.model, &self.environment.targets),
            request,
            target,
            deadline: None,
            called: Cell::default(),
            fallback: None,
            log: self.log.clone(),
            metrics: self.environment.metrics.clone(),
            preface: RefCell::default(),
            standing: self.standing.clone(),
            admitted: Some(Box::new(move || tell(&admitted, Admitted))),
            checkpoint: Box::new(move || tell(&grown, Grown)),
            checkpoints: self.environment.checkpoints,
            answer_bytes_max: self.environment.answer_bytes_max,
        };
        let (standing, stream, bill) = (self.standing.clone(), self.id.clone(), self.bill.clone());
        let (store, metrics) = (self.environment.store.clone(), self.environment.metrics.clone());
        let task = tokio::task::spawn_local(attempt.run());
        self.abort = Some(task.abort_handle());
        tokio::task::spawn_local(async move {
            let ended = task.await;
            if let Some(concerned) = standing.take_concerned() {
                let learned = standing.learned.get();
                if let Some(usage) = learned.or(standing.estimated.get()) {
                    metrics.spent(standing.target().provider.name.as_str(), usage);
                }
                if let Some(usage) = learned {
                    bill.charge(Some(usage));
                    drain::correct(stream, usage, concerned, store, metrics).await;
                }
                return;
            }
            let ended = match ended {
                Ok(ended) => ended,
                Err(gone) if gone.is_cancelled() => return,
                Err(_) => {
                    let mut failure = broken().phase(standing.phase.get());
                    failure.provider = Some(standing.target().provider.name.as_str().into());
                    Err(failure)
                }
            };
            tell(&me, AttemptEnded(ended));
        });
    }

    fn abort_attempt(&mut self) -> Cancelled {
        let Some(abort) = self.abort.take() else { return Cancelled::AlreadyOver };
        abort.abort();
        if self.standing.phase.get() == Phase::Queue { Cancelled::NotStarted } else { Cancelled::Aborted }
    }

    #[expect(clippy::disallowed_methods, reason = "a few messages in the life of a stream; streams are bounded")]
    fn tell_coalescer<M>(&self, news: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        Coalescer: Handler<M>,
    {
        if let Some(coalescer) = self.environment.coalescer.get() {
            coalescer.do_send(news);
        }
    }
}

/// Sends a private message to the stream itself.
#[expect(clippy::disallowed_methods, reason = "a few messages in the life of a stream, and one for each checkpoint")]
fn tell<M>(stream: &Addr<Stream>, news: M)
where
    M: actix::Message<Result = ()> + Send + 'static,
    Stream: Handler<M>,
{
    stream.do_send(news);
}

/// The failure of an answer that met a defect.
pub(super) fn broken() -> Failure {
    Failure::new(Code::Internal, "the answer could not be processed")
}

impl Outcome {
    /// The outcome of a request that was refused after all.
    pub(super) fn refused(refusal: &NotJoined) -> Self {
        let failure = match refusal {
            NotJoined::Failed(failure) => failure.clone(),
            NotJoined::SequenceMoved | NotJoined::JustEnded | NotJoined::TurnEnding(_) => {
                Failure::new(Code::TurnInProgress, "try again")
            }
        };
        Self { kept: Kept::NoTurn, ..Self::failed(failure, false) }
    }

    /// Whether this is the end of a request that has to be asked again.
    pub(super) fn asks_again(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.code == Code::TurnInProgress)
    }

    /// The outcome of an answer that failed.
    pub(super) fn failed(failure: Failure, partial: bool) -> Self {
        let finish = Finish { reason: FinishReason::Error, native: None };
        Self { status: Status::Error, finish, failure: Some(failure), usage: None, partial, kept: Kept::Yes }
    }
}

impl Actor for Stream {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(request) = self.request.take() {
            self.start_attempt(request, ctx);
        }
    }
}

impl Handler<Grown> for Stream {
    type Result = ();

    fn handle(&mut self, _: Grown, _: &mut Context<Self>) {
        if self.state == State::Running {
            self.checkpoint();
        }
    }
}

impl Handler<AttemptEnded> for Stream {
    type Result = ();

    fn handle(&mut self, ended: AttemptEnded, ctx: &mut Context<Self>) {
        self.abort = None;
        match (self.state, ended.0) {
            (State::Settling | State::Over, _) => {}
            (State::Asking, Err(failure)) => self.refuse_all(failure, ctx),
            (_, Ok(finish)) => self.settle(ending::finished(&self.log, finish), ctx),
            (_, Err(failure)) => self.settle(ending::failed(&self.log, failure), ctx),
        }
    }
}

impl Stream {
    /// The pacer has not taken it in: nothing has begun, nothing is kept, everybody who waits gets the reason.
    fn refuse_all(&mut self, failure: Failure, ctx: &mut Context<Self>) {
        let refusal = NotJoined::Failed(failure);
        self.over(None, false, ctx);
        let leaving = self.interests.take_all_leaving();
        for (request, waiting) in self.interests.take_waiting() {
            // Those who have been told that they are cancelled stay so.
            match leaving.iter().find(|(left, _)| *left == request) {
                Some((_, status)) => {
                    let outcome = Outcome { kept: Kept::NoTurn, ..ending::stopped(&self.log, *status) };
                    if let Some(member) = self.interests.remove(&request) {
                        self.end_member(&member, outcome);
                    }
                    waiting.reply.joined();
                }
                None => waiting.reply.refused(refusal.clone()),
            }
        }
        self.end_everybody(&Arc::new(Outcome::refused(&refusal)), Instant::now());
    }
}

/// A stream that panicked still ends for everybody who listens, and in the store.
impl Drop for Stream {
    fn drop(&mut self) {
        if self.state != State::Over {
            self.abort_attempt();
            self.abandon();
        }
    }
}
