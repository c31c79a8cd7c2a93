//! Report: what a measurement has found, for people and for programs.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The findings of one measurement: values, and checks of what must be so.
#[derive(Debug)]
pub struct Report {
    suite: &'static str,
    values: Map<String, Value>,
    details: Map<String, Value>,
    checks: Vec<(String, bool)>,
    lines: Vec<String>,
}

impl Report {
    /// A report without findings.
    pub fn new(suite: &'static str) -> Self {
        Self { suite, values: Map::new(), details: Map::new(), checks: Vec::new(), lines: Vec::new() }
    }

    /// Notes a value.
    ///
    /// # Panics
    /// If it cannot be JSON.
    pub fn value(&mut self, name: &str, value: impl Serialize) {
        self.values.insert(name.to_owned(), json_of(value));
    }

    /// Notes a value for programs alone; people read of it in a line.
    ///
    /// # Panics
    /// If it cannot be JSON.
    pub fn detail(&mut self, name: &str, value: impl Serialize) {
        self.details.insert(name.to_owned(), json_of(value));
    }

    /// Notes whether something is as it must be.
    pub fn check(&mut self, what: impl Into<String>, holds: bool) {
        self.checks.push((what.into(), holds));
    }

    /// Adds a line that stands at the end as it is.
    pub fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Those lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether everything is as it must be.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|(_, holds)| *holds)
    }

    /// The findings as JSON.
    pub fn json(&self) -> Value {
        let checks = self.checks.iter().map(|(what, holds)| json!({"check": what, "ok": holds}));
        let checks: Vec<_> = checks.collect();
        let values: Map<_, _> = self.values.clone().into_iter().chain(self.details.clone()).collect();
        json!({"suite": self.suite, "ok": self.holds(), "checks": checks, "values": values, "lines": self.lines})
    }
}

fn json_of(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("values are numbers, texts and tables of them")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.suite)?;
        for (name, value) in &self.values {
            writeln!(f, "  {name:<28} {}", Brief(value))?;
        }
        for (what, holds) in &self.checks {
            writeln!(f, "  {} {what}", if *holds { "ok  " } else { "FAIL" })?;
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A value on one line.
struct Brief<'v>(&'v Value);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => f.write_str(text),
            Value::Object(fields) => {
                for (n, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name} {}", if n > 0 { "  " } else { "" }, Brief(value))?;
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| write!(f, "\n    {}", Brief(item))),
            other => other.fmt(f),
        }
    }
}

/// What this machine is, as far as figures depend on it.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    format!("{cores} cores, {}, {}", model.trim(), std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_values_and_checks_and_fails_with_any_of_them() {
        let mut report = Report::new("burst");
        report.value("sends", 50);
        report.value("ttft_ms", json!({"p50": 1.5, "p99": null}));
        report.check("one upstream call", true);
        assert!(report.holds());
        report.check("two messages", false);
        report.detail("sent", json!([1, 2]));

        assert!(!report.holds());
        let text = report.to_string();
        assert!(text.contains("sends                        50\n"), "{text}");
        assert!(text.contains("p50 1.5  p99 null\n") && text.contains("FAIL two messages"), "{text}");
        assert!(!text.contains("sent "), "{text}");
        assert_eq!(report.json()["ok"], false);
        assert_eq!(report.json()["values"]["sent"], json!([1, 2]));
    }
}
