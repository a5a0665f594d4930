//! What responses say.

use serde_json::{Value, json};

use super::schema::{described, named, or_null, response_object};

/// A whole answer.
pub(super) fn completion() -> Value {
    let message = response_object(
        json!({"role": {"const": "assistant"}, "content": {"type": "string"}, "refusal": {"type": "null"}}),
        &[],
    );
    let choice = response_object(
        json!({
            "index": count(), "message": message, "logprobs": or_null(named("Logprobs")),
            "finish_reason": finish_reason(), "token_ids": token_ids(),
        }),
        &["token_ids"],
    );
    response_object(
        json!({
            "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": seconds(),
            "model": {"type": "string"}, "choices": {"type": "array", "items": choice}, "usage": named("Usage"),
        }),
        &[],
    )
}

/// A piece of an answer.
pub(super) fn chunk() -> Value {
    let delta =
        response_object(json!({"role": {"const": "assistant"}, "content": {"type": "string"}}), &["role", "content"]);
    let choice = response_object(
        json!({
            "index": count(), "delta": delta,
            "logprobs": described(
                or_null(named("Logprobs")),
                "Entries of the tokens whose text begins in this piece.",
            ),
            "finish_reason": or_null(finish_reason()), "token_ids": token_ids(),
        }),
        &["token_ids"],
    );
    let usage = described(or_null(named("Usage")), "Where it was asked for: null but in the last piece.");
    response_object(
        json!({
            "id": {"type": "string"}, "object": {"const": "chat.completion.chunk"}, "created": seconds(),
            "model": {"type": "string"}, "choices": {"type": "array", "items": choice}, "usage": usage,
        }),
        &["usage"],
    )
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn seconds() -> Value {
    described(count(), "Seconds since 1970.")
}

fn finish_reason() -> Value {
    described(
        json!({"enum": ["stop", "length"]}),
        "`stop`: the answer ended, or a stop text did; `length`: it was cut short.",
    )
}

fn token_ids() -> Value {
    described(json!({"type": "array", "items": count()}), "With `return_token_ids`; the end of the answer included.")
}

/// The log-probabilities of a text.
pub(super) fn logprobs() -> Value {
    let content = described(
        json!({"type": "array", "items": named("TokenLogprob")}),
        "An entry for each token that has a byte in the text.",
    );
    response_object(json!({"content": content, "refusal": {"type": "null"}}), &[])
}

/// The log-probability of a token, and of those beside it.
pub(super) fn token_logprob() -> Value {
    let one = || {
        json!({
            "token": described(json!({"type": "string"}), "The text; U+FFFD where it is no whole character."),
            "logprob": described(json!({"type": "number", "maximum": 0}), "Natural logarithm; -9999 if it has no probability."),
            "bytes": described(
                json!({"type": ["array", "null"], "items": {"type": "integer", "minimum": 0, "maximum": 255}}),
                "The text's bytes; null for an id without a token.",
            ),
        })
    };
    let mut entry = one();
    entry["top_logprobs"] = described(
        json!({"type": "array", "items": response_object(one(), &[])}),
        "The likeliest tokens at this place, likeliest first.",
    );
    response_object(entry, &[])
}

/// Counts of a request.
pub(super) fn usage() -> Value {
    let details = response_object(
        json!({
            "cached_tokens": described(count(), "Tokens of the prompt that were still in the cache."),
            "image_tokens": count(),
            "image_tiles": count(),
        }),
        &[],
    );
    response_object(
        json!({
            "prompt_tokens": count(), "completion_tokens": described(count(), "Those of all answers."),
            "total_tokens": count(), "prompt_tokens_details": details,
        }),
        &[],
    )
}

/// The model and its presets.
pub(super) fn model() -> Value {
    let preset = response_object(
        json!({
            "name": {"type": "string"}, "description": {"type": ["string", "null"]},
            "settings": described(json!({"type": "object"}), "Values by the names of request fields."),
        }),
        &[],
    );
    response_object(
        json!({
            "id": {"type": "string"}, "object": {"const": "model"}, "created": count(), "owned_by": {"type": "string"},
            "presets": {"type": "array", "items": preset},
        }),
        &[],
    )
}

/// All models: one.
pub(super) fn models() -> Value {
    response_object(json!({"object": {"const": "list"}, "data": {"type": "array", "items": named("Model")}}), &[])
}

/// An image as the model gets it.
pub(super) fn tiles() -> Value {
    response_object(
        json!({
            "grid": response_object(json!({"columns": count(), "rows": count()}), &[]),
            "thumbnail": described(json!({"type": "boolean"}), "Whether the last tile is the whole image."),
            "tile_size": described(count(), "Side of the model's tiles in pixels."),
            "image_tokens": count(),
            "tiles": described(json!({"type": "array", "items": {"type": "string"}}), "Data URLs, made smaller."),
        }),
        &[],
    )
}

/// Whether the server is alive, or takes requests on.
pub(super) fn health() -> Value {
    response_object(json!({"status": {"enum": ["ok", "ready", "shutting down"]}}), &[])
}

/// A refusal or a failure.
pub(super) fn error() -> Value {
    let kinds = ["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"];
    let error = response_object(
        json!({
            "message": described(json!({"type": "string"}), "What was asked, what was found, what to do."),
            "type": {"enum": kinds},
            "param": described(
                json!({"type": ["string", "null"]}),
                "The field at fault, such as messages[2].content[0].image_url.",
            ),
            "code": described(json!({"type": "string"}), "Stable, for programs; each response of this document lists its own."),
        }),
        &[],
    );
    response_object(json!({"error": error}), &[])
}
