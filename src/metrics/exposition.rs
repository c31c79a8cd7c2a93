//! Exposition: metrics as text, in Prometheus' format 0.0.4. Knows how they are written, not which there are.

use std::fmt::{Display, Write};

/// The text so far.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often it was how much.
    Histogram,
}

impl Exposition {
    /// The media type of the text.
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a metric. Its samples follow, before the next metric begins.
    pub fn metric(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Metric<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        debug_assert!(!help.contains(['\\', '\n']), "what would have to be escaped");
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric { text: &mut self.text, name }
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A metric whose samples are being written.
#[derive(Debug)]
pub struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    /// Writes one sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// Writes one sample whose name is the metric's with a `suffix`.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"");
            for char in text.chars() {
                match char {
                    '\n' => self.text.push_str("\\n"),
                    '\\' | '"' => self.text.extend(['\\', char]),
                    char => self.text.push(char),
                }
            }
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_line_whatever_its_labels_contain() {
        let mut out = Exposition::default();
        let mut metric = out.metric("weir_things", Kind::Gauge, "Things.");
        metric.sample(&[], 7);
        metric.sample(&[("a", "1"), ("b", "q\"\\\n")], 0.5);

        let text = out.into_text();

        let lines: Vec<_> = text.lines().collect();
        let samples = ["weir_things 7", r#"weir_things{a="1",b="q\"\\\n"} 0.5"#];
        assert_eq!(lines, [&["# HELP weir_things Things.", "# TYPE weir_things gauge"], &samples[..]].concat());
    }
}
