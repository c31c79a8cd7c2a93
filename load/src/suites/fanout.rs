//! Fan-out: what it costs weir to deliver one event of one stream to one of many listeners.

use std::time::Duration;

use tokio::task::JoinSet;

use super::cpu::{Used, measure};
use super::seen;
use super::tap::Tally;
use crate::report::Report;
use crate::target::{MOCK, Settings, Target, TargetArguments, TargetError};

/// Measures the processor time of a delivered event.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Listeners of the stream.
    #[arg(long, default_value_t = 1_000)]
    listeners: usize,
    /// Events a second.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// How long.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::cancelling()).await?;
    target.cpu_time()?;
    let rate = arguments.rate.clamp(1, 1_000);
    let model = format!("text@tokens=10000000,gap_ms={},bytes=12", 1_000 / rate);
    let thread = target.api.create_thread().await?;
    let (mut readers, tally) = (JoinSet::new(), Tally::new(arguments.listeners));
    let leader = target.api.send(&thread, MOCK, &model, "fan out").await?;
    readers.spawn(tally.clone().count(0, leader));
    for n in 1..arguments.listeners {
        let follower = target.api.join(&thread).await?;
        readers.spawn(tally.clone().count(n, follower));
    }
    let used = measure(|| target.cpu_time(), &tally, Duration::from_secs(arguments.seconds.into())).await?;
    let calls = target.mock.counts().calls_started;
    let broken = (0..).map_while(|_| readers.try_join_next()).count();
    readers.shutdown().await;
    let left = seen(&target, |counts| counts.streams_live == 0).await;

    let mut report = Report::new("fanout");
    report.value("listeners", arguments.listeners);
    Used::report(&[used], &mut report, "", "event");
    report.check("one upstream call", calls == 1);
    report.check("no listener is cut off", broken == 0);
    let expected = f64::from(rate) * arguments.listeners as f64;
    report.check("events come as fast as they are sent (90 %)", used.rate() >= 0.9 * expected);
    report.check("the last listener that leaves ends the call", left.is_some());
    Ok(report)
}
