//! Acts: what a client of the soak may do, and what must come of it.

use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::client::Events;
use crate::mock::expected_text;
use crate::target::{Answer, Api, ApiError, FAULTY, MOCK};

/// One thing that a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Reads a whole answer.
    Read,
    /// Cancels one.
    Cancel,
    /// Leaves in the middle.
    Leave,
    /// Leaves and comes back.
    Resume,
    /// Reads more slowly than the answer comes.
    ReadSlowly,
    /// Sends the same several times at once.
    Burst,
    /// Meets a provider that fails.
    Fault,
    /// Meets an answer without end.
    Endless,
}

impl Act {
    /// Every act, and how often it is chosen in proportion to the others.
    pub(super) const ALL: [(Act, u32); 8] = [
        (Act::Read, 6),
        (Act::Cancel, 4),
        (Act::Leave, 3),
        (Act::Resume, 3),
        (Act::ReadSlowly, 2),
        (Act::Burst, 2),
        (Act::Fault, 6),
        (Act::Endless, 1),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Act::Read => "read",
            Act::Cancel => "cancel",
            Act::Leave => "leave",
            Act::Resume => "resume",
            Act::ReadSlowly => "read_slowly",
            Act::Burst => "burst",
            Act::Fault => "fault",
            Act::Endless => "endless",
        }
    }
}

const WHOLE: [&str; 6] = [
    "text@tokens=40,gap_ms=3",
    "text@tokens=5,bytes=400",
    "split_utf8@tokens=10,gap_ms=1",
    "drip@tokens=3",
    "comments@hold_ms=100",
    "after_done@tokens=10,gap_ms=1",
];
const FAULTS: [&str; 22] = [
    "stall",
    "silent",
    "slow_head@hold_ms=60000",
    "drop",
    "cut_chunk",
    "reset",
    "no_done",
    "no_finish",
    "error_frame",
    "garbage",
    "huge_line",
    "rate_limited",
    "flaky",
    "overloaded",
    "server_error",
    "html_error",
    "auth",
    "not_found",
    "error_in_200",
    "empty_200",
    "wrong_type",
    "redirect",
];
const LONG: &str = "text@tokens=400,gap_ms=5";
/// The longest that leaving or coming back is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client.
#[derive(Debug)]
pub(super) struct Actor {
    api: Api,
    client: usize,
    acts: u64,
    rng: Rng,
}

impl Actor {
    pub(super) fn new(api: Api, client: usize, rng: Rng) -> Self {
        Self { api, client, acts: 0, rng }
    }

