//! Presets of a package.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{exported, tiny_package};
use crate::support::{PackageCopy, Transcript, ids, image, json_of, snapshot, stdout_of, text, vintern};

/// A copy of the tiny package with these presets and defaults.
fn package(presets: Value, defaults: Value) -> PackageCopy {
    let copy = PackageCopy::new();
    copy.edit(|manifest| {
        manifest["presets"] = presets;
        manifest["default_presets"] = defaults;
    });
    copy
}

/// An OCR model's: no penalty, many tiles, another one without an image.
fn reader() -> PackageCopy {
    package(
        json!({
            "read": {
                "description": "Reads the text of an image.", "min_tiles": 2, "max_tiles": 2, "use_thumbnail": false,
                "num_beams": 2, "max_new_tokens": 9, "min_new_tokens": 9,
            },
            "describe": {"repetition_penalty": 1.25, "max_new_tokens": 7},
            "brief": {"max_new_tokens": 5, "min_new_tokens": 5},
        }),
        json!({"with_image": "read", "text": "brief"}),
    )
}

/// `vintern chat` with this package.
fn chat(package: &PackageCopy) -> Command {
    let mut command = vintern();
    command.args(["chat", "--model"]).arg(package.folder());
    command
}

fn answer(package: &PackageCopy, arguments: &[&str]) -> Value {
    json_of(chat(package).arg("--json").args(arguments).arg("Xin chào"))
}

#[test]
fn presets_of_a_package_stand_for_their_flags() {
    let (package, plain) = (reader(), PackageCopy::new());
    let small = image("small.png");
    let small = ["--image", small.to_str().unwrap()];
    let read = "--min-tiles 2 --max-tiles 2 --no-thumbnail --num-beams 2 --repetition-penalty 1 --min-new-tokens 9 \
                --max-new-tokens 9";
    let describe = "--preset describe --repetition-penalty 1.25 --max-new-tokens 7";
    for (preset, flags, tiles) in [("read", read, 2), ("describe", describe, 7)] {
        let flags: Vec<&str> = small.into_iter().chain(flags.split(' ')).collect();
        let (by_name, by_flags) =
            (answer(&package, &[&small[..], &["--preset", preset]].concat()), answer(&plain, &flags));
        assert_eq!(ids(&by_name), ids(&by_flags), "{preset}");
        assert_eq!(by_name["sequence_score"], by_flags["sequence_score"], "{preset}");
        assert_eq!(by_name["usage"]["tiles"], tiles, "{preset}");
    }
}

#[test]
fn flags_override_the_presets_of_a_package() {
    let package = reader();
    let small = image("small.png");
    let flags = "--max-tiles 6 --thumbnail --num-beams 1 --min-new-tokens 3 --max-new-tokens 3";
    let overridden =
        answer(&package, &[&["--image", small.to_str().unwrap()], &flags.split(' ').collect::<Vec<_>>()[..]].concat());
    assert_eq!(overridden["usage"]["tiles"], 7);
    assert_eq!(overridden["usage"]["completion_tokens"], 3);
    assert_eq!(overridden["sequence_score"], Value::Null);
}

#[test]
fn the_defaults_are_the_packages() {
    let package = reader();
    let small = image("small.png");
    let small = ["--image", small.to_str().unwrap()];
    assert_eq!(ids(&answer(&package, &small)), ids(&answer(&package, &[&small[..], &["--preset", "read"]].concat())));
    let text = answer(&package, &[]);
    assert_eq!(ids(&text), ids(&answer(&package, &["--preset", "brief"])));
    assert_eq!(text["usage"]["completion_tokens"], 5);
}

/// The image that `/image` adds is cut as the preset says, and the calls after it run with the default with an image.
#[test]
fn a_conversation_honours_them() {
    let package = reader();
    let mut child =
        chat(&package).arg("-v").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = format!("Xin chào\n/image {}\nĐây là gì?\n", image("small.png").display());
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("small.png: 2 tiles"), "{stderr}");
    let counts: Vec<&str> = stderr.lines().filter(|line| line.starts_with("prompt: ")).collect();
    assert!(counts[0].contains("answer: 5 tokens") && counts[1].contains("answer: 9 tokens"), "{stderr}");
}

#[test]
fn unknown_names_are_refused_before_graphs_are_loaded() {
    let package = reader();
    // Loading it would be another error.
    package.replace("decoder.onnx", b"not a graph");
    let mut transcript = Transcript::new();
    transcript.name(package.folder(), "PACKAGE");
    let folder = package.folder().to_str().unwrap();
    transcript.run(&["chat", "--model", folder, "--preset", "raed", "question"]);
    transcript.run(&["chat", "--model", folder, "--preset", "Describe", "question"]);
    transcript.run(&["chat", "--model", folder, "--preset", "", "question"]);
    let small = image("small.png");
    let small = small.to_str().unwrap();
    transcript.run(&["inspect", "--model", folder, "--preset", "bench", small]);
    transcript.run(&["inspect", "--preset", "read", small]);
    transcript.check("presets_unknown");
}

