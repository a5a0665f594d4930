//! Paths, and what each of them answers.

use serde_json::{Map, Value, json};

use super::Served;
use super::schema::named;

/// Every path of the server.
pub(super) fn paths(served: &Served<'_>) -> Value {
    json!({
        "/v1/chat/completions": {"post": chat(served)},
        "/v1/inspect": {"post": inspect(served)},
        "/v1/models": {"get": models(served)},
        "/v1/models/{model}": {"get": model(served)},
        "/health": {"get": get("health", "Whether the server is alive.", [("200", json_of("Health", "It is."))])},
        "/health/ready": {"get": get("ready", "Whether the server takes requests on.", [
            ("200", json_of("Health", "It does.")), ("503", json_of("Health", "It is shutting down.")),
        ])},
        "/metrics": {"get": get("metrics", "Counters for Prometheus.", [
            ("200", of_kind("text/plain", "In the text format.")), ("500", refusal("`metrics_failed`.")),
        ])},
        "/openapi.json": {"get": get("openapi", "This document.", [("200", of_kind("application/json", "OpenAPI 3.1."))])},
        "/": {"get": get("page", "A page to try the server with.", [("200", of_kind("text/html", "The page."))])},
        "/page/{part}": {"get": page_part()},
    })
}

fn get<const N: usize>(id: &str, summary: &str, responses: [(&str, Value); N]) -> Value {
    json!({"operationId": id, "summary": summary, "security": [], "responses": by_status(responses)})
}

fn by_status<const N: usize>(responses: [(&str, Value); N]) -> Map<String, Value> {
    responses.into_iter().map(|(status, response)| (status.to_owned(), response)).collect()
}

fn of_kind(kind: &str, description: &str) -> Value {
    json!({"description": description, "content": {kind: {}}})
}

fn json_of(schema: &str, description: &str) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": named(schema)}}})
}

/// A refusal; the description lists its codes.
fn refusal(description: &str) -> Value {
    json_of("Error", description)
}

fn coming_again(mut refusal: Value) -> Value {
    refusal["headers"] = json!({"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}});
    refusal
}

/// Whether an operation needs a key.
fn security(served: &Served<'_>) -> Value {
    if served.needs_key { json!([{"key": []}]) } else { json!([]) }
}

fn unauthorized() -> (&'static str, Value) {
    let mut refusal = refusal("`missing_api_key`, `invalid_api_key`; only where the server has keys.");
    refusal["headers"] = json!({"WWW-Authenticate": {"schema": {"const": "Bearer"}}});
    ("401", refusal)
}

/// What can be wrong with any body.
fn body_refusals() -> [(&'static str, Value); 6] {
    [
        (
            "400",
            refusal(
                "`invalid_json`: the body is not JSON; `invalid_body`: it cannot be read; `unknown_parameter`, \
                 `invalid_value`, `unsupported_value`: the field in `param`; `invalid_image`: an image that cannot be \
                 decoded; `image_url_not_allowed`, `image_not_fetched`: one at a URL that is not asked, or had none; \
                 `context_length_exceeded`: a prompt longer than the model takes; `cache_too_small`: more than the \
                 server's cache could ever hold.",
            ),
        ),
        unauthorized(),
        ("408", refusal("`body_timeout`: the body did not arrive in time.")),
        ("413", refusal("`body_too_large`.")),
        (
            "429",
            coming_again(refusal(
                "`queue_full`: the server has as many requests as it takes, or as many large bodies as it has memory for.",
            )),
        ),
        ("500", refusal("`engine_failed`, `request_failed`, `tile_failed`: the server's fault.")),
    ]
}

fn body(schema: &str) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": named(schema)}}})
}

fn chat(served: &Served<'_>) -> Value {
    let events = "Without `stream` one object. With it server-sent events, the data of each a ChatCompletionChunk, the last \
                  [DONE]; what fails after the first of them is an event with an Error.";
    let mut responses = by_status(body_refusals());
    responses.extend(by_status([
        (
            "200",
            json!({"description": events, "content": {
                "application/json": {"schema": named("ChatCompletion")},
                "text/event-stream": {"schema": named("ChatCompletionChunk")},
            }}),
        ),
        ("404", refusal("`model_not_found`.")),
        ("503", coming_again(refusal("`shutting_down`."))),
        ("504", refusal("`timeout`: the request took too long.")),
    ]));
    json!({
        "operationId": "createChatCompletion", "summary": "Answers a question, about images too.",
        "security": security(served), "requestBody": body("ChatRequest"), "responses": responses,
    })
}

fn inspect(served: &Served<'_>) -> Value {
    let mut responses = by_status(body_refusals());
    responses.extend(by_status([("200", json_of("Tiles", "The tiles."))]));
    json!({
        "operationId": "inspect", "summary": "The tiles the model gets of an image.", "security": security(served),
        "requestBody": body("InspectRequest"), "responses": responses,
    })
}

fn models(served: &Served<'_>) -> Value {
    json!({
        "operationId": "listModels", "summary": "The model and its presets.", "security": security(served),
        "responses": by_status([("200", json_of("ModelList", "One model.")), unauthorized()]),
    })
}

fn model(served: &Served<'_>) -> Value {
    let not_found = ("404", refusal("`model_not_found`."));
    json!({
        "operationId": "retrieveModel", "summary": "The model and its presets.", "security": security(served),
        "parameters": [parameter("model")],
        "responses": by_status([("200", json_of("Model", "The model.")), unauthorized(), not_found]),
    })
}

fn parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn page_part() -> Value {
    let content = json!({"text/css": {}, "text/javascript": {}});
    json!({
        "operationId": "pagePart", "summary": "What belongs to the page.", "security": [],
        "parameters": [parameter("part")],
        "responses": {"200": {"description": "The file.", "content": content}, "404": {"description": "There is none."}},
    })
}
