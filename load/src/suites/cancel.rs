//! Cancel: in every phase of an answer, by the endpoint and by leaving, the provider sees the end at once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::left::Held;
use super::{LOOK_INTERVAL, PATIENCE, progress, prompt, until, until_within};
use crate::client::Events;
use crate::mock::{Outcome, Watched};
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
    /// How many at once.
    #[arg(short, default_value_t = 1)]
    concurrency: usize,
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

    /// What is asked for; of answers that run at the same time each is slower, so that all together are not faster.
    fn model(self, concurrency: usize) -> String {
        match self {
            Phase::MidStream => format!("text@tokens=100000,gap_ms={}", GAP_MS * share(concurrency)),
            Phase::SilentMidStream => "stall@after=3".to_owned(),
            Phase::BeforeHead => "slow_head@hold_ms=600000".to_owned(),
            Phase::BeforeFirstByte => "silent".to_owned(),
            Phase::Queued => "text".to_owned(),
        }
    }
}

/// Between two tokens, as long as few answers run at once.
const GAP_MS: usize = 5;
/// As many answers as run at once without each of them having to be slower.
const FEW: usize = 10;

/// Of no more of its last requests does weir tell.
const WINDOW_MAX: usize = 10_000;

/// How many times slower each must be when so many run at once.
fn share(concurrency: usize) -> usize {
    concurrency.div_ceil(FEW).max(1)
}

/// What one trial has shown.
#[derive(Debug, Default)]
struct Found {
    /// From the cancel until the provider saw the end, or the queue was left.
    reached: Option<Duration>,
    /// From the cancel until the stream's end.
    ended: Option<Duration>,
    /// What the endpoint said of the provider's call.
    upstream: Option<String>,
    defects: Vec<String>,
}

/// What the trials of one phase and way have shown.
#[derive(Debug, Default)]
struct Findings {
    reached: Samples,
    ended: Samples,
    upstream: BTreeMap<String, u64>,
    defects: Vec<String>,
}

impl Findings {
    fn add(&mut self, found: Found) {
        self.reached.extend(found.reached);
        self.ended.extend(found.ended);
        if let Some(upstream) = found.upstream {
            *self.upstream.entry(upstream).or_default() += 1;
        }
        self.defects.extend(found.defects);
    }
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::cancelling().stream("retain_ms = 1000")).await?;
    let (trials, concurrency) = ((arguments.n / Phase::ALL.len()).max(1), arguments.concurrency.max(1));
    let mut report = Report::new("cancel");
    let mut defects = Vec::new();
    let before = Held::now(&target).await?;
    let bar = progress::steps(2 * Phase::ALL.len() * trials, "cancels");
    for by in [By::Endpoint, By::Leaving] {
        let way = if by == By::Endpoint { "endpoint" } else { "leaving" };
        let (mut all, mut count) = (Samples::default(), 0);
        for phase in Phase::ALL {
            let findings = try_phase(&target, phase, by, trials, concurrency, &bar).await?;
            let name = phase.name();
            report.value(&format!("{way}_{name}"), findings.reached.summary());
            if by == By::Endpoint {
                report.value(&format!("{way}_{name}_done"), findings.ended.summary());
                report.value(&format!("{way}_{name}_upstream"), &findings.upstream);
            }
            count += findings.reached.count();
            // When a place in the queue is given back is only looked at from time to time, if many are.
            if by == By::Endpoint || phase != Phase::Queued || concurrency == 1 {
                all.merge(&findings.reached);
            }
            defects.extend(findings.defects.into_iter().map(|defect| format!("{way}, {name}: {defect}")));
        }
        report.value(&format!("{way}_all"), all.summary());
        report.check(format!("{way}: every cancel reaches the provider"), count == (trials * 5) as u64);
        let p99 = all.percentile_ms(99.0);
        let max = arguments.p99_max_ms;
        report.check(format!("{way}: within {max} ms at p99"), p99.is_some_and(|p99| p99 <= max));
    }
    bar.finish_and_clear();
    report.check("one `done`, the right status and the text so far, every time", defects.is_empty());
    let performance = target.api.performance((2 * arguments.n).clamp(1, WINDOW_MAX)).await?;
    report.value("at_once", concurrency);
    report.value("cancel_ms_by_weir", &performance["cancel_ms"]);
    Held::again(&target, &before).await?.report(&mut report, &before);
    if !defects.is_empty() {
        report.value("defect_count", defects.len());
        defects.truncate(10);
        report.value("defects", defects);
    }
    Ok(report)
}

