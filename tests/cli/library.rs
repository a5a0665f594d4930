//! Libraries that are not the ONNX Runtime this program needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::run;
use crate::support::{Transcript, chat, program, vintern};

/// Compiles a C file into a shared library.
fn library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (file, library) = (folder.join(name).with_extension("c"), folder.join(name).with_extension("so"));
    std::fs::write(&file, source).unwrap();
    run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file));
    library
}

/// A library that says it is this version of ONNX Runtime, and ends the process if anything else is asked of it.
fn pretender(folder: &Path, version: &str) -> PathBuf {
    let source = format!(
        "#include <stdlib.h>\n\
         static const void *api(unsigned version) {{ abort(); }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static const struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} base = {{ api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    library(folder, "pretender", &source)
}

#[test]
#[cfg(unix)]
fn what_is_not_the_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new();
    transcript.name(folder.path(), "FOLDER");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty.so"), "").unwrap();
    std::fs::write(path("text.so"), "this is a text, longer than the header of a library would be\n".repeat(40))
        .unwrap();
    library(folder.path(), "other", "int answer(void) { return 42; }\n");
    pretender(folder.path(), "1.20.0");
    for name in ["missing.so", ".", "empty.so", "text.so", "other.so", "pretender.so"] {
        let library = path(name);
        transcript.chat(&["--ort-library", library.to_str().unwrap(), "question"]);
        let named = chat().arg("question").env("ORT_DYLIB_PATH", &library).output().unwrap();
        let by_flag = chat().args(["question", "--ort-library"]).arg(&library).output().unwrap();
        assert_eq!(named.status.code(), Some(3), "{name}");
        let flag = crate::support::text(&by_flag.stderr).replace("--ort-library)", "ORT_DYLIB_PATH)");
        assert_eq!(crate::support::text(&named.stderr), flag, "{name}");
    }
    transcript.check("library_refused");
}

#[test]
#[cfg(unix)]
fn versions_that_cannot_be_read_are_refused() {
    for version in ["", "2.0.0", "one", "1"] {
        let folder = tempfile::tempdir().unwrap();
        let output =
            chat().args(["question", "--ort-library"]).arg(pretender(folder.path(), version)).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{version:?}");
    }
}

#[test]
fn no_library_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("vintern");
    std::fs::copy(env!("CARGO_BIN_EXE_vintern"), &copy).unwrap();
    let mut transcript = Transcript::new();
    transcript.name(&folder.path().canonicalize().unwrap(), "FOLDER");
    let output =
        transcript.record(program(&copy).args(["chat", "--model"]).arg(crate::common::tiny_package()).arg("question"));
    if output.status.success() {
        println!("skipped: this system has an ONNX Runtime library of its own");
        return;
    }
    transcript.check("library_none");
}

#[test]
fn a_library_beside_the_program_is_found() {
    let report = crate::support::json_of(vintern().args(["doctor", "--json"]));
    let detail = report["checks"][0]["detail"].as_str().unwrap();
    let (_, library) = detail.split_once(" from ").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("vintern");
    std::fs::copy(env!("CARGO_BIN_EXE_vintern"), &copy).unwrap();
    std::fs::copy(library, folder.path().join(Path::new(library).file_name().unwrap())).unwrap();
    let report = crate::support::json_of(program(&copy).args(["doctor", "--json"]));
    let found = report["checks"][0]["detail"].as_str().unwrap();
    assert!(found.ends_with(&format!("/{}", Path::new(library).file_name().unwrap().to_str().unwrap())), "{found}");
    assert!(found.contains(folder.path().canonicalize().unwrap().to_str().unwrap()), "{found}");
}
