//! TTFT: what weir adds to the time to the first token, and whether it keeps tokens apart.
//!
//! Both ways are measured by the same client in the same run, in turns, so that a busy machine is unfair to neither.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;

use super::prompt;
use crate::client::{Client, ClientError, Events, Request};
use crate::report::Report;
use crate::samples::{Samples, rounded};
use crate::target::{MOCK, Settings, Target, TargetArguments, TargetError};

/// Compares the time to the first token with and without weir.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How many answers each way.
    #[arg(short, default_value_t = 400)]
    n: usize,
    /// How many at once each way.
    #[arg(short, default_value_t = 10)]
    concurrency: usize,
    /// The most that may be added at the median, in milliseconds.
    #[arg(long, default_value_t = 5.0)]
    added_p50_max_ms: f64,
    /// The most that may be added at the 99th percentile, in milliseconds.
    #[arg(long, default_value_t = 50.0)]
    added_p99_max_ms: f64,
}

/// An answer of a second: as many run at once as there are workers, without the machine being busy with anything else.
const SHORT: &str = "text@tokens=20,gap_ms=50";
/// How long one of them takes.
const SHORT_TAKES: Duration = Duration::from_millis(1_000);
const LONG: &str = "text@tokens=200,gap_ms=5,bytes=16";
/// Between two tokens of [`LONG`].
const GAP: Duration = Duration::from_millis(5);
/// Streams whose tokens are watched at once, each way; more would measure the machine.
const GAP_STREAMS_MAX: usize = 5;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::default()).await?;
    let direct = Client::new(&target.mock.url())?;
    let concurrency = arguments.concurrency.max(1);
    let rounds = arguments.n.div_ceil(concurrency);
    // Caches, pools and allocators are warm in production, too.
    run_rounds(&target, &direct, concurrency, 1, "warm up").await?;
    let (without, with) = run_rounds(&target, &direct, concurrency, rounds, "measure").await?;

    let mut report = Report::new("ttft");
    report.value("direct", without.summary());
    report.value("weir", with.summary());
    for (name, percentile, max_ms) in
        [("p50", 50.0, arguments.added_p50_max_ms), ("p99", 99.0, arguments.added_p99_max_ms)]
    {
        let added = with.percentile_ms(percentile).zip(without.percentile_ms(percentile));
        let added = added.map(|(with, without)| rounded(with - without));
        report.value(&format!("added_{name}_ms"), added);
        report.check(format!("at most {max_ms} ms are added at {name}"), added.is_some_and(|added| added <= max_ms));
    }
    report_gaps(&mut report, &target, &direct, concurrency.min(GAP_STREAMS_MAX)).await?;
    Ok(report)
}

/// The times to the first token: without weir, with weir.
async fn run_rounds(
    target: &Target,
    direct: &Client,
    concurrency: usize,
    rounds: usize,
    words: &str,
) -> Result<(Samples, Samples), TargetError> {
    let workers = (0..concurrency).map(async |worker| {
        let (mut without, mut with) = (Samples::default(), Samples::default());
        // Spread over the time that an answer takes, as clients are.
        tokio::time::sleep(SHORT_TAKES.mul_f64(worker as f64 / concurrency as f64)).await;
        for round in 0..rounds {
            let prompt = prompt(words, format_args!("{worker}.{round}"));
            let thread = target.api.create_thread().await?;
            // Who comes first has the colder caches: take turns.
            for turn in [round % 2, (round + 1) % 2] {
                if turn == 0 {
                    let mut stream = open_direct(direct, SHORT, &prompt).await?;
                    without.add(first_token(&mut stream, Dialect::Openai).await?);
                } else {
                    let mut stream = target.api.send(&thread, MOCK, SHORT, &prompt).await?;
                    with.add(first_token(&mut stream, Dialect::Weir).await?);
                }
            }
        }
        Ok::<_, TargetError>((without, with))
    });
    let (mut without, mut with) = (Samples::default(), Samples::default());
    for (worker_without, worker_with) in try_join_all(workers).await? {
        without.merge(&worker_without);
        with.merge(&worker_with);
    }
    Ok((without, with))
}

