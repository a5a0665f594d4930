//! What several integration tests share: golden data, and the golden checkpoints exported as packages.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod png;
mod reference_data;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use reference_data::*;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A golden checkpoint (`ckpt_a` or `ckpt_b`) exported with the given precision. Exported once, then shared by all tests.
pub fn package(checkpoint: &str, precision: &str) -> PathBuf {
    exported(&format!("{checkpoint}-{precision}"), |exporter, folder| {
        exporter.arg(golden(checkpoint)).arg(folder).args(["--precision", precision]);
    })
}

/// A package of a small random checkpoint, with recorded results inside.
pub fn tiny_package() -> PathBuf {
    let checkpoint = exported("tiny-checkpoint", |exporter, folder| {
        exporter.args(["synth", "tiny"]).arg(folder);
    });
    let package = exported("tiny", |exporter, folder| {
        exporter.arg(&checkpoint).arg(folder).args(["--precision", "fp32"]);
    });
    recorded(&package);
    package
}

/// Records the exporter's results in a package that has none.
pub fn recorded(package: &Path) {
    locked(&format!("{}-recorded", package.file_name().unwrap().display()), || {
        if !package.join("parity.safetensors").exists() {
            run(exporter().arg("verify").arg(package).arg("--record"));
        }
    });
}

/// A folder made by `vintern-export`, made if it is not there yet.
pub fn exported(name: &str, arguments: impl FnOnce(&mut Command, &Path)) -> PathBuf {
    let folder = scratch().join(name);
    locked(name, || {
        if !folder.exists() {
            let mut command = exporter();
            arguments(&mut command, &folder);
            run(&mut command);
        }
    });
    folder
}

/// The ONNX Runtime library that holds the OpenVINO provider, where `make test` put one.
pub fn openvino_library() -> Option<PathBuf> {
    let found = library_in(".venv/openvino");
    if found.is_none() {
        eprintln!("there is no OpenVINO library: not tested");
    }
    found
}

/// The library of a wheel that was installed into a folder of its own.
pub fn library_in(folder: &str) -> Option<PathBuf> {
    let folder = repository().join(folder).join("onnxruntime/capi");
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|file| file.file_name().unwrap_or_default().to_string_lossy().starts_with("libonnxruntime.so."))
}

/// The library of the GPU wheel, which `make test-gpu` puts in place with all that it needs.
pub fn gpu_library() -> PathBuf {
    library_in(".venv/gpu").expect("`make test-gpu` puts the library there")
}

/// Provider and operator of every node that ran, from a graph's profile in a folder.
pub fn profiled_nodes(folder: &Path, graph: &str) -> Vec<(String, String)> {
    let mut files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let is_its = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{graph}_2"));
    let file = files.find(is_its).unwrap_or_else(|| panic!("no profile of {graph}"));
    let events: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let nodes = events.iter().filter(|event| event["cat"] == "Node" && event["args"]["provider"].is_string());
    let word = |event: &serde_json::Value, name: &str| event["args"][name].as_str().unwrap_or_default().to_owned();
    nodes.map(|event| (word(event, "provider"), word(event, "op_name"))).collect()
}

/// A Python of the project's environment.
pub fn python() -> Command {
    Command::new(tool("python"))
}

fn exporter() -> Command {
    Command::new(tool("vintern-export"))
}

fn tool(name: &str) -> PathBuf {
    let tool = repository().join(".venv/bin").join(name);
    assert!(tool.exists(), "{} is missing: run `make setup` first", tool.display());
    tool
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Test programs run side by side; only one of them may make a given folder.
fn locked(name: &str, work: impl FnOnce()) {
    let lock = File::create(scratch().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    work();
}

/// The program under test, free of the caller's settings.
pub fn vintern() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_vintern"));
    command.env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.env_remove("VINTERN_PROVIDER").env_remove("VINTERN_SETTINGS");
    command
}
