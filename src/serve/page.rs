//! The page to try the server with: three files, embedded.

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/app.js");

/// Nothing is loaded from elsewhere, and no script runs that is not ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page itself.
pub(super) async fn index() -> Response {
    let mut response = file("text/html; charset=utf-8", INDEX);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// What belongs to it.
pub(super) async fn part(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "style.css" => file("text/css; charset=utf-8", STYLE),
        "app.js" => file("text/javascript; charset=utf-8", SCRIPT),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}
