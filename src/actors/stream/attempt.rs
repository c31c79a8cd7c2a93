//! Attempt: gets one answer from a provider, in all its phases: queue, connection, head, pieces, and back-off between
//! tries. Dropping the future at any point closes the connection and gives permit and place back.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::actors::pacer::{self, Acquire, Admitted, Permit};
use crate::actors::target::Target;
use crate::chat::{ChatRequest, OrgId};
use crate::event::Finish;
use crate::failure::{Code, Failure, Phase};
use crate::fanout::StreamLog;
use crate::providers::answer::AnswerDecoder;
use crate::providers::upstream::Opened;
use crate::providers::{Call, Flow, Piece};

/// The first pause before a retry; it doubles with each try.
const BACK_OFF: Duration = Duration::from_millis(250);
/// No pause is longer than this, whatever a provider asks for.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// A checkpoint writes the whole text, so it waits one interval longer for each such part: what is written in a second
/// has a bound, however long the answer grows.
const CHECKPOINT_BYTES: usize = 64 * 1024;
/// What is read of an answer that is an error.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// One answer to be got. See the module.
pub(super) struct Attempt {
    pub(super) org: OrgId,
    pub(super) request: ChatRequest,
    pub(super) target: Rc<Target>,
    pub(super) log: Arc<StreamLog>,
    /// Where the attempt stands, for whoever cancels it.
    pub(super) phase: Rc<Cell<Phase>>,
    /// Called once, when the pacer has taken the request in.
    pub(super) admitted: Option<Box<dyn FnOnce()>>,
    /// Called every `checkpoint_interval` while the answer grows.
    pub(super) checkpoint: Box<dyn Fn()>,
    pub(super) checkpoint_interval: Duration,
    pub(super) answer_bytes_max: usize,
}

/// When the clocks of a running call were last wound up.
struct Clocks {
    started: Instant,
    last_byte: Instant,
    heard: bool,
    content: bool,
    answer_bytes: usize,
    checkpoint_due: Option<Instant>,
}

impl Attempt {
    /// Gets the answer; what it says goes to the log.
    pub(super) async fn run(mut self) -> Result<Finish, Failure> {
        let call = self.target.adapter.encode(&self.request)?;
        let mut tries = 0;
        loop {
            let failure = match self.once(call.clone()).await {
                Ok(finish) => return Ok(finish),
                Err(failure) => self.describe(failure),
            };
            let Some(pause) = self.pause_before_retry(&failure, tries) else { return Err(failure) };
            tries += 1;
            log::debug!(provider = self.target.provider.name.as_str(), tries, code = failure.code.as_str(); "retrying");
            self.phase.set(Phase::Queue);
            sleep(pause).await;
        }
    }

    async fn once(&mut self, call: Call) -> Result<Finish, Failure> {
        self.phase.set(Phase::Queue);
        let mut permit = self.permit().await?;
        let started = Instant::now();
        self.log.reach(|timings| timings.granted = Some(started));
        permit.used();
        self.phase.set(Phase::Connect);
        let opened = self.open(call).await?;
        self.log.reach(|timings| timings.connect_ms = opened.connect_ms);
        if !(200..300).contains(&opened.head.status) {
            return Err(self.refused(opened).await);
        }
        self.phase.set(Phase::PreToken);
        self.listen(opened, started).await
    }

    /// Waits for the pacer's permission and tells listeners their place meanwhile.
    async fn permit(&mut self) -> Result<Permit, Failure> {
        let (reply, mut answer) = oneshot::channel();
        let (place, mut places) = watch::channel(None);
        let wait_max = Duration::from_millis(self.target.provider.queue_wait_max_ms);
        let pacer = self.target.pacer.get().ok_or_else(pacer_gone)?;
        let asked = pacer.send(Acquire { org: self.org.clone(), wait_max, reply, place }).await;
        let admitted = asked.map_err(|_| pacer_gone())?.map_err(|full| {
            let retry_after_ms = u64::try_from(full.retry_after.as_millis()).unwrap_or(u64::MAX);
            Failure::new(Code::ProviderBusy, "the provider's queue is full").retry_after_ms(retry_after_ms.max(1))
        })?;
        if let Some(admitted) = self.admitted.take() {
            admitted();
        }
        if let Admitted::Granted(permit) = admitted {
            return Ok(permit);
        }
        loop {
            tokio::select! {
                biased;
                permit = &mut answer => {
                    let permit = permit.map_err(|_| pacer_gone())?;
                    return permit.map_err(|pacer::QueueTimeout| {
                        Failure::new(Code::QueueTimeout, "no permit for the provider came in time")
                    });
                }
                Ok(()) = places.changed() => {
                    if let Some(place) = *places.borrow_and_update() {
                        self.log.queue(place);
                    }
                }
            }
        }
    }

