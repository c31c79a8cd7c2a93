//! Plan: the behaviour that a model's name asks for, so that every client can choose it.
//!
//! A name is a behaviour and its parameters: `mock`, `text@tokens=50,gap_ms=5`, `stall@after=2`. The behaviours are
//! in [`super::faults`]; a parameter that a behaviour has no use for changes nothing.

use std::str::FromStr;
use std::time::Duration;

use super::faults::{self, Behaviour};

/// What one call will be answered with.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How the answer goes.
    pub behaviour: &'static Behaviour,
    /// `tokens=20`: tokens of a whole answer.
    pub tokens: u32,
    /// `gap_ms=5`: between two tokens.
    pub gap: Duration,
    /// `first_ms=0`: from the head to the first token.
    pub first: Duration,
    /// `bytes=0`: text of one token; 0: a word.
    pub bytes: usize,
    /// `after=3`: tokens before the fault.
    pub after: u32,
    /// `gate=0`: tokens from one gate to the next; 0: there is only one gate.
    pub gate: u32,
    /// `hold_ms=1000`: how long a delay lasts.
    pub hold: Duration,
    /// `after_s=1`: what `Retry-After` says.
    pub after_s: u32,
    /// `k=1`: calls that fail before one succeeds. The same model and prompt count together.
    pub k: u32,
    /// `status=503`: how they fail.
    pub status: u16,
}

/// Why a model's name is none of the mock's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanError {
    /// No behaviour has this name.
    Behaviour(String),
    /// There is no such parameter.
    Parameter(String),
    /// The parameter's value is not a number, or too large.
    Value(String),
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlanError::Behaviour(name) => {
                let names: Vec<_> = faults::ALL.iter().map(|behaviour| behaviour.name).collect();
                write!(f, "the mock knows no model {name:?}; there are {}", names.join(", "))
            }
            PlanError::Parameter(name) => {
                write!(f, "no parameter {name:?}; there are tokens, gap_ms, first_ms, bytes, after, ")?;
                f.write_str("gate, hold_ms, after_s, k, status")
            }
            PlanError::Value(parameter) => write!(f, "{parameter:?} has a value that is no number, or too large"),
        }
    }
}

impl std::error::Error for PlanError {}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(model: &str) -> Result<Self, PlanError> {
        let (name, parameters) = model.split_once('@').unwrap_or((model, ""));
        let behaviour = faults::find(name).ok_or_else(|| PlanError::Behaviour(name.to_owned()))?;
        let mut plan = Self::new(behaviour);
        for parameter in parameters.split(',').filter(|parameter| !parameter.is_empty()) {
            plan.set(parameter)?;
        }
        Ok(plan)
    }
}

impl Plan {
    fn new(behaviour: &'static Behaviour) -> Self {
        Self {
            behaviour,
            tokens: 20,
            gap: Duration::from_millis(5),
            first: Duration::ZERO,
            bytes: 0,
            after: 3,
            gate: 0,
            hold: Duration::from_secs(1),
            after_s: 1,
            k: 1,
            status: 503,
        }
    }

    fn set(&mut self, parameter: &str) -> Result<(), PlanError> {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let number = |max: u32| {
            let number = value.parse().ok().filter(|number: &u32| *number <= max);
            number.ok_or_else(|| PlanError::Value(parameter.to_owned()))
        };
        const COUNT_MAX: u32 = 10_000_000;
        const WAIT_MS_MAX: u32 = 86_400_000;
        let wait = || number(WAIT_MS_MAX).map(|ms| Duration::from_millis(ms.into()));
        match key {
            "tokens" => self.tokens = number(COUNT_MAX)?,
            "gap_ms" => self.gap = wait()?,
            "first_ms" => self.first = wait()?,
            "bytes" => self.bytes = number(COUNT_MAX)? as usize,
            "after" => self.after = number(COUNT_MAX)?,
            "gate" => self.gate = number(COUNT_MAX)?,
            "hold_ms" => self.hold = wait()?,
            "after_s" => self.after_s = number(WAIT_MS_MAX)?,
            "k" => self.k = number(COUNT_MAX)?,
            "status" => {
                let status = value.parse().ok().filter(|status| (400..600).contains(status));
                self.status = status.ok_or_else(|| PlanError::Value(parameter.to_owned()))?;
            }
            _ => return Err(PlanError::Parameter(key.to_owned())),
        }
        Ok(())
    }

    /// How many tokens come before the fault, or the first gate.
    pub fn before_fault(&self) -> u32 {
        self.after.min(self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_has_the_defaults() {
        let plan: Plan = "mock".parse().unwrap();

        assert_eq!(plan.behaviour.name, "text");
        assert_eq!((plan.tokens, plan.gap), (20, Duration::from_millis(5)));
    }

    #[test]
    fn parameters_change_the_defaults() {
        let plan: Plan = "stall@tokens=50,gap_ms=7,first_ms=100,bytes=20,after=9".parse().unwrap();

        assert_eq!(plan.behaviour.name, "stall");
        assert_eq!((plan.tokens, plan.bytes, plan.after), (50, 20, 9));
        assert_eq!((plan.gap, plan.first), (Duration::from_millis(7), Duration::from_millis(100)));
    }

    #[test]
    fn what_is_misspelt_is_named() {
        let error = |model: &str| model.parse::<Plan>().unwrap_err();

        assert_eq!(error("stahl"), PlanError::Behaviour("stahl".to_owned()));
        assert_eq!(error("text@token=1"), PlanError::Parameter("token".to_owned()));
        for parameter in ["tokens=x", "tokens=", "tokens", "tokens=-1", "gap_ms=99999999", "status=200"] {
            assert_eq!(error(&format!("text@{parameter}")), PlanError::Value(parameter.to_owned()));
        }
    }
}