async fn try_phase(
    target: &Target,
    phase: Phase,
    by: By,
    trials: usize,
    concurrency: usize,
    bar: &ProgressBar,
) -> Result<Findings, TargetError> {
    let mut findings = Findings::default();
    let occupant = if phase == Phase::Queued { Some(occupy(target).await?) } else { None };
    let mut tried = stream::iter(0..trials)
        .map(async |n| {
            let mut found = Found::default();
            let trial = timeout(PATIENCE, Trial::begin(target, phase, by, n, concurrency)).await;
            match (trial, by) {
                (Ok(trial), By::Endpoint) => trial?.cancel(&mut found).await?,
                (Ok(trial), By::Leaving) => trial?.leave(&mut found).await?,
                (Err(_), _) => found.defects.push("the phase was not reached".to_owned()),
            }
            Ok::<_, ApiError>(found)
        })
        .buffer_unordered(concurrency);
    while let Some(found) = tried.next().await {
        findings.add(found?);
        bar.inc(1);
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
    call: Watched<'t>,
    concurrency: usize,
}

impl<'t> Trial<'t> {
    /// Starts an answer and brings it into its phase.
    async fn begin(target: &'t Target, phase: Phase, by: By, n: usize, concurrency: usize) -> Result<Self, ApiError> {
        let provider = if phase == Phase::Queued { NARROW } else { MOCK };
        let prompt = prompt(phase.name(), format_args!("{by:?} {n}"));
        let mut call = target.mock.watch(&prompt);
        let thread = target.api.create_thread().await?;
        let mut stream = target.api.send(&thread, provider, &phase.model(concurrency), &prompt).await?;
        let mut answer = Answer::default();
        let request = request_id(&mut stream, &mut answer).await?;
        match phase {
            Phase::MidStream | Phase::SilentMidStream => {
                while answer.arrivals.len() < 3 {
                    let arrived = stream.next_named("delta").await?;
                    answer.take(&arrived, stream.sent());
                }
            }
            Phase::BeforeHead | Phase::BeforeFirstByte => call.started().await,
            Phase::Queued => while stream.next_named("meta").await?.event.json()["queue"].is_null() {},
        }
        Ok(Self { target, phase, thread, request, stream, answer, call, concurrency })
    }

    /// Cancels it by the endpoint.
    async fn cancel(mut self, found: &mut Found) -> Result<(), ApiError> {
        let client = self.target.api.client();
        let cancellation = client.complete(Api::cancellation(&self.request));
        let mut connection = client.connect().await?;
        let start = Instant::now();
        let ask = async {
            let head = connection.send(&cancellation).await?;
            connection.whole(head).await
        };
        let reach = aborted(self.phase, &mut self.call);
        let end = async {
            let ended = timeout(PATIENCE, self.answer.read_on(&mut self.stream)).await;
            ended.is_ok().then(|| start.elapsed())
        };
        let (response, reached, ended) = tokio::join!(ask, reach, end);
        let response = response?;
        let said = response.json();
        let upstream = said["upstream"].as_str().unwrap_or("nothing").to_owned();
        let expected = if self.phase == Phase::Queued { "not_started" } else { "aborted" };
        if (response.status(), said["status"].as_str(), upstream.as_str()) != (200, Some("cancelled"), expected) {
            found.defects.push(format!("the endpoint answered {}: {said}", response.status()));
        }
        found.upstream = Some(upstream);
        found.ended = ended;
        found.reached = match self.phase {
            Phase::Queued => ended,
            _ => reached.map(|reached| reached - start),
        };
        found.defects.extend(self.answer.defect());
        let status = self.answer.status();
        if status != "cancelled" {
            found.defects.push(format!("the stream ended with {status:?}"));
        }
        check_kept(self.target, &self.thread, found, |kept| kept == self.answer.text).await
    }

    /// Cancels it by leaving.
    async fn leave(self, found: &mut Found) -> Result<(), ApiError> {
        let Self { target, phase, request, stream, mut call, concurrency, .. } = self;
        let start = Instant::now();
        drop(stream);
        let reached = aborted(phase, &mut call).await.map(|reached| reached - start);
        let interval = LOOK_INTERVAL * u32::try_from(share(concurrency)).unwrap_or(u32::MAX);
        let is_cancelled = async || Ok(target.api.request(&request).await?["status"] == "cancelled");
        let left = if phase == Phase::Queued && concurrency == 1 {
            until(async || Ok(target.api.queued(NARROW).await? == 0)).await?
        } else {
            None
        };
        let status = until_within(PATIENCE, interval, is_cancelled).await?;
        found.reached = if phase == Phase::Queued { left.or(status) } else { reached };
        if status.is_none() {
            let state = target.api.request(&request).await?;
            found.defects.push(format!("the request is {}", state["status"]));
        }
        // Weir may have received more than this side has read.
        check_kept(target, &self.thread, found, |kept| kept.starts_with(&self.answer.text)).await
    }
}

/// When the provider saw the end of a call; `None` if it does not, or has never seen the call.
async fn aborted(phase: Phase, call: &mut Watched<'_>) -> Option<Instant> {
    if phase == Phase::Queued {
        return None;
    }
    let (outcome, at) = timeout(PATIENCE, call.ended()).await.ok()?;
    (outcome == Outcome::Aborted).then_some(at)
}

async fn check_kept(
    target: &Target,
    thread: &str,
    found: &mut Found,
    fits: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    let thread = target.api.thread(thread).await?;
    let message = thread["messages"].as_array().and_then(|messages| messages.last());
    let message = message.cloned().unwrap_or(Value::Null);
    let (status, kept) = (&message["status"], message["content"].as_str().unwrap_or_default());
    if status != "cancelled" || !fits(kept) {
        found.defects.push(format!("kept as {status}, {} bytes", kept.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_answers_together_are_no_faster_than_few() {
        let model = |concurrency| Phase::MidStream.model(concurrency);

        assert_eq!(model(1), "text@tokens=100000,gap_ms=5");
        assert_eq!(model(10), model(1));
        assert_eq!(model(200), "text@tokens=100000,gap_ms=100");
    }
}
