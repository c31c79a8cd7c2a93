//! Guardrail: whether weir has become slower than it was.
//!
//! Each figure is compared as a multiple of a reference that is measured beside it: the provider without weir, or a bare
//! relay in weir's place. What slows the machine slows both. Rounds of both take turns, the least of each or the round in the
//! middle counts, and a metric is slower only if it is so in each of several tries, each with a weir of its own.

mod baseline;
mod cost;
mod direct;
mod ground;
mod latency;
mod metrics;
pub mod relay;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

pub use baseline::{Baseline, BaselineError, Entry};
pub use ground::GroundError;
pub use metrics::{Figure, Metric};

use crate::report::Report;
use crate::samples::rounded;
use ground::Ground;

/// Compares weir's figures with those of the baseline.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The program to start [default: weir, beside this program].
    #[arg(long, value_name = "PATH")]
    weir: Option<PathBuf>,
    /// What to compare with.
    #[arg(long, value_name = "FILE", default_value = "load/baseline.json")]
    baseline: PathBuf,
    /// Measures, and writes the baseline anew instead of comparing with it.
    #[arg(long)]
    write_baseline: bool,
    /// How often a metric is tried before it counts as slower; how many tries a new baseline is the middle of.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    tries: u8,
    /// Only these.
    #[arg(long, value_enum, value_name = "METRIC", value_delimiter = ',')]
    only: Vec<Metric>,
    /// Puts somebody in front of weir who holds every request back for so long: the check must then find it slower.
    #[arg(long, default_value_t = 0, conflicts_with = "write_baseline")]
    slow_ms: u64,
}

/// A ratio of less than this share of the baseline's says that the baseline is out of date.
const FASTER_SHARE: f64 = 0.6;

/// Why nothing was compared.
#[derive(Debug)]
pub enum GuardrailError {
    /// There is nothing to compare with.
    Baseline(BaselineError),
    /// There is nothing to compare.
    Ground(GroundError),
}

impl fmt::Display for GuardrailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardrailError::Baseline(error) => error.fmt(f),
            GuardrailError::Ground(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GuardrailError {}

impl From<BaselineError> for GuardrailError {
    fn from(error: BaselineError) -> Self {
        GuardrailError::Baseline(error)
    }
}

impl From<GroundError> for GuardrailError {
    fn from(error: GroundError) -> Self {
        GuardrailError::Ground(error)
    }
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, GuardrailError> {
    let is_meant = |metric: &Metric| arguments.only.is_empty() || arguments.only.contains(metric);
    let metrics: Vec<_> = Metric::ALL.into_iter().filter(is_meant).collect();
    if arguments.write_baseline { write(arguments, &metrics).await } else { compare(arguments, &metrics).await }
}

async fn write(arguments: &Arguments, metrics: &[Metric]) -> Result<Report, GuardrailError> {
    let older = arguments.baseline.exists().then(|| Baseline::read(&arguments.baseline)).transpose()?;
    let mut tries = Vec::new();
    for _ in 0..arguments.tries {
        tries.push(measure(arguments, metrics).await?);
    }
    let middle = |n: usize| Figure::median(tries.iter().map(|figures| figures[n].1).collect());
    let figures: Vec<_> = metrics.iter().enumerate().filter_map(|(n, metric)| Some((*metric, middle(n)?))).collect();
    Baseline::new(&figures, older).write(&arguments.baseline)?;
    let mut report = Report::new("check");
    report.value("written", arguments.baseline.display().to_string());
    for (metric, figure) in figures {
        report.value(metric.name(), format!("{} = {}", Sum(metric, figure), rounded(figure.ratio())));
    }
    Ok(report)
}

async fn compare(arguments: &Arguments, metrics: &[Metric]) -> Result<Report, GuardrailError> {
    let baseline = Baseline::read(&arguments.baseline)?;
    let mut findings = Vec::new();
    for metric in metrics {
        let entry = baseline.entry(*metric, &arguments.baseline)?.clone();
        findings.push(Finding { metric: *metric, entry, figures: Vec::new() });
    }
    for _ in 0..arguments.tries {
        let slower: Vec<_> =
            findings.iter().filter(|finding| finding.is_slower()).map(|finding| finding.metric).collect();
        if slower.is_empty() {
            break;
        }
        for (metric, figure) in measure(arguments, &slower).await? {
            findings
                .iter_mut()
                .filter(|finding| finding.metric == metric)
                .for_each(|finding| finding.figures.push(figure));
        }
    }
    Ok(report(&findings))
}

/// One try: these metrics, in this order, of a weir that has just been started.
async fn measure(arguments: &Arguments, metrics: &[Metric]) -> Result<Vec<(Metric, Figure)>, GroundError> {
    let slow = Duration::from_millis(arguments.slow_ms);
    let has_relay = metrics.iter().any(|metric| metric.needs_relay());
    let ground = Ground::start(arguments.weir.clone(), has_relay, slow).await?;
    let mut order = metrics.to_vec();
    // Memory says something only as long as nothing else has been there.
    order.sort_by_key(|metric| *metric != Metric::RssPerStream);
    let mut figures = Vec::new();
    for metric in order {
        let figure = match metric {
            Metric::AddedTtft => latency::added_ttft(&ground).await?,
            Metric::AddedGap => latency::added_gap(&ground).await?,
            Metric::CancelLatency => latency::cancel_latency(&ground).await?,
            Metric::CpuPerChunk => cost::cpu_per_chunk(&ground).await?,
            Metric::CpuPerDelivery => cost::cpu_per_delivery(&ground).await?,
            Metric::RssPerStream => cost::rss_per_stream(&ground).await?,
        };
        figures.push((metric, figure));
    }
    figures.sort_by_key(|(metric, _)| *metric);
    Ok(figures)
}

/// What was found of one metric.
#[derive(Debug)]
struct Finding {
    metric: Metric,
    entry: Entry,
    /// One for each try.
    figures: Vec<Figure>,
}

impl Finding {
    /// The best of all tries: the one that the machine's other work has disturbed least.
    fn best(&self) -> Option<Figure> {
        self.figures.iter().copied().min_by(|a, b| a.ratio().total_cmp(&b.ratio()))
    }

    /// Whether no try so far was within the limit.
    fn is_slower(&self) -> bool {
        self.best().is_none_or(|best| best.ratio() > self.entry.limit())
    }

    fn json(&self) -> Value {
        let best = self.best();
        let ratios: Vec<_> = self.figures.iter().map(|figure| rounded(figure.ratio())).collect();
        json!({
            "metric": self.metric.name(),
            "unit": self.metric.unit(),
            "measured": best.map(|best| rounded(best.measured)),
            "reference": best.map(|best| rounded(best.reference)),
            "ratio": best.map(|best| rounded(best.ratio())),
            "baseline": self.entry.ratio,
            "limit": rounded(self.entry.limit()),
            "ratios": ratios,
            "verdict": self.verdict(),
        })
    }

    fn verdict(&self) -> &'static str {
        if self.is_slower() { "slower" } else { "ok" }
    }

    fn row(&self) -> [String; 6] {
        let best = self.best();
        let number = |number: f64| format!("{number:.2}");
        [
            self.metric.name().to_owned(),
            best.map_or_else(String::new, |best| Sum(self.metric, best).to_string()),
            number(self.entry.ratio),
            best.map_or_else(String::new, |best| number(best.ratio())),
            number(self.entry.limit()),
            format!(
                "{}{}",
                self.verdict(),
                if self.figures.len() > 1 { format!(" ({} tries)", self.figures.len()) } else { String::new() }
            ),
        ]
    }
}

/// A figure with its reference.
struct Sum(Metric, Figure);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum(metric, figure) = self;
        write!(f, "{:.2} / {:.2} {}", figure.measured, figure.reference, metric.unit())
    }
}

