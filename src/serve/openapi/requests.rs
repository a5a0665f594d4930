//! What requests may say. Tests compare the names with those that `api` asks for.

use serde_json::{Value, json};

use super::Served;
use super::schema::{Field, field, named, request_object};
use crate::preprocess::MAX_TILES;
use crate::serve::api::{MAX_STOP_LENGTH, MAX_STOPS, MOST_TOP_LOGPROBS, WITHOUT_EFFECT};

/// The body of a chat completion.
pub(super) fn chat(served: &Served<'_>) -> Value {
    let text = json!({"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH});
    let mut fields = vec![
        field(&["model"], json!({"type": "string", "enum": [served.model]}), "The model; there is one."),
        field(
            &["messages"],
            json!({"type": "array", "items": named("Message"), "minItems": 1}),
            "A `system` message or none, then `user` and `assistant` in turn, `user` last.",
        ),
        field(
            &["stream"],
            json!({"type": "boolean", "default": false}),
            "Whether the answer comes in pieces, as server-sent events.",
        ),
        field(&["stream_options"], stream_options(), "Only with `stream: true`."),
        field(
            &["return_token_ids"],
            json!({"type": "boolean", "default": false}),
            "Whether each choice has its `token_ids`.",
        ),
        field(
            &["logprobs"],
            json!({"type": "boolean", "default": false}),
            "Whether each choice has the log-probabilities of the tokens of its text: the log-softmax of the model's logits, \
             before penalties and temperature.",
        ),
        field(
            &["top_logprobs"],
            json!({"type": "integer", "minimum": 0, "maximum": MOST_TOP_LOGPROBS, "default": 0}),
            "How many of the likeliest tokens come beside each; above 0 only with `logprobs: true`.",
        ),
        preset(served),
        field(
            &["stop"],
            json!({"anyOf": [text, {"type": "array", "items": text, "maxItems": MAX_STOPS}]}),
            "Texts that end the answer before themselves.",
        ),
    ];
    fields.extend(generation(served));
    fields.extend(images());
    fields.extend(neutral());
    request_object(fields, &["messages"])
}

/// The body of a request for an image's tiles.
pub(super) fn inspect(served: &Served<'_>) -> Value {
    let image = field(&["image"], named("ImageUrl"), "The image, as in a message.");
    let fields = [vec![image, preset(served)], images()].concat();
    request_object(fields, &["image"])
}

fn stream_options() -> Value {
    let fields = vec![
        field(
            &["include_usage"],
            json!({"type": "boolean", "default": false}),
            "Whether the last piece tells the usage, and has no choices.",
        ),
        field(&["include_obfuscation"], json!({"enum": [false]}), "Only `false`."),
        field(&["continuous_usage_stats"], json!({"enum": [false]}), "Only `false`."),
    ];
    request_object(fields, &[])
}

fn preset(served: &Served<'_>) -> Field {
    field(
        &["preset"],
        json!({"type": "string", "enum": served.presets}),
        "Settings to start from; GET /v1/models lists them. Without it the package's choice, else `describe` with an image \
         and `text` without.",
    )
}

/// How to generate. What is not given is the preset's.
fn generation(served: &Served<'_>) -> Vec<Field> {
    let count = |from: usize| json!({"type": "integer", "minimum": from});
    let rows = json!({"type": "integer", "minimum": 1, "maximum": served.max_rows});
    vec![
        field(
            &["max_tokens", "max_completion_tokens", "max_new_tokens"],
            count(1),
            "Most tokens to generate; the preset's without it.",
        ),
        field(&["min_tokens", "min_new_tokens"], count(0), "Fewest tokens to generate."),
        field(&["num_beams"], rows.clone(), "Beams; 1 is greedy search. The preset's without it."),
        field(
            &["use_beam_search"],
            json!({"type": "boolean"}),
            "Beam search as other servers ask for it: the beams are `num_beams`, else `best_of`, else `n`.",
        ),
        field(&["best_of"], rows.clone(), "The beams with `use_beam_search`; else only the value of `n`."),
        field(
            &["n", "num_return_sequences"],
            described_default(rows, json!(1)),
            "Answers: samples, or the best beams.",
        ),
        field(
            &["repetition_penalty", "repeat_penalty"],
            json!({"type": "number", "exclusiveMinimum": 0}),
            "Above 1 tokens of the answer are less likely to come again. The preset's without it.",
        ),
        field(
            &["length_penalty"],
            json!({"type": "number"}),
            "Beam search: scores are divided by the length to this power.",
        ),
        field(
            &["early_stopping"],
            json!({"enum": [true, false, "true", "false", "never"]}),
            "Beam search: when to stop once there are as many answers as beams.",
        ),
        field(&["no_repeat_ngram_size"], count(0), "No run of this many tokens comes twice; 0 is off."),
        field(
            &["temperature"],
            json!({"type": "number", "minimum": 0}),
            "0 is greedy search; above 0 tokens are drawn.",
        ),
        field(&["top_k"], json!({"type": "integer", "minimum": -1}), "Draw from this many tokens; 0 and -1 are off."),
        field(
            &["top_p"],
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            "Draw from the likeliest tokens that hold this much probability; 1 is off.",
        ),
        field(
            &["min_p"],
            json!({"type": "number", "minimum": 0, "maximum": 1}),
            "Draw from tokens at least this likely, relative to the likeliest; 0 is off.",
        ),
        field(&["seed"], json!({"type": "integer"}), "Seed of the draws."),
    ]
}

fn described_default(mut schema: Value, default: Value) -> Value {
    schema["default"] = default;
    schema
}

/// How to read images. What is not given is the preset's.
fn images() -> Vec<Field> {
    let mut fields = tile_fields();
    fields.push(field(
        &["orientation"],
        json!({"type": "string", "enum": ["auto", "ignore"]}),
        "Whether images are turned as their EXIF data say.",
    ));
    let processor = request_object(tile_fields(), &[]);
    fields.push(field(&["mm_processor_kwargs"], processor, "The fields for tiles, as other servers take them."));
    fields
}

fn tile_fields() -> Vec<Field> {
    let tiles = json!({"type": "integer", "minimum": 1, "maximum": MAX_TILES});
    vec![
        field(&["max_tiles", "max_dynamic_patch"], tiles.clone(), "Most tiles an image is cut into."),
        field(&["min_tiles", "min_dynamic_patch"], tiles, "Fewest tiles an image is cut into."),
        field(
            &["use_thumbnail"],
            json!({"type": "boolean"}),
            "Whether an image of several tiles is shown whole as well.",
        ),
    ]
}

/// Fields of the API that pass where they change nothing.
fn neutral() -> Vec<Field> {
    const ONLY: &str = "Only a value that changes nothing.";
    let only = |names, values: Value| field(names, json!({"enum": values}), ONLY);
    let empty = || json!({"anyOf": [{"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0}]});
    let mut fields = vec![
        only(&["frequency_penalty"], json!([0])),
        only(&["presence_penalty"], json!([0])),
        field(&["logit_bias"], empty(), ONLY),
        field(&["tools"], empty(), ONLY),
        field(&["functions"], empty(), ONLY),
        only(&["tool_choice"], json!(["none", "auto"])),
        field(&["parallel_tool_calls"], json!({"type": "boolean"}), "Changes nothing: the model calls no tools."),
        field(
            &["response_format"],
            json!({"type": "object", "properties": {"type": {"const": "text"}}, "required": ["type"]}),
            ONLY,
        ),
        field(&["modalities"], json!({"type": "array", "items": {"const": "text"}}), ONLY),
        only(&["store"], json!([false])),
        only(&["echo"], json!([false])),
        only(&["ignore_eos"], json!([false])),
        only(&["skip_special_tokens"], json!([true])),
        only(&["add_generation_prompt"], json!([true])),
        only(&["continue_final_message"], json!([false])),
    ];
    fields
        .extend(WITHOUT_EFFECT.chunks(1).map(|name| field(name, json!({}), "Says who asks, or how; changes nothing.")));
    fields
}

/// A message, by its role.
pub(super) fn message() -> Value {
    let of = |roles: Value, parts: Value| {
        let content = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": parts}]});
        let fields = vec![
            field(&["role"], json!({"type": "string", "enum": roles}), "Who says it."),
            field(&["content"], content, "What is said. Images only of role `user`."),
            field(&["name"], json!({"type": "string"}), "Changes nothing."),
            field(&["refusal"], json!({"enum": []}), "Only null."),
            field(&["tool_calls"], json!({"type": "array", "maxItems": 0}), "Only an empty list."),
        ];
        request_object(fields, &["role", "content"])
    };
    let any_part = json!({"anyOf": [named("TextPart"), named("ImagePart")]});
    json!({"anyOf": [
        of(json!(["system", "developer", "assistant"]), named("TextPart")),
        of(json!(["user"]), any_part),
    ]})
}

/// A part of a message that is text.
pub(super) fn text_part() -> Value {
    let fields = vec![
        field(&["type"], json!({"type": "string", "enum": ["text"]}), "What the part is."),
        field(
            &["text"],
            json!({"type": "string"}),
            "The text. With as many `<image>` marks as the message has images they say where these stand.",
        ),
    ];
    request_object(fields, &["type", "text"])
}

/// A part of a message that is an image.
pub(super) fn image_part() -> Value {
    let fields = vec![
        field(&["type"], json!({"type": "string", "enum": ["image_url"]}), "What the part is."),
        field(&["image_url"], named("ImageUrl"), "The image."),
    ];
    request_object(fields, &["type", "image_url"])
}

/// An image: its URL, alone or in an object.
pub(super) fn image_url(served: &Served<'_>) -> Value {
    let pattern = if served.image_hosts.is_empty() { "^data:" } else { "^(data:|[Hh][Tt][Tt][Pp][Ss]?:)" };
    let url = json!({"type": "string", "pattern": pattern});
    let fields = vec![
        field(&["url"], url.clone(), image_url_meaning(served)),
        field(
            &["detail"],
            json!({"type": "string", "enum": ["auto", "low", "high", "original"]}),
            "Changes nothing: how many tiles an image becomes is `max_tiles`.",
        ),
        field(&["format"], json!({"type": "string"}), "Changes nothing: the format is read off the file."),
    ];
    json!({"anyOf": [url, request_object(fields, &["url"])]})
}

fn image_url_meaning(served: &Served<'_>) -> String {
    let data = "A data URL in base64: data:image/png;base64,…";
    if served.image_hosts.is_empty() {
        return data.to_owned();
    }
    let hosts: Vec<String> = served.image_hosts.iter().map(ToString::to_string).collect();
    format!("{data}, or a URL at one of the hosts {}.", hosts.join(", "))
}
