//! Findings: what the rounds say together: times, what a way adds to the direct one, and how the additions compare.

use crate::report::Report;
use crate::samples::{Samples, rounded};
use crate::suites::beside::{Spread, ratio};

use super::schedule::Block;

/// What is compared: the name and the percentile.
const PERCENTILES: [(&str, f64); 2] = [("p50", 50.0), ("p99", 99.0)];

/// The rounds of every way.
#[derive(Debug)]
pub(super) struct Findings(Vec<OfWay>);

#[derive(Debug)]
struct OfWay {
    name: &'static str,
    rounds: Vec<Samples>,
    lost: u64,
    why: Option<String>,
}

impl Findings {
    /// Nothing yet of these ways.
    pub(super) fn new(ways: impl Iterator<Item = &'static str>) -> Self {
        Self(ways.map(|name| OfWay { name, rounds: Vec::new(), lost: 0, why: None }).collect())
    }

    /// Adds a round of a way.
    pub(super) fn add(&mut self, name: &str, block: Block) {
        if let Some(of) = self.0.iter_mut().find(|of| of.name == name) {
            of.rounds.push(block.times);
            of.lost += block.lost;
            of.why = of.why.take().or(block.why);
        }
    }

    /// Tells everything.
    pub(super) fn report(&self, report: &mut Report, p50_max_ms: f64, p99_max_ms: f64) {
        for of in &self.0 {
            report.value(of.name, of.all().summary());
        }
        for ((name, percentile), max_ms) in PERCENTILES.into_iter().zip([p50_max_ms, p99_max_ms]) {
            let added = Spread::of(self.added("weir", percentile));
            report.value(&format!("added_{name}_ms"), added.map(|added| added.median));
            report.value(&format!("added_{name}_ms_rounds"), added);
            let is_less = added.is_some_and(|added| added.median <= max_ms);
            report.check(format!("at most {max_ms} ms are added at {name}"), is_less);
            if self.of("nginx").is_some() {
                self.report_nginx(report, name, percentile, added);
            }
        }
        for of in &self.0 {
            if let Some(why) = &of.why {
                report.line(format!("{}: {} lost, one of them: {why}", of.name, of.lost));
            }
            report.check(format!("{}: no answer is lost", of.name), of.lost == 0);
        }
    }

    fn report_nginx(&self, report: &mut Report, name: &str, percentile: f64, weir: Option<Spread>) {
        let nginx = Spread::of(self.added("nginx", percentile));
        report.value(&format!("added_nginx_{name}_ms"), nginx.map(|added| added.median));
        report.value(&format!("added_nginx_{name}_ms_rounds"), nginx);
        let of_medians = ratio(weir.map(|added| added.median), nginx.map(|added| added.median));
        report.value(&format!("ratio_added_{name}"), of_medians);
        let each = self.added("weir", percentile).zip(self.added("nginx", percentile));
        report.value(&format!("ratio_added_{name}_rounds"), Spread::of(each.map(|(weir, nginx)| ratio(weir, nginx))));
        let total = |way| Spread::of(self.rounds(way, percentile)).map(|total| total.median);
        report.value(&format!("ratio_total_{name}"), ratio(total("weir"), total("nginx")));
    }

    /// What a way adds to the direct one, round by round.
    fn added<'f>(&'f self, way: &'f str, percentile: f64) -> impl Iterator<Item = Option<f64>> + 'f {
        let both = self.rounds(way, percentile).zip(self.rounds("direct", percentile));
        both.map(|(way, direct)| way.zip(direct).map(|(way, direct)| rounded(way - direct)))
    }

    /// A percentile of a way, round by round.
    fn rounds<'f>(&'f self, way: &'f str, percentile: f64) -> impl Iterator<Item = Option<f64>> + 'f {
        let rounds = self.of(way).map(|of| of.rounds.as_slice()).unwrap_or_default();
        rounds.iter().map(move |round| round.percentile_ms(percentile))
    }

    fn of(&self, name: &str) -> Option<&OfWay> {
        self.0.iter().find(|of| of.name == name)
    }
}

impl OfWay {
    fn all(&self) -> Samples {
        let mut all = Samples::default();
        self.rounds.iter().for_each(|round| all.merge(round));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn block(ms: u64) -> Block {
        Block { times: std::iter::repeat_n(Duration::from_millis(ms), 100).collect(), ..Block::default() }
    }

    /// The report of rounds with these times, in milliseconds.
    fn report(rounds: &[(&'static str, &[u64])]) -> Report {
        let mut findings = Findings::new(rounds.iter().map(|(name, _)| *name));
        for (name, times) in rounds {
            times.iter().for_each(|ms| findings.add(name, block(*ms)));
        }
        let mut report = Report::new("ttft");
        findings.report(&mut report, 5.0, 50.0);
        report
    }

    #[test]
    fn what_is_added_is_the_median_of_what_each_round_adds() {
        let report = report(&[("direct", &[10, 100, 10]), ("weir", &[14, 103, 70])]).json();

        let near = |value: &serde_json::Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 0.2;
        assert!(near(&report["values"]["added_p50_ms"], 4.0), "{report}");
        assert!(near(&report["values"]["added_p99_ms_rounds"]["min"], 3.0), "{report}");
        assert!(near(&report["values"]["added_p99_ms_rounds"]["max"], 60.0), "{report}");
        assert_eq!(report["ok"], true);
        assert_eq!(report["values"].get("ratio_added_p50"), None);
    }

    #[test]
    fn additions_are_compared_and_totals_as_well() {
        let report = report(&[("direct", &[10, 10]), ("nginx", &[12, 12]), ("weir", &[13, 13])]).json();

        let value = |name: &str| report["values"][name].as_f64().unwrap();
        assert!((value("ratio_added_p50") - 1.5).abs() < 0.02, "{report}");
        assert!((value("ratio_added_p99") - 1.5).abs() < 0.02, "{report}");
        assert!((value("ratio_total_p99") - 13.0 / 12.0).abs() < 0.01, "{report}");
    }

    #[test]
    fn without_anything_added_there_is_no_ratio() {
        let report = report(&[("direct", &[10]), ("nginx", &[10]), ("weir", &[13])]).json();

        assert_eq!(report["values"]["ratio_added_p50"], json!(null));
    }

    #[test]
    fn too_much_or_a_lost_answer_breaks_the_promise() {
        assert!(!report(&[("direct", &[10]), ("weir", &[16])]).holds());
        let mut findings = Findings::new(["direct", "weir"].into_iter());
        findings.add("direct", block(10));
        findings.add("weir", Block { lost: 1, why: Some("cut".to_owned()), ..block(10) });
        let mut report = Report::new("ttft");
        findings.report(&mut report, 5.0, 50.0);

        assert!(!report.holds());
        assert_eq!(report.lines(), ["weir: 1 lost, one of them: cut"]);
    }
}
