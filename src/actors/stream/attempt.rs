//! Attempt: gets one answer from a provider, in all its phases: queue, the [call](super::call), back-off between tries,
//! and the same again with the next provider when there is a [fallback]. Dropping the future at any point closes the
//! connection and gives permit and place back.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::checkpoints::Checkpoints;
use super::fallback::{self, Route};
use super::preface::Preface;
use super::standing::Standing;
use crate::actors::pacer::{Acquire, Admitted, Line, NotGranted, Permit, Weight};
use crate::actors::target::Target;
use crate::chat::{Asker, ChatRequest, ProviderName};
use crate::event::Finish;
use crate::failure::{Code, Failure, Phase};
use crate::fanout::{Fallback, StreamLog, Transcript};
use crate::metrics::Metrics;
use crate::providers::Call;

/// The first pause before a retry; it doubles with each try.
const BACK_OFF: Duration = Duration::from_millis(250);
/// No pause is longer than this, whatever a provider asks for.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// One answer to be got. See the module.
pub(super) struct Attempt {
    pub(super) asker: Asker,
    pub(super) request: ChatRequest,
    /// Who is called.
    pub(super) target: Rc<Target>,
    /// Where the request goes when that provider fails.
    pub(super) routes: Vec<Route>,
    /// When an answer of another provider must be whole; nothing as long as it is the first one's.
    pub(super) deadline: Option<Instant>,
    /// When the present provider was called first: its retries have no more time than that call.
    pub(super) called: Cell<Option<Instant>>,
    /// Says that another provider makes the answer, once its pacer has taken the request in.
    pub(super) fallback: Option<Fallback>,
    pub(super) log: Arc<StreamLog>,
    pub(super) metrics: Arc<Metrics>,
    /// What the present call has said before its first content.
    pub(super) preface: RefCell<Preface>,
    pub(super) standing: Rc<Standing>,
    /// Called once, when a pacer has taken the request in.
    pub(super) admitted: Option<Box<dyn FnOnce()>>,
    /// Called at `checkpoints` while the answer grows.
    pub(super) checkpoint: Box<dyn Fn()>,
    pub(super) checkpoints: Checkpoints,
    pub(super) answer_bytes_max: usize,
}

/// What follows a call that failed.
enum Repeat {
    /// The failure is final.
    Never,
    /// It takes its place in the queue again: the provider has no fault, the call only came too fast.
    InLine,
    /// It is made again after a pause, as one of few.
    After(Duration),
}

impl Attempt {
    /// Gets the answer, from the provider that was asked or from another one; what it says goes to the log.
    pub(super) async fn run(mut self) -> Result<Finish, Failure> {
        let deadline = Instant::now() + millis(self.target.provider.total_timeout_ms);
        let (asked, first) = (self.request.clone(), self.target.provider.name.clone());
        let failure = match self.ask().await {
            Err(failure) if !self.standing.is_drained() => failure,
            ended => return ended,
        };
        if !fallback::is_worth_another(failure.code) {
            self.say_preface();
            return Err(failure);
        }
        let mut last = None;
        for route in std::mem::take(&mut self.routes) {
            if !self.may_go_on(last.as_ref().unwrap_or(&failure), deadline) {
                break;
            }
            self.turn_to(&route, &asked, first.clone(), deadline);
            match self.ask().await {
                Err(failure) if !self.standing.is_drained() => last = Some(failure),
                ended => return ended,
            }
        }
        match last {
            // Its listeners have heard the beginning of this provider's answer, so its end is this provider's, too.
            Some(last) if self.has_said_something() => Err(last),
            // Nobody could answer: the client hears what is the matter with the provider that it asked.
            Some(_) => {
                self.forget_call();
                self.log.fall_back(None);
                Err(failure)
            }
            None => {
                self.say_preface();
                Err(failure)
            }
        }
    }

    /// Whether the next provider is asked after this failure.
    fn may_go_on(&self, failure: &Failure, deadline: Instant) -> bool {
        let is_repeatable = self.request.tools.is_empty() || fallback::is_untouched(failure);
        is_repeatable && !self.has_said_something() && Instant::now() < deadline
    }

    /// The request goes to another provider from now on.
    fn turn_to(&mut self, route: &Route, asked: &ChatRequest, from: ProviderName, deadline: Instant) {
        self.forget_call();
        self.request = route.request(asked);
        self.target = route.target.clone();
        self.standing.turn_to(route.target.clone());
        self.deadline = Some(deadline);
        self.called.set(None);
        let (provider, model) = (self.request.provider.clone(), self.request.model.clone());
        log::info!(from = from.as_str(), to = provider.as_str(), model = &*model; "another provider is asked");
        self.fallback = Some(Fallback { provider, model, from });
    }

