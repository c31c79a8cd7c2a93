//! Round: what the deliveries of some seconds have cost, how long they took, and whether everybody got them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::report::Report;
use crate::samples::{Samples, rounded};
use crate::suites::beside::Spread;
use crate::suites::cpu::{Used, measure};
use crate::suites::tap::Tally;
use crate::target::TargetError;

/// How much of what is sent has to arrive in time.
const SHARE_MIN: f64 = 0.9;

/// One round.
#[derive(Debug)]
pub(super) struct Round {
    used: Used,
    /// From the writing of an event to its arrival.
    ages: Samples,
    bytes: u64,
    /// What the listener got that got least, as a share of what all got on average.
    least: f64,
    /// Listeners that were cut off.
    pub(super) broken: usize,
    required: Vec<(&'static str, bool)>,
}

impl Round {
    /// Measures the deliveries to listeners that are there already.
    pub(super) async fn measure(
        cpu: impl Fn() -> Result<Duration, TargetError>,
        tally: &Tally,
        wall: Duration,
    ) -> Result<Self, TargetError> {
        let before = std::cell::OnceCell::new();
        // Asked for at the beginning and at the end of what is measured.
        let cpu = || {
            before.get_or_init(|| {
                tally.watch_ages();
                (tally.each(), tally.bytes())
            });
            cpu()
        };
        let used = measure(cpu, tally, wall).await?;
        let (each, bytes) = before.into_inner().unwrap_or_default();
        let (ages, bytes) = (tally.take_ages(), tally.bytes() - bytes);
        let least = least(&each, &tally.each());
        Ok(Self { used, ages, bytes, least, broken: 0, required: Vec::new() })
    }

    /// Notes whether something is as it must be.
    pub(super) fn require(&mut self, what: &'static str, holds: bool) {
        self.required.push((what, holds));
    }
}

/// What the listener got that got least, as a share of what all got on average.
fn least(before: &[u64], after: &[u64]) -> f64 {
    let got: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let (least, all) = (got.iter().min().copied().unwrap_or_default(), got.iter().sum::<u64>());
    if all == 0 { 0.0 } else { least as f64 * got.len() as f64 / all as f64 }
}

/// The rounds of one of those who are compared.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// What they have cost.
    pub(super) used: Vec<Used>,
    rounds: Vec<Round>,
}

impl Rounds {
    /// Adds a round.
    pub(super) fn add(&mut self, round: Round) {
        self.used.push(round.used);
        self.rounds.push(round);
    }

    /// The median of what a delivery costs, in microseconds.
    pub(super) fn each_us(&self) -> Option<f64> {
        Spread::of(self.used.iter().map(Used::each_us)).map(|each| each.median)
    }

    /// Tells them; `deliveries` a second were sent. `who` is empty for weir.
    pub(super) fn report(&self, report: &mut Report, who: &str, deliveries: f64) {
        let name = |name: &str| if who.is_empty() { name.to_owned() } else { format!("{who}_{name}") };
        let who = if who.is_empty() { "weir" } else { who };
        Used::report(&self.used, report, if who == "weir" { "" } else { who }, "event");
        let mut ages = Samples::default();
        self.rounds.iter().for_each(|round| ages.merge(&round.ages));
        report.value(&name("delivery"), ages.summary());
        let p99 = Spread::of(self.rounds.iter().map(|round| round.ages.percentile_ms(99.0)));
        report.value(&name("delivery_p99_ms_rounds"), p99);
        let (bytes, events) = (self.rounds.iter().map(|round| round.bytes).sum::<u64>(), ages.count());
        report.value(&name("bytes_per_event"), (events > 0).then(|| rounded(bytes as f64 / events as f64)));

        let holds = |check: &dyn Fn(&Round) -> bool| self.rounds.iter().all(check);
        report.check(format!("{who}: no listener is cut off"), holds(&|round| round.broken == 0));
        let is_fast = holds(&|round| round.used.rate() >= SHARE_MIN * deliveries);
        report.check(format!("{who}: events come as fast as they are sent (90 %)"), is_fast);
        report.check(format!("{who}: to every listener"), holds(&|round| round.least >= SHARE_MIN));
        let mut required = BTreeMap::new();
        for (what, is_so) in self.rounds.iter().flat_map(|round| &round.required) {
            *required.entry(*what).or_insert(true) &= is_so;
        }
        required.into_iter().for_each(|(what, is_so)| report.check(what, is_so));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_less_than_others_is_noticed() {
        assert_eq!(least(&[5, 0], &[15, 10]), 1.0);
        assert_eq!(least(&[0, 0], &[15, 5]), 0.5);
        assert_eq!(least(&[5, 5], &[5, 25]), 0.0);
        assert_eq!(least(&[5, 5], &[5, 5]), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_required_in_every_round_fails_with_one_of_them() {
        let mut rounds = Rounds::default();
        for is_so in [true, false, true] {
            let tally = Tally::new(1);
            let mut round = Round::measure(|| Ok(Duration::ZERO), &tally, Duration::from_secs(1)).await.unwrap();
            round.require("this", is_so);
            rounds.add(round);
        }
        let mut report = Report::new("fanout");
        rounds.report(&mut report, "", 0.0);

        let checks = report.json()["checks"].clone();
        let this = checks.as_array().unwrap().iter().find(|check| check["check"] == "this").unwrap();
        assert_eq!(this["ok"], false, "{report}");
    }
}
