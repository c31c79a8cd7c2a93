//! Fan-out: what it costs weir to deliver one event of one stream to one of many listeners, and how long that takes.

mod nchan;
mod round;

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::beside::{self, Site};
use super::cpu::{REST, report_ratio};
use super::tap::Tally;
use super::{progress, prompt, seen};
use crate::report::Report;
use crate::target::{MOCK, Settings, Target, TargetArguments, TargetError};
use nchan::Nchan;
use round::{Round, Rounds};

/// Measures the processor time of a delivered event.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Measures this beside weir, in the same run; what is not installed is left out, with a word.
    #[arg(long, value_enum, value_name = "WHAT")]
    beside: Option<Beside>,
    /// The nginx to start.
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    nginx: PathBuf,
    /// Listeners of the stream.
    #[arg(long, default_value_t = 1_000)]
    listeners: usize,
    /// Events a second; so many times the listeners are deliveries a second.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// How long each round lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// In how many rounds; what is reported are their medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Beside {
    /// Nginx's publisher and subscribers.
    Nchan,
}

/// The text of an event: the time of its writing.
const TEXT_LEN: usize = 20;

impl Arguments {
    fn rate(&self) -> u32 {
        self.rate.clamp(1, 1_000)
    }

    fn gap(&self) -> Duration {
        Duration::from_millis(u64::from(1_000 / self.rate()))
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Deliveries a second.
    fn deliveries(&self) -> f64 {
        self.listeners as f64 / self.gap().as_secs_f64()
    }
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let mut report = Report::new("fanout");
    let target = Target::start(&arguments.target, Settings::cancelling().listeners(arguments.listeners)).await?;
    target.cpu_time()?;
    let nchan = match arguments.beside {
        Some(Beside::Nchan) => beside::start(&arguments.nginx, "nchan", Site::Nchan, &mut report).await,
        None => None,
    };
    let nchan = nchan.map(Nchan::new).transpose()?;
    let rounds = arguments.rounds.max(1);
    let bar = progress::steps(rounds * (1 + usize::from(nchan.is_some())), "deliveries to listeners");
    let (mut of_weir, mut of_nchan) = (Rounds::default(), Rounds::default());
    for n in 0..rounds {
        // Who comes first has the colder caches: take turns.
        let turns = if n % 2 == 0 { ["weir", "nchan"] } else { ["nchan", "weir"] };
        for turn in turns {
            match &nchan {
                Some(nchan) if turn == "nchan" => of_nchan.add(nchan.listen(arguments).await?),
                _ if turn == "weir" => of_weir.add(listen(&target, arguments, n).await?),
                _ => continue,
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    report.value("listeners", arguments.listeners);
    of_weir.report(&mut report, "", arguments.deliveries());
    if let Some(nchan) = &nchan {
        report.value("nginx_workers", nchan.workers()?);
        of_nchan.report(&mut report, "nchan", arguments.deliveries());
        report_ratio(&mut report, &of_weir.used, &of_nchan.used);
        nchan.report_publishing(&mut report, &of_weir, &of_nchan, arguments.listeners).await?;
    }
    Ok(report)
}

/// One round of weir: the listeners of one answer.
async fn listen(target: &Target, arguments: &Arguments, n: usize) -> Result<Round, TargetError> {
    let model = format!("stamped@tokens=10000000,gap_ms={},bytes={TEXT_LEN}", arguments.gap().as_millis());
    let thread = target.api.create_thread().await?;
    let calls = target.mock.counts().calls_started;
    let (mut readers, tally) = (JoinSet::new(), Tally::new(arguments.listeners));
    let leader = target.api.send(&thread, MOCK, &model, &prompt("fan out", n)).await?;
    readers.spawn(tally.clone().count(0, leader));
    for n in 1..arguments.listeners {
        let follower = target.api.join(&thread).await?;
        readers.spawn(tally.clone().count(n, follower));
    }
    let mut round = Round::measure(|| target.cpu_time(), &tally, arguments.wall()).await?;
    let calls = target.mock.counts().calls_started - calls;
    round.broken = (0..).map_while(|_| readers.try_join_next()).count();
    readers.shutdown().await;
    let left = seen(target, |counts| counts.streams_live == 0).await;
    round.require("weir: one upstream call", calls == 1);
    round.require("weir: the last listener that leaves ends the call", left.is_some());
    sleep(REST).await;
    Ok(round)
}
