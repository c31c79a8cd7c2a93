//! Pace: how fast a provider may be called.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::section::Table;
use super::tables::check_range;

const RPS: RangeInclusive<f64> = 0.001..=1_000_000.0;
const CONCURRENCY: RangeInclusive<usize> = 1..=10_000;
const BURST: RangeInclusive<u32> = 1..=1_000_000;
const TPM: RangeInclusive<u32> = 0..=1_000_000_000;

/// How fast a provider may be called.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Calls a second, 0.001 to 1 000 000.
    pub rps: f64,
    /// Calls at once, 1 to 10 000.
    pub concurrency: usize,
    /// Calls that may start without waiting after a pause, 1 to 1 000 000.
    pub burst: u32,
    /// Tokens a minute, up to 1 000 000 000; 0: as many as one likes.
    pub tpm: u32,
}

impl Pace {
    /// `Err` names the first key that is out of its range, and says what is allowed.
    pub fn check(self) -> Result<(), (&'static str, String)> {
        let mut first = None;
        let Pace { rps, concurrency, burst, tpm } = self;
        let written = PaceTable { rps: Some(rps), concurrency: Some(concurrency), burst: Some(burst), tpm: Some(tpm) };
        written.check(&mut |key, what| {
            first.get_or_insert((key, what));
        });
        first.map_or(Ok(()), Err)
    }
}

/// A pace as it is written: what is left out comes from another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PaceTable {
    pub(super) rps: Option<f64>,
    pub(super) concurrency: Option<usize>,
    pub(super) burst: Option<u32>,
    pub(super) tpm: Option<u32>,
}

impl PaceTable {
    /// Fills in what is left out.
    pub(super) fn over(self, pace: Pace) -> Pace {
        Pace {
            rps: self.rps.unwrap_or(pace.rps),
            concurrency: self.concurrency.unwrap_or(pace.concurrency),
            burst: self.burst.unwrap_or(pace.burst),
            tpm: self.tpm.unwrap_or(pace.tpm),
        }
    }
}

impl Table for PaceTable {
    fn check(&self, wrong: &mut dyn FnMut(&'static str, String)) {
        check_range("rps", &RPS, self.rps, wrong);
        check_range("concurrency", &CONCURRENCY, self.concurrency, wrong);
        check_range("burst", &BURST, self.burst, wrong);
        check_range("tpm", &TPM, self.tpm, wrong);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_names_what_is_out_of_its_range() {
        let pace = Pace { rps: 1.0, concurrency: 1, burst: 1, tpm: 0 };

        assert_eq!(pace.check(), Ok(()));
        for rps in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e9] {
            let refused = Pace { rps, ..pace }.check().unwrap_err();
            assert_eq!(refused, ("rps", format!("{rps} is out of range: 0.001 to 1000000 are allowed")));
        }
        assert!(Pace { concurrency: 0, ..pace }.check().is_err_and(|(key, _)| key == "concurrency"));
        assert!(Pace { burst: 1_000_001, ..pace }.check().is_err_and(|(key, _)| key == "burst"));
        assert!(Pace { tpm: 1_000_000_001, ..pace }.check().is_err_and(|(key, _)| key == "tpm"));
    }
}
