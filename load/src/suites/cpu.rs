//! CPU: what it costs weir to relay one chunk of an answer to one listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{prompt, seen};
use crate::client::Events;
use crate::report::Report;
use crate::samples::rounded;
use crate::target::{MOCK, Settings, Target, TargetArguments, TargetError};

/// Measures the processor time of a relayed chunk.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Streams at once.
    #[arg(long, default_value_t = 200)]
    streams: usize,
    /// Chunks a second in each.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How long.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::cancelling()).await?;
    target.cpu_time()?;
    let gap_ms = 1_000 / arguments.rate.clamp(1, 1_000);
    let model = format!("text@tokens=10000000,gap_ms={gap_ms},bytes=12");
    let (mut readers, chunks) = (JoinSet::new(), Arc::<AtomicU64>::default());
    for n in 0..arguments.streams {
        let thread = target.api.create_thread().await?;
        let stream = target.api.send(&thread, MOCK, &model, &prompt("relay", n)).await?;
        readers.spawn(count_deltas(stream, Arc::clone(&chunks)));
    }
    let streams = arguments.streams as u64;
    seen(&target, |counts| counts.streams_live == streams).await;
    let used = measure(&target, &chunks, Duration::from_secs(arguments.seconds.into())).await?;
    let broken = (0..).map_while(|_| readers.try_join_next()).count();
    readers.shutdown().await;
    let left = seen(&target, |counts| counts.streams_live == 0).await;

    let mut report = Report::new("cpu");
    report.value("streams", arguments.streams);
    used.report(&mut report, "chunk");
    report.check("no stream ended before the measurement", broken == 0);
    let expected = f64::from(arguments.rate.clamp(1, 1_000)) * arguments.streams as f64;
    report.check("chunks come as fast as they are sent (90 %)", used.rate() >= 0.9 * expected);
    report.check("nothing is left at the provider", left.is_some());
    Ok(report)
}

/// Counts the pieces of text of a stream until it ends or is cut.
pub(super) async fn count_deltas(mut stream: Events, count: Arc<AtomicU64>) {
    while let Ok(Some(arrived)) = stream.next().await {
        if arrived.event.name == "delta" {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a number of things has cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    cpu: Duration,
    wall: Duration,
    things: u64,
}

impl Used {
    /// Things a second.
    pub(super) fn rate(&self) -> f64 {
        self.things as f64 / self.wall.as_secs_f64()
    }

    pub(super) fn report(&self, report: &mut Report, thing: &str) {
        let each_us = (self.things > 0).then(|| rounded(self.cpu.as_secs_f64() * 1e6 / self.things as f64));
        report.value(&format!("{thing}s"), self.things);
        report.value(&format!("{thing}s_per_second"), self.rate().round());
        report.value("cpu_percent", rounded(100.0 * self.cpu.as_secs_f64() / self.wall.as_secs_f64()));
        report.value(&format!("cpu_us_per_{thing}"), each_us);
    }
}

/// What the process uses while things are counted for a while.
pub(super) async fn measure(target: &Target, count: &AtomicU64, wall: Duration) -> Result<Used, TargetError> {
    // The first second belongs to the starting.
    sleep(Duration::from_secs(1)).await;
    let (start, cpu, things) = (Instant::now(), target.cpu_time()?, count.load(Ordering::Relaxed));
    sleep(wall).await;
    Ok(Used { cpu: target.cpu_time()? - cpu, wall: start.elapsed(), things: count.load(Ordering::Relaxed) - things })
}