    /// Gets the answer from the present provider, by as many calls as it is worth.
    async fn ask(&mut self) -> Result<Finish, Failure> {
        let call = self.target.adapter.encode(&self.request)?;
        let weight = Weight::new(&self.request, call.body.len());
        let mut wait_max = millis(self.target.provider.queue_wait_max_ms);
        if let Some(deadline) = self.deadline {
            wait_max = wait_max.min(deadline.saturating_duration_since(Instant::now()));
        }
        let deadline = Instant::now() + wait_max;
        self.target.retries.borrow_mut().called(Instant::now());
        let (mut tries, mut line, mut patience) = (0, Line::Back, wait_max);
        let mut last = None;
        loop {
            self.standing.phase.set(Phase::Queue);
            let asked = Instant::now();
            if self.called.get().is_some() {
                // It would be over before it began.
                patience = patience.min(self.total_deadline().saturating_duration_since(asked));
            }
            let permit = match self.permit(line, weight, patience).await {
                Ok(permit) => permit,
                Err(failure) => return Err(self.in_vain(failure, last)),
            };
            patience = patience.saturating_sub(asked.elapsed());
            let ended = self.once(call.clone(), permit).await;
            if self.standing.is_drained() {
                return ended;
            }
            let failure = match ended {
                Ok(finish) => {
                    self.say_preface();
                    return Ok(finish);
                }
                Err(failure) => self.describe(failure),
            };
            line = match self.repeat(&failure, tries, deadline) {
                Repeat::Never => return Err(failure),
                Repeat::InLine => {
                    patience = patience.min(deadline.saturating_duration_since(Instant::now()));
                    Line::Front
                }
                Repeat::After(pause) => {
                    tries += 1;
                    self.standing.phase.set(Phase::Queue);
                    sleep(pause).await;
                    Line::Back
                }
            };
            let (provider, code) = (self.target.provider.name.as_str(), failure.code.as_str());
            log::debug!(provider, tries, code; "the call is repeated");
            self.forget_call();
            last = Some(failure);
        }
    }

    /// The failure of an attempt that got no permit. What the provider has said before tells more than that its queue
    /// takes too long.
    fn in_vain(&self, failure: Failure, last: Option<Failure>) -> Failure {
        let retry_after_ms = failure.retry_after_ms;
        let mut failure = last.unwrap_or_else(|| self.describe(failure));
        failure.retry_after_ms = failure.retry_after_ms.or(retry_after_ms);
        failure
    }

    /// Lets the listeners hear what came before the first content.
    pub(super) fn say_preface(&self) {
        for event in self.preface.take().take() {
            self.log.append(&event);
        }
    }

    /// What a call without content has said is not part of the answer: the next one says its own.
    fn forget_call(&self) {
        self.preface.take();
        self.log.note(|transcript| *transcript = Transcript::default());
    }

    /// Whether listeners have heard something of the answer, so that nobody else can begin it anew.
    fn has_said_something(&self) -> bool {
        self.log.timings().first_content.is_some()
    }

    /// Makes one call and tells the pacer what became of it.
    async fn once(&self, call: Call, mut permit: Permit) -> Result<Finish, Failure> {
        let result = self.call(call, &mut permit).await;
        let told = self.standing.learned.get().or_else(|| self.log.with_transcript(|transcript| transcript.usage));
        // What a call that was cut has said of its usage is not all.
        if let Some(usage) = told.filter(|_| result.is_ok()) {
            permit.cost(usage);
        }
        match &result {
            Ok(_) => permit.succeeded(),
            Err(failure) => match failure.code {
                Code::UpstreamRateLimit => permit.throttled(failure.retry_after_ms.map(millis)),
                Code::UpstreamConnect
                | Code::UpstreamDns
                | Code::UpstreamTls
                | Code::UpstreamTimeout
                | Code::UpstreamStalled
                | Code::UpstreamTruncated
                | Code::UpstreamOverloaded
                | Code::UpstreamError => permit.failed(),
                // What cannot be read, is too long, was not read to its end or met a defect may be this answer's own
                // matter.
                Code::UpstreamProtocol | Code::ResponseTooLarge | Code::Interrupted | Code::Internal => drop(permit),
                _ => permit.answered(),
            },
        }
        result
    }

