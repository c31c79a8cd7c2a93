//! Section: a table of the file, read key by key so that one mistake does not hide the next.

use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Report, joined};

/// A table of the file as one of weir's types.
pub(super) trait Table: DeserializeOwned + Default {
    /// Tells `wrong` each key whose value is out of its range, and what is allowed.
    fn check(&self, wrong: &mut dyn FnMut(&'static str, String));
}

/// A table of the file, and the path of keys that leads to it.
pub(super) struct Section<'t> {
    pub(super) path: String,
    table: DeTable<'t>,
}

impl<'t> Section<'t> {
    /// The whole file; empty, with the reasons reported, if it is not TOML.
    pub(super) fn parse(text: &'t str, report: &mut Report<'_>) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let table = table.into_inner();
        for error in &errors {
            report.at(error.span().map(|span| span.start), "", error.message());
        }
        if !errors.is_empty() {
            return Self { path: String::new(), table: DeTable::new() };
        }
        report.index(&table, "");
        Self { path: String::new(), table }
    }

    /// Takes a table out of this one; an empty one if it is not there.
    pub(super) fn take(&mut self, key: &str, report: &mut Report<'_>) -> Section<'t> {
        let path = joined(&self.path, key);
        let value = self.table.remove(key);
        let table = value.and_then(|value| table_of(value, &path, report));
        Section { path, table: table.unwrap_or_default() }
    }

    /// Takes an array of tables out of this one; an empty one if it is not there.
    pub(super) fn take_array(&mut self, key: &str, report: &mut Report<'_>) -> Vec<Section<'t>> {
        let path = joined(&self.path, key);
        let values = match self.table.remove(key).map(Spanned::into_inner) {
            None => return Vec::new(),
            Some(DeValue::Array(values)) => values,
            Some(_) => {
                report.key(&path, "expected an array of tables");
                return Vec::new();
            }
        };
        let sections = values.into_iter().enumerate().filter_map(|(n, value)| {
            let path = format!("{path}[{n}]");
            let table = table_of(value, &path, report)?;
            Some(Section { path, table })
        });
        sections.collect()
    }

    /// The tables in this one, by name.
    pub(super) fn into_sections(self, report: &mut Report<'_>) -> Vec<(String, Section<'t>)> {
        let sections = self.table.into_iter().filter_map(|(name, value)| {
            let path = joined(&self.path, name.get_ref());
            let table = table_of(value, &path, report)?;
            Some((name.into_inner().into_owned(), Section { path, table }))
        });
        sections.collect()
    }

    /// Reads what is left of this table. What is wrong with a key is reported, and the key is as if it were left out.
    pub(super) fn read<T: Table>(&self, report: &mut Report<'_>) -> T {
        let mut readable = DeTable::new();
        for (key, value) in &self.table {
            let alone = DeTable::from_iter([(key.clone(), value.clone())]);
            match deserialize::<T>(alone) {
                Ok(_) => {
                    readable.insert(key.clone(), value.clone());
                }
                Err(error) => {
                    let path = joined(&self.path, key.get_ref());
                    let offset = error.span().map_or(key.span().start, |span| span.start);
                    report.at(Some(offset), &path, explain(error.message()));
                }
            }
        }
        let table: T = deserialize(readable).unwrap_or_default();
        table.check(&mut |key, what| report.key(&joined(&self.path, key), what));
        table
    }
}

fn table_of<'t>(value: Spanned<DeValue<'t>>, path: &str, report: &mut Report<'_>) -> Option<DeTable<'t>> {
    match value.into_inner() {
        DeValue::Table(table) => Some(table),
        _ => {
            report.key(path, "expected a table");
            None
        }
    }
}

fn deserialize<T: DeserializeOwned>(table: DeTable<'_>) -> Result<T, toml::de::Error> {
    // The table's own place is never shown: every error has a key.
    T::deserialize(Spanned::new(0..0, DeValue::Table(table)).into_deserializer())
}

/// What serde says, in words for the operator, and without the value that it found: it may be a key in the wrong place.
fn explain(message: &str) -> String {
    let expected = match message.rsplit_once(", expected ") {
        Some((_, expected)) => expected,
        None if message == "invalid socket address syntax" => "socket address",
        None => return message.to_owned(),
    };
    let expected = match expected {
        "usize" | "u64" => "a whole number, 0 or more",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        "path string" => "a string",
        "a sequence" => "an array",
        "socket address" => "an address such as \"127.0.0.1:8000\"",
        other => &other.replace('`', ""),
    };
    let unknown = if message.starts_with("unknown field") { "unknown key; " } else { "" };
    format!("{unknown}expected {expected}")
}
