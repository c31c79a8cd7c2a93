//! Report: everything that is wrong with a configuration, each with the place where it can be put right.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

/// The configuration is refused. Displays one line for each problem, without a line break at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One problem, and where it is. What was found there is only told if it is a number or a name: text may be a key that
/// somebody put into the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// The line in the file, counted from 1.
    line: Option<usize>,
    place: String,
    what: String,
}

impl ConfigError {
    /// The whole file is of no use.
    pub(super) fn unusable(file: &Path, what: impl fmt::Display) -> Self {
        Self { problems: vec![Problem { line: None, place: file.display().to_string(), what: what.to_string() }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects problems, and knows the lines of the file's keys.
pub(super) struct Report<'t> {
    file: &'t str,
    /// The offsets at which lines end.
    newlines: Vec<usize>,
    /// The offsets at which keys begin, by path: `auth.keys[0].id`.
    offsets: BTreeMap<String, usize>,
    problems: Vec<Problem>,
    doubts: Vec<Problem>,
}

impl<'t> Report<'t> {
    /// For a file with its name and its text.
    pub(super) fn new(file: &'t str, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset);
        Self { file, newlines: newlines.collect(), offsets: BTreeMap::new(), problems: Vec::new(), doubts: Vec::new() }
    }

    /// Learns where the keys of the file are.
    pub(super) fn index(&mut self, table: &DeTable<'_>, path: &str) {
        for (key, value) in table {
            let path = joined(path, key.get_ref());
            self.index_value(value.get_ref(), &path);
            self.offsets.insert(path, key.span().start);
        }
    }

    fn index_value(&mut self, value: &DeValue<'_>, path: &str) {
        match value {
            DeValue::Table(table) => self.index(table, path),
            DeValue::Array(array) => {
                for (n, value) in array.iter().enumerate() {
                    let path = format!("{path}[{n}]");
                    self.index_value(value.get_ref(), &path);
                    self.offsets.insert(path, value.span().start);
                }
            }
            _ => {}
        }
    }

    /// A key of the file is wrong, or what is missing below it.
    pub(super) fn key(&mut self, path: &str, what: impl fmt::Display) {
        let offset = self.offset(path);
        self.at(offset, path, what);
    }

    /// A key of the file is likely not meant like this, but may be: nothing is refused for it.
    pub(super) fn doubt(&mut self, path: &str, what: impl fmt::Display) {
        let doubt = self.problem(self.offset(path), path, what);
        self.doubts.push(doubt);
    }

    /// Where a key is, or what is above it.
    fn offset(&self, path: &str) -> Option<usize> {
        let mut known = path;
        while !self.offsets.contains_key(known) {
            known = known.rfind(['.', '[']).map_or("", |end| &known[..end]);
            if known.is_empty() {
                break;
            }
        }
        self.offsets.get(known).copied()
    }

    /// A key of the file is wrong, at an offset that says more than the key's.
    pub(super) fn at(&mut self, offset: Option<usize>, path: &str, what: impl fmt::Display) {
        let problem = self.problem(offset, path, what);
        self.problems.push(problem);
    }

    /// An environment variable is wrong.
    pub(super) fn variable(&mut self, name: &str, what: impl fmt::Display) {
        self.problems.push(Problem::new(None, name, what));
    }

    /// How many problems there are.
    pub(super) fn len(&self) -> usize {
        self.problems.len()
    }

    /// `value` if there are no problems, and what is doubtful about it. They come in the order of the file, the
    /// environment's at the end.
    pub(super) fn finish<T>(self, value: T) -> Result<(T, Vec<String>), ConfigError> {
        let problems = in_order(self.problems);
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        Ok((value, in_order(self.doubts).iter().map(Problem::to_string).collect()))
    }

    fn problem(&self, offset: Option<usize>, path: &str, what: impl fmt::Display) -> Problem {
        let line = offset.map(|offset| 1 + self.newlines.partition_point(|newline| *newline < offset));
        let line_number = line.map(|line| format!(":{line}")).unwrap_or_default();
        let separator = if path.is_empty() { "" } else { ": " };
        Problem::new(line, &format!("{}{line_number}{separator}{path}", self.file), what)
    }
}

impl Problem {
    fn new(line: Option<usize>, place: &str, what: impl fmt::Display) -> Self {
        Self { line, place: one_line(place), what: one_line(&what.to_string()) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    problems.dedup();
    problems
}

/// The path of a key below another.
pub(super) fn joined(path: &str, key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let bare = !key.is_empty() && key.bytes().all(is_bare);
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The text without line breaks and what else would confuse a terminal.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
