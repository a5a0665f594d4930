//! Refusals in the form of `OpenAI`'s API.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::fields::shortened;
use crate::engine::EngineError;
use crate::generate::{SearchError, SettingsError};
use crate::settings::ChoiceError;

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Status of the response.
    pub status: StatusCode,
    /// `error.code`: stable, for programs.
    pub code: &'static str,
    /// `error.param`: the field at fault, such as `messages[2].content[0].image_url`.
    pub param: Option<String>,
    /// `error.message`: what was asked, what was found, what to do.
    pub message: String,
}

impl ApiError {
    /// A field that cannot be honoured: 400.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "invalid_value",
            param: Some(param.into()),
            message: message.into(),
        }
    }

    /// An error of no field in particular.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into() }
    }

    /// The body: `{"error": {"message", "type", "param", "code"}}`.
    pub fn body(&self) -> serde_json::Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers: &[_] = match self.status {
            StatusCode::TOO_MANY_REQUESTS => &[(header::RETRY_AFTER, "1")],
            // Whoever comes again is to find another server.
            StatusCode::SERVICE_UNAVAILABLE => &[(header::RETRY_AFTER, "1"), (header::CONNECTION, "close")],
            StatusCode::UNAUTHORIZED => &[(header::WWW_AUTHENTICATE, "Bearer")],
            _ => &[],
        };
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The message of an error with its hint, which stands on a line of its own for people at a terminal.
pub(in crate::serve) fn on_one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().replace("\nhint: ", "; ")
}

/// The name of a choice in requests.
fn spelt(choice: &str) -> String {
    match choice {
        "num_return_sequences" => "n",
        "max_new_tokens" => "max_tokens",
        choice => choice,
    }
    .to_owned()
}

impl From<ChoiceError> for ApiError {
    fn from(mut error: ChoiceError) -> Self {
        if let ChoiceError::UnknownPreset { name, .. } = &mut error {
            *name = shortened(name);
        }
        let message = match error.hint(spelt) {
            Some(hint) => format!("{}; {hint}", error.message(spelt)),
            None => error.message(spelt),
        };
        Self::field(spelt(error.choice()), on_one_line(&message))
    }
}

impl From<&EngineError> for ApiError {
    fn from(error: &EngineError) -> Self {
        let message = on_one_line(error);
        match error {
            EngineError::PromptTooLong { .. } => Self {
                code: "context_length_exceeded",
                ..Self::field("messages", message.replace(" (--max-tiles)", " (max_tiles)"))
            },
            EngineError::CacheTooSmall { .. } => Self { code: "cache_too_small", ..Self::field("max_tokens", message) },
            EngineError::Settings(SettingsError::TooManySequences { .. }) | EngineError::TooManyRows { .. } => {
                Self::field("n", message)
            }
            EngineError::Settings(error @ SettingsError::OutOfRange { .. }) => ChoiceError::from(error.clone()).into(),
            EngineError::Prompt(_) | EngineError::Image(_) | EngineError::TileSize { .. } => {
                Self::field("messages", message)
            }
            EngineError::Search(SearchError::NothingLeft { .. }) => Self::field("no_repeat_ngram_size", message),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", message),
        }
    }
}
