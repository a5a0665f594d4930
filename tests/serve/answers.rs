//! What the server answers is what `vintern chat` answers.

use serde_json::{Value, json};

use crate::common::{repository, vintern};
use crate::support::{Server, about_receipt, content, receipt, with};

const READ: &str = "Đọc toàn bộ chữ trong ảnh.";
const TOTAL: &str = "Tổng cộng là bao nhiêu?";

/// What the command line says of the receipt.
fn chat(arguments: &[&str], question: &str) -> Value {
    let mut command = vintern();
    command.current_dir(repository()).args(["chat", "--json", "--model", "models/vintern-tiny"]);
    command.args(["--image", "models/demo/receipt.png"]).args(arguments).arg(question);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[test]
fn it_answers_like_the_command_line() {
    let server = Server::bundled(&[]);
    for (fields, arguments) in [
        (json!({}), &[][..]),
        (
            json!({"num_beams": 3, "repetition_penalty": 1.1, "max_tokens": 40}),
            &["--num-beams", "3", "--repetition-penalty", "1.1", "--max-new-tokens", "40"],
        ),
        (
            json!({"temperature": 0, "top_p": 1, "seed": 7, "max_completion_tokens": 30}),
            &["--temperature", "0", "--max-new-tokens", "30"],
        ),
        (
            json!({"temperature": 0.7, "top_k": 20, "seed": 7, "max_new_tokens": 30}),
            &["--temperature", "0.7", "--top-k", "20", "--seed", "7", "--max-new-tokens", "30"],
        ),
        (
            json!({"use_beam_search": true, "best_of": 2, "n": 1, "stop": ["\nNgày"]}),
            &["--num-beams", "2", "--stop", "\nNgày"],
        ),
        (
            json!({"mm_processor_kwargs": {"max_dynamic_patch": 2}, "no_repeat_ngram_size": 9}),
            &["--max-tiles", "2", "--no-repeat-ngram-size", "9"],
        ),
        (json!({"preset": "describe"}), &["--preset", "describe"]),
    ] {
        let request = with(about_receipt(READ), with(fields.clone(), json!({"return_token_ids": true})));
        let (answer, expected) = (server.ask(&request), chat(arguments, READ));
        let choice = &answer["choices"][0];
        assert_eq!(choice["token_ids"], expected["token_ids"], "{fields}");
        assert_eq!(choice["message"]["content"], expected["text"], "{fields}");
        assert_eq!(choice["finish_reason"], expected["finish_reason"], "{fields}");
        let usage = &answer["usage"];
        for name in ["prompt_tokens", "completion_tokens"] {
            assert_eq!(usage[name], expected["usage"][name], "{fields}");
        }
        assert_eq!(usage["prompt_tokens_details"]["image_tokens"], expected["usage"]["image_tokens"], "{fields}");
        let pieces: String = server
            .stream(&request)
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(pieces, expected["text"].as_str().unwrap(), "{fields}");
    }
}

#[test]
fn a_stream_has_the_form_clients_expect() {
    let server = Server::bundled(&[]);
    let request = with(about_receipt(TOTAL), json!({"model": "vintern-tiny", "temperature": 0}));
    let plain = server.stream(&request);
    assert!(plain.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk.get("usage").is_none()));
    assert_eq!(plain[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(plain.len() > 5, "the answer came in {} pieces", plain.len());
    assert_eq!(plain.last().unwrap()["choices"][0]["finish_reason"], "stop");
    let with_usage = server.stream(&with(request, json!({"stream_options": {"include_usage": true}})));
    let (last, rest) = with_usage.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens_details"]["image_tiles"], 13);
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null()));
    let id = &with_usage[0]["id"];
    assert!(id.as_str().unwrap().starts_with("chatcmpl-") && with_usage.iter().all(|chunk| chunk["id"] == *id));
}

