//! Paths, and what is common to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use super::api::ApiError;
use super::{Shared, chat, inspect, openapi, page};

/// Every path of the server; `openapi` describes them.
pub(super) fn routes() -> [(&'static str, MethodRouter<Arc<Shared>>); 10] {
    [
        ("/", get(page::index)),
        ("/page/{part}", get(page::part)),
        ("/v1/chat/completions", post(chat::completions)),
        ("/v1/inspect", post(inspect::inspect)),
        ("/v1/models", get(models)),
        ("/v1/models/{model}", get(model)),
        ("/health", get(|| async { Json(json!({"status": "ok"})) })),
        ("/health/ready", get(ready)),
        ("/metrics", get(metrics)),
        ("/openapi.json", get(openapi::document)),
    ]
}

/// The routes, and what is common to them.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    routes()
        .into_iter()
        // Names of models may have slashes, for which OpenAPI has no word.
        .fold(Router::new(), |router, (path, handler)| router.route(&path.replace("{model}", "{*model}"), handler))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(no_sniffing))
        .layer(CatchPanicLayer::new())
        .with_state(shared)
}

/// Nothing here is to be taken for another kind of document than it says.
async fn no_sniffing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

async fn models(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    shared.keys.check(&headers)?;
    Ok(Json(json!({"object": "list", "data": [described(&shared)]})))
}

async fn model(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    shared.keys.check(&headers)?;
    shared.check_model(&name)?;
    Ok(Json(described(&shared)))
}

fn described(shared: &Shared) -> Value {
    let presets: Vec<Value> = shared
        .reader
        .presets()
        .list()
        .iter()
        .map(|preset| json!({"name": preset.name, "description": preset.description, "settings": preset.settings}))
        .collect();
    json!({"id": shared.options.model, "object": "model", "created": 0, "owned_by": "vintern", "presets": presets})
}

/// Whether the server takes requests on; it stops before it ends.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.draining.load(Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "shutting down"}))).into_response();
    }
    Json(json!({"status": "ready"})).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let text = shared
        .metrics
        .text()
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics_failed", error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn unknown_path(request: Request) -> ApiError {
    let message = format!("there is no {}; the API is at /v1/chat/completions and /v1/models", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", message)
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}
