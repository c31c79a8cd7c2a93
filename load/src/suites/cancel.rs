//! Cancel: in every phase of an answer, by the endpoint and by leaving, the provider sees the end at once.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{PATIENCE, prompt, seen, until};
use crate::client::Events;
use crate::report::Report;
use crate::samples::Samples;
use crate::target::{Answer, Api, ApiError, MOCK, NARROW, Settings, Target, TargetArguments, TargetError};

/// Measures how fast a cancel reaches the provider.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How many cancels by the endpoint, and as many by leaving; spread over the phases.
    #[arg(short, default_value_t = 200)]
    n: usize,
    /// The most that a cancel may take at the 99th percentile, in milliseconds.
    #[arg(long, default_value_t = 300.0)]
    p99_max_ms: f64,
}

/// Where an answer is when it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    MidStream,
    SilentMidStream,
    BeforeHead,
    BeforeFirstByte,
    Queued,
}

/// Who cancels it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Endpoint,
    Leaving,
}

impl Phase {
    const ALL: [Phase; 5] =
        [Phase::MidStream, Phase::SilentMidStream, Phase::BeforeHead, Phase::BeforeFirstByte, Phase::Queued];

    fn name(self) -> &'static str {
        match self {
            Phase::MidStream => "mid_stream",
            Phase::SilentMidStream => "silent_mid_stream",
            Phase::BeforeHead => "before_head",
            Phase::BeforeFirstByte => "before_first_byte",
            Phase::Queued => "queued",
        }
    }

    fn model(self) -> &'static str {
        match self {
            Phase::MidStream => "text@tokens=100000,gap_ms=5",
            Phase::SilentMidStream => "stall@after=3",
            Phase::BeforeHead => "slow_head@hold_ms=600000",
            Phase::BeforeFirstByte => "silent",
            Phase::Queued => "text",
        }
    }
}

/// What the trials of one phase and way have shown.
#[derive(Debug, Default)]
struct Findings {
    reached: Samples,
    ended: Samples,
    upstream: BTreeMap<String, u64>,
    defects: Vec<String>,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::cancelling()).await?;
    let trials = (arguments.n / Phase::ALL.len()).max(1);
    let mut report = Report::new("cancel");
    let mut defects = Vec::new();
    for by in [By::Endpoint, By::Leaving] {
        let way = if by == By::Endpoint { "endpoint" } else { "leaving" };
        let mut all = Samples::default();
        for phase in Phase::ALL {
            let findings = try_phase(&target, phase, by, trials).await?;
            let name = phase.name();
            report.value(&format!("{way}_{name}"), findings.reached.summary());
            if by == By::Endpoint {
                report.value(&format!("{way}_{name}_done"), findings.ended.summary());
                report.value(&format!("{way}_{name}_upstream"), &findings.upstream);
            }
            all.merge(&findings.reached);
            defects.extend(findings.defects.into_iter().map(|defect| format!("{way}, {name}: {defect}")));
        }
        report.value(&format!("{way}_all"), all.summary());
        report.check(format!("{way}: every cancel reaches the provider"), all.count() == (trials * 5) as u64);
        let p99 = all.percentile_ms(99.0);
        let max = arguments.p99_max_ms;
        report.check(format!("{way}: within {max} ms at p99"), p99.is_some_and(|p99| p99 <= max));
    }
    report.check("one `done`, the right status and the text so far, every time", defects.is_empty());
    let performance = target.api.performance(2 * arguments.n).await?;
    report.value("cancel_ms_by_weir", &performance["cancel_ms"]);
    if !defects.is_empty() {
        defects.truncate(10);
        report.value("defects", defects);
    }
    Ok(report)
}

async fn try_phase(target: &Target, phase: Phase, by: By, trials: usize) -> Result<Findings, TargetError> {
    let mut findings = Findings::default();
    let occupant = if phase == Phase::Queued { Some(occupy(target).await?) } else { None };
    for n in 0..trials {
        let trial = Trial::begin(target, phase, by, n);
        let mut trial = match timeout(PATIENCE, trial).await {
            Ok(trial) => trial?,
            Err(_) => {
                findings.defects.push("the phase was not reached".to_owned());
                continue;
            }
        };
        match by {
            By::Endpoint => trial.cancel(&mut findings).await?,
            By::Leaving => trial.leave(&mut findings).await?,
        }
    }
    if let Some((request, mut stream)) = occupant {
        target.api.cancel(&request).await?;
        Answer::read(&mut stream).await?;
    }
    Ok(findings)
}

/// Takes the only slot of the narrow provider.
async fn occupy(target: &Target) -> Result<(String, Events), TargetError> {
    let thread = target.api.create_thread().await?;
    let mut stream = target.api.send(&thread, NARROW, "stall@after=1", "occupy").await?;
    let request = request_id(&mut stream, &mut Answer::default()).await?;
    stream.next_named("delta").await?;
    Ok((request, stream))
}

async fn request_id(stream: &mut Events, answer: &mut Answer) -> Result<String, ApiError> {
    while answer.request_id.is_empty() {
        let arrived = stream.next_named("meta").await?;
        answer.take(&arrived, stream.sent());
    }
    Ok(answer.request_id.clone())
}

