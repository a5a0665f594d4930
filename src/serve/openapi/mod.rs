//! `GET /openapi.json`: what this server takes and answers, as an `OpenAPI` 3.1 document.
//!
//! Requests are read field by field, with names and messages of their own (`api::fields`), so the document is data beside the
//! parser and not derived from types. Tests compare every name in it with those that the parser asks for, and check the
//! requests and responses of the server's tests against its schemas.

mod paths;
mod requests;
mod responses;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::{ImageHost, Shared};

/// What a server tells of itself.
struct Served<'a> {
    model: &'a str,
    /// Names.
    presets: Vec<String>,
    max_rows: usize,
    needs_key: bool,
    image_hosts: &'a [ImageHost],
}

/// Answers a request.
pub(super) async fn document(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let served = Served {
        model: &shared.options.model,
        presets: shared.reader.presets().list().into_iter().map(|preset| preset.name).collect(),
        max_rows: shared.reader.limits().max_rows,
        needs_key: !shared.options.keys.is_empty(),
        image_hosts: &shared.options.image_hosts,
    };
    Json(describe(&served))
}

fn describe(served: &Served<'_>) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "vintern",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "OpenAI's chat completions on a Vintern model. Every field is honoured or refused by name; null is \
                            the same as absent. What fails has the form of Error, whatever the path: `unknown_path` (404) \
                            and `wrong_method` (405) included.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths::paths(served),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "One of the server's keys."}},
            "schemas": schemas(served),
        },
    })
}

fn schemas(served: &Served<'_>) -> Value {
    json!({
        "ChatRequest": requests::chat(served),
        "Message": requests::message(),
        "TextPart": requests::text_part(),
        "ImagePart": requests::image_part(),
        "ImageUrl": requests::image_url(served),
        "InspectRequest": requests::inspect(served),
        "ChatCompletion": responses::completion(),
        "ChatCompletionChunk": responses::chunk(),
        "Logprobs": responses::logprobs(),
        "TokenLogprob": responses::token_logprob(),
        "Usage": responses::usage(),
        "Model": responses::model(),
        "ModelList": responses::models(),
        "Tiles": responses::tiles(),
        "Health": responses::health(),
        "Error": responses::error(),
    })
}
