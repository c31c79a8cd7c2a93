//! Baseline: what weir's figures were when somebody looked at them and found them good.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::metrics::{Figure, Metric};
use crate::report::machine;
use crate::samples::rounded;

const ABOUT: &str = "What `load check` compares weir with: each figure as a multiple of a reference that was measured \
                     beside it, so that the machine's speed cancels out. Written by `load check --write-baseline` from \
                     a build with `--profile measure`, which is a release without optimisation across crates; \
                     tolerances and reasons are edited by hand and kept.";

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    about: String,
    /// When it was measured.
    date: String,
    /// Where it was measured.
    machine: String,
    metrics: BTreeMap<String, Entry>,
}

/// What one metric was.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The figure as a multiple of its reference.
    pub ratio: f64,
    /// How far the ratio may exceed this one, as a share of it: 0.5 is half as much again.
    pub tolerance: f64,
    /// Why that far.
    pub reason: String,
    /// The figure that was measured, for people.
    pub measured: f64,
    /// Its reference.
    pub reference: f64,
    /// What both are counted in.
    pub unit: String,
}

/// Why there is nothing to compare with.
#[derive(Debug)]
pub enum BaselineError {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It is no baseline.
    Malformed(PathBuf, String),
    /// It lacks a metric.
    Lacks(PathBuf, Metric),
    /// It cannot be written.
    Unwritable(PathBuf, io::Error),
}

impl fmt::Display for BaselineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BaselineError::Unreadable(path, error) => {
                write!(
                    f,
                    "cannot read {}: {error}; name it with --baseline, or make it with --write-baseline",
                    path.display()
                )
            }
            BaselineError::Malformed(path, why) => write!(f, "{} is no baseline: {why}", path.display()),
            BaselineError::Lacks(path, metric) => {
                write!(f, "{} has no {}: make it anew with --write-baseline", path.display(), metric.name())
            }
            BaselineError::Unwritable(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BaselineError {}

impl Entry {
    /// The most that the ratio may be.
    pub fn limit(&self) -> f64 {
        self.ratio * (1.0 + self.tolerance)
    }
}

impl Baseline {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| BaselineError::Unreadable(path.to_owned(), error))?;
        let malformed = |why: String| BaselineError::Malformed(path.to_owned(), why);
        let baseline: Self = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        for (name, entry) in &baseline.metrics {
            if Metric::find(name).is_none() {
                return Err(malformed(format!("there is no metric {name:?}")));
            }
            let numbers = [("ratio", entry.ratio), ("tolerance", entry.tolerance)];
            if let Some((key, number)) = numbers.into_iter().find(|(_, number)| !(number.is_finite() && *number >= 0.0))
            {
                return Err(malformed(format!("{name}.{key} is {number}, and should be 0 or more")));
            }
        }
        Ok(baseline)
    }

    /// What one metric was.
    pub fn entry(&self, metric: Metric, path: &Path) -> Result<&Entry, BaselineError> {
        self.metrics.get(metric.name()).ok_or_else(|| BaselineError::Lacks(path.to_owned(), metric))
    }

    /// A new one with these figures. What an older one says of tolerances stays, and so do its other metrics.
    pub fn new(figures: &[(Metric, Figure)], older: Option<Self>) -> Self {
        let mut metrics = older.map(|older| older.metrics).unwrap_or_default();
        for (metric, figure) in figures {
            let (tolerance, reason) = metric.tolerance();
            let entry = metrics.entry(metric.name().to_owned()).or_insert_with(|| Entry {
                ratio: 0.0,
                tolerance,
                reason: reason.to_owned(),
                measured: 0.0,
                reference: 0.0,
                unit: metric.unit().to_owned(),
            });
            entry.ratio = rounded(figure.ratio());
            (entry.measured, entry.reference) = (rounded(figure.measured), rounded(figure.reference));
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        Self { about: ABOUT.to_owned(), date, machine: machine(), metrics }
    }

    /// Writes it to a file.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let mut text = serde_json::to_string_pretty(self).expect("names and finite numbers are JSON");
        text.push('\n');
        std::fs::write(path, text).map_err(|error| BaselineError::Unwritable(path.to_owned(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURE: Figure = Figure { measured: 0.9, reference: 0.3 };

    fn text_of(baseline: &Baseline, change: impl Fn(String) -> String) -> Result<Baseline, BaselineError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("baseline.json");
        baseline.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(text)).unwrap();
        Baseline::read(&path)
    }

    #[test]
    fn a_baseline_that_is_made_anew_keeps_what_people_have_said_of_tolerances() {
        let first = Baseline::new(&[(Metric::AddedTtft, FIGURE), (Metric::AddedGap, FIGURE)], None);
        let edited = text_of(&first, |text| text.replacen("\"tolerance\": 0.2", "\"tolerance\": 0.75", 1)).unwrap();
        let half = Figure { measured: 0.15, ..FIGURE };
        let again = text_of(&Baseline::new(&[(Metric::AddedGap, half)], Some(edited)), |text| text).unwrap();

        let path = Path::new("x");
        let gap = again.entry(Metric::AddedGap, path).unwrap();
        assert_eq!((gap.ratio, gap.tolerance, gap.limit()), (0.5, 0.75, 0.875));
        assert_eq!(again.entry(Metric::AddedTtft, path).unwrap().ratio, 3.0);
        let error = again.entry(Metric::CpuPerChunk, path).unwrap_err();
        assert_eq!(error.to_string(), "x has no cpu_per_chunk: make it anew with --write-baseline");
    }

    #[test]
    fn what_is_no_baseline_is_told_from_one() {
        let baseline = Baseline::new(&[(Metric::AddedTtft, FIGURE)], None);
        let why = |change: fn(String) -> String| text_of(&baseline, change).unwrap_err().to_string();

        assert!(why(|text| text.replace("added_ttft", "added")).ends_with("there is no metric \"added\""));
        assert!(why(|text| text.replace("\"ratio\": 3.0", "\"ratio\": -3.0")).contains("added_ttft.ratio is -3"));
        assert!(why(|text| text.replace("\"unit\"", "\"units\"")).contains("unknown field `units`"));
        assert!(why(|_| String::new()).contains("is no baseline"));
        let missing = Baseline::read(Path::new("no/such/file")).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read no/such/file"), "{missing}");
    }
}
