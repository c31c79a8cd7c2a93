//! Idle: what an open stream costs in memory while nothing happens on it, whether it still gets what comes later, and
//! what is left of it afterwards.

mod provider;

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use rustix::process::{Resource, getrlimit};
use tokio::time::{sleep, timeout};

use super::{progress, prompt, until_within};
use crate::client::{ClientError, Events};
use crate::mock::Mock;
use crate::report::Report;
use crate::target::{ApiError, MOCK, Settings, Target, TargetArguments, TargetError, Usage};
use provider::Provider;

/// Measures the memory of an open stream.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Streams at once, each of a client of its own.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// They listen to few answers, instead of each having a call of its own.
    #[arg(long)]
    listeners_only: bool,
    /// To how many, with --listeners-only.
    #[arg(long, default_value_t = 1, requires = "listeners_only")]
    answers: usize,
    /// The most memory that one may take, in kilobytes.
    #[arg(long, default_value_t = 64)]
    kb_max: u64,
}

/// A piece at once; a second one when the gate is opened; nothing after that.
const MODEL: &str = "gate@after=1,gate=1,tokens=3";
/// Streams that come and go before the measurement.
const WARM_UP: usize = 50;
/// Files that may be open afterwards beside those from before: connections that are kept for the next call.
const FILES_LEFT_MAX: usize = 16;
/// Files that weir needs beside the streams, and keeps free for others.
const OTHER_FILES: usize = 450;
/// Streams that are opened, or read, at once.
const AT_ONCE: usize = 32;
/// How long all streams together may take to be served, or to be gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at all of them.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How many streams and calls there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    streams: usize,
    calls: usize,
}

impl Shape {
    fn of(arguments: &Arguments) -> Self {
        let streams = arguments.streams.max(1);
        let calls = if arguments.listeners_only { arguments.answers.clamp(1, streams) } else { streams };
        Self { streams, calls }
    }

    /// Whether weir, which needs most of all, may open as many files.
    fn fits(self, limit: Option<u64>) -> Result<(), TargetError> {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let needed = self.streams + self.calls + OTHER_FILES;
        if needed <= limit {
            return Ok(());
        }
        let left = limit.saturating_sub(OTHER_FILES);
        let most = if self.calls == self.streams { left / 2 } else { left.saturating_sub(self.calls) };
        Err(TargetError::Files { needed, limit, most })
    }
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let shape = Shape::of(arguments);
    shape.fits(getrlimit(Resource::Nofile).maximum)?;
    let provider = Provider::start().await?;
    let settings = Settings::cancelling().streams(shape.streams, shape.calls);
    let nobody = Mock::start().await;
    let target = Target::start_with(&arguments.target, settings, nobody, provider.url()).await?;
    target.usage()?;
    let run = Run { target: &target, provider: &provider };
    let warm_up = Shape { streams: WARM_UP.min(shape.streams), calls: WARM_UP.min(shape.calls) };
    run.open_and_leave(warm_up, "warm up", &ProgressBar::hidden()).await?;
    let before = settled(&target).await?;
    let bar = progress::steps(shape.streams, "open streams");
    let open = run.open_and_leave(shape, "idle", &bar).await?;
    bar.finish_and_clear();
    let ended = until_within(PATIENCE, LOOK_INTERVAL, async || {
        Ok(target.api.streams().await?.as_array().is_some_and(Vec::is_empty))
    });
    let ended = ended.await?;
    let after = settled(&target).await?;

    let mut report = Report::new("idle");
    report.value("calls", open.calls);
    report_memory(&mut report, shape, before, open.usage, arguments.kb_max);
    for (name, usage) in [("before", before), ("open", open.usage), ("after", after)] {
        report.value(name, usage);
    }
    report.value("served", open.served);
    report.check("as many calls to the provider as answers", open.calls == shape.calls as u64);
    report.check("every stream gets what comes later", open.served == shape.streams);
    report.check("no stream is left in weir", ended.is_some());
    report.check("nothing is left at the provider", open.is_over);
    report.check("no file is left open", after.files <= before.files + FILES_LEFT_MAX);
    Ok(report)
}

