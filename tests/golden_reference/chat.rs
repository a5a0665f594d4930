//! Every chat case through the command line: ids, text, score.

use std::io::Write as _;

use assert_cmd::Command;
use serde_json::Value;

use crate::common::{golden, golden_json, package, vintern};

/// Largest accepted difference of a sequence score.
const SCORE_TOLERANCE: f64 = 1e-3;

/// The chat cases of a checkpoint.
pub fn cases(checkpoint: &str) -> Vec<Value> {
    golden_json::<Value>(&format!("{checkpoint}.cases.json"))["cases"].as_array().unwrap().clone()
}

/// The command that asks what a case asks.
pub fn command(
    case: &Value,
    package: &std::path::Path,
    more: &[&str],
    history: &mut tempfile::NamedTempFile,
) -> Command {
    let mut command = vintern();
    command.args(["chat", "--json", "--orientation", "ignore", "--model"]).arg(package);
    command.args(["--max-tiles", &case["max_num"].to_string()]);
    for image in case["images"].as_array().unwrap() {
        command.arg("--image").arg(golden("images").join(image.as_str().unwrap()));
    }
    let generation = &case["generation"];
    let setting = |name: &str, default: &str| match &generation[name] {
        Value::Null => default.to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    command.args(["--num-beams", &setting("num_beams", "1")]);
    command.args(["--repetition-penalty", &setting("repetition_penalty", "1")]);
    command.args(["--max-new-tokens", &setting("max_new_tokens", "20")]);
    command.args(["--min-new-tokens", &setting("min_new_tokens", "0")]);
    command.args(["--length-penalty", &setting("length_penalty", "1")]);
    command.args(["--early-stopping", &setting("early_stopping", "false")]);
    if !case["history_in"].is_null() {
        history.write_all(case["history_in"].to_string().as_bytes()).unwrap();
        command.arg("--history").arg(history.path());
    }
    command.args(more).args(["--", case["question"].as_str().unwrap()]);
    command
}

/// The JSON object the program answers a case with.
pub fn answer(case: &Value, package: &std::path::Path) -> Value {
    answer_with(case, package, &[])
}

/// The same with more arguments.
pub fn answer_with(case: &Value, package: &std::path::Path, more: &[&str]) -> Value {
    let mut history = tempfile::NamedTempFile::new().unwrap();
    let output = command(case, package, more, &mut history).output().unwrap();
    assert!(output.status.success(), "{}: {}", case["id"], String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn check(case: &Value, answer: &Value) {
    let id = case["id"].as_str().unwrap();
    assert_eq!(answer["token_ids"], case["output_ids"], "{id}");
    assert_eq!(answer["text"], case["response"], "{id}");
    assert_eq!(answer["usage"]["prompt_tokens"], case["n_prompt_tokens"], "{id}");
    let tiles: u64 = case["num_patches"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(answer["usage"]["tiles"], tiles, "{id}");
    let finish = if case["finished"] == "eos" { "stop" } else { "length" };
    assert_eq!(answer["finish_reason"], finish, "{id}");
    match case["sequence_score"].as_f64() {
        Some(expected) => {
            let found = answer["sequence_score"].as_f64().unwrap();
            assert!((found - expected).abs() < SCORE_TOLERANCE, "{id}: score {found} instead of {expected}");
        }
        None => assert!(answer["sequence_score"].is_null(), "{id}"),
    }
}

fn check_all(checkpoint: &str) {
    let package = package(checkpoint, "fp32");
    for case in cases(checkpoint) {
        check(&case, &answer(&case, &package));
    }
}

#[test]
fn every_case_of_ckpt_a_gives_the_reference_answer() {
    check_all("ckpt_a");
}

#[test]
fn every_case_of_ckpt_b_gives_the_reference_answer() {
    check_all("ckpt_b");
}
