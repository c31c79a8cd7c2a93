//! Schemas: those that are derived from the types of answers, collected, and the small ones that are written by hand.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::operation::reference;

/// What operations refer to.
#[derive(Default)]
pub(super) struct Schemas {
    schemas: BTreeMap<String, Value>,
    responses: BTreeMap<String, Value>,
}

impl Schemas {
    /// A reference to the schema of a type, which is entered with all that it is made of.
    pub(super) fn of<T: ToSchema>(&mut self) -> Value {
        let mut parts = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut parts);
        for (name, schema) in parts {
            let schema = serde_json::to_value(schema).expect("schemas have string keys and finite numbers");
            let known = self.schemas.entry(name).or_insert_with(|| schema.clone());
            debug_assert_eq!(*known, schema, "two types have one name");
        }
        reference("schemas", &T::name())
    }

    /// The same with the field `type`, which says what it is.
    pub(super) fn tagged<T: ToSchema>(&mut self, tag: &str) -> Value {
        let reference = self.of::<T>();
        json!({ "allOf": [reference, { "required": ["type"], "properties": { "type": { "const": tag } } }] })
    }

    /// A reference to a schema that is written by hand.
    pub(super) fn named(&mut self, name: &str, schema: Value) -> Value {
        let former = self.schemas.insert(name.to_owned(), schema);
        debug_assert_eq!(former, None, "{name} is described twice");
        reference("schemas", name)
    }

    pub(super) fn has_response(&self, name: &str) -> bool {
        self.responses.contains_key(name)
    }

    pub(super) fn add_response(&mut self, name: String, response: Value) {
        self.responses.insert(name, response);
    }

    /// The schemas and the responses, as components.
    pub(super) fn into_components(self) -> [(&'static str, Value); 2] {
        [("schemas", json!(self.schemas)), ("responses", json!(self.responses))]
    }
}

/// An array of these.
pub(super) fn array(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// A text of at most so many characters.
pub(super) fn text(chars_max: usize) -> Value {
    json!({ "type": "string", "maxLength": chars_max })
}

/// A text of a form.
pub(super) fn pattern(regex: &str) -> Value {
    json!({ "type": "string", "pattern": regex })
}

/// One of these words.
pub(super) fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// True or false.
pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// A whole number.
pub(super) fn whole(min: u64, max: u64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

/// A number.
pub(super) fn number(min: f64, max: f64) -> Value {
    json!({ "type": "number", "minimum": min, "maximum": max })
}

/// Says what a schema is about.
pub(super) fn about(description: &str, mut schema: Value) -> Value {
    schema["description"] = description.into();
    schema
}

/// Takes `null`, too.
pub(super) fn or_null(mut schema: Value) -> Value {
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    match (schema.get("type").cloned(), schema.get_mut("anyOf").and_then(Value::as_array_mut)) {
        (_, Some(forms)) => forms.push(json!({ "type": "null" })),
        (Some(kind), None) => schema["type"] = json!([kind, "null"]),
        (None, None) => schema = json!({ "anyOf": [schema, { "type": "null" }] }),
    }
    schema
}

/// The fields of a body. Those that are not required may be null, which is the same as leaving them out.
pub(super) struct Body {
    required: Vec<&'static str>,
    properties: Map<String, Value>,
}

impl Body {
    pub(super) fn new() -> Self {
        Self { required: Vec::new(), properties: Map::new() }
    }

    /// A field that must be there.
    pub(super) fn needs(mut self, name: &'static str, schema: Value) -> Self {
        self.required.push(name);
        self.properties.insert(name.to_owned(), schema);
        self
    }

    /// A field that may be left out.
    pub(super) fn may(mut self, name: &'static str, schema: Value) -> Self {
        self.properties.insert(name.to_owned(), or_null(schema));
        self
    }

    /// A field that must be null, if it is there.
    pub(super) fn has_no(mut self, name: &'static str, description: &str) -> Self {
        self.properties.insert(name.to_owned(), about(description, json!({ "type": "null" })));
        self
    }

    /// With fields that others have, too.
    pub(super) fn and(self, add: impl FnOnce(Self) -> Self) -> Self {
        add(self)
    }

    /// Other fields are refused.
    pub(super) fn and_nothing_else(self) -> Value {
        let mut schema = self.and_others();
        schema["additionalProperties"] = false.into();
        schema
    }

    /// Other fields are taken as well.
    pub(super) fn and_others(self) -> Value {
        let mut schema = json!({ "type": "object", "properties": self.properties });
        if !self.required.is_empty() {
            schema["required"] = json!(self.required);
        }
        schema
    }
}
