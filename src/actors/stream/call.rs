//! Call: one call of an attempt, from the request to the last byte of its answer, under its clocks.

use std::pin::pin;
use std::time::SystemTime;

use futures_util::StreamExt;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempt::{Attempt, millis};
use super::estimate;
use super::run::Run;
use crate::actors::pacer::Permit;
use crate::event::{Event, Finish};
use crate::failure::{Code, Failure, Phase};
use crate::providers::answer::AnswerDecoder;
use crate::providers::upstream::{Body, Opened};
use crate::providers::{Call, Flow, Piece, rate_headers};

/// What is read of an answer that is an error.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;
const TOTAL_EXCEEDED: &str = "the answer took longer than it may (total_timeout_ms)";

/// When the clocks of a running call were last wound up.
struct Clocks {
    started: Instant,
    last_byte: Instant,
    heard: bool,
    /// It does something for us, be it a search: the time to the first piece is no measure of life any more.
    works: bool,
    content: bool,
    answer_bytes: usize,
    checkpoint_due: Option<Instant>,
}

impl Attempt {
    /// Makes the call; what the answer says goes to the log.
    pub(super) async fn call(&self, call: Call, permit: &mut Permit) -> Result<Finish, Failure> {
        let started = Instant::now();
        self.called.set(self.called.get().or(Some(started)));
        self.log.reach(|timings| timings.granted = Some(started));
        permit.used();
        self.standing.phase.set(Phase::Connect);
        let opened = self.open(call).await?;
        self.log.reach(|timings| timings.connect_ms = Some(opened.connect_ms));
        if !(200..300).contains(&opened.head.status) {
            return Err(self.refused(opened).await);
        }
        permit.accepted(rate_headers(&opened.head, SystemTime::now()));
        let prompt_tokens = estimate::of_prompt(&self.request);
        self.log.note(|transcript| transcript.prompt_tokens = prompt_tokens);
        self.standing.phase.set(Phase::PreToken);
        self.listen(opened, started, permit).await
    }