    async fn open(&self, call: Call) -> Result<Opened, Failure> {
        let limit = Duration::from_millis(self.target.provider.headers_timeout_ms);
        let failure = match timeout(limit, self.target.transport.open(call)).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => Failure::from(error),
            Err(_) => {
                let message = "the provider did not begin its answer in time (headers_timeout_ms)";
                Failure::new(Code::UpstreamTimeout, message)
            }
        };
        // Unless the transport knows better, the call may have reached the provider.
        Err(Failure { phase: failure.phase.or(Some(Phase::Headers)), ..failure })
    }

    /// Reads what the provider says about its refusal.
    async fn refused(&self, opened: Opened) -> Failure {
        self.phase.set(Phase::Headers);
        let Opened { head, mut body, .. } = opened;
        let mut text = Vec::new();
        let limit = Duration::from_millis(self.target.provider.idle_timeout_ms);
        while text.len() < ERROR_BODY_BYTES_MAX {
            match timeout(limit, body.next()).await {
                Ok(Some(Ok(bytes))) => text.extend_from_slice(&bytes),
                Ok(Some(Err(_)) | None) | Err(_) => break,
            }
        }
        text.truncate(ERROR_BODY_BYTES_MAX);
        self.target.adapter.failure(&head, &text)
    }

    /// Reads the answer to its terminator, under four clocks.
    async fn listen(&self, opened: Opened, started: Instant) -> Result<Finish, Failure> {
        let Opened { mut body, .. } = opened;
        let mut decoder = AnswerDecoder::new(&*self.target.adapter);
        let mut clocks = Clocks::new(started);
        let mut alarm = pin!(sleep_until(self.next_alarm(&clocks)));
        loop {
            tokio::select! {
                biased;
                chunk = body.next() => {
                    let Some(chunk) = chunk else {
                        decoder.end(&mut |piece| self.take(piece, &mut clocks))?;
                        return Ok(decoder.finish());
                    };
                    let chunk = chunk.map_err(Failure::from)?;
                    clocks.last_byte = Instant::now();
                    if !std::mem::replace(&mut clocks.heard, true) {
                        self.log.reach(|timings| timings.first_byte = Some(clocks.last_byte));
                    }
                    let flow = decoder.push(&chunk, &mut |piece| self.take(piece, &mut clocks))?;
                    self.check_size(clocks.answer_bytes)?;
                    if flow == Flow::Ended {
                        self.target.transport.recycle(body);
                        return Ok(decoder.finish());
                    }
                    // A provider that never pauses leaves the alarm no turn.
                    if clocks.last_byte >= alarm.deadline() {
                        self.ring(&mut clocks)?;
                        alarm.as_mut().reset(self.next_alarm(&clocks));
                    } else if clocks.checkpoint_due.is_some_and(|due| due < alarm.deadline()) {
                        alarm.as_mut().reset(self.next_alarm(&clocks));
                    }
                }
                () = &mut alarm => {
                    self.ring(&mut clocks)?;
                    alarm.as_mut().reset(self.next_alarm(&clocks));
                }
            }
        }
    }

    /// Takes one piece of the answer.
    fn take(&self, piece: Piece<'_>, clocks: &mut Clocks) {
        match piece {
            Piece::Event(event) => {
                if !clocks.content && event.is_content() {
                    clocks.content = true;
                    self.phase.set(Phase::MidStream);
                }
                clocks.answer_bytes = self.log.append(&event);
                if clocks.checkpoint_due.is_none() {
                    let steps = u32::try_from(clocks.answer_bytes / CHECKPOINT_BYTES).unwrap_or(u32::MAX);
                    let pause = self.checkpoint_interval.saturating_mul(steps.saturating_add(1));
                    clocks.checkpoint_due = Some(clocks.last_byte + pause);
                }
            }
            Piece::Model(model) => self.log.note(|transcript| transcript.model = Some(model.to_owned())),
            Piece::UpstreamId(id) => self.log.note(|transcript| transcript.upstream_id = Some(id.to_owned())),
            Piece::Opaque(signature) => self.log.note(|transcript| {
                transcript.keep_opaque(signature);
                clocks.answer_bytes = transcript.bytes();
            }),
        }
    }

    fn check_size(&self, answer_bytes: usize) -> Result<(), Failure> {
        if answer_bytes <= self.answer_bytes_max {
            return Ok(());
        }
        let limit = self.answer_bytes_max;
        Err(Failure::new(Code::ResponseTooLarge, format!("the answer exceeds {limit} bytes (answer_bytes_max)")))
    }

    fn next_alarm(&self, clocks: &Clocks) -> Instant {
        let ttft = (!clocks.content).then(|| clocks.started + millis(self.target.provider.ttft_timeout_ms));
        let alarms = [Some(self.idle_deadline(clocks)), Some(self.total_deadline(clocks)), ttft, clocks.checkpoint_due];
        alarms.into_iter().flatten().min().unwrap_or_else(|| self.total_deadline(clocks))
    }

    fn idle_deadline(&self, clocks: &Clocks) -> Instant {
        clocks.last_byte + millis(self.target.provider.idle_timeout_ms)
    }

    fn total_deadline(&self, clocks: &Clocks) -> Instant {
        clocks.started + millis(self.target.provider.total_timeout_ms)
    }

    /// A clock has rung: saves the text, or fails the call.
    fn ring(&self, clocks: &mut Clocks) -> Result<(), Failure> {
        let now = Instant::now();
        if clocks.checkpoint_due.is_some_and(|due| due <= now) {
            clocks.checkpoint_due = None;
            (self.checkpoint)();
        }
        if self.total_deadline(clocks) <= now {
            let message = "the answer took longer than it may (total_timeout_ms)";
            return Err(Failure::new(Code::UpstreamTimeout, message));
        }
        if self.idle_deadline(clocks) <= now {
            let message = "the provider fell silent (idle_timeout_ms)";
            return Err(Failure::new(Code::UpstreamStalled, message));
        }
        if !clocks.content && clocks.started + millis(self.target.provider.ttft_timeout_ms) <= now {
            let message = "the provider sent no content in time (ttft_timeout_ms)";
            return Err(Failure::new(Code::UpstreamTimeout, message));
        }
        Ok(())
    }

    /// Adds what every failure of this call has in common.
    fn describe(&self, mut failure: Failure) -> Failure {
        failure.provider = Some(self.target.provider.name.as_str().into());
        failure.phase = failure.phase.or(Some(self.phase.get()));
        failure
    }

    /// How long to wait before the next try; `None` when this failure is final.
    fn pause_before_retry(&self, failure: &Failure, tries: u32) -> Option<Duration> {
        let nothing_said = self.log.last_seq() == 0;
        let unsent = matches!(failure.phase, Some(Phase::Connect)) && failure.code != Code::UpstreamProtocol;
        let may_repeat = self.request.tools.is_empty() || unsent || failure.code == Code::UpstreamRateLimit;
        let ours = matches!(failure.code, Code::ProviderBusy | Code::QueueTimeout | Code::Internal);
        let provider = &self.target.provider;
        if !(failure.code.retryable() && nothing_said && may_repeat) || ours || tries >= provider.retries_max {
            return None;
        }
        let pause = match failure.retry_after_ms {
            Some(asked_ms) => Duration::from_millis(asked_ms),
            None => BACK_OFF * 2_u32.saturating_pow(tries),
        };
        let deadline = Duration::from_millis(provider.queue_wait_max_ms).min(BACK_OFF_MAX);
        // Up to a quarter more, so that those who failed together do not come back together.
        let jitter = pause.mul_f64(0.25 * (RandomState::new().hash_one(tries) % 1024) as f64 / 1024.0);
        (pause <= deadline).then_some(pause + jitter)
    }
}

impl Clocks {
    fn new(started: Instant) -> Self {
        let last_byte = Instant::now();
        Self { started, last_byte, heard: false, content: false, answer_bytes: 0, checkpoint_due: None }
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pacer_gone() -> Failure {
    Failure::new(Code::Internal, "the provider's pacer is being restarted")
}
