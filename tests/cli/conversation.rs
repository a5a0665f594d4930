//! Conversations whose lines come from a pipe.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::{chat, image, json_of, text};

const LIMITS: [&str; 4] = ["--num-beams", "1", "--max-new-tokens", "8"];

pub fn converse(command: &mut Command, lines: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What one call with a history answers.
fn one_shot(history: &[(&str, &str)], question: &str, images: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = chat();
    command.arg("--json").args(LIMITS);
    if !history.is_empty() {
        std::fs::write(&file, serde_json::to_vec(history).unwrap()).unwrap();
        command.arg("--history").arg(file.path());
    }
    for name in images {
        command.arg("--image").arg(image(name));
    }
    json_of(command.arg(question))["text"].as_str().unwrap().to_owned()
}

#[test]
fn two_turns_on_an_image_answer_as_calls_with_a_history_do() {
    let output =
        converse(chat().args(LIMITS).arg("-v").arg("--image").arg(image("small.png")), "Đây là gì?\nCòn gì nữa?\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let first = one_shot(&[], "Đây là gì?", &["small.png"]);
    let second = one_shot(&[("<image>\nĐây là gì?", &first)], "Còn gì nữa?", &["small.png"]);
    assert_eq!(text(&output.stdout), format!("{first}\n{second}\n"));
    let stderr = text(&output.stderr);
    let counts: Vec<&str> = stderr.lines().filter(|line| line.starts_with("prompt: ")).collect();
    assert!(counts[0].contains("; 112 from 7 tiles, 7 of them encoded;"), "{stderr}");
    assert!(counts[1].contains("; 112 from 7 tiles, 0 of them encoded;"), "{stderr}");
    assert!(counts[0].contains(" 0 of them cached") && !counts[1].contains(" 0 of them cached"), "{stderr}");
}

#[test]
fn an_image_may_come_later() {
    let lines = format!("Xin chào\n/image {}\nĐây là gì?\n", image("tiny_square.png").display());
    let output = converse(chat().args(LIMITS), &lines);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let first = one_shot(&[], "Xin chào", &[]);
    let second = one_shot(&[("Xin chào", &first)], "<image>\nĐây là gì?", &["tiny_square.png"]);
    assert_eq!(text(&output.stdout), format!("{first}\n{second}\n"));
}

#[test]
fn reset_forgets_turns_and_images() {
    let lines = "Xin chào\n/reset\nXin chào\n";
    let output = converse(chat().args(LIMITS).arg("--preset").arg("text"), lines);
    let answer = one_shot(&[], "Xin chào", &[]);
    assert_eq!(text(&output.stdout), format!("{answer}\n{answer}\n"));
    let with_image = converse(chat().args(LIMITS).arg("--image").arg(image("small.png")), "/reset\nXin chào\n");
    let one = json_of(chat().arg("--json").args(LIMITS).arg("Xin chào"));
    assert_eq!(text(&with_image.stdout), format!("{}\n", one["text"].as_str().unwrap()));
}

#[test]
fn quit_ends_it() {
    let output = converse(chat().args(LIMITS), "/quit\nXin chào\n");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    let nothing = converse(chat().args(LIMITS), "");
    assert_eq!((nothing.status.code(), text(&nothing.stdout)), (Some(0), String::new()));
}

#[test]
fn what_is_wrong_with_a_line_does_not_end_it() {
    let lines = "/image missing.png\n/image\n/imagine x\n\n/help\nXin chào\n";
    let output = converse(chat().args(LIMITS), lines);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), format!("{}\n", one_shot(&[], "Xin chào", &[])));
    let stderr = text(&output.stderr).replace(crate::common::repository().to_str().unwrap(), "REPOSITORY");
    crate::support::snapshot("conversation_errors", &stderr);
}

#[test]
fn marks_of_a_history_count() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, r#"[["<image>\nĐây là gì?", "Một bức ảnh."]]"#).unwrap();
    let mut command = chat();
    command.args(LIMITS).arg("--history").arg(file.path());
    for name in ["small.png", "tiny_square.png"] {
        command.arg("--image").arg(image(name));
    }
    let output = converse(&mut command, "So sánh\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected =
        one_shot(&[("<image>\nĐây là gì?", "Một bức ảnh.")], "<image>\nSo sánh", &["small.png", "tiny_square.png"]);
    assert_eq!(text(&output.stdout), format!("{expected}\n"));
}
