//! Extras: what a provider says beyond the dialect, handed on as it is.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::event::Event;
use crate::providers::{Piece, json};

/// How many names are kept apart; fields under further ones are dropped.
const NAMES_MAX: usize = 64;
/// Longer names than this are nobody's.
const NAME_LEN_MAX: usize = 64;

/// What has been handed on so far.
#[derive(Debug)]
pub(super) struct Extras {
    dialect: &'static str,
    /// A digest of the last value under each name.
    told: HashMap<String, u64>,
}

impl Extras {
    /// Nothing yet. The events' names begin with `dialect`.
    pub(super) fn new(dialect: &'static str) -> Self {
        Self { dialect, told: HashMap::new() }
    }

    /// Hands on the fields of `object` that are none of `known`, each when it has changed: some servers repeat the
    /// same field in every chunk.
    pub(super) fn fields(&mut self, object: &Value, known: &[&str], out: &mut dyn FnMut(Piece<'_>)) {
        for (name, value) in json::fields(object) {
            if !known.contains(&name.as_str()) && !json::is_blank(value) && self.is_news(name, value) {
                self.piece(name, value, out);
            }
        }
    }

    /// Hands on a value of which every piece counts.
    pub(super) fn piece(&self, name: &str, value: &Value, out: &mut dyn FnMut(Piece<'_>)) {
        let name = format!("{}.{name}", self.dialect).into();
        out(Piece::Event(Event::Ext { name, data: value.clone() }));
    }

    fn is_news(&mut self, name: &str, value: &Value) -> bool {
        let mut digest = DefaultHasher::new();
        value.hash(&mut digest);
        let digest = digest.finish();
        if let Some(last) = self.told.get_mut(name) {
            return std::mem::replace(last, digest) != digest;
        }
        let fits = self.told.len() < NAMES_MAX && name.len() <= NAME_LEN_MAX;
        if fits {
            self.told.insert(name.to_owned(), digest);
        }
        fits
    }
}
