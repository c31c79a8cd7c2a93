//! TTFT: what weir adds to the time to the first token, and whether it keeps tokens apart.
//!
//! All ways are measured by the same client in the same run, in turns, so that a busy machine is unfair to none. Each
//! has the schedule of [`schedule::Schedule`], which waits for nobody.

mod findings;
mod gaps;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use super::beside::{BesideArguments, Way, in_turns, proxy};
use super::progress;
use crate::report::Report;
use crate::target::{Settings, Target, TargetArguments, TargetError};
use findings::Findings;
use schedule::Schedule;

/// Compares the time to the first token with and without weir.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    beside: BesideArguments,
    /// How many answers each way.
    #[arg(short, default_value_t = 400)]
    n: usize,
    /// How many at once.
    #[arg(short, default_value_t = 10)]
    concurrency: usize,
    /// In how many rounds; what is reported are their medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long an answer takes, in milliseconds; so many answers begin in this time as there are at once.
    #[arg(long, default_value_t = 1_000)]
    answer_ms: u64,
    /// The most that may be added at the median, in milliseconds.
    #[arg(long, default_value_t = 5.0)]
    added_p50_max_ms: f64,
    /// The most that may be added at the 99th percentile, in milliseconds.
    #[arg(long, default_value_t = 50.0)]
    added_p99_max_ms: f64,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let mut report = Report::new("ttft");
    let target = Target::start(&arguments.target, Settings::default()).await?;
    let concurrency = arguments.concurrency.max(1);
    let nginx = proxy(&arguments.beside, target.mock.address(), concurrency, &mut report).await;
    let mut ways = vec![Arc::new(Way::direct(&target.mock.url())?), Arc::new(Way::weir(&target))];
    if let Some(nginx) = &nginx {
        ways.insert(1, Arc::new(Way::nginx(nginx)?));
    }
    let rounds = arguments.rounds.max(1);
    let schedule = Schedule {
        at_once: concurrency,
        counted: arguments.n.div_ceil(rounds).max(1),
        takes: Duration::from_millis(arguments.answer_ms.max(1)),
    };
    let bar = progress::steps((rounds + 1) * ways.len(), "times to the first token");
    let mut findings = Findings::new(ways.iter().map(|way| way.name));
    for round in 0..=rounds {
        for way in in_turns(&ways, round) {
            let block = schedule.run(&way, round).await?;
            // Caches, pools and allocators are warm in production, too: the first round is not counted.
            if round > 0 {
                findings.add(way.name, block);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if let Some(nginx) = &nginx {
        report.value("nginx_workers", nginx.workers().map_err(TargetError::Usage)?);
    }

    report.value("schedule", schedule.to_string());
    findings.report(&mut report, arguments.added_p50_max_ms, arguments.added_p99_max_ms);
    gaps::report(&mut report, &ways, concurrency).await?;
    Ok(report)
}