    async fn open(&self, call: Call) -> Result<Opened, Failure> {
        let headers_due = Instant::now() + millis(self.target.provider.headers_timeout_ms);
        let limit = headers_due.min(self.total_deadline());
        let failure = match timeout_at(limit, self.target.transport.open(call)).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => Failure::from(error),
            Err(_) if limit < headers_due => Failure::new(Code::UpstreamTimeout, TOTAL_EXCEEDED),
            Err(_) => {
                let message = "the provider did not begin its answer in time (headers_timeout_ms)";
                Failure::new(Code::UpstreamTimeout, message)
            }
        };
        // Unless the transport knows better, the call may have reached the provider.
        Err(Failure { phase: failure.phase.or(Some(Phase::Headers)), ..failure })
    }

    /// Reads what the provider says about its refusal, for no longer than it may be silent otherwise.
    async fn refused(&self, opened: Opened) -> Failure {
        self.standing.phase.set(Phase::Headers);
        let Opened { head, mut body, .. } = opened;
        let mut text = Vec::new();
        let limit = Instant::now() + millis(self.target.provider.idle_timeout_ms);
        let limit = limit.min(self.total_deadline());
        while text.len() < ERROR_BODY_BYTES_MAX {
            match timeout_at(limit, body.next()).await {
                Ok(Some(Ok(bytes))) => text.extend_from_slice(&bytes),
                Ok(Some(Err(_)) | None) | Err(_) => break,
            }
        }
        text.truncate(ERROR_BODY_BYTES_MAX);
        self.target.adapter.failure(&head, &text)
    }

    /// Reads the answer to its terminator, under four clocks.
    async fn listen(&self, opened: Opened, started: Instant, permit: &mut Permit) -> Result<Finish, Failure> {
        let Opened { mut body, .. } = opened;
        let mut run = Run::new(self.target.clone(), self.log.clone());
        let mut decoder = AnswerDecoder::new(&*self.target.adapter);
        let mut clocks = Clocks::new(started);
        let mut alarm = pin!(sleep_until(self.next_alarm(&clocks)));
        let mut drained = pin!(self.standing.drained());
        loop {
            tokio::select! {
                biased;
                () = &mut drained => return self.read_on(body, decoder, run).await,
                chunk = body.next() => {
                    let Some(chunk) = chunk else {
                        decoder.end(&mut |piece| self.take(piece, &mut clocks))?;
                        run.over();
                        return Ok(decoder.finish());
                    };
                    let chunk =
                        chunk.inspect_err(|_| decoder.abandon(&mut |piece| self.take(piece, &mut clocks)))?;
                    clocks.last_byte = Instant::now();
                    if !std::mem::replace(&mut clocks.heard, true) {
                        self.log.reach(|timings| timings.first_byte = Some(clocks.last_byte));
                    }
                    let flow = decoder.push(&chunk, &mut |piece| self.take(piece, &mut clocks));
                    let flow = flow.map_err(|failure| run.failed(failure))?;
                    // Of what has been read at once, each piece counts: others on this thread want their turn.
                    consume_budget().await;
                    self.check_size(clocks.answer_bytes)?;
                    if clocks.content {
                        permit.heard();
                    }
                    if flow == Flow::Ended {
                        run.over();
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

    /// Nobody listens any more: reads on, for a while, to learn what the answer costs. Nothing goes to the log.
    async fn read_on(&self, mut body: Body, mut decoder: AnswerDecoder, mut run: Run) -> Result<Finish, Failure> {
        let provider = &self.target.provider;
        let end = self.total_deadline().min(Instant::now() + millis(provider.drain_max_ms));
        let mut bytes_left = provider.drain_bytes_max;
        let mut learn = |piece: Piece<'_>| {
            if let Piece::Event(Event::Usage { usage }) = piece {
                self.standing.learned.set(Some(usage));
            }
        };
        loop {
            let idle_end = Instant::now() + millis(provider.idle_timeout_ms);
            let Ok(chunk) = timeout_at(end.min(idle_end), body.next()).await else { return Err(given_up()) };
            let Some(chunk) = chunk else {
                decoder.end(&mut learn)?;
                run.over();
                return Ok(decoder.finish());
            };
            let chunk = chunk.inspect_err(|_| decoder.abandon(&mut learn))?;
            let flow = decoder.push(&chunk, &mut learn).map_err(|failure| run.failed(failure))?;
            consume_budget().await;
            if flow == Flow::Ended {
                run.over();
                self.target.transport.recycle(body);
                return Ok(decoder.finish());
            }
            // A provider that never pauses leaves the clock no turn.
            match bytes_left.checked_sub(chunk.len()).filter(|_| Instant::now() < end) {
                Some(left) => bytes_left = left,
                None => return Err(given_up()),
            }
        }
    }

    /// Takes one piece of the answer.
    fn take(&self, piece: Piece<'_>, clocks: &mut Clocks) {
        match piece {
            Piece::Event(event) => {
                clocks.works |= event.is_content() || matches!(event, Event::Activity { .. });
                if !clocks.content && event.is_content() {
                    clocks.content = true;
                    self.standing.phase.set(Phase::MidStream);
                    self.say_preface();
                } else if !clocks.content
                    && let Some(bytes) = self.preface.borrow_mut().hold(&event)
                {
                    clocks.answer_bytes += bytes;
                    if let Event::Usage { usage } = event {
                        // Told at the end even if no content comes any more.
                        self.log.note(|transcript| transcript.usage = Some(usage));
                    }
                    return;
                }
                clocks.answer_bytes = self.log.append(&event);
                if clocks.checkpoint_due.is_none() {
                    clocks.checkpoint_due = Some(self.checkpoints.due(clocks.last_byte, clocks.answer_bytes));
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
        let ttft = (!clocks.works).then(|| clocks.started + millis(self.target.provider.ttft_timeout_ms));
        let alarms = [Some(self.idle_deadline(clocks)), Some(self.total_deadline()), ttft, clocks.checkpoint_due];
        alarms.into_iter().flatten().min().unwrap_or_else(|| self.total_deadline())
    }

    fn idle_deadline(&self, clocks: &Clocks) -> Instant {
        clocks.last_byte + millis(self.target.provider.idle_timeout_ms)
    }

    /// A clock has rung: saves the text, or fails the call.
    fn ring(&self, clocks: &mut Clocks) -> Result<(), Failure> {
        let now = Instant::now();
        if clocks.checkpoint_due.is_some_and(|due| due <= now) {
            clocks.checkpoint_due = None;
            (self.checkpoint)();
        }
        if self.total_deadline() <= now {
            return Err(Failure::new(Code::UpstreamTimeout, TOTAL_EXCEEDED));
        }
        if self.idle_deadline(clocks) <= now {
            let message = "the provider fell silent (idle_timeout_ms)";
            return Err(Failure::new(Code::UpstreamStalled, message));
        }
        if !clocks.works && clocks.started + millis(self.target.provider.ttft_timeout_ms) <= now {
            let message = "the provider sent no content in time (ttft_timeout_ms)";
            return Err(Failure::new(Code::UpstreamTimeout, message));
        }
        Ok(())
    }
}

/// A drain has taken as long, or as much, as it may.
fn given_up() -> Failure {
    Failure::new(Code::Interrupted, "the answer was not read to its end")
}

impl Clocks {
    fn new(started: Instant) -> Self {
        let last_byte = Instant::now();
        Self { started, last_byte, heard: false, works: false, content: false, answer_bytes: 0, checkpoint_due: None }
    }
}