fn report(findings: &[Finding]) -> Report {
    let mut report = Report::new("check");
    report.detail("metrics", findings.iter().map(Finding::json).collect::<Vec<_>>());
    report.check("nothing is slower than the baseline allows", !findings.iter().any(Finding::is_slower));
    let head = ["metric", "measured / reference", "baseline", "ratio", "limit", "verdict"].map(str::to_owned);
    for [metric, measured, baseline, ratio, limit, verdict] in
        std::iter::once(head).chain(findings.iter().map(Finding::row))
    {
        report.line(format!("  {metric:<17}{measured:>21}{baseline:>10}{ratio:>8}{limit:>8}  {verdict}"));
    }
    for finding in findings {
        if finding.best().is_some_and(|best| best.ratio() < FASTER_SHARE * finding.entry.ratio) {
            report.line(format!("  {} is much better than the baseline: write it anew", finding.metric.name()));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(ratios: &[f64]) -> Finding {
        let baseline = Baseline::new(&[(Metric::AddedGap, Figure { measured: 4.0, reference: 2.0 })], None);
        let entry = Entry { tolerance: 0.5, ..baseline.entry(Metric::AddedGap, "x".as_ref()).unwrap().clone() };
        let figures = ratios.iter().map(|ratio| Figure { measured: ratio * 2.0, reference: 2.0 }).collect();
        Finding { metric: Metric::AddedGap, entry, figures }
    }

    #[test]
    fn a_metric_is_slower_only_if_every_try_is_beyond_the_limit() {
        assert!(finding(&[3.1, 9.0, 3.01]).is_slower());
        assert!(!finding(&[3.1, 9.0, 2.99]).is_slower());
        assert!(finding(&[]).is_slower(), "what was not measured is not good");
    }

    #[test]
    fn the_table_has_a_row_for_each_metric_and_the_report_fails_with_any() {
        let good = report(&[finding(&[2.5])]);
        assert!(good.holds());
        assert_eq!(good.lines().len(), 2);
        assert!(good.lines()[1].ends_with("5.00 / 2.00 ms      2.00    2.50    3.00  ok"), "{good}");

        let bad = report(&[finding(&[2.5]), finding(&[3.5, 4.0, 3.75])]);
        assert!(!bad.holds());
        assert!(bad.lines()[2].ends_with("7.00 / 2.00 ms      2.00    3.50    3.00  slower (3 tries)"), "{bad}");
        let json = bad.json();
        assert_eq!(json["values"]["metrics"][1]["verdict"], "slower");
        assert_eq!(json["values"]["metrics"][1]["ratios"], json!([3.5, 4.0, 3.75]));
    }

    #[test]
    fn a_baseline_that_is_out_of_date_is_told() {
        assert!(report(&[finding(&[1.1])]).lines()[2].contains("much better"));
    }
}