    /// Waits for the pacer's permission and tells listeners their place meanwhile.
    async fn permit(&mut self, line: Line, weight: Weight, wait_max: Duration) -> Result<Permit, Failure> {
        let (reply, mut answer) = oneshot::channel();
        let (place, mut places) = watch::channel(None);
        let pacer = self.target.pacer.get().ok_or_else(pacer_gone)?;
        let asked = pacer.send(Acquire { asker: self.asker.clone(), weight, wait_max, line, reply, place }).await;
        let admitted = match asked.map_err(|_| pacer_gone())? {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.target.drains.make_way();
                return Err(not_granted(reason));
            }
        };
        if let Some(fallback) = self.fallback.take() {
            self.metrics.fell_back(fallback.from.as_str(), fallback.provider.as_str());
            self.log.fall_back(Some(fallback));
        }
        if let Some(admitted) = self.admitted.take() {
            admitted();
        }
        if let Admitted::Granted(permit) = admitted {
            return Ok(permit);
        }
        let target = self.target.clone();
        let _waiting = target.drains.wait();
        loop {
            tokio::select! {
                biased;
                permit = &mut answer => {
                    let permit = permit.map_err(|_| pacer_gone())?;
                    return permit.map_err(not_granted);
                }
                Ok(()) = places.changed() => {
                    if let Some(place) = *places.borrow_and_update() {
                        self.log.queue(place);
                    }
                }
            }
        }
    }

    /// Adds what every failure of this call has in common.
    fn describe(&self, mut failure: Failure) -> Failure {
        failure.provider = Some(self.target.provider.name.as_str().into());
        failure.phase = failure.phase.or(Some(self.standing.phase.get()));
        failure
    }

    /// When the present provider's answer must be whole, however many calls it takes.
    pub(super) fn total_deadline(&self) -> Instant {
        let called = self.called.get().unwrap_or_else(Instant::now);
        let total = called + millis(self.target.provider.total_timeout_ms);
        self.deadline.map_or(total, |deadline| total.min(deadline))
    }

    /// Whether, and how, a failed call is made again.
    fn repeat(&self, failure: &Failure, tries: u32, deadline: Instant) -> Repeat {
        let is_throttled = failure.code == Code::UpstreamRateLimit;
        let may_repeat = self.request.tools.is_empty() || fallback::is_untouched(failure);
        let time_left = self.total_deadline().saturating_duration_since(Instant::now());
        if !(failure.code.retryable() && may_repeat) || self.has_said_something() || failure.code == Code::Internal {
            return Repeat::Never;
        }
        if self.deadline.is_some() {
            // It stands in for another one already, and the provider after it stands in for this one.
            return Repeat::Never;
        }
        if is_throttled {
            // The pacer keeps the pause that the provider asks for; here only the caller's patience counts.
            let pause = failure.retry_after_ms.map_or(Duration::ZERO, millis);
            let is_in_time = pause < time_left && Instant::now() + pause < deadline;
            return if is_in_time { Repeat::InLine } else { Repeat::Never };
        }
        let provider = &self.target.provider;
        let pause = match failure.retry_after_ms {
            Some(asked_ms) => millis(asked_ms),
            None => BACK_OFF * 2_u32.saturating_pow(tries),
        };
        let pause_max = millis(provider.queue_wait_max_ms).min(BACK_OFF_MAX);
        let may_retry = tries < provider.retries_max && pause <= pause_max && pause < time_left;
        if !may_retry || !self.target.retries.borrow_mut().take(Instant::now()) {
            return Repeat::Never;
        }
        // Up to a quarter more, so that those who failed together do not come back together.
        let jitter = pause.mul_f64(0.25 * (RandomState::new().hash_one(tries) % 1024) as f64 / 1024.0);
        Repeat::After(pause + jitter)
    }
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn not_granted(reason: NotGranted) -> Failure {
    let (code, message, retry_after) = match reason {
        NotGranted::QueueFull { retry_after } => (Code::ProviderBusy, "the provider's queue is full", retry_after),
        NotGranted::QueueTimeout { retry_after } => {
            (Code::QueueTimeout, "no permit for the provider came in time", retry_after)
        }
        NotGranted::BreakerOpen { retry_after } => {
            (Code::BreakerOpen, "the provider fails again and again; it is left alone for a while", retry_after)
        }
    };
    Failure::new(code, message).retry_after_ms(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1))
}

fn pacer_gone() -> Failure {
    Failure::new(Code::Internal, "the provider's pacer is being restarted").retry_after_ms(1_000)
}
