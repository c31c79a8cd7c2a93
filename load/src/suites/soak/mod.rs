//! Soak: everything at once for a long time, and afterwards nothing is left of it.

mod acts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use super::{seen, until};
use crate::report::Report;
use crate::samples::{rounded, slope};
use crate::target::{Settings, Target, TargetArguments, TargetError, Usage};
use acts::{Act, Actor};

/// Mixes answers, cancels, faults, slow readers and resumes for a while.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Clients at once.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Chooses what they do [default: by chance].
    #[arg(long)]
    seed: Option<u64>,
    /// The most that memory may grow after the first third, in mebibytes a minute; checked from two minutes on.
    #[arg(long, default_value_t = 4.0)]
    slope_max: f64,
}

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// A run shorter than this says nothing about memory.
const SLOPE_SECONDS_MIN: u64 = 120;
const MIB: f64 = 1_048_576.0;

/// What the clients have done, and what was wrong with it.
#[derive(Debug, Default)]
struct Findings {
    done: BTreeMap<&'static str, u64>,
    defects: Vec<String>,
    defect_count: u64,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let settings = Settings::default()
        .stream("on_disconnect = \"cancel\"")
        .stream("disconnect_grace_ms = 1000")
        .stream("retain_ms = 5000")
        .stream("answer_bytes_max = 262144");
    let target = Target::start(&arguments.target, settings).await?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let before = target.usage()?;
    let (findings, end) = (Arc::<Mutex<Findings>>::default(), Instant::now() + Duration::from_secs(arguments.seconds));
    let mut clients = JoinSet::new();
    let mut rng = Rng::with_seed(seed);
    for client in 0..arguments.clients {
        let actor = Actor::new(target.api.clone(), client, rng.fork());
        clients.spawn(act_until(end, actor, Arc::clone(&findings)));
    }
    let samples = sample_until(end, &target).await?;
    while clients.join_next().await.is_some() {}
    let mut report = Report::new("soak");
    report.value("seed", seed.to_string());
    report_findings(&mut report, &findings.lock());
    report_memory(&mut report, arguments, &samples);
    report_rest(&mut report, &target, before, arguments.clients).await?;
    Ok(report)
}

async fn act_until(end: Instant, mut actor: Actor, findings: Arc<Mutex<Findings>>) {
    while Instant::now() < end {
        let act = actor.choose();
        let outcome = actor.perform(act).await;
        let mut findings = findings.lock();
        *findings.done.entry(act.name()).or_default() += 1;
        if let Err(defect) = outcome {
            findings.defect_count += 1;
            if findings.defects.len() < 20 {
                findings.defects.push(format!("{}: {defect}", act.name()));
            }
        }
    }
}

/// Looks at the process every second: when, and what it used.
async fn sample_until(end: Instant, target: &Target) -> Result<Vec<(f64, Usage)>, TargetError> {
    let start = Instant::now();
    let mut ticks = interval_at(start + SAMPLE_INTERVAL, SAMPLE_INTERVAL);
    let mut samples = Vec::new();
    while ticks.tick().await < end {
        samples.push((start.elapsed().as_secs_f64(), target.usage()?));
    }
    Ok(samples)
}

fn report_findings(report: &mut Report, findings: &Findings) {
    report.value("acts", &findings.done);
    report.value("acts_total", findings.done.values().sum::<u64>());
    let all = Act::ALL.iter().all(|(act, _)| findings.done.contains_key(act.name()));
    report.check("everything was tried", all);
    report.check("everything went as it should", findings.defect_count == 0);
    if findings.defect_count > 0 {
        report.value("defect_count", findings.defect_count);
        report.value("defects", &findings.defects);
    }
}

fn report_memory(report: &mut Report, arguments: &Arguments, samples: &[(f64, Usage)]) {
    let later = &samples[samples.len() / 3..];
    let points: Vec<_> = later.iter().map(|(at, usage)| (at / 60.0, usage.rss_bytes as f64 / MIB)).collect();
    let rise = slope(&points).map(rounded);
    let peak = samples.iter().map(|(_, usage)| usage.rss_bytes).max();
    report.value("rss_slope_mib_per_minute", rise);
    report.value("rss_peak_mib", peak.map(|peak| rounded(peak as f64 / MIB)));
    report.value("files_peak", samples.iter().map(|(_, usage)| usage.files).max());
    if arguments.seconds >= SLOPE_SECONDS_MIN {
        let max = arguments.slope_max;
        report.check(format!("memory grows by at most {max} MiB a minute"), rise.is_some_and(|rise| rise <= max));
    }
}

/// What is left when everybody has gone.
async fn report_rest(report: &mut Report, target: &Target, before: Usage, clients: usize) -> Result<(), TargetError> {
    let idle = |pacer: &Value| pacer["in_flight"] == 0 && pacer["queued"] == 0;
    let pacers = until(async || {
        let pacers = target.api.pacers().await?;
        Ok(pacers.as_array().is_some_and(|pacers| pacers.iter().all(idle)))
    });
    report.check("no permit is held and nobody waits", pacers.await?.is_some());
    let streams = until(async || Ok(target.api.streams().await?.as_array().is_some_and(Vec::is_empty)));
    report.check("no stream runs", streams.await?.is_some());
    let calls = seen(target, |counts| counts.streams_live == 0).await;
    report.check("no call runs at the provider", calls.is_some());
    let strays = target.mock.counts().strays;
    report.check("no redirect was followed", strays == 0);
    // Each client's connection may still be kept on both sides.
    let files_max = before.files + 2 * clients + 32;
    let files = until(async || Ok(target.usage().is_ok_and(|usage| usage.files <= files_max)));
    report.check("no file is left open", files.await?.is_some());
    report.value("before", before);
    report.value("after", target.usage()?);
    report.value("provider", json!(target.mock.counts()));
    Ok(())
}
