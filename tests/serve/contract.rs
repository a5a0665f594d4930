//! The server's own description of itself, which every request and response of these tests is compared with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::common::tiny_package;
use crate::support::{Server, with};

/// `GET /openapi.json` of a server.
pub struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    pub fn new(document: Value) -> Self {
        Self { document, validators: Mutex::default() }
    }

    fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap();
        let compile = || {
            let mut whole = self.document.clone();
            whole["$ref"] = schema["$ref"].clone();
            Arc::new(jsonschema::draft202012::new(&whole).unwrap())
        };
        Arc::clone(validators.entry(schema.to_string()).or_insert_with(compile))
    }

    fn check(&self, schema: &Value, value: &Value, what: &str) {
        if let Some(error) = self.validator(schema).iter_errors(value).next() {
            panic!("{what} is not as described at {}: {error}", error.instance_path());
        }
    }

    /// Whether a body is one that `POST path` is described to take.
    pub fn takes(&self, path: &str, body: &Value) -> bool {
        let content = &self.document["paths"][path]["post"]["requestBody"]["content"];
        self.validator(&content["application/json"]["schema"]).is_valid(body)
    }

    /// Checks a response, and that a request was described as what it was.
    pub fn check_exchange(&self, path: &str, request: Option<&Value>, status: u16, answer: &Value) {
        let method = if request.is_some() { "post" } else { "get" };
        let response = &self.document["paths"][path][method]["responses"][status.to_string()];
        assert!(response.is_object(), "{method} {path} has no response {status}: {answer}");
        self.check(&response["content"]["application/json"]["schema"], answer, "the response");
        let code = answer["error"]["code"].as_str();
        if let Some(code) = code {
            let codes = response["description"].as_str().unwrap();
            assert!(codes.contains(&format!("`{code}`")), "{code} is none of {codes}");
        }
        match (request, code) {
            (Some(request), None) => assert!(self.takes(path, request), "described as wrong: {request}"),
            (Some(request), Some("unknown_parameter" | "unsupported_value")) => {
                assert!(!self.takes(path, request), "described as right: {request}");
            }
            _ => (),
        }
    }

    /// Checks a piece of a streamed answer.
    pub fn check_chunk(&self, chunk: &Value) {
        let responses = &self.document["paths"]["/v1/chat/completions"]["post"]["responses"];
        self.check(&responses["200"]["content"]["text/event-stream"]["schema"], chunk, "the piece");
    }
}

/// What a field may need beside itself to have a meaning.
fn beside(name: &str) -> Value {
    match name {
        "stream_options" => json!({"stream": true}),
        "top_logprobs" => json!({"logprobs": true}),
        "length_penalty" | "early_stopping" => json!({"num_beams": 2}),
        "n" | "num_return_sequences" => json!({"num_beams": 16}),
        "top_k" | "top_p" | "min_p" | "seed" => json!({"temperature": 0.5}),
        "min_tiles" | "min_dynamic_patch" => json!({"max_tiles": 256}),
        "best_of" => json!({"use_beam_search": true, "n": 1}),
        "use_beam_search" => json!({"best_of": 1}),
        _ => json!({}),
    }
}

/// Each field of the document with values of all kinds: the server takes those that the document says it takes, and no others.
#[test]
fn fields_are_taken_as_described() {
    let server = Server::start(&tiny_package(), &[]);
    let document: Value = serde_json::from_str(&server.get("/openapi.json").1).unwrap();
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(3.0),
        json!(0.5),
        json!(-2.5),
        json!(20),
        json!(21),
        json!(257),
        json!(""),
        json!("auto"),
        json!("never"),
        json!("none"),
        json!("text"),
        json!("x"),
        json!([]),
        json!([""]),
        json!(["text"]),
        json!([1]),
        json!({}),
        json!({"type": "text"}),
        json!({"type": "json_object"}),
    ];
    let fields = document["components"]["schemas"]["ChatRequest"]["properties"].as_object().unwrap();
    assert!(fields.len() > 50);
    for name in fields.keys() {
        for value in &values {
            // One token will do; the names of that setting are tried one at a time.
            let is_length = name.starts_with("max_") && name.ends_with("_tokens");
            if is_length && value.is_null() {
                continue;
            }
            let length = if is_length { json!({}) } else { json!({"max_tokens": 1}) };
            let mut request =
                with(with(json!({"messages": [{"role": "user", "content": "hi"}]}), length), beside(name));
            request[name] = value.clone();
            let described = server.contract.takes("/v1/chat/completions", &request);
            let (status, answer) = server.raw(&request);
            assert_eq!(status == 200, described, "{name} = {value}: {status} {answer}");
        }
    }
}
