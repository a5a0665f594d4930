//! `vintern chat` on a terminal: what is on the screen at the end.
#![cfg(target_os = "linux")]

use std::path::Path;

use crate::common::{python, tiny_package};
use crate::support::{image, snapshot, stdout_of};

/// Runs a command on a pseudo-terminal: `[text to wait for, keys to send]…`, then the command. Prints what it wrote and
/// its exit code.
const DRIVER: &str = r#"
import json, os, pty, signal, sys

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.environ.update(TERM="xterm", COLUMNS="100", LINES="40")
    os.execv(command[0], command)
written = b""
signal.alarm(120)

def read():
    global written
    try:
        data = os.read(terminal, 65536)
    except OSError:
        return False
    written += data
    return bool(data)

seen = 0
for awaited, keys in steps:
    awaited = awaited.encode()
    while awaited not in written[seen:]:
        if not read():
            sys.exit(f"{awaited} did not come: {written}")
    seen = written.index(awaited, seen) + len(awaited)
    os.write(terminal, keys.encode())
while read():
    pass
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(written + f"\r\n[exit {code}]".encode())
"#;

/// What the editor writes last when it is ready for a line.
const READY: &str = "> \r\x1b[2C\x1b[?2026l";

fn on_terminal(steps: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut command = python();
    command.args(["-c", DRIVER, &serde_json::to_string(steps).unwrap(), env!("CARGO_BIN_EXE_vintern")]);
    command.args(["chat", "--model"]).arg(tiny_package()).args(["--num-beams", "1"]);
    command.args(arguments).env_remove("ORT_DYLIB_PATH").env_remove("VINTERN_MODEL");
    screen(&stdout_of(&mut command))
}

/// The lines on the screen after `written`: enough of a terminal for carriage returns, erased lines and cursor moves.
fn screen(written: &str) -> String {
    let mut lines = vec![Vec::<char>::new()];
    let mut column = 0;
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        let last = lines.len() - 1;
        match character {
            '\r' => column = 0,
            '\n' => lines.push(Vec::new()),
            '\x1b' => {
                let mut sequence = String::new();
                while !sequence.ends_with(|c: char| c.is_ascii_alphabetic()) {
                    sequence.extend(characters.next());
                }
                match sequence.as_str() {
                    "[2K" => lines[last].clear(),
                    "[K" => lines[last].truncate(column),
                    "[2C" => column += 2,
                    other => assert!(other.starts_with("[?"), "unknown sequence {other:?}"),
                }
            }
            character => {
                let width = lines[last].len().max(column + 1);
                lines[last].resize(width, ' ');
                lines[last][column] = character;
                column += 1;
            }
        }
    }
    let lines = lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn answer(question: &str, arguments: &[&str]) -> String {
    let mut command = crate::support::chat();
    command.args(["--num-beams", "1"]).args(arguments).arg(question);
    stdout_of(&mut command).trim_end().to_owned()
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn progress_gives_way_to_the_answer() {
    let small = shown(&image("small.png"));
    let arguments = ["--image", &small, "--max-new-tokens", "6"];
    let screen = on_terminal(&[], &[&arguments[..], &["Xin chào"]].concat());
    assert_eq!(screen, format!("{}\n\n[exit 0]", answer("Xin chào", &arguments)));
}

#[test]
fn a_conversation_in_the_editor() {
    let steps = [
        (READY, "Xin chào\r"),
        (READY, "half a line\x03"),
        (READY, "/help\r"),
        (READY, "/image missing.png\r"),
        (READY, "\x04"),
    ];
    let screen = on_terminal(&steps, &["--max-new-tokens", "6"]);
    let screen = screen.replace(&answer("Xin chào", &["--max-new-tokens", "6"]), "ANSWER");
    let folder = std::env::current_dir().unwrap();
    snapshot("terminal_conversation", &screen.replace(folder.to_str().unwrap(), "FOLDER"));
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_conversation() {
    let begun = answer("Xin chào", &["--max-new-tokens", "6"]);
    let steps = [(READY, "Xin chào\r"), (begun.as_str(), "\x03"), (READY, "/quit\r")];
    let screen = on_terminal(&steps, &["--max-new-tokens", "30000", "--min-new-tokens", "30000"]);
    let end: Vec<&str> = screen.lines().rev().take(4).collect();
    assert_eq!(end, ["[exit 0]", "", "> /quit", "(stopped; the conversation goes on with what was said)"], "{screen}");
}
