//! Metrics: what is compared, against what, and how far it may stray.

use clap::ValueEnum;

/// A figure of weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Metric {
    /// Milliseconds that are added to the time to the first token; reference: that time without weir.
    AddedTtft,
    /// The 95th percentile of milliseconds between two tokens that are sent every 5 ms; reference: the same without weir.
    AddedGap,
    /// Milliseconds from a cancel until the provider sees the end; reference: a first token without weir.
    CancelLatency,
    /// Microseconds of processor time for a chunk that is relayed; reference: the same of a bare relay.
    CpuPerChunk,
    /// Microseconds of processor time for an event's delivery to one of many listeners; reference: a chunk of a bare relay.
    CpuPerDelivery,
    /// Kilobytes of memory for an open stream; reference: the same of a bare relay.
    RssPerStream,
}

impl Metric {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Metric; 6] = [
        Metric::AddedTtft,
        Metric::AddedGap,
        Metric::CancelLatency,
        Metric::CpuPerChunk,
        Metric::CpuPerDelivery,
        Metric::RssPerStream,
    ];

    /// Its name in the baseline and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::AddedTtft => "added_ttft",
            Metric::AddedGap => "added_gap",
            Metric::CancelLatency => "cancel_latency",
            Metric::CpuPerChunk => "cpu_per_chunk",
            Metric::CpuPerDelivery => "cpu_per_delivery",
            Metric::RssPerStream => "rss_per_stream",
        }
    }

    /// The metric of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// What its figures are counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::AddedTtft | Metric::AddedGap | Metric::CancelLatency => "ms",
            Metric::CpuPerChunk | Metric::CpuPerDelivery => "µs",
            Metric::RssPerStream => "kB",
        }
    }

    /// Whether its reference is the bare relay.
    pub fn needs_relay(self) -> bool {
        matches!(self, Metric::CpuPerChunk | Metric::CpuPerDelivery | Metric::RssPerStream)
    }

    /// How far the ratio may exceed the baseline's, as a share of it, where no baseline says so yet; and why that far.
    pub fn tolerance(self) -> (f64, &'static str) {
        match self {
            Metric::AddedTtft => (
                1.0,
                "tenths of a millisecond through two processes and five threads: who is woken late depends on the \
                 machine's other work; 5 ms more are beyond it all the same",
            ),
            Metric::AddedGap => {
                (0.2, "both are close to the 5 ms of the provider: a token that waits for the next one doubles it")
            }
            Metric::CancelLatency => {
                (1.0, "as the time to the first token: threads that are woken one after the other")
            }
            Metric::CpuPerChunk => (
                0.35,
                "weir and the relay do the same reads and writes at the same time; how many chunks come with one read \
                 differs between machines",
            ),
            Metric::CpuPerDelivery => (
                0.5,
                "as for a chunk; one wake-up makes several deliveries, and how many depends on the cores and on what \
                 else they do",
            ),
            Metric::RssPerStream => {
                (0.25, "counted in whole pages; how the allocator spreads them depends on the number of threads")
            }
        }
    }
}

/// One measurement of a metric: weir's figure and the reference's, taken at the same time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Weir's, in the metric's unit.
    pub measured: f64,
    /// The reference's, in the same unit.
    pub reference: f64,
}

impl Figure {
    /// Weir's as a multiple of the reference's.
    pub fn ratio(self) -> f64 {
        self.measured / self.reference.max(f64::MIN_POSITIVE)
    }

    /// The smallest of each side in several rounds; `None` of none. For what other work of the machine can only make
    /// longer, on either side.
    pub fn least(rounds: impl IntoIterator<Item = Figure>) -> Option<Figure> {
        let least = |a: Figure, b: Figure| Figure {
            measured: a.measured.min(b.measured),
            reference: a.reference.min(b.reference),
        };
        rounds.into_iter().reduce(least)
    }

    /// The one of several rounds whose ratio is in the middle; `None` of none.
    pub fn median(mut rounds: Vec<Figure>) -> Option<Figure> {
        rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        rounds.get(rounds.len() / 2).copied()
    }
}

/// The value in the middle; `None` of none.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_found_by_its_name() {
        for metric in Metric::ALL {
            assert_eq!(Metric::find(metric.name()), Some(metric));
        }
        assert_eq!(Metric::find("speed"), None);
    }

    #[test]
    fn the_median_is_the_round_in_the_middle_as_it_was_measured() {
        let figure = |measured, reference| Figure { measured, reference };
        let rounds = vec![figure(9.0, 1.0), figure(3.0, 1.5), figure(2.0, 2.0), figure(12.0, 4.0)];

        assert_eq!(Figure::least(rounds.clone()), Some(figure(2.0, 1.0)));
        assert_eq!(Figure::median(rounds), Some(figure(12.0, 4.0)));
        assert_eq!(Figure::median(Vec::new()), None);
    }
}
