//! CPU: what it costs weir to relay one chunk of an answer to one listener.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::beside::{BesideArguments, Nginx, Spread, Way, each_us, in_turns, proxy, ratio};
use super::tap::Tally;
use super::{progress, prompt, seen};
use crate::report::Report;
use crate::samples::rounded;
use crate::target::{Settings, Target, TargetArguments, TargetError};

/// Measures the processor time of a relayed chunk.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    beside: BesideArguments,
    /// Streams at once.
    #[arg(long, default_value_t = 200)]
    streams: usize,
    /// Chunks a second in each.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How long each round lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// In how many rounds; what is reported are their medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// After a round, for what is still to be done about its streams.
pub(super) const REST: Duration = Duration::from_millis(500);
/// What is not measured, because it belongs to the starting.
const STARTING: Duration = Duration::from_secs(1);

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let mut report = Report::new("cpu");
    let target = Target::start(&arguments.target, Settings::cancelling()).await?;
    target.cpu_time()?;
    let nginx = proxy(&arguments.beside, target.mock.address(), arguments.streams, &mut report).await;
    let mut ways = vec![Arc::new(Way::weir(&target))];
    if let Some(nginx) = &nginx {
        ways.push(Arc::new(Way::nginx(nginx)?));
    }
    let rounds = arguments.rounds.max(1);
    let bar = progress::steps(rounds * ways.len(), "processor time of chunks");
    let mut found: Vec<_> = ways.iter().map(|way| (way.name, Vec::new())).collect();
    let (mut broken, mut left) = (0, 0);
    for round in 0..rounds {
        for way in in_turns(&ways, round) {
            let measured = measure_way(&target, nginx.as_ref(), &way, arguments, round).await?;
            broken += measured.broken;
            left += u64::from(!measured.is_over);
            found.iter_mut().filter(|(name, _)| *name == way.name).for_each(|(_, used)| used.push(measured.used));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if let Some(nginx) = &nginx {
        report.value("nginx_workers", nginx.workers().map_err(TargetError::Usage)?);
    }

    report.value("streams", arguments.streams);
    let expected = f64::from(rate(arguments)) * arguments.streams as f64;
    for (name, used) in &found {
        Used::report(used, &mut report, if *name == "weir" { "" } else { name }, "chunk");
        let is_fast = used.iter().all(|used| used.rate() >= 0.9 * expected);
        report.check(format!("{name}: chunks come as fast as they are sent (90 %)"), is_fast);
    }
    if let [(_, weir), (_, nginx)] = found.as_slice() {
        report_ratio(&mut report, weir, nginx);
    }
    report.check("no stream ended before the measurement", broken == 0);
    report.check("nothing is left at the provider", left == 0);
    Ok(report)
}

/// Compares what the rounds have cost.
pub(super) fn report_ratio(report: &mut Report, weir: &[Used], other: &[Used]) {
    let median = |used: &[Used]| Spread::of(used.iter().map(Used::each_us)).map(|spread| spread.median);
    report.value("ratio", ratio(median(weir), median(other)));
    let each = weir.iter().zip(other).map(|(weir, other)| ratio(weir.each_us(), other.each_us()));
    report.value("ratio_rounds", Spread::of(each));
}

fn rate(arguments: &Arguments) -> u32 {
    arguments.rate.clamp(1, 1_000)
}

/// What one way has shown in one round.
struct Measured {
    used: Used,
    /// Streams that ended before they were left.
    broken: u64,
    /// Whether the provider is rid of all of them afterwards.
    is_over: bool,
}

/// Opens the streams of one way, lets them run, and leaves them.
async fn measure_way(
    target: &Target,
    nginx: Option<&Nginx>,
    way: &Way,
    arguments: &Arguments,
    round: usize,
) -> Result<Measured, TargetError> {
    let model = format!("text@tokens=10000000,gap_ms={},bytes=12", 1_000 / rate(arguments));
    let (mut readers, tally) = (JoinSet::new(), Tally::new(arguments.streams));
    for n in 0..arguments.streams {
        let words = prompt("relay", format_args!("{}, {round}.{n}", way.name));
        let events = way.ask(way.ticket().await?, &model, &words).await?;
        readers.spawn(tally.clone().count(n, events));
    }
    let streams = arguments.streams as u64;
    seen(target, |counts| counts.streams_live == streams).await;
    let before = target.mock.counts();
    let cpu = || match nginx.filter(|_| way.name == "nginx") {
        Some(nginx) => nginx.cpu_time().map_err(TargetError::Usage),
        None => target.cpu_time(),
    };
    let used = measure(cpu, &tally, Duration::from_secs(arguments.seconds.into())).await?;
    let after = target.mock.counts();
    readers.shutdown().await;
    let is_over = seen(target, |counts| counts.streams_live == 0).await.is_some();
    sleep(REST).await;
    let broken = after.calls_aborted + after.calls_finished - before.calls_aborted - before.calls_finished;
    Ok(Measured { used, broken, is_over })
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

    /// Microseconds for each thing.
    pub(super) fn each_us(&self) -> Option<f64> {
        each_us(self.cpu, self.things)
    }

    /// Tells the medians of some rounds, of whom `who` is, if there are several.
    pub(super) fn report(rounds: &[Used], report: &mut Report, who: &str, thing: &str) {
        let name = |name: &str| if who.is_empty() { name.to_owned() } else { format!("{who}_{name}") };
        let median = |of: fn(&Used) -> f64| Spread::of(rounds.iter().map(|used| Some(of(used)))).map(|of| of.median);
        let each = Spread::of(rounds.iter().map(Used::each_us));
        report.value(&name(&format!("{thing}s")), rounds.iter().map(|used| used.things).sum::<u64>());
        report.value(&name(&format!("{thing}s_per_second")), median(Used::rate).map(f64::round));
        let percent = median(|used| 100.0 * used.cpu.as_secs_f64() / used.wall.as_secs_f64());
        report.value(&name("cpu_percent"), percent.map(rounded));
        report.value(&name(&format!("cpu_us_per_{thing}")), each.map(|each| each.median));
        report.value(&name(&format!("cpu_us_per_{thing}_rounds")), each);
    }
}

/// What `cpu` grows by while things are counted for a while.
pub(super) async fn measure(
    cpu: impl Fn() -> Result<Duration, TargetError>,
    tally: &Tally,
    wall: Duration,
) -> Result<Used, TargetError> {
    sleep(STARTING).await;
    let (start, used, things) = (Instant::now(), cpu()?, tally.total());
    sleep(wall).await;
    Ok(Used { cpu: cpu()? - used, wall: start.elapsed(), things: tally.total() - things })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_ms: u64, things: u64) -> Used {
        Used { cpu: Duration::from_millis(cpu_ms), wall: Duration::from_secs(1), things }
    }

    #[test]
    fn the_median_round_is_what_a_chunk_costs() {
        let mut report = Report::new("cpu");
        let (weir, nginx) = ([used(30, 1_000), used(90, 1_000), used(31, 1_000)], [used(10, 1_000), used(20, 1_000)]);
        Used::report(&weir, &mut report, "", "chunk");
        Used::report(&nginx, &mut report, "nginx", "chunk");
        report_ratio(&mut report, &weir, &nginx);
        let values = report.json()["values"].clone();

        assert_eq!((&values["cpu_us_per_chunk"], &values["nginx_cpu_us_per_chunk"]), (&31.0.into(), &15.0.into()));
        assert_eq!(values["chunks"], 3_000);
        assert_eq!(values["ratio"], 2.067);
        assert_eq!(values["ratio_rounds"]["max"], 4.5);
    }
}
