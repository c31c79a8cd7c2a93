//! Left: what is in weir's hands at one moment, by its own account, so that it can be seen whether all of it comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::report::Report;
use crate::target::{ApiError, Target, TargetError, Usage};

/// What weir tells at `/metrics`, with what it is in words.
const GAUGES: [(&str, &str); 7] = [
    ("weir_streams", "running answers"),
    ("weir_listeners", "listeners"),
    ("weir_queued", "places in a pacer's queue"),
    ("weir_in_flight", "permits of a pacer"),
    ("weir_connections", "connections of clients"),
    ("weir_store_queued", "writes"),
    ("weir_store_unsettled", "answers whose end is not written"),
];
/// Files that may be open afterwards beside those from before: connections that are kept for the next call.
const FILES_MAX: usize = 16;
/// How long it may take until all has come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What weir holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    gauges: BTreeMap<&'static str, u64>,
    /// Unknown of a process that is not this user's.
    usage: Option<Usage>,
}

impl Held {
    /// At this moment.
    pub(super) async fn now(target: &Target) -> Result<Self, TargetError> {
        let text = target.api.client().get("/metrics").await?;
        let text = String::from_utf8_lossy(&text.body).into_owned();
        let gauges = gauges(&text).ok_or(ApiError::Lacks("one of the gauges", text))?;
        Ok(Self { gauges, usage: target.usage().ok() })
    }

    /// What weir holds when it holds no more than `before`, or when that does not come.
    pub(super) async fn again(target: &Target, before: &Held) -> Result<Self, TargetError> {
        let start = Instant::now();
        loop {
            let now = Self::now(target).await?;
            if now.exceeds(before).is_empty() || start.elapsed() > PATIENCE {
                return Ok(now);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Of what there is more than before.
    fn exceeds(&self, before: &Held) -> Vec<&'static str> {
        let more = self.gauges.iter().filter(|(name, count)| before.gauges.get(*name).is_none_or(|was| *count > was));
        let mut more: Vec<_> = more.map(|(name, _)| *name).collect();
        let files = self.usage.zip(before.usage);
        if files.is_some_and(|(now, before)| now.files > before.files + FILES_MAX) {
            more.push("files");
        }
        more
    }

    /// Tells what there is, and whether it is more than before.
    pub(super) fn report(&self, report: &mut Report, before: &Held) {
        report.value("left", &self.gauges);
        if let Some((now, before)) = self.usage.zip(before.usage) {
            report.value("before", before);
            report.value("after", now);
        }
        let more = self.exceeds(before);
        if !more.is_empty() {
            report.line(format!("left behind: {}", more.join(", ")));
        }
        report.check("nothing is left behind", more.is_empty());
    }
}

/// The sums of the gauges over all their labels; `None` if one of them is not told.
fn gauges(text: &str) -> Option<BTreeMap<&'static str, u64>> {
    let sum = |(metric, name): (&str, &'static str)| {
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_meant = series.split('{').next() == Some(metric);
            is_meant.then(|| value.parse::<f64>().ok()).flatten()
        });
        let samples: Vec<_> = samples.collect();
        (!samples.is_empty()).then(|| (name, samples.iter().sum::<f64>() as u64))
    };
    GAUGES.into_iter().map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP weir_streams Answers.\n# TYPE weir_streams gauge\n\
        weir_streams{provider=\"a\",phase=\"queue\"} 1\nweir_streams{provider=\"b\",phase=\"queue\"} 2\n\
        weir_listeners{provider=\"a\"} 0\nweir_queued{provider=\"a\"} 0\nweir_in_flight{provider=\"a\"} 4\n\
        weir_connections 1\nweir_connections_other 9\nweir_store_queued 0\nweir_store_unsettled 0\n";

    fn held(in_flight: u64, files: usize) -> Held {
        let mut gauges = gauges(METRICS).unwrap();
        gauges.insert("permits of a pacer", in_flight);
        Held { gauges, usage: Some(Usage { files, ..Usage::default() }) }
    }

    #[test]
    fn gauges_are_summed_over_their_labels_and_none_may_be_missing() {
        let gauges = gauges(METRICS).unwrap();

        assert_eq!(
            (gauges["running answers"], gauges["permits of a pacer"], gauges["connections of clients"]),
            (3, 4, 1)
        );
        assert_eq!(super::gauges(&METRICS.replace("weir_queued", "weir_waiting")), None);
    }

    #[test]
    fn what_does_not_come_back_is_named() {
        let before = held(0, 50);

        assert!(held(0, 60).exceeds(&before).is_empty());
        assert_eq!(held(1, 67).exceeds(&before), ["permits of a pacer", "files"]);
        let mut report = Report::new("cancel");
        held(1, 50).report(&mut report, &before);
        assert!(!report.holds());
        assert_eq!(report.lines(), ["left behind: permits of a pacer"]);
    }
}
