//! Findings: what a check-up has found, a line each, for people and for programs.

use std::fmt;

use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// It may be meant like this.
    Warn,
    /// Something does not work, or is not safe.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub says: String,
    /// What helps; nothing where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_do: Option<String>,
}

/// All of them, in order.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    checks: Vec<Finding>,
}

impl Findings {
    /// Something is as it must be.
    pub(super) fn ok(&mut self, check: impl Into<String>, says: impl Into<String>) {
        self.add(check, Verdict::Ok, says, None);
    }

    /// Something may be meant; `to_do` says what to do if it is not.
    pub(super) fn warn(&mut self, check: impl Into<String>, says: impl Into<String>, to_do: impl Into<String>) {
        self.add(check, Verdict::Warn, says, Some(to_do.into()));
    }

    /// Something is wrong.
    pub(super) fn fail(&mut self, check: impl Into<String>, says: impl Into<String>, to_do: impl Into<String>) {
        self.add(check, Verdict::Fail, says, Some(to_do.into()));
    }

    /// Whatever was found.
    pub(super) fn add(
        &mut self,
        check: impl Into<String>,
        verdict: Verdict,
        says: impl Into<String>,
        to_do: Option<String>,
    ) {
        self.checks.push(Finding { check: check.into(), verdict, says: one_line(&says.into()), to_do });
    }

    /// Whether nothing is wrong.
    pub fn are_well(&self) -> bool {
        self.checks.iter().all(|finding| finding.verdict < Verdict::Fail)
    }

    /// What was found, in order.
    pub fn all(&self) -> &[Finding] {
        &self.checks
    }

    /// The findings as one JSON document: `{"well", "checks": [{"check", "verdict", "says", "to_do"?}]}`.
    pub fn json(&self) -> String {
        serde_json::json!({ "well": self.are_well(), "checks": self.checks }).to_string()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict, says, to_do } in &self.checks {
            write!(f, "{verdict:<4}  {check:<20} {says}")?;
            if let Some(to_do) = to_do {
                write!(f, " -> {to_do}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Whatever others have said stays on its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_verdict_and_what_helps() {
        let mut findings = Findings::default();
        findings.ok("config", "defaults");
        findings.warn("keys", "none", "add some");
        assert!(findings.are_well());
        findings.fail("database", "full\ndisk", "make room");

        assert!(!findings.are_well());
        let lines = findings.to_string();
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "ok    config               defaults",
                "warn  keys                 none -> add some",
                "FAIL  database             full disk -> make room",
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&findings.json()).unwrap();
        assert_eq!((&json["well"], &json["checks"][2]["verdict"]), (&false.into(), &"fail".into()));
        assert_eq!(json["checks"][0].get("to_do"), None);
    }
}