/// The second question finds the page in the cache: no tile is encoded, and of the prompt only what is new is computed.
#[test]
fn a_conversation_goes_on_from_the_cache() {
    let server = Server::bundled(&[]);
    let first = server.ask(&about_receipt(READ));
    let encoded = server.metric("vintern_tiles_encoded_total");
    assert_eq!(encoded, 13);
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": [receipt(), {"type": "text", "text": READ}]},
        {"role": "assistant", "content": content(&first)},
        {"role": "user", "content": TOTAL},
    ]);
    let other = server.ask(&json!({"messages": messages, "num_beams": 1}));
    assert_eq!(server.metric("vintern_tiles_encoded_total"), encoded, "the images' embeddings are cached");
    let messages = Value::Array(messages.as_array().unwrap()[1..].to_vec());
    let second = server.ask(&json!({"messages": messages}));
    assert_eq!(content(&second), "4.322.000");
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached >= first["usage"]["prompt_tokens"].as_u64().unwrap(), "{second}");
    assert!(other["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() < 20, "{other}");
    let images = ["images", "cached_images"].map(|name| server.metric(&format!("vintern_{name}_total")));
    assert_eq!(images, [3, 2], "the image is decoded once");
}

#[test]
fn several_answers_come_side_by_side() {
    let server = Server::bundled(&[]);
    let samples = json!({"n": 3, "temperature": 0.9, "seed": 1, "max_tokens": 12});
    let request = with(about_receipt(TOTAL), samples);
    let answer = server.ask(&request);
    let texts: Vec<&Value> =
        answer["choices"].as_array().unwrap().iter().map(|choice| &choice["message"]["content"]).collect();
    assert_eq!(texts.len(), 3);
    let chunks = server.stream(&request);
    for (index, text) in texts.into_iter().enumerate() {
        let pieces = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        let told: String = pieces.filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(told, *text);
    }
    let beams = server.ask(&with(about_receipt(TOTAL), json!({"num_beams": 3, "n": 2})));
    assert_eq!(beams["choices"].as_array().unwrap().len(), 2);
}

#[test]
fn the_model_is_listed() {
    let server = Server::bundled(&["--model-name", "reader"]);
    let get = |path: &str, described: &str| {
        let (status, answer) = server.get(path);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        server.contract.check_exchange(described, None, status, &answer);
        (status, answer)
    };
    assert_eq!(get("/v1/models", "/v1/models").1["data"][0]["id"], "reader");
    assert_eq!(get("/v1/models/reader", "/v1/models/{model}").0, 200);
    assert_eq!(get("/v1/models/other", "/v1/models/{model}").0, 404);
    assert_eq!(get("/health", "/health").1["status"], "ok");
    assert_eq!(get("/health/ready", "/health/ready").1["status"], "ready");
    assert_eq!(server.ask(&with(about_receipt(TOTAL), json!({"model": "reader"})))["model"], "reader");
}

#[test]
fn it_shows_what_the_model_sees_of_an_image() {
    let server = Server::bundled(&[]);
    let inspect = |request: Value| server.post_to("/v1/inspect", request.to_string().as_bytes(), &[]);
    let image = &receipt()["image_url"];
    let (status, seen) = inspect(json!({"image": image, "max_tiles": 6}));
    assert_eq!(status, 200, "{seen}");
    let tiles = seen["tiles"].as_array().unwrap();
    let grid = seen["grid"]["columns"].as_u64().unwrap() * seen["grid"]["rows"].as_u64().unwrap();
    assert_eq!((tiles.len() as u64, &seen["thumbnail"]), (grid + 1, &json!(true)));
    assert_eq!(seen["image_tokens"], 16 * (grid + 1));
    assert!(tiles.iter().all(|tile| tile.as_str().unwrap().starts_with("data:image/png;base64,")));
    let (status, refused) = inspect(json!({"image": image, "tiles": 6}));
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("tiles")));
    assert_eq!(inspect(json!({})).1["error"]["param"], "image");
}
