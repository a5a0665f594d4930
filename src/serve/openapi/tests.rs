use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Served, describe};
use crate::serve::api::{ChatRequest, InspectRequest, asked_for};
use crate::serve::routes;

fn document() -> Value {
    let hosts = ["images.example.com".parse().unwrap()];
    let presets = vec!["describe".to_owned(), "text".to_owned()];
    describe(&Served { model: "reader", presets, max_rows: 16, needs_key: true, image_hosts: &hosts })
}

/// A schema of the document with what it refers to.
fn validator(name: &str) -> Validator {
    let mut schema = document();
    schema["$ref"] = json!(format!("#/components/schemas/{name}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// The names an object schema has.
fn names(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

/// A request with an object of every kind.
fn with_everything() -> Value {
    json!({
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "q"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
        ],
        "stream": true, "stream_options": {}, "mm_processor_kwargs": {},
    })
}

/// What the parser asks for is what the document lists, object by object.
#[test]
fn the_names_are_those_of_the_parser() {
    let schemas = &document()["components"]["schemas"];
    let chat = &schemas["ChatRequest"];
    ChatRequest::parse(with_everything().to_string().as_bytes()).unwrap();
    let mut asked: BTreeMap<String, BTreeSet<String>> = asked_for().into_iter().collect();
    for (path, schema) in [
        ("", chat),
        ("stream_options", &chat["properties"]["stream_options"]),
        ("mm_processor_kwargs", &chat["properties"]["mm_processor_kwargs"]),
        ("messages[0]", &schemas["Message"]["anyOf"][0]),
        ("messages[1]", &schemas["Message"]["anyOf"][1]),
        ("messages[0].content[0]", &schemas["TextPart"]),
        ("messages[1].content[0]", &schemas["TextPart"]),
        ("messages[1].content[1]", &schemas["ImagePart"]),
        ("messages[1].content[1].image_url", &schemas["ImageUrl"]["anyOf"][1]),
    ] {
        assert_eq!(asked.remove(path).unwrap_or_default(), names(schema), "{path}");
    }
    assert!(asked.is_empty(), "not in the document: {asked:?}");
    InspectRequest::parse(br#"{"image": "data:image/png;base64,AAAA"}"#).unwrap();
    let asked: BTreeMap<String, BTreeSet<String>> = asked_for().into_iter().collect();
    assert_eq!(asked[""], names(&schemas["InspectRequest"]));
}

#[test]
fn the_paths_are_those_of_the_router() {
    let document = document();
    let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, routes::routes().iter().map(|(path, _)| *path).collect());
}

#[test]
fn schemas_are_schemas_and_refer_to_each_other() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
        validator(name);
    }
    let text = document.to_string();
    for (reference, _) in text.match_indices("#/components/schemas/") {
        let name = text[reference..].split(['/', '"']).nth(3).unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

#[test]
fn requests_pass_and_fail_as_the_parser_has_them() {
    let chat = validator("ChatRequest");
    assert!(chat.is_valid(&with_everything()));
    let with = |fields: Value| {
        let mut request = with_everything();
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request
    };
    for (fields, valid) in [
        (json!({"max_tokens": null, "temperature": 0.5, "tools": [], "user": {"any": "thing"}}), true),
        (json!({"tempreature": 1}), false),
        (json!({"top_logprobs": 21}), false),
        (json!({"num_beams": 17}), false),
        (json!({"preset": "descrbe"}), false),
        (json!({"stop": [""]}), false),
        (json!({"stop": vec!["a"; 16]}), true),
        (json!({"stop": vec!["a"; 17]}), false),
        (json!({"stop": "a".repeat(257)}), false),
        (json!({"messages": [{"role": "tool", "content": "a"}]}), false),
        (json!({"messages": [{"role": "user", "content": [{"type": "video"}]}]}), false),
    ] {
        assert_eq!(chat.is_valid(&with(fields.clone())), valid, "{fields}");
    }
    let shown = |url: &str| json!({"image": url});
    let inspect = validator("InspectRequest");
    assert!(inspect.is_valid(&shown("https://images.example.com/a.png")));
    assert!(!inspect.is_valid(&shown("file:///etc/passwd")));
}
