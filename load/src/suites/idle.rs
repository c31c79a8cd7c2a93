//! Idle: what an open stream costs in memory while nothing happens on it, and what is left of it afterwards.

use tokio::time::{Duration, sleep};

use super::{prompt, seen, until};
use crate::report::Report;
use crate::target::{MOCK, Settings, Target, TargetArguments, TargetError, Usage};

/// Measures the memory of an open stream.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Streams at once.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// The most memory that one may take, in kilobytes.
    #[arg(long, default_value_t = 64)]
    kb_max: u64,
}

const MODEL: &str = "stall@after=1";
/// Streams that come and go before the measurement.
const WARM_UP: usize = 50;
/// Files that may be open afterwards beside those from before: connections that are kept for the next call.
const FILES_LEFT_MAX: usize = 16;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::cancelling()).await?;
    open_and_leave(&target, WARM_UP, "warm up").await?;
    let before = settled(&target).await?;
    let open = open_and_leave(&target, arguments.streams, "idle").await?;
    let ended = until(async || Ok(target.api.streams().await?.as_array().is_some_and(Vec::is_empty))).await?;
    let after = settled(&target).await?;

    let per_stream = |of: fn(&Usage) -> u64| of(&open).saturating_sub(of(&before)) / arguments.streams.max(1) as u64;
    let rss_bytes = per_stream(|usage| usage.rss_bytes);
    let mut report = Report::new("idle");
    report.value("streams", arguments.streams);
    report.value("rss_bytes_per_stream", rss_bytes);
    report.value("pss_bytes_per_stream", per_stream(|usage| usage.pss_bytes));
    report.value("files_per_stream", per_stream(|usage| usage.files as u64));
    for (name, usage) in [("before", before), ("open", open), ("after", after)] {
        report.value(name, usage);
    }
    report.check(format!("at most {} kB a stream", arguments.kb_max), rss_bytes <= arguments.kb_max * 1_000);
    report.check("no stream is left in weir", ended.is_some());
    report.check("no file is left open", after.files <= before.files + FILES_LEFT_MAX);
    Ok(report)
}

/// Opens streams, waits until all are idle, looks at the process, and leaves them.
async fn open_and_leave(target: &Target, count: usize, words: &str) -> Result<Usage, TargetError> {
    let mut streams = Vec::with_capacity(count);
    for n in 0..count {
        let thread = target.api.create_thread().await?;
        let mut stream = target.api.send(&thread, MOCK, MODEL, &prompt(words, n)).await?;
        stream.next_named("delta").await?;
        streams.push(stream);
    }
    let usage = settled(target).await?;
    drop(streams);
    seen(target, |counts| counts.streams_live == 0).await;
    Ok(usage)
}

/// What the process uses once checkpoints and keep-alives of the moment are over.
async fn settled(target: &Target) -> Result<Usage, TargetError> {
    sleep(Duration::from_secs(2)).await;
    target.usage()
}
