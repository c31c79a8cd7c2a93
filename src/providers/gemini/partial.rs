//! Partial: arguments of a tool call that come value by value, each with its place as `$.list[0].name`.

use serde_json::{Map, Value};

use crate::providers::json;

/// Deeper places than this are none.
const DEPTH_MAX: usize = 64;

/// Arguments that are being put together.
#[derive(Debug)]
pub(super) struct Arguments {
    value: Value,
    /// The place of the text that goes on with the next piece.
    open: Option<String>,
}

/// The piece has no place in the arguments so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misplaced;

impl Arguments {
    /// Arguments that begin with what is known already.
    pub(super) fn new(known: Option<&Value>) -> Self {
        let value = known.filter(|known| known.is_object()).cloned();
        Self { value: value.unwrap_or_else(|| Value::Object(Map::new())), open: None }
    }

    /// Takes one element of `partialArgs`.
    pub(super) fn put(&mut self, piece: &Value) -> Result<(), Misplaced> {
        let path = json::text(piece, "jsonPath").ok_or(Misplaced)?;
        let goes_on = self.open.take().is_some_and(|open| open == path);
        let slot = slot(&mut self.value, path).ok_or(Misplaced)?;
        match (piece.get("stringValue").and_then(Value::as_str), slot) {
            (Some(more), Value::String(text)) if goes_on => text.push_str(more),
            (Some(text), slot) => *slot = Value::String(text.to_owned()),
            (None, slot) => {
                let plain = ["numberValue", "boolValue"].iter().find_map(|kind| json::get(piece, kind));
                *slot = plain.cloned().unwrap_or_default();
            }
        }
        if piece.get("willContinue") == Some(&Value::Bool(true)) {
            self.open = Some(path.to_owned());
        }
        Ok(())
    }

    /// The arguments as JSON.
    pub(super) fn text(&self) -> String {
        self.value.to_string()
    }
}

/// The value at `path`, made if it is not there. Lists only grow at their end: a number in a path must not cost memory.
fn slot<'v>(root: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    let mut at = root;
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut depth = 0;
    while !rest.is_empty() {
        depth += 1;
        if depth > DEPTH_MAX {
            return None;
        }
        let (step, tail) = step(rest)?;
        rest = tail;
        at = match step {
            Step::Key(key) => field(at, key)?,
            Step::Index(index) => item(at, index)?,
        };
    }
    Some(at)
}

fn field<'v>(at: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    if at.is_null() {
        *at = Value::Object(Map::new());
    }
    Some(at.as_object_mut()?.entry(key).or_insert(Value::Null))
}

fn item(at: &mut Value, index: usize) -> Option<&mut Value> {
    if at.is_null() {
        *at = Value::Array(Vec::new());
    }
    let items = at.as_array_mut()?;
    if index == items.len() {
        items.push(Value::Null);
    }
    items.get_mut(index)
}

enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

/// The first step of a path (`.name`, `[0]` or `['name']`), and what follows it.
fn step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(name) = path.strip_prefix('.') {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        return (!name.is_empty()).then_some((Step::Key(name), rest));
    }
    let inside = path.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(name) = inside.strip_prefix(quote) {
            let end = name.find(quote)?;
            let rest = name[end + 1..].strip_prefix(']')?;
            return Some((Step::Key(&name[..end]), rest));
        }
    }
    let (number, rest) = inside.split_once(']')?;
    Some((Step::Index(number.parse().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn put_all(pieces: &[Value]) -> Result<Value, Misplaced> {
        let mut arguments = Arguments::new(None);
        pieces.iter().try_for_each(|piece| arguments.put(piece))?;
        Ok(serde_json::from_str(&arguments.text()).unwrap())
    }

    #[test]
    fn values_come_to_stand_where_their_paths_say() {
        let pieces = [
            json!({"jsonPath": "$.list[0].name", "stringValue": "fir", "willContinue": true}),
            json!({"jsonPath": "$.list[0].name", "stringValue": "st"}),
            json!({"jsonPath": "$.list[1].size", "numberValue": 2.5}),
            json!({"jsonPath": "$['odd key']", "boolValue": false}),
            json!({"jsonPath": "$.nothing", "nullValue": "NULL_VALUE"}),
        ];

        let expected = json!({"list": [{"name": "first"}, {"size": 2.5}], "odd key": false, "nothing": null});
        assert_eq!(put_all(&pieces), Ok(expected));
    }

    #[test]
    fn a_text_that_had_ended_begins_anew() {
        let pieces =
            [json!({"jsonPath": "$.a", "stringValue": "one"}), json!({"jsonPath": "$.a", "stringValue": "two"})];

        assert_eq!(put_all(&pieces), Ok(json!({"a": "two"})));
    }

    #[test]
    fn pieces_without_a_place_are_refused() {
        let deep = format!("$.a{}", "[0]".repeat(DEPTH_MAX));
        for path in ["$.a[4000000000]", "$.a[-1]", "$.a[", "$..a", "$x", "$['a]", "$[0]", &deep] {
            assert_eq!(put_all(&[json!({"jsonPath": path, "stringValue": "x"})]), Err(Misplaced), "{path}");
        }
        assert_eq!(put_all(&[json!({"stringValue": "x"})]), Err(Misplaced));
        let through_a_text =
            [json!({"jsonPath": "$.a", "stringValue": "x"}), json!({"jsonPath": "$.a.b", "stringValue": "y"})];
        assert_eq!(put_all(&through_a_text), Err(Misplaced));
    }

    proptest! {
        #[test]
        fn no_path_breaks_anything(paths in proptest::collection::vec(r#"\$?[.\[\]'"a0-9é]{0,12}"#, 0..6)) {
            let pieces: Vec<Value> = paths.iter().map(|path| json!({"jsonPath": path, "numberValue": 1})).collect();

            let _ = put_all(&pieces);
        }
    }
}
