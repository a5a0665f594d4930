//! The settings file: what it says holds where neither a flag nor the environment says otherwise.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::tiny_package;
use crate::support::{json_of, text, vintern};

/// A folder with a settings file.
struct Settings(tempfile::TempDir);

impl Settings {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("vintern")).unwrap();
        std::fs::write(folder.path().join("vintern/settings.toml"), text).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("vintern/settings.toml")
    }

    /// A command that finds the file where a user's is.
    fn found(&self) -> Command {
        let mut command = vintern();
        command.env("XDG_CONFIG_HOME", self.0.path());
        command
    }
}

/// The checks of `doctor` by name: state and detail.
fn check(command: &mut Command, name: &str) -> Option<(String, String)> {
    let output = command.args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name)?;
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    Some((text("state"), text("detail")))
}

/// Whether a command asks for the provider of the file, which does not exist.
fn asks_for_the_files_provider(command: &mut Command) -> bool {
    check(command, "--provider").is_some_and(|(_, detail)| detail.contains("cud4"))
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let settings = Settings::new("provider = \"cud4\"\n");
    assert!(asks_for_the_files_provider(&mut settings.found()));
    assert!(asks_for_the_files_provider(vintern().env("VINTERN_SETTINGS", settings.file())));
    let mut named = vintern();
    named.arg("doctor").arg("--settings").arg(settings.file());
    assert_eq!(named.output().unwrap().status.code(), Some(2));
    assert!(!asks_for_the_files_provider(settings.found().env("VINTERN_PROVIDER", "cpu")));
    let report =
        json_of(settings.found().args(["doctor", "--json", "--provider", "cpu", "--model"]).arg(tiny_package()));
    assert_eq!(report["checks"][0]["name"], "settings");
    assert_eq!(report["checks"][0]["detail"], format!("from {}", settings.file().display()));
    assert!(check(&mut vintern(), "settings").is_none());
}

#[test]
fn paths_are_seen_from_where_the_file_lies() {
    let settings = Settings::new("ort-library = \"lib/none.so\"\n");
    let (state, detail) = check(&mut settings.found(), "library").unwrap();
    let path = settings.0.path().join("vintern/lib/none.so");
    assert_eq!(state, "failed");
    assert!(detail.contains(path.to_str().unwrap()), "{detail}");
}

#[test]
fn a_file_that_is_none_is_refused_before_anything_else() {
    for (content, expected) in [
        ("provider = 'cpu'\ntreads = 2\n", "line 2: unknown field `treads`"),
        ("threads = 'many'\n", "line 1: invalid type: string"),
        ("threads", "line 1: "),
    ] {
        let settings = Settings::new(content);
        let output = settings.found().args(["chat", "--model", "nowhere", "hi"]).output().unwrap();
        let said = text(&output.stderr);
        assert!(said.contains(expected) && said.contains("hint: its keys are the names of the flags"), "{said}");
        assert_eq!(output.status.code(), Some(2));
    }
    let output = vintern().args(["doctor", "--settings", "nowhere.toml"]).output().unwrap();
    assert!(text(&output.stderr).contains("the settings file nowhere.toml does not exist"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(2));
}
