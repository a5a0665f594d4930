//! `chat --json`, and the text mode against it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::{golden_json, package};
use crate::support::{chat, ids, image, json_of, shape, snapshot, stdout_of, text, vintern};

fn answer(arguments: &[&str]) -> Value {
    json_of(chat().args(["--json", "--max-new-tokens", "24", "--min-new-tokens", "24"]).args(arguments).arg("Xin chào"))
}

#[test]
fn the_shape_of_each_search() {
    let small = image("small.png");
    let shapes = json!({
        "greedy": shape(&answer(&["--num-beams", "1"])),
        "beams": shape(&answer(&["--num-beams", "3", "--image", small.to_str().unwrap()])),
        "sampling": shape(&answer(&["--temperature", "0.7"])),
    });
    snapshot("json_shapes", &serde_json::to_string_pretty(&shapes).unwrap());
}

#[test]
fn the_counts_agree() {
    let small = image("small.png");
    let answer = answer(&["--image", small.to_str().unwrap(), "--max-tiles", "4"]);
    let count = |name: &str| answer["usage"][name].as_u64().unwrap();
    assert_eq!(count("completion_tokens"), ids(&answer).len() as u64);
    assert_eq!(count("image_tokens"), 16 * count("tiles"));
    assert!(count("prompt_tokens") > count("image_tokens"));
    assert_eq!(answer["provider"], json!({"vision": "cpu", "projector": "cpu", "decoder": "cpu"}));
    assert_eq!(answer["finish_reason"], "length");
}

#[test]
fn a_sample_can_be_drawn_again() {
    let first = answer(&["--temperature", "1.5"]);
    let seed = first["seed"].as_u64().unwrap().to_string();
    let again = answer(&["--temperature", "1.5", "--seed", &seed]);
    assert_eq!((ids(&again), &again["text"], &again["seed"]), (ids(&first), &first["text"], &first["seed"]));
    let other = answer(&["--temperature", "1.5", "--seed", &(first["seed"].as_u64().unwrap() ^ 1).to_string()]);
    assert_ne!(ids(&other), ids(&first));
    assert!(answer(&["--seed", "7"])["seed"] == 7, "a seed alone means sampling");
}

/// Three characters from the middle of a text, none of them the stand-in for bytes that are no character.
fn piece(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let readable = |window: &&[char]| !window.contains(&char::REPLACEMENT_CHARACTER);
    characters[characters.len() / 2..].windows(3).find(readable).unwrap().iter().collect()
}

#[test]
fn a_stop_text_cuts_the_answer() {
    let whole = answer(&["--num-beams", "1"]);
    let whole = whole["text"].as_str().unwrap();
    let stop = piece(whole);
    let cut = answer(&["--num-beams", "1", "--stop", "never to be found", "--stop", &stop]);
    assert_eq!(cut["finish_reason"], "stop");
    assert_eq!(cut["text"], whole.split(&stop).next().unwrap().trim());
    assert!(ids(&cut).len() < 24);
}

/// The best beam that reaches the stop text competes with beams that do not.
#[test]
fn no_beam_tells_the_stop_text() {
    let stop = piece(answer(&["--num-beams", "3"])["text"].as_str().unwrap());
    let cut = answer(&["--num-beams", "3", "--stop", &stop]);
    assert!(!cut["text"].as_str().unwrap().contains(&stop), "{cut}");
    assert_eq!(cut["finish_reason"] == "stop", ids(&cut).len() < 24, "{cut}");
}

#[test]
fn the_text_mode_says_what_json_says() {
    let small = image("small.png");
    for flags in [&["--num-beams", "1"][..], &["--num-beams", "4"], &["--temperature", "2", "--seed", "5"]] {
        let arguments =
            [&["--image", small.to_str().unwrap(), "--max-new-tokens", "60"], flags, &["Xin chào"]].concat();
        let expected = json_of(chat().arg("--json").args(&arguments));
        let output = chat().args(&arguments).output().unwrap();
        assert_eq!(text(&output.stdout), format!("{}\n", expected["text"].as_str().unwrap()), "{flags:?}");
        assert_eq!(text(&output.stderr), "", "{flags:?}");
    }
}

#[test]
fn verbose_tells_counts_on_stderr() {
    let small = image("small.png");
    let mut command = chat();
    command.args(["-v", "--max-new-tokens", "4", "--seed", "3", "--image"]).arg(small).arg("Xin chào");
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    let expected = "prompt: 161 tokens, 0 of them cached; 112 from 7 tiles, 7 of them encoded; \
                    answer: 4 tokens (length), seed 3";
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines.contains(&expected), "{stderr}");
    assert!(lines[0].starts_with("ONNX Runtime 1."), "{stderr}");
    assert!(lines.iter().all(|line| !line.contains("Verbose") && !line.contains("Info")), "{stderr}");
    let everything = text(&chat().args(["-vv", "--max-new-tokens", "4", "Xin chào"]).output().unwrap().stderr);
    assert!(everything.contains("onnxruntime "), "{everything}");
}

/// Flags that spell the generation arguments of a golden case.
fn flags(generation: &Value) -> Vec<String> {
    let arguments = generation.as_object().unwrap().iter().filter(|(name, _)| *name != "do_sample");
    arguments
        .flat_map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            [format!("--{}", name.replace('_', "-")), value]
        })
        .collect()
}

#[test]
fn the_reference_answers_come_out_of_the_program() {
    let cases: serde_json::Value = golden_json("ckpt_a.cases.json");
    for wanted in [
        "greedy_image_rp",
        "card_image_beam3_rp3.5",
        "card_text_greedy_rp1.5",
        "multi_greedy",
        "history_image_greedy",
        "beam4_never",
    ] {
        let case = cases["cases"].as_array().unwrap().iter().find(|case| case["id"] == wanted).unwrap();
        let mut command = vintern();
        command.args(["chat", "--json", "--preset", "benchmark", "--model"]).arg(package("ckpt_a", "fp32"));
        command.args(["--max-tiles", &case["max_num"].to_string()]).args(flags(&case["generation"]));
        for name in case["images"].as_array().unwrap() {
            command.arg("--image").arg(image(name.as_str().unwrap()));
        }
        let history = tempfile::NamedTempFile::new().unwrap();
        if !case["history_in"].is_null() {
            std::fs::write(&history, case["history_in"].to_string()).unwrap();
            command.arg("--history").arg(PathBuf::from(history.path()));
        }
        let answer = json_of(command.args(["--", case["question"].as_str().unwrap()]));
        assert_eq!(answer["token_ids"], case["output_ids"], "{wanted}");
        assert_eq!(answer["text"], case["response"], "{wanted}");
        assert_eq!(answer["usage"]["prompt_tokens"], case["n_prompt_tokens"], "{wanted}");
        assert_eq!(answer["finish_reason"], if case["finished"] == "eos" { "stop" } else { "length" }, "{wanted}");
    }
}

#[test]
fn template_and_system_message_change_the_prompt() {
    let tokens = |flags: &[&str]| answer(flags)["usage"]["prompt_tokens"].as_u64().unwrap();
    let default = tokens(&[]);
    assert_eq!(tokens(&["--template", "Hermes-2"]), default);
    assert!(tokens(&["--system", ""]) < default);
    assert_ne!(tokens(&["--template", "internvl2_5"]), default);
}

#[test]
fn a_question_may_begin_with_a_hyphen() {
    stdout_of(chat().args(["--max-new-tokens", "2", "--", "-1 + 2 = ?"]));
}
