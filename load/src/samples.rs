//! Samples: durations and their percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// What is longer counts as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Durations, kept to three digits.
#[derive(Debug)]
pub struct Samples(Histogram<u64>);

impl Default for Samples {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("an hour with three digits is a valid range"))
    }
}

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: Duration) {
        self.0.saturating_record(u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Samples) {
        self.0.add(&other.0).expect("all have the same range");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile in milliseconds; `None` without samples.
    pub fn percentile_ms(&self, percentile: f64) -> Option<f64> {
        (self.count() > 0).then(|| milliseconds(self.0.value_at_percentile(percentile)))
    }

    /// The count and the usual percentiles in milliseconds.
    pub fn summary(&self) -> Value {
        let percentile = |percentile| self.percentile_ms(percentile);
        let max = (self.count() > 0).then(|| milliseconds(self.0.max()));
        json!({
            "count": self.count(),
            "p50_ms": percentile(50.0),
            "p95_ms": percentile(95.0),
            "p99_ms": percentile(99.0),
            "max_ms": max,
        })
    }
}

impl Extend<Duration> for Samples {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, samples: I) {
        samples.into_iter().for_each(|sample| self.add(sample));
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        let mut collected = Self::default();
        collected.extend(samples);
        collected
    }
}

/// Nanoseconds as milliseconds with three decimals.
fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1_000.0).round() / 1_000.0
}

/// A number with three decimals.
pub fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// The slope of the line that fits the points best; `None` if they have none.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_null_without_samples() {
        let samples = Samples::default();

        assert_eq!(
            samples.summary(),
            json!({"count": 0, "p50_ms": null, "p95_ms": null, "p99_ms": null, "max_ms": null})
        );
    }

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut samples: Samples = (1..=500).map(Duration::from_millis).collect();
        samples.merge(&(501..=1000).map(Duration::from_millis).collect());

        assert_eq!(samples.count(), 1000);
        for (percentile, expected) in [(50.0, 500.0), (95.0, 950.0), (99.0, 990.0)] {
            let found = samples.percentile_ms(percentile).unwrap();
            assert!((found / expected - 1.0).abs() < 0.001, "{found}");
        }
    }

    #[test]
    fn a_slope_is_the_rise_of_the_line_that_fits_best() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(2.0));
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 1.0)]), Some(0.0));
        assert_eq!(slope(&[(1.0, 1.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