#[derive(Debug, Clone, Copy)]
enum Dialect {
    Openai,
    Weir,
}

impl Dialect {
    fn is_token(self, event: &crate::sse::Event) -> bool {
        match self {
            Dialect::Weir => event.name == "delta",
            Dialect::Openai => {
                let content = &event.json()["choices"][0]["delta"]["content"];
                content.as_str().is_some_and(|content| !content.is_empty())
            }
        }
    }
}

async fn open_direct(direct: &Client, model: &str, prompt: &str) -> Result<Events, ClientError> {
    let messages = json!([{"role": "user", "content": prompt}]);
    let body = json!({"model": model, "messages": messages, "stream": true});
    direct.open(Request::post("/chat/completions", &body)).await
}

/// The time to the first token; reads the stream to its end.
async fn first_token(stream: &mut Events, dialect: Dialect) -> Result<Duration, ClientError> {
    let sent = stream.sent();
    let mut first = None;
    while let Some(arrived) = stream.next().await? {
        if first.is_none() && dialect.is_token(&arrived.event) {
            first = Some(arrived.at - sent);
        }
    }
    first.ok_or(ClientError::Cut)
}

/// How far apart the tokens of one stream arrive.
#[derive(Debug, Default)]
struct Gaps {
    samples: Samples,
    tokens: u64,
    shared_reads: u64,
}

impl Gaps {
    async fn read(stream: &mut Events, dialect: Dialect) -> Result<Self, ClientError> {
        let mut gaps = Self::default();
        let (mut last, mut last_shared) = (None, None);
        while let Some(arrived) = stream.next().await? {
            if !dialect.is_token(&arrived.event) {
                continue;
            }
            gaps.tokens += 1;
            if let Some((at, read)) = last.replace((arrived.at, arrived.read)) {
                gaps.samples.add(arrived.at - at);
                if read == arrived.read && last_shared.replace(read) != Some(read) {
                    gaps.shared_reads += 1;
                }
            }
        }
        Ok(gaps)
    }

    fn merge(mut self, other: &Gaps) -> Self {
        self.samples.merge(&other.samples);
        self.tokens += other.tokens;
        self.shared_reads += other.shared_reads;
        self
    }
}

async fn report_gaps(report: &mut Report, target: &Target, direct: &Client, streams: usize) -> Result<(), TargetError> {
    let both = (0..streams).map(async |n| {
        let prompt = prompt("gaps", n);
        let thread = target.api.create_thread().await?;
        let mut with = target.api.send(&thread, MOCK, LONG, &prompt).await?;
        let mut without = open_direct(direct, LONG, &prompt).await?;
        let read = (Gaps::read(&mut without, Dialect::Openai), Gaps::read(&mut with, Dialect::Weir));
        let (without, with) = tokio::join!(read.0, read.1);
        Ok::<_, TargetError>((without?, with?))
    });
    let both = try_join_all(both).await?;
    let (without, with) = both
        .into_iter()
        .fold((Gaps::default(), Gaps::default()), |sum, (without, with)| (sum.0.merge(&without), sum.1.merge(&with)));
    report.value("token_gap_ms", u64::try_from(GAP.as_millis()).unwrap_or(u64::MAX));
    for (name, gaps) in [("direct", &without), ("weir", &with)] {
        report.value(&format!("gaps_{name}"), gaps.samples.summary());
        report.value(&format!("shared_reads_{name}"), format!("{} of {} tokens", gaps.shared_reads, gaps.tokens));
    }
    report.check("as many tokens with weir as without", with.tokens == without.tokens);
    // Tokens that share a read have been held back: at most a few more than the machine does by itself.
    let allowed = without.shared_reads + with.tokens / 20;
    report.check("tokens are not held back to be sent together", with.shared_reads <= allowed);
    Ok(())
}