/// One answer that is about to be cancelled.
struct Trial<'t> {
    target: &'t Target,
    phase: Phase,
    thread: String,
    request: String,
    stream: Events,
    answer: Answer,
    aborted: u64,
}

impl<'t> Trial<'t> {
    /// Starts an answer and brings it into its phase.
    async fn begin(target: &'t Target, phase: Phase, by: By, n: usize) -> Result<Self, ApiError> {
        // The end of the call before is not to be taken for the end of this one.
        let others = u64::from(phase == Phase::Queued);
        let before = target.mock.wait_until(|counts| counts.streams_live == others).await;
        let provider = if phase == Phase::Queued { NARROW } else { MOCK };
        let prompt = prompt(phase.name(), format_args!("{by:?} {n}"));
        let thread = target.api.create_thread().await?;
        let mut stream = target.api.send(&thread, provider, phase.model(), &prompt).await?;
        let mut answer = Answer::default();
        let request = request_id(&mut stream, &mut answer).await?;
        match phase {
            Phase::MidStream | Phase::SilentMidStream => {
                while answer.arrivals.len() < 3 {
                    let arrived = stream.next_named("delta").await?;
                    answer.take(&arrived, stream.sent());
                }
            }
            Phase::BeforeHead | Phase::BeforeFirstByte => {
                target.mock.wait_until(|counts| counts.streams_live > others).await;
            }
            Phase::Queued => while stream.next_named("meta").await?.event.json()["queue"].is_null() {},
        }
        Ok(Self { target, phase, thread, request, stream, answer, aborted: before.calls_aborted })
    }

    /// Cancels it by the endpoint.
    async fn cancel(&mut self, findings: &mut Findings) -> Result<(), ApiError> {
        let client = self.target.api.client();
        let cancellation = client.complete(Api::cancellation(&self.request));
        let mut connection = client.connect().await?;
        let start = Instant::now();
        let (target, aborted, phase) = (self.target, self.aborted, self.phase);
        let ask = async {
            let head = connection.send(&cancellation).await?;
            connection.whole(head).await
        };
        let reach = async {
            if phase == Phase::Queued {
                return None;
            }
            seen(target, |counts| counts.calls_aborted > aborted).await?.last_abort
        };
        let end = async {
            let ended = timeout(PATIENCE, self.answer.read_on(&mut self.stream)).await;
            ended.is_ok().then(|| start.elapsed())
        };
        let (response, reached, ended) = tokio::join!(ask, reach, end);
        let response = response?;
        let said = response.json();
        let upstream = said["upstream"].as_str().unwrap_or("nothing").to_owned();
        let expected = if phase == Phase::Queued { "not_started" } else { "aborted" };
        if (response.status(), said["status"].as_str(), upstream.as_str()) != (200, Some("cancelled"), expected) {
            findings.defects.push(format!("the endpoint answered {}: {said}", response.status()));
        }
        *findings.upstream.entry(upstream).or_default() += 1;
        findings.ended.extend(ended);
        findings.reached.extend(match phase {
            Phase::Queued => ended,
            _ => reached.map(|reached| reached - start),
        });
        if let Some(defect) = self.answer.defect() {
            findings.defects.push(defect);
        }
        let status = self.answer.status();
        if status != "cancelled" {
            findings.defects.push(format!("the stream ended with {status:?}"));
        }
        check_kept(self.target, &self.thread, findings, |kept| kept == self.answer.text).await
    }

    /// Cancels it by leaving.
    async fn leave(self, findings: &mut Findings) -> Result<(), ApiError> {
        let Self { target, phase, request, stream, aborted, .. } = self;
        let start = Instant::now();
        drop(stream);
        let reached = match phase {
            Phase::Queued => until(async || Ok(target.api.queued(NARROW).await? == 0)).await?,
            _ => {
                let counts = seen(target, |counts| counts.calls_aborted > aborted).await;
                counts.and_then(|counts| counts.last_abort).map(|last| last - start)
            }
        };
        findings.reached.extend(reached);
        let status = until(async || Ok(target.api.request(&request).await?["status"] == "cancelled")).await?;
        if status.is_none() {
            let state = target.api.request(&request).await?;
            findings.defects.push(format!("the request is {}", state["status"]));
        }
        // Weir may have received more than this side has read.
        check_kept(target, &self.thread, findings, |kept| kept.starts_with(&self.answer.text)).await
    }
}

async fn check_kept(
    target: &Target,
    thread: &str,
    findings: &mut Findings,
    fits: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    let thread = target.api.thread(thread).await?;
    let message = thread["messages"].as_array().and_then(|messages| messages.last());
    let message = message.cloned().unwrap_or(Value::Null);
    let (status, kept) = (&message["status"], message["content"].as_str().unwrap_or_default());
    if status != "cancelled" || !fits(kept) {
        findings.defects.push(format!("kept as {status}, {} bytes", kept.len()));
    }
    Ok(())
}