#[test]
fn damaged_presets_are_refused_by_name() {
    let mut transcript = Transcript::new();
    for (presets, defaults) in [
        (json!({"read": {"num_beams": "three"}}), json!({})),
        (json!({"read": {"repetition_penalty": -1}}), json!({})),
        (json!({"read": {"early_stopping": "maybe"}}), json!({})),
        (json!({"read": {"beams": 3}}), json!({})),
        (json!({"read": 3}), json!({})),
        (json!({"Read": {}}), json!({})),
        (json!({"read": {"min_tiles": 7}}), json!({})),
        (json!({}), json!({"with_image": "read"})),
        (json!({}), json!({"text": 3})),
        (json!({}), json!({"images": "text"})),
    ] {
        let package = package(presets, defaults);
        transcript.name(package.folder(), "PACKAGE");
        transcript.run(&["chat", "--model", package.folder().to_str().unwrap(), "question"]);
    }
    // The line is that of the whole manifest, most of which is not looked at here.
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"at line \d+ column \d+", "at LINE");
    settings.bind(|| transcript.check("presets_damaged"));
}

#[test]
fn inspect_shows_the_tiles_of_a_preset() {
    let package = reader();
    let tiles = |arguments: &[&str]| {
        let mut command = vintern();
        command.args(["inspect", "--json", "--model"]).arg(package.folder()).args(arguments).arg(image("small.png"));
        json_of(&mut command)["tiles"].clone()
    };
    assert_eq!(tiles(&[]), 2, "the default with an image");
    assert_eq!(tiles(&["--preset", "read"]), 2);
    assert_eq!(tiles(&["--preset", "describe"]), 7);
    assert_eq!(tiles(&["--thumbnail", "--preset", "read"]), 3);
    let photo = image("exif_rot6.jpg");
    let applied = |preset: &str| {
        json_of(vintern().args(["inspect", "--json", "--preset", preset]).arg(&photo))["orientation"]["applied"].clone()
    };
    assert_eq!((applied("describe"), applied("benchmark")), (true.into(), false.into()));
}

/// The lines of `doctor` that list presets.
fn listed(printed: &str) -> String {
    let lines = printed.lines().skip_while(|line| !line.contains(" presets "));
    let mut listed: Vec<&str> = lines.collect();
    let end = listed.iter().skip(1).position(|line| !line.starts_with(' ')).map_or(listed.len(), |at| at + 1);
    listed.truncate(end);
    listed.join("\n")
}

#[test]
fn doctor_lists_them() {
    let package = reader();
    let doctor = |folder: &std::path::Path| stdout_of(vintern().args(["doctor", "--model"]).arg(folder));
    let lists = format!("{}\n\n{}", listed(&doctor(package.folder())), listed(&doctor(&tiny_package())));
    snapshot("presets_listed", &lists);
    let report = json_of(vintern().args(["doctor", "--json", "--model"]).arg(package.folder()));
    assert_eq!(
        report["presets"][2],
        json!({
            "name": "read", "from_package": true, "default_with_image": true, "default_text": false,
            "description": "Reads the text of an image.",
            "settings": {
                "min_tiles": 1, "min_tiles": 2, "max_tiles": 2, "use_thumbnail": false, "num_beams": 2, "repetition_penalty": 1.0,
                "length_penalty": 1.0, "early_stopping": false, "no_repeat_ngram_size": 0, "min_new_tokens": 9,
                "max_new_tokens": 9, "orientation": "auto",
            },
        })
    );
}

#[test]
fn doctor_finds_a_default_that_is_no_preset() {
    let package = package(json!({}), json!({"text": "read"}));
    let output = vintern().args(["doctor", "--model"]).arg(package.folder()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let printed = listed(&text(&output.stdout));
    assert!(printed.contains("default_presets.text is \"read\", expected the name of a preset"), "{printed}");
}

/// From the file in a checkpoint to the settings of a call.
#[test]
fn the_exporter_writes_what_the_runtime_reads() {
    tiny_package();
    let source = exported("tiny-checkpoint", |_, _| unreachable!("the tiny package was made from it"));
    let checkpoint = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(source).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), checkpoint.path().join(entry.file_name())).unwrap();
    }
    let settings = json!({
        "min_tiles": 2, "max_tiles": 12, "use_thumbnail": false, "num_beams": 64, "repetition_penalty": 1.5,
        "length_penalty": -10.0, "early_stopping": "never", "no_repeat_ngram_size": 4_294_967_295_u32,
        "min_new_tokens": 1, "max_new_tokens": 4_294_967_295_u32, "orientation": "ignore",
    });
    let mut preset = settings.clone();
    preset["description"] = "Đọc chữ trong ảnh.".into();
    let file = json!({"presets": {"read": preset}, "default_with_image": "read", "default_text": "benchmark"});
    std::fs::write(checkpoint.path().join("vintern_presets.json"), file.to_string()).unwrap();
    let package = exported("tiny-presets", |exporter, folder| {
        exporter.arg(checkpoint.path()).arg(folder).args(["--precision", "fp32"]);
    });
    let report = json_of(vintern().args(["doctor", "--json", "--model"]).arg(package));
    let [read, benchmark] = ["read", "benchmark"].map(|name| {
        report["presets"].as_array().unwrap().iter().find(|preset| preset["name"] == name).unwrap().clone()
    });
    assert_eq!((&read["settings"], &read["description"]), (&settings, &"Đọc chữ trong ảnh.".into()));
    assert_eq!((&read["default_with_image"], &benchmark["default_text"]), (&true.into(), &true.into()));
}
