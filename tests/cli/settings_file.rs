//! The settings file: what it says holds where neither a flag nor the environment says otherwise.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::tiny_package;
use crate::support::{Transcript, text, vintern};

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

fn doctor(command: &mut Command) -> Value {
    let output = command.args(["doctor", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

/// Value of a setting and where it comes from.
fn setting(report: &Value, name: &str) -> Option<(String, String)> {
    let found = report["settings"].as_array()?.iter().find(|setting| setting["name"] == name)?;
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    Some((text("value"), text("from")))
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let settings = Settings::new("provider = \"cuda;cpu\"\nstrict = true\nthreads = 3\n");
    let named = |value: &str, from: &str| Some((value.to_owned(), from.to_owned()));
    let in_file = |line: usize| format!("{}, line {line}", settings.file().display());
    let report = doctor(&mut settings.found());
    assert_eq!(setting(&report, "provider"), named("cuda;cpu", &in_file(1)));
    assert_eq!(setting(&report, "strict"), named("true", &in_file(2)));
    assert_eq!(setting(&report, "threads"), named("3", &in_file(3)));
    let report = doctor(vintern().env("VINTERN_SETTINGS", settings.file()));
    assert_eq!(setting(&report, "provider"), named("cuda;cpu", &in_file(1)));
    let report = doctor(settings.found().env("VINTERN_PROVIDER", "cpu"));
    assert_eq!(setting(&report, "provider"), named("cpu", "VINTERN_PROVIDER"));
    let flags = ["doctor", "--json", "--provider", "cpu:arena=false", "--strict=false", "--threads", "2"];
    let output = settings.found().env("VINTERN_PROVIDER", "cuda").args(flags).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(setting(&report, "provider"), named("cpu:arena=false", "--provider"));
    assert_eq!(setting(&report, "strict"), named("false", "--strict"));
    assert_eq!(setting(&report, "threads"), named("2", "--threads"));
}

/// A file of the user's folder is read unless another is named; an empty name reads none.
#[test]
fn which_file_is_read() {
    let (users, other) = (Settings::new("threads = 3\n"), Settings::new("threads = 4\n"));
    let threads = |command: &mut Command| setting(&doctor(command), "threads").map(|(value, _)| value);
    assert_eq!(threads(&mut users.found()).as_deref(), Some("3"));
    assert_eq!(threads(users.found().env("VINTERN_SETTINGS", other.file())).as_deref(), Some("4"));
    assert_eq!(threads(users.found().env("VINTERN_SETTINGS", "")), None);
    assert_eq!(doctor(&mut vintern())["settings"], Value::Null);
}

#[test]
fn every_command_says_where_a_setting_comes_from() {
    let settings = Settings::new("[provider]\nvision = [{ name = 'cpu', arena = false }]\ndecoder = 'cuda;cpu'\n");
    let mut command = settings.found();
    command.args(["chat", "-v", "--max-new-tokens", "2", "--threads", "2", "--model"]).arg(tiny_package()).arg("hi");
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        format!("settings: read {}", settings.file().display()),
        format!(
            "settings: provider = decoder=cuda;cpu,vision=cpu:arena=false, from {}, line 1",
            settings.file().display()
        ),
        "settings: threads = 2, from --threads".to_owned(),
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    assert!(said.contains("provider cuda is not used: "), "{said}");
}

#[test]
fn libraries_are_seen_from_where_the_file_lies() {
    let settings = Settings::new("ort-library = \"lib/none.so\"\n[provider-library]\nnpu = \"npu.so\"\n");
    let path = settings.0.path().join("vintern/lib/none.so");
    let library = |report: &Value| {
        let checks = report["checks"].as_array().unwrap().iter();
        checks
            .clone()
            .find(|check| check["name"] == "library")
            .map(|check| check["detail"].as_str().unwrap().to_owned())
    };
    let detail = library(&doctor(&mut settings.found())).unwrap();
    let from = format!("{} (from {}, line 1) does not exist", path.display(), settings.file().display());
    assert!(detail.contains(&from), "{detail}");
    let detail = library(&doctor(settings.found().env("ORT_DYLIB_PATH", "/other.so"))).unwrap();
    assert!(detail.contains("/other.so (from ORT_DYLIB_PATH) does not exist"), "{detail}");
    let report = doctor(settings.found().env("ORT_DYLIB_PATH", "/other.so"));
    let npu = json!({
        "name": "provider-library",
        "value": format!("npu={}", settings.0.path().join("vintern/npu.so").display()),
        "from": format!("{}, line 3", settings.file().display()),
    });
    assert!(report["settings"].as_array().unwrap().contains(&npu), "{report:#}");
}

#[test]
fn a_file_that_is_none_is_refused_before_anything_else() {
    let mut transcript = Transcript::new();
    for content in [
        "provider = 'cpu'\ntreads = 2\n",
        "threads = 'many'\n",
        "threads",
        "threads = 2\nprovider = 'cud4'\n",
        "[provider]\nvison = 'cuda'\n",
        "provider = [\n  { name = 'tensorrt', fp61 = true },\n]\n",
    ] {
        let settings = Settings::new(content);
        transcript.name(settings.0.path(), "FOLDER");
        transcript.record(settings.found().args(["chat", "--model", "nowhere", "hi"]));
    }
    transcript.run(&["doctor", "--settings", "nowhere.toml"]);
    transcript.check("settings_file_refused");
}
