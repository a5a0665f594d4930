//! The reference's cases, eight at a time: everyone gets the reference's ids whoever runs beside it.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::common::{golden, golden_json, package};
use crate::support::{Server, image};

/// The request that asks what a case asks. Where its texts have marks, they say where the images stand.
pub fn request(case: &Value) -> Value {
    let images = case["images"].as_array().unwrap();
    let mut images = images.iter().map(|name| image(&golden("images").join(name.as_str().unwrap()))).peekable();
    let mut user = |text: &str, is_last: bool| {
        let marks = text.matches("<image>").count();
        let wanted = if marks == 0 && is_last && case["history_in"].is_null() { usize::MAX } else { marks };
        let mut parts: Vec<Value> = images.by_ref().take(wanted).collect();
        parts.push(json!({"type": "text", "text": text}));
        json!({"role": "user", "content": parts})
    };
    let mut messages = Vec::new();
    for turn in case["history_in"].as_array().into_iter().flatten() {
        messages.push(user(turn[0].as_str().unwrap(), false));
        messages.push(json!({"role": "assistant", "content": turn[1]}));
    }
    messages.push(user(case["question"].as_str().unwrap(), true));
    let neutral = json!({
        "messages": messages, "max_tiles": case["max_num"], "orientation": "ignore", "return_token_ids": true,
        "num_beams": 1, "repetition_penalty": 1, "max_tokens": 20, "min_tokens": 0, "length_penalty": 1,
        "early_stopping": false,
    });
    let mut request = neutral;
    for (name, value) in case["generation"].as_object().unwrap() {
        let name = match name.as_str() {
            "do_sample" => continue,
            "max_new_tokens" => "max_tokens",
            "min_new_tokens" => "min_tokens",
            name => name,
        };
        request[name] = value.clone();
    }
    request
}

fn check_all(checkpoint: &str) {
    let server = Server::start(&package(checkpoint, "fp32"), &["--max-body", "64"]);
    let cases = golden_json::<Value>(&format!("{checkpoint}.cases.json"))["cases"].as_array().unwrap().clone();
    let waiting = Mutex::new(cases.iter());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().unwrap().next() else { return };
                    let answer = server.ask(&request(case));
                    let choice = &answer["choices"][0];
                    assert_eq!(choice["token_ids"], case["output_ids"], "{}", case["id"]);
                    assert_eq!(choice["message"]["content"], case["response"], "{}", case["id"]);
                    assert_eq!(answer["usage"]["prompt_tokens"], case["n_prompt_tokens"], "{}", case["id"]);
                }
            });
        }
    });
    assert_eq!(server.metric("vintern_requests_total{status=\"200\"}"), cases.len() as u64);
}

#[test]
fn the_cases_of_ckpt_a_in_company() {
    check_all("ckpt_a");
}

#[test]
fn the_cases_of_ckpt_b_in_company() {
    check_all("ckpt_b");
}