    /// What to do next.
    pub(super) fn choose(&mut self) -> Act {
        let all: u32 = Act::ALL.iter().map(|(_, weight)| weight).sum();
        let mut left = self.rng.u32(..all);
        for (act, weight) in Act::ALL {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return act,
            }
        }
        Act::Read
    }

    /// Does it. `Err` says what was not as it must be.
    pub(super) async fn perform(&mut self, act: Act) -> Result<(), String> {
        self.acts += 1;
        let prompt = super::super::prompt("soak", format_args!("{}.{}", self.client, self.acts));
        let said = self.api.create_thread().await;
        let thread = said.map_err(|error| format!("no thread: {error}"))?;
        let outcome = match act {
            Act::Read => self.read(&thread, &prompt).await,
            Act::Cancel => self.cancel(&thread, &prompt).await,
            Act::Leave => self.leave(&thread, &prompt).await,
            Act::Resume => self.resume(&thread, &prompt).await,
            Act::ReadSlowly => self.read_slowly(&thread, &prompt).await,
            Act::Burst => self.burst(&thread, &prompt).await,
            Act::Fault => {
                let model = FAULTS[self.rng.usize(..FAULTS.len())];
                self.fail(&thread, model, &prompt).await
            }
            Act::Endless => self.fail(&thread, "endless", &prompt).await,
        };
        outcome.map_err(|error| format!("{prompt}: {error}"))
    }

    async fn read(&mut self, thread: &str, prompt: &str) -> Result<(), String> {
        let model = WHOLE[self.rng.usize(..WHOLE.len())];
        let mut stream = self.api.send(thread, MOCK, model, prompt).await.map_err(said)?;
        let answer = Answer::read(&mut stream).await.map_err(said)?;
        complete(&answer, &expected_text(model, prompt)).map_err(|error| format!("{model}: {error}"))
    }

    async fn cancel(&mut self, thread: &str, prompt: &str) -> Result<(), String> {
        let mut stream = self.api.send(thread, MOCK, LONG, prompt).await.map_err(said)?;
        let mut answer = Answer::default();
        read_pieces(&mut stream, &mut answer, self.rng.usize(..20)).await?;
        let request = answer.request_id.clone();
        let (response, read) = tokio::join!(self.api.cancel(&request), timeout(PATIENCE, answer.read_on(&mut stream)));
        read.map_err(|_| "a cancelled stream goes on")?;
        let status = response.map_err(said)?.status();
        match (status, answer.status(), answer.defect()) {
            (200, "cancelled" | "complete", None) => Ok(()),
            (status, ended, defect) => Err(format!("cancel answered {status}, the stream ended {ended:?} {defect:?}")),
        }
    }

    async fn leave(&mut self, thread: &str, prompt: &str) -> Result<(), String> {
        let mut stream = self.api.send(thread, MOCK, LONG, prompt).await.map_err(said)?;
        read_pieces(&mut stream, &mut Answer::default(), self.rng.usize(..20)).await?;
        if self.rng.bool() {
            stream.reset();
        }
        Ok(())
    }

    async fn resume(&mut self, thread: &str, prompt: &str) -> Result<(), String> {
        let model = "text@tokens=100,gap_ms=5";
        let mut stream = self.api.send(thread, MOCK, model, prompt).await.map_err(said)?;
        let mut answer = Answer::default();
        read_pieces(&mut stream, &mut answer, 1 + self.rng.usize(..50)).await?;
        drop(stream);
        sleep(Duration::from_millis(self.rng.u64(..300))).await;
        let last = answer.content.last().map(|(id, ..)| id.clone()).unwrap_or_default();
        let mut stream = self.api.resume(&answer.request_id, &last).await.map_err(said)?;
        timeout(PATIENCE, answer.read_on(&mut stream)).await.map_err(|_| "a resumed stream goes on")?;
        complete(&answer, &expected_text(model, prompt))?;
        let ids = answer.content.iter().map(|(id, ..)| id.clone());
        let expected = (1..).map(|n| format!("1-{n}")).take(answer.content.len());
        if ids.eq(expected) { Ok(()) } else { Err("the ids have a gap or are doubled".to_owned()) }
    }

    async fn read_slowly(&mut self, thread: &str, prompt: &str) -> Result<(), String> {
        let model = "text@tokens=500,gap_ms=1,bytes=300";
        let mut stream = self.api.send(thread, MOCK, model, prompt).await.map_err(said)?;
        let mut answer = Answer::default();
        for _ in 0..self.rng.usize(1..20) {
            read_pieces(&mut stream, &mut answer, 1).await?;
            sleep(Duration::from_millis(50)).await;
        }
        if self.rng.bool() {
            return Ok(());
        }
        timeout(PATIENCE, answer.read_on(&mut stream)).await.map_err(|_| "a slow reader is never done")?;
        complete(&answer, &expected_text(model, prompt))
    }

    async fn burst(&mut self, thread: &str, prompt: &str) -> Result<(), String> {
        let model = "text@tokens=40,gap_ms=10";
        let answers = (0..5).map(async |_| {
            let mut stream = self.api.send(thread, MOCK, model, prompt).await?;
            Answer::read(&mut stream).await
        });
        let answers: Result<Vec<_>, ApiError> = join_all(answers).await.into_iter().collect();
        let answers = answers.map_err(said)?;
        answers.iter().try_for_each(|answer| complete(answer, &expected_text(model, prompt)))?;
        let leaders = answers.iter().filter(|answer| answer.role == "leader").count();
        if leaders == 1 { Ok(()) } else { Err(format!("{leaders} leaders")) }
    }

    /// Any outcome is right, as long as there is exactly one and the text is the provider's.
    async fn fail(&mut self, thread: &str, model: &str, prompt: &str) -> Result<(), String> {
        let mut stream = match self.api.send(thread, FAULTY, model, prompt).await {
            Ok(stream) => stream,
            Err(ApiError::Client(error)) if error.refusal().is_some_and(|refusal| refusal.status() == 503) => {
                // The breaker is open: that is what it is for.
                sleep(Duration::from_millis(20)).await;
                return Ok(());
            }
            Err(error) => return Err(said(error)),
        };
        let answer = Answer::read(&mut stream).await.map_err(said)?;
        if let Some(defect) = answer.defect() {
            return Err(format!("{model}: {defect}"));
        }
        let right = match answer.status() {
            "complete" => matches!(model, "flaky" | "no_done"),
            "error" => model != "flaky" || answer.text.is_empty(),
            _ => false,
        };
        let expected = expected_text(model, prompt);
        let is_prefix =
            expected.starts_with(&answer.text) || (model == "endless" && answer.text.starts_with(&expected));
        if right && is_prefix {
            return Ok(());
        }
        let (status, length) = (answer.status(), answer.text.len());
        Err(format!("{model}: ended {status:?} with {length} bytes of text"))
    }
}

/// Reads until the request is known and so many pieces of text have come, or the end.
async fn read_pieces(stream: &mut Events, answer: &mut Answer, pieces: usize) -> Result<(), String> {
    let (sent, wanted) = (stream.sent(), answer.arrivals.len() + pieces);
    while answer.request_id.is_empty() || answer.arrivals.len() < wanted {
        let next = timeout(PATIENCE, stream.next()).await.map_err(|_| "a stream fell silent")?;
        match next.map_err(|error| error.to_string())? {
            Some(arrived) => answer.take(&arrived, sent),
            None => return Ok(()),
        }
    }
    Ok(())
}

fn complete(answer: &Answer, expected: &str) -> Result<(), String> {
    match (answer.defect(), answer.status(), answer.text == expected) {
        (None, "complete", true) => Ok(()),
        (None, "complete", false) => Err("complete, but with another text".to_owned()),
        (defect, _, _) => Err(format!("{defect:?}, ended {:?}", answer.dones)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be given to map_err")]
fn said(error: ApiError) -> String {
    error.to_string()
}
