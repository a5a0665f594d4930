//! `<image>` marks, histories, prompts that are too long.

use std::path::Path;

use crate::common::tiny_package;
use crate::support::{PackageCopy, Transcript, chat, image, json_of, text};

#[test]
fn too_few_marks() {
    let (small, tall) = (image("small.png"), image("tall.png"));
    let images = ["--image", small.to_str().unwrap(), "--image", tall.to_str().unwrap()];
    let mut transcript = Transcript::new();
    transcript.chat(&[&images[..], &["Compare them"]].concat());
    transcript.chat(&[&images[..], &["<image> Compare them"]].concat());
    transcript.check("marks_too_few");
}

#[test]
fn surplus_marks_are_text_and_a_warning() {
    let small = image("small.png");
    let mut command = chat();
    command.arg("--image").arg(small).args(["--max-new-tokens", "4", "<image> and <image>?"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        text(&output.stderr),
        "warning: 1 <image> mark(s) have no image and stay plain text, as in the reference\n"
    );
}

#[test]
fn histories_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new();
    transcript.name(folder.path(), "FOLDER");
    let file = |name: &str, content: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let missing = folder.path().join("missing.json");
    for file in [
        missing.to_str().unwrap(),
        folder.path().to_str().unwrap(),
        &file("broken.json", "[[\"question\", \"ans"),
        &file("object.json", "{\"question\": \"answer\"}"),
        &file("single.json", "[[\"question\"]]"),
        &file("flat.json", "[\"question\", \"answer\"]"),
        &file("empty.json", ""),
    ] {
        transcript.chat(&["--history", file, "question"]);
    }
    transcript.check("history_refused");
}

#[test]
fn an_empty_history_works() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.json");
    std::fs::write(&file, "[]").unwrap();
    let answer = |history: &[&Path]| {
        let mut command = chat();
        command.args(["--json", "--max-new-tokens", "4", "Xin chào"]);
        for file in history {
            command.arg("--history").arg(file);
        }
        json_of(&mut command)["token_ids"].clone()
    };
    assert_eq!(answer(&[&file]), answer(&[]));
}

/// A copy of the tiny package that allows `tokens`.
fn short_package(tokens: u64) -> PackageCopy {
    let copy = PackageCopy::new();
    copy.edit(|manifest| manifest["architecture"]["max_length"] = tokens.into());
    copy
}

#[test]
fn a_prompt_that_is_too_long_tells_what_takes_the_room() {
    let copy = short_package(100);
    let mut transcript = Transcript::new();
    transcript.name(copy.folder(), "PACKAGE");
    let model = copy.folder().to_str().unwrap();
    let small = image("small.png");
    transcript.run(&["chat", "--model", model, "--max-tiles", "12", "--image", small.to_str().unwrap(), "question"]);
    let long = "Xin chào! ".repeat(20);
    transcript.run(&["chat", "--model", model, long.trim()]);
    transcript.check("prompt_too_long");
}

#[test]
fn an_answer_gets_the_room_that_is_left() {
    let prompt_tokens = |model: &Path, new_tokens: &str| {
        let mut command = crate::support::vintern();
        command.args([
            "chat",
            "--json",
            "--min-new-tokens",
            "100",
            "--max-new-tokens",
            new_tokens,
            "question",
            "--model",
        ]);
        let answer = json_of(command.arg(model));
        let count = |name: &str| answer["usage"][name].as_u64().unwrap();
        (count("prompt_tokens"), count("completion_tokens"), answer["finish_reason"].clone())
    };
    let (prompt, ..) = prompt_tokens(&tiny_package(), "1");
    let copy = short_package(prompt + 5);
    assert_eq!(prompt_tokens(copy.folder(), "50"), (prompt, 5, "length".into()));
}
