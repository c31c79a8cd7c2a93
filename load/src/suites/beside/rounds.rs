//! Rounds: what the same measurement says when it is made several times.

use serde::Serialize;

use crate::samples::rounded;

/// The median of the rounds and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(in crate::suites) struct Spread {
    /// In the middle.
    pub(in crate::suites) median: f64,
    /// The lowest.
    pub(in crate::suites) min: f64,
    /// The highest.
    pub(in crate::suites) max: f64,
}

impl Spread {
    /// Of the rounds that say anything; `None` if there are none.
    pub(in crate::suites) fn of(rounds: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let mut rounds: Vec<f64> = rounds.into_iter().flatten().collect();
        rounds.sort_by(f64::total_cmp);
        let (min, max) = (*rounds.first()?, *rounds.last()?);
        let (low, high) = (rounds[(rounds.len() - 1) / 2], rounds[rounds.len() / 2]);
        Some(Self { median: rounded((low + high) / 2.0), min: rounded(min), max: rounded(max) })
    }
}

/// How many times the second the first is; `None` if there is no such number, because the second is nothing.
pub(in crate::suites) fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    let (one, other) = one.zip(other)?;
    (other > 0.0).then(|| rounded(one / other))
}
