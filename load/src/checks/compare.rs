//! Compare: two running weirs side by side, so that a busy machine is unfair to neither.

use std::time::Duration;

use serde_json::json;

use super::{Access, Site, question};
use crate::report::Report;
use crate::samples::{Samples, rounded};
use crate::target::TargetError;

/// Compares the times to the first token of two running weirs, in turns.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One.
    a: String,
    /// The other.
    b: String,
    #[command(flatten)]
    access: Access,
    /// Answers of each.
    #[arg(short, default_value_t = 50)]
    n: usize,
    /// The seed of the resampling, to repeat it.
    #[arg(long)]
    seed: Option<u64>,
    /// How many times as long B may take at the median, at the lower end of the confidence interval.
    #[arg(long, default_value_t = f64::INFINITY)]
    ratio_max: f64,
}

/// Resamples behind a confidence interval.
const RESAMPLES: usize = 2_000;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let a = Site::at(&arguments.a, &arguments.access).await?;
    let b = Site::at(&arguments.b, &arguments.access).await?;
    let mut taken = [Vec::new(), Vec::new()];
    // The first of each opens connections that the others use.
    for site in [&a, &b] {
        site.ask_and_cancel(&question("warm up")).await?;
    }
    for n in 0..arguments.n {
        // Who comes first has the colder caches: take turns.
        for turn in [n % 2, (n + 1) % 2] {
            let site = [&a, &b][turn];
            taken[turn].push(site.ask_and_cancel(&question(n)).await?.ttft);
        }
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let (ratio, low, high) = ratio(&taken[0], &taken[1], &mut fastrand::Rng::with_seed(seed));
    let mut report = Report::new("compare");
    report.value("a", taken[0].iter().copied().collect::<Samples>().summary());
    report.value("b", taken[1].iter().copied().collect::<Samples>().summary());
    report.value("ttft_b_over_a", json!({"median": rounded(ratio), "low_95": rounded(low), "high_95": rounded(high)}));
    report.value("seed", seed);
    if arguments.ratio_max.is_finite() {
        report.check(format!("B takes at most {} times as long as A", arguments.ratio_max), low <= arguments.ratio_max);
    }
    Ok(report)
}

/// The ratio of the medians, with the 95 % interval of the percentile bootstrap (Efron 1979).
fn ratio(a: &[Duration], b: &[Duration], dice: &mut fastrand::Rng) -> (f64, f64, f64) {
    let of = |a: Vec<Duration>, b: Vec<Duration>| median(b) / median(a).max(f64::MIN_POSITIVE);
    let mut resample =
        |from: &[Duration]| (0..from.len()).filter_map(|_| dice.choice(from).copied()).collect::<Vec<_>>();
    let mut ratios: Vec<_> = (0..RESAMPLES).map(|_| of(resample(a), resample(b))).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((RESAMPLES - 1) as f64 * share) as usize];
    (of(a.to_vec(), b.to_vec()), at(0.025), at(0.975))
}

fn median(mut taken: Vec<Duration>) -> f64 {
    taken.sort();
    taken.get(taken.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_contains_the_true_ratio_and_not_another_one() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut times =
            |around_us: u64| (0..200).map(|_| Duration::from_micros(around_us + dice.u64(0..50))).collect::<Vec<_>>();
        let (a, b) = (times(1_000), times(2_000));

        let (ratio, low, high) = ratio(&a, &b, &mut fastrand::Rng::with_seed(seed));

        assert!(low <= ratio && ratio <= high);
        assert!(low > 1.8 && high < 2.2, "{low} {high}");
    }
}