fn report_memory(report: &mut Report, shape: Shape, before: Usage, open: Usage, kb_max: u64) {
    let per_stream = |of: fn(&Usage) -> u64| of(&open).saturating_sub(of(&before)) / shape.streams as u64;
    let rss_bytes = per_stream(|usage| usage.rss_bytes);
    report.value("streams", shape.streams);
    report.value("rss_bytes_per_stream", rss_bytes);
    report.value("pss_bytes_per_stream", per_stream(|usage| usage.pss_bytes));
    report.value("files_per_stream", per_stream(|usage| usage.files as u64));
    report.check(format!("at most {kb_max} kB a stream"), rss_bytes <= kb_max * 1_000);
}

/// What was seen while streams were open.
struct Open {
    usage: Usage,
    /// Answers that the provider gave.
    calls: u64,
    /// Streams that got their second piece.
    served: usize,
    /// Whether the provider was rid of all calls soon after.
    is_over: bool,
}

struct Run<'r> {
    target: &'r Target,
    provider: &'r Provider,
}

impl Run<'_> {
    /// Opens streams, waits until all are idle, looks at the process, lets each have another piece, and leaves them.
    async fn open_and_leave(&self, shape: Shape, words: &str, bar: &ProgressBar) -> Result<Open, TargetError> {
        let mut streams = self.open(shape, words, bar).await?;
        let usage = settled(self.target).await?;
        let calls = self.provider.running().await?;
        self.provider.open_gates(shape.calls).await?;
        let pieces = stream::iter(&mut streams).map(async |events| events.next_named("delta").await.is_ok());
        let served = pieces.buffer_unordered(AT_ONCE).filter(|is_served| std::future::ready(*is_served)).count();
        let served = timeout(PATIENCE, served).await.unwrap_or_default();
        drop(streams);
        let over = until_within(PATIENCE, LOOK_INTERVAL, async || Ok(self.provider.running().await? == 0)).await?;
        Ok(Open { usage, calls, served, is_over: over.is_some() })
    }

    /// Opens them: first one for each answer, then those who listen to them as well.
    async fn open(&self, shape: Shape, words: &str, bar: &ProgressBar) -> Result<Vec<Events>, ApiError> {
        let api = &self.target.api;
        let asked = stream::iter(0..shape.calls).map(async |n| {
            let thread = api.create_thread().await?;
            let events = api.send(&thread, MOCK, MODEL, &prompt(words, n)).await?;
            Ok::<_, ApiError>((thread, begun(events, bar).await?))
        });
        let (threads, mut streams): (Vec<_>, Vec<_>) =
            asked.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?.into_iter().unzip();
        let joined = stream::iter(threads.iter().cycle().take(shape.streams - shape.calls))
            .map(async |thread| begun(api.join(thread).await?, bar).await);
        streams.extend(joined.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?);
        Ok(streams)
    }
}

/// The stream, once its first piece has come, or what others have heard so far.
async fn begun(mut events: Events, bar: &ProgressBar) -> Result<Events, ApiError> {
    let first = async {
        while let Some(arrived) = events.next().await? {
            if matches!(arrived.event.name.as_str(), "delta" | "snapshot") {
                return Ok(());
            }
        }
        Err(ClientError::Cut)
    };
    timeout(PATIENCE, first).await.map_err(|_| ApiError::Timeout)??;
    bar.inc(1);
    Ok(events)
}

/// What the process uses once checkpoints and keep-alives of the moment are over.
async fn settled(target: &Target) -> Result<Usage, TargetError> {
    sleep(Duration::from_secs(2)).await;
    target.usage()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(shape: Shape, limit: u64) -> Option<usize> {
        match shape.fits(Some(limit)) {
            Err(TargetError::Files { most, .. }) => Some(most),
            _ => None,
        }
    }

    #[test]
    fn streams_that_need_more_files_than_there_may_be_are_refused_with_what_would_do() {
        let own = |streams| Shape { streams, calls: streams };

        let most_own = most(own(10_000), 20_000).unwrap();
        assert_eq!(most_own, 9_775);
        assert_eq!((most(own(most_own), 20_000), most(own(most_own + 1), 20_000)), (None, Some(most_own)));
        assert!(own(1_000_000).fits(None).is_ok());
    }

    #[test]
    fn listeners_of_few_answers_need_one_file_each() {
        let shared = |streams| Shape { streams, calls: 3 };

        assert_eq!(most(shared(10_000), 20_000), None);
        assert_eq!(most(shared(20_000), 20_000), Some(19_547));
    }
}
