//! Signals, closed pipes, several processes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::{run, tiny_package};
use crate::support::{chat, ids, image, text, vintern};

/// More tokens than any test waits for.
const ENDLESS: [&str; 6] = ["--num-beams", "1", "--max-new-tokens", "30000", "--min-new-tokens", "30000"];

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
}

/// A call that has begun to print its endless answer.
fn answering() -> Child {
    let mut child = spawn(chat().args(ENDLESS).arg("Xin chào"));
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0; 64]).unwrap();
    child
}

#[test]
#[cfg(unix)]
fn an_interrupt_keeps_the_text_so_far() {
    let child = answering();
    interrupt(&child);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert_eq!(text(&stderr), "error: stopped before the answer was complete\n");
    assert_eq!(status.code(), Some(1));
    assert!(stdout.ends_with(b"\n"));
}

#[test]
#[cfg(unix)]
fn an_interrupted_call_prints_its_json() {
    let mut child = spawn(chat().args(ENDLESS).args(["--json", "-v", "Xin chào"]));
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    // The line before the call begins.
    assert!(stderr.any(|line| line.unwrap().starts_with("decoder: ")));
    std::thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["finish_reason"]), (Some(1), &"cancelled".into()));
    let tokens = ids(&answer).len();
    assert!((1..30_000).contains(&tokens), "{tokens} tokens");
    assert_eq!(answer["usage"]["completion_tokens"], tokens);
    assert!(!answer["text"].as_str().unwrap().is_empty());
    assert!(stderr.any(|line| line.unwrap() == "error: stopped before the answer was complete"));
}

#[test]
fn nobody_reading_is_no_failure() {
    let tiny = tiny_package();
    let tiny = tiny.to_str().unwrap();
    let small = image("small.png");
    let commands: [&[&str]; 8] = [
        &["chat", "--model", tiny, "Xin chào"],
        &["chat", "--model", tiny, "--json", "Xin chào"],
        &["inspect", small.to_str().unwrap()],
        &["inspect", small.to_str().unwrap(), "--json"],
        &["doctor"],
        &["verify", "--model", tiny],
        &["bench", "--model", tiny, "--tiles", "1", "--new-tokens", "2", "--repeats", "1"],
        &["--help"],
    ];
    for arguments in commands {
        let mut child = spawn(vintern().args(arguments));
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn an_answer_nobody_reads_is_not_generated_to_its_end() {
    let mut child = answering();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn two_processes_share_a_package() {
    let call =
        || spawn(chat().args(["--json", "--max-new-tokens", "40", "--image"]).arg(image("small.png")).arg("Xin chào"));
    let answers: Vec<Value> = [call(), call()]
        .into_iter()
        .map(|child| serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    assert_eq!(ids(&answers[0]), ids(&answers[1]));
}

/// Processes on one package share one copy of the table in memory, because it is mapped and not read.
#[test]
#[cfg(target_os = "linux")]
fn the_embedding_table_is_mapped() {
    let mut child = answering();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let table = tiny_package().join("embed_tokens.safetensors");
    let line = maps.lines().find(|line| line.ends_with(table.to_str().unwrap())).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("r--s"), "read-only and shared: {line}");
}
