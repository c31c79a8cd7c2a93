//! Bounds: how much of a provider's words about an answer is taken: names and ids that are stored and shown with it, and
//! what it says about its own doings. The answer itself has other limits.

use serde_json::{Map, Value};

use super::{Piece, json};
use crate::event::{ActivityKind, Event, Finish};

/// A name, an id or a finish reason is cut after this many bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// So much of what a provider says about one of its doings is told. Pictures are not cut.
pub(super) const DETAIL_BYTES_MAX: usize = 64 * 1024;

/// The beginning of a text, at most so many bytes, with whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

/// A piece within its bounds.
pub(super) fn piece(piece: Piece<'_>) -> Piece<'_> {
    match piece {
        Piece::Model(model) => Piece::Model(cut(model, NAME_BYTES_MAX)),
        Piece::UpstreamId(id) => Piece::UpstreamId(cut(id, NAME_BYTES_MAX)),
        Piece::Event(Event::Activity { kind, state, detail }) => {
            let state =
                if state.len() > NAME_BYTES_MAX { cut(&state, NAME_BYTES_MAX).to_owned().into() } else { state };
            let detail = if kind == ActivityKind::Image { detail } else { beginning(detail) };
            Piece::Event(Event::Activity { kind, state, detail })
        }
        other => other,
    }
}

/// A finish reason within its bounds.
pub(super) fn finish(mut finish: Finish) -> Finish {
    if let Some(native) = &mut finish.native {
        native.truncate(cut(native, NAME_BYTES_MAX).len());
    }
    finish
}

/// What fits of a detail, in its order. One that was cut says so with `"truncated": true`.
fn beginning(detail: Value) -> Value {
    if json::weight(&detail) <= DETAIL_BYTES_MAX {
        return detail;
    }
    let mut left = DETAIL_BYTES_MAX;
    let mut detail = taken(detail, &mut left).unwrap_or_else(|| Value::Object(Map::new()));
    if let Value::Object(fields) = &mut detail {
        fields.insert("truncated".to_owned(), Value::Bool(true));
    }
    detail
}

/// As much of a value as `left` has room for, in bytes; `None` when that is nothing.
fn taken(value: Value, left: &mut usize) -> Option<Value> {
    *left = left.checked_sub(size_of::<Value>())?;
    Some(match value {
        Value::String(mut text) => {
            text.truncate(cut(&text, *left).len());
            *left -= text.len();
            Value::String(text)
        }
        Value::Array(items) => Value::Array(items.into_iter().map_while(|item| taken(item, left)).collect()),
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                *left = left.checked_sub(size_of::<String>() + name.len())?;
                Some((name, taken(value, left)?))
            };
            Value::Object(fields.into_iter().map_while(field).collect())
        }
        plain => plain,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::FinishReason;

    fn detail_of(kind: ActivityKind, detail: Value) -> Value {
        match piece(Piece::Event(Event::Activity { kind, state: "result".into(), detail })) {
            Piece::Event(Event::Activity { detail, .. }) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_cut_at_a_whole_character() {
        let long = format!("{}é{}", "m".repeat(NAME_BYTES_MAX - 1), "m".repeat(200_000));
        let expected = "m".repeat(NAME_BYTES_MAX - 1);

        assert_eq!(piece(Piece::Model(&long)), Piece::Model(&expected));
        assert_eq!(piece(Piece::UpstreamId(&long)), Piece::UpstreamId(&expected));
        let finish = finish(Finish { reason: FinishReason::Other, native: Some(long) });
        assert_eq!(finish.native, Some(expected));
        assert_eq!(piece(Piece::Model("tern-1")), Piece::Model("tern-1"));
        assert_eq!(["é", "aé", ""].map(|text| cut(text, 1)), ["", "a", ""]);
    }

    #[test]
    fn a_detail_that_is_too_long_keeps_its_beginning_and_says_so() {
        let detail = json!({"code": "1", "outputs": vec!["é".repeat(1_000); 100], "z": 1});

        let kept = detail_of(ActivityKind::Code, detail);

        assert_eq!((&kept["code"], &kept["truncated"]), (&json!("1"), &json!(true)));
        let outputs = kept["outputs"].as_array().unwrap();
        assert!(outputs.len() > 20 && outputs.len() < 40, "{}", outputs.len());
        assert_eq!(outputs[0], json!("é".repeat(1_000)));
        assert!(json::weight(&kept) <= DETAIL_BYTES_MAX + 100);
    }

    #[test]
    fn a_detail_of_many_small_things_is_cut_too_whatever_its_shape() {
        for many in
            [json!(vec![json!([]); 100_000]), json!(vec![json!({"a": null}); 100_000]), json!("x".repeat(1 << 20))]
        {
            for detail in [json!({"found": many}), many] {
                assert!(json::weight(&detail_of(ActivityKind::Search, detail)) <= DETAIL_BYTES_MAX + 100);
            }
        }
    }

    #[test]
    fn what_fits_and_pictures_stay_as_they_are() {
        let small = json!({"queries": ["a"]});
        let picture = json!({"result": "x".repeat(2 << 20)});

        assert_eq!(detail_of(ActivityKind::Search, small.clone()), small);
        assert_eq!(detail_of(ActivityKind::Image, picture.clone()), picture);
    }
}
