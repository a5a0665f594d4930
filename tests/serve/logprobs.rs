//! Log-probabilities on the wire.

use std::fs::File;

use ndarray::Array1;
use ndarray_npy::NpzReader;
use serde_json::{Value, json};

use crate::common::{golden, golden_json, package};
use crate::golden::request;
use crate::support::{Server, about_receipt, content, with};

/// Largest difference from the reference's log-probabilities, in logits of about 10.
const TOLERANCE: f64 = 1e-3;

/// The bytes of all entries, end to end.
fn bytes(entries: &[Value]) -> Vec<u8> {
    let numbers = entries.iter().flat_map(|entry| entry["bytes"].as_array().unwrap());
    numbers.map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect()
}

fn entries(choice: &Value) -> Vec<Value> {
    choice["logprobs"]["content"].as_array().unwrap_or_else(|| panic!("{choice}")).clone()
}

#[test]
fn they_go_with_the_text_plain_and_streamed() {
    let server = Server::bundled(&[]);
    for (fields, search) in [
        (json!({"top_logprobs": 3}), "greedy"),
        (json!({}), "greedy"),
        (json!({"num_beams": 3, "repetition_penalty": 1.1, "top_logprobs": 20}), "beams"),
        (json!({"temperature": 0.9, "seed": 3, "top_logprobs": 2}), "sampling"),
        (json!({"num_beams": 2, "stop": ["\nNgày", "000"], "top_logprobs": 1}), "beams"),
    ] {
        let request = with(about_receipt("Đọc toàn bộ chữ trong ảnh."), json!({"logprobs": true, "max_tokens": 40}));
        let request = with(request, fields.clone());
        let answer = server.ask(&request);
        let whole = entries(&answer["choices"][0]);
        assert_eq!(answer["choices"][0]["logprobs"]["refusal"], Value::Null);
        let (told, text) = (bytes(&whole), content(&answer));
        assert!(String::from_utf8_lossy(&told).trim_start().starts_with(text), "{fields}: {whole:?}");
        let top = fields["top_logprobs"].as_u64().unwrap_or(0) as usize;
        for entry in &whole {
            let (logprob, alternatives) = (&entry["logprob"], entry["top_logprobs"].as_array().unwrap());
            assert_eq!(alternatives.len(), top);
            assert!(logprob.as_f64().unwrap() <= 0.0);
            assert_eq!(entry["token"], *String::from_utf8_lossy(&bytes(std::slice::from_ref(entry))));
            if top > 0 && search == "greedy" {
                assert_eq!((&alternatives[0]["token"], &alternatives[0]["logprob"]), (&entry["token"], logprob));
            }
            let values: Vec<f64> = alternatives.iter().map(|entry| entry["logprob"].as_f64().unwrap()).collect();
            assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
        }
        let (mut streamed, mut text_told) = (Vec::new(), String::new());
        for chunk in server.stream(&request) {
            let choice = &chunk["choices"][0];
            let Some(piece) = choice["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) else {
                assert_eq!(choice["logprobs"], Value::Null);
                continue;
            };
            text_told += piece;
            streamed.extend(entries(choice));
            assert!(String::from_utf8_lossy(&bytes(&streamed)).trim_start().starts_with(&text_told));
        }
        assert_eq!((streamed, text_told.as_str()), (whole, text), "{fields}");
    }
}

#[test]
fn each_of_several_answers_has_its_own() {
    let server = Server::bundled(&[]);
    let fields = json!({"logprobs": true, "n": 3, "temperature": 1.5, "seed": 1, "max_tokens": 12});
    let request = with(about_receipt("Tổng cộng là bao nhiêu?"), fields);
    let answer = server.ask(&request);
    let chunks = server.stream(&request);
    for (index, choice) in answer["choices"].as_array().unwrap().iter().enumerate() {
        let text = choice["message"]["content"].as_str().unwrap();
        assert!(String::from_utf8_lossy(&bytes(&entries(choice))).trim_start().starts_with(text));
        let pieces = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|piece| piece["index"] == index);
        let told: Vec<Value> = pieces.filter(|piece| !piece["logprobs"].is_null()).flat_map(entries).collect();
        assert_eq!(told, entries(choice));
    }
    let without = with(request, json!({"logprobs": false}));
    assert!(server.ask(&without)["choices"].as_array().unwrap().iter().all(|choice| choice["logprobs"].is_null()));
}

/// The reference's logits of the first step, before its processors, for greedy search and beams.
#[test]
fn the_first_are_those_of_the_references_logits() {
    let server = Server::start(&package("ckpt_a", "fp32"), &["--max-body", "64"]);
    let file = File::open(golden("ckpt_a.arrays.npz")).unwrap();
    let mut arrays = NpzReader::new(file).unwrap();
    let mut compared = 0;
    for case in golden_json::<Value>("ckpt_a.cases.json")["cases"].as_array().unwrap() {
        let name = format!("{}.first_step_logits.npy", case["id"].as_str().unwrap());
        let logits: Array1<f32> = arrays.by_name(&name).unwrap();
        let answer = server.ask(&with(request(case), json!({"logprobs": true, "top_logprobs": 20})));
        let choice = &answer["choices"][0];
        let entries = entries(choice);
        let ids: Vec<usize> =
            choice["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as usize).collect();
        // The tokens that `skipped_in_text` names leave no trace. Where others do, the first may be one of them.
        let visible = |id: &&usize| !(900..914).contains(*id);
        let token = ids[0];
        if !visible(&&token) || entries.len() != ids.iter().filter(visible).count() {
            continue;
        }
        compared += 1;
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let logprob = |token: usize| f64::from(logits[token]) - sum.ln();
        let found = entries[0]["logprob"].as_f64().unwrap();
        assert!((found - logprob(token)).abs() < TOLERANCE, "{name}: {found} instead of {}", logprob(token));
        let mut sorted: Vec<f64> = (0..logits.len()).map(logprob).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for (entry, expected) in entries[0]["top_logprobs"].as_array().unwrap().iter().zip(sorted) {
            let found = entry["logprob"].as_f64().unwrap();
            assert!((found - expected).abs() < TOLERANCE, "{name}: {found} instead of {expected}");
        }
    }
    assert!(compared >= 5, "only {compared} cases begin with text");
}
