//! Pieces of JSON Schema, as the request parser and the responses have them.

use serde_json::{Map, Value, json};

/// A field of a request: its names, the main one first; what it may be; what it means.
pub(super) type Field = (&'static [&'static str], Value, String);

/// A field without further names.
pub(super) fn field(names: &'static [&'static str], schema: Value, meaning: impl Into<String>) -> Field {
    (names, schema, meaning.into())
}

/// An object of a request: all other fields are refused, and `null` is the same as absent for those not required.
pub(super) fn request_object(fields: Vec<Field>, required: &[&str]) -> Value {
    let mut properties = Map::new();
    for (names, schema, meaning) in fields {
        let (main, others) = names.split_first().unwrap_or((&"", &[]));
        let schema = if required.contains(main) { schema } else { or_null(schema) };
        properties.insert((*main).to_owned(), described(schema.clone(), &meaning));
        for other in others {
            properties.insert((*other).to_owned(), described(schema.clone(), &format!("Another name of `{main}`.")));
        }
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// An object of a response.
pub(super) fn response_object(properties: Value, optional: &[&str]) -> Value {
    let names = properties.as_object().into_iter().flat_map(Map::keys);
    let required: Vec<&String> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// A schema by its name.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The same schema, with what it means.
pub(super) fn described(mut schema: Value, meaning: &str) -> Value {
    schema["description"] = Value::String(meaning.to_owned());
    schema
}

/// The same values and `null`.
pub(super) fn or_null(mut schema: Value) -> Value {
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
    match schema.get("type").cloned() {
        Some(kind) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        // Its values are listed, or nothing is asked of it.
        None if schema.get("enum").is_some() || schema.as_object().is_some_and(Map::is_empty) => schema,
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}
