//! Settings that make no sense, and presets.

use crate::support::{Transcript, chat, ids, image, json_of};

#[test]
fn generation_settings_out_of_range() {
    let mut transcript = Transcript::new();
    for arguments in [
        "--num-beams 0",
        "--num-beams 65",
        "--num-beams three",
        "--repetition-penalty 0",
        "--repetition-penalty -1",
        "--repetition-penalty nan",
        "--length-penalty nan",
        "--num-beams 3 --length-penalty inf",
        "--temperature -1",
        "--temperature nan",
        "--top-p 0",
        "--top-p 2",
        "--min-p -0.1",
        "--min-p 1.5",
        "--max-new-tokens 0",
        "--max-new-tokens -5",
        "--num-beams 3 --early-stopping maybe",
        "--seed -1",
        "--stop=",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').chain(["question"]).collect();
        transcript.chat(&arguments);
    }
    transcript.check("settings_range");
}

#[test]
fn flags_that_contradict_each_other() {
    let mut transcript = Transcript::new();
    for arguments in [
        "--temperature 0.5 --num-beams 3",
        "--top-k 5 --num-beams 3",
        "--temperature 0 --top-k 5",
        "--temperature 0.5 --length-penalty 2",
        "--num-beams 1 --early-stopping never",
        "--num-beams 1 --length-penalty 0.5",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').chain(["question"]).collect();
        transcript.chat(&arguments);
    }
    transcript.chat(&["--thumbnail", "--no-thumbnail", "question"]);
    transcript.chat(&["--json"]);
    transcript.check("settings_conflicts");
}

#[test]
fn names_and_limits_that_are_not_known() {
    let mut transcript = Transcript::new();
    for arguments in [
        "--template vicuna",
        "--preset fast",
        "--orientation up",
        "--provider cpu:threads=2",
        "--provider cpu:arena=maybe",
        "--provider ;",
        "--threads 0",
        "--threads many",
        "--max-tiles 0",
        "--max-tiles 257",
        "--min-tiles 0",
        "--min-tiles 7",
        "--min-tiles 3 --max-tiles 2",
        "--max-image-pixels many",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').chain(["question"]).collect();
        transcript.chat(&arguments);
    }
    transcript.check("settings_names");
}

/// The answer of the tiny package with these flags.
fn answer(arguments: &[&str]) -> serde_json::Value {
    json_of(chat().arg("--json").args(arguments).arg("Xin chào"))
}

#[test]
fn presets_stand_for_their_flags() {
    let spelled = [
        ("describe", ["--num-beams", "3", "--repetition-penalty", "3.5"], 512),
        ("text", ["--num-beams", "1", "--repetition-penalty", "1.5"], 64),
        ("benchmark", ["--num-beams", "3", "--repetition-penalty", "1.0"], 1024),
    ];
    for (preset, flags, new_tokens) in spelled {
        // Eos is kept away, so that the length is the preset's.
        let by_name = answer(&["--preset", preset, "--min-new-tokens", "2000"]);
        let limit = new_tokens.to_string();
        let by_flags = answer(&[&flags[..], &["--max-new-tokens", &limit, "--min-new-tokens", "2000"]].concat());
        assert_eq!(by_name["usage"]["completion_tokens"], new_tokens, "{preset}");
        assert_eq!(ids(&by_name), ids(&by_flags), "{preset}");
        assert_eq!(by_name["finish_reason"], "length", "{preset}");
    }
}

#[test]
fn the_preset_follows_from_the_image() {
    let small = image("small.png");
    let small = small.to_str().unwrap();
    let limit = ["--max-new-tokens", "12"];
    let with_image = [&["--image", small], &limit[..]].concat();
    assert_eq!(ids(&answer(&limit)), ids(&answer(&[&limit[..], &["--preset", "text"]].concat())));
    let default = answer(&with_image);
    assert_eq!(ids(&default), ids(&answer(&[&with_image[..], &["--preset", "describe"]].concat())));
    assert!(default["sequence_score"].is_number(), "three beams");
}

#[test]
fn the_benchmark_preset_does_not_turn_photos() {
    let photo = image("exif_rot6.jpg");
    let score = |flags: &[&str]| {
        let arguments = [&["--image", photo.to_str().unwrap(), "--max-new-tokens", "4"], flags].concat();
        answer(&arguments)["sequence_score"].as_f64().unwrap()
    };
    let [benchmark, ignore, auto] = [
        &["--preset", "benchmark"][..],
        &["--preset", "benchmark", "--orientation", "ignore"],
        &["--preset", "benchmark", "--orientation", "auto"],
    ]
    .map(score);
    assert!((benchmark - ignore).abs() < 1e-6);
    assert!((benchmark - auto).abs() > 1e-6);
    let describe = ["--num-beams", "3", "--repetition-penalty", "1.0"];
    assert!((score(&describe) - auto).abs() < 1e-6, "other presets turn them");
}
