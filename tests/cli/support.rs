//! Running the program, transcripts of it, copies of packages.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{golden, repository, tiny_package};

/// The program, free of the caller's settings.
pub fn vintern() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_vintern")))
}

/// A copy of the program, free of the caller's settings.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(repository()).env("COLUMNS", "100");
    // There is no settings file in this folder.
    command.env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR"));
    for variable in
        ["VINTERN_MODEL", "VINTERN_PROVIDER", "VINTERN_SETTINGS", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH", "RUST_BACKTRACE"]
    {
        command.env_remove(variable);
    }
    command
}

/// `vintern chat` with the tiny package.
pub fn chat() -> Command {
    let mut command = vintern();
    command.args(["chat", "--model"]).arg(tiny_package());
    command
}

/// A golden image.
pub fn image(name: &str) -> PathBuf {
    golden("images").join(name)
}

/// What a command that must succeed prints.
pub fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// The JSON that a command that must succeed prints.
pub fn json_of(command: &mut Command) -> Value {
    serde_json::from_str(&stdout_of(command)).unwrap()
}

/// The token ids of an answer.
pub fn ids(answer: &Value) -> Vec<u64> {
    answer["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The types of a JSON value: what a reader of the output relies on, without the numbers.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(values) => values.iter().take(1).map(shape).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
    }
}

/// What commands print, one after another, with names in place of paths.
pub struct Transcript {
    text: String,
    names: Vec<(String, &'static str)>,
}

impl Transcript {
    pub fn new() -> Self {
        let mut transcript = Self { text: String::new(), names: Vec::new() };
        transcript.name(repository(), "REPOSITORY");
        transcript.name(&tiny_package(), "TINY");
        transcript
    }

    /// Prints `name` for `path`; what was named last is looked for first.
    pub fn name(&mut self, path: &Path, name: &'static str) {
        self.names.insert(0, (path.to_str().unwrap().to_owned(), name));
    }

    /// Runs `vintern` with these arguments.
    pub fn run(&mut self, arguments: &[&str]) -> Output {
        self.record(vintern().args(arguments))
    }

    /// Runs `vintern chat` on the tiny package with these arguments.
    pub fn chat(&mut self, arguments: &[&str]) -> Output {
        self.record(chat().args(arguments))
    }

    /// Runs a command.
    pub fn record(&mut self, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        let arguments: Vec<&str> = command.get_args().map(OsStr::to_str).collect::<Option<_>>().unwrap();
        let mut entry = format!("$ vintern {}\n[exit {}]\n", arguments.join(" "), output.status.code().unwrap());
        for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                entry.extend(["[", stream, "]\n", text(bytes).trim_end(), "\n"]);
            }
        }
        for (path, name) in &self.names {
            entry = entry.replace(path, name);
        }
        self.text += &entry;
        self.text.push('\n');
        output
    }

    /// Compares with the snapshot of that name.
    pub fn check(self, name: &str) {
        snapshot(name, self.text.trim_end());
    }
}

/// Compares with the snapshot of that name, hashes and versions left out.
pub fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter("[0-9a-f]{64}", "SHA-256");
    settings.add_filter(r"\b\d+\.\d+\.\d+\b", "VERSION");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A copy of the tiny package that a test may damage.
pub struct PackageCopy(tempfile::TempDir);

impl PackageCopy {
    pub fn new() -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        for entry in std::fs::read_dir(tiny_package()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), copy.file(entry.file_name().to_str().unwrap())).unwrap();
        }
        copy
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Changes the manifest.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let file = self.file("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(file, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    }

    /// Replaces a file and states its size and hash in the manifest.
    pub fn replace(&self, name: &str, content: &[u8]) {
        use sha2::Digest as _;
        std::fs::write(self.file(name), content).unwrap();
        let hexadecimal = |hex: String, byte: &u8| hex + &format!("{byte:02x}");
        let digest = sha2::Sha256::digest(content).iter().fold(String::new(), hexadecimal);
        self.edit(|manifest| {
            for_each_file(manifest, &mut |file| {
                if file["name"] == name {
                    file["size"] = content.len().into();
                    file["sha256"] = digest.clone().into();
                }
            });
        });
    }

    /// Changes one byte of a file.
    pub fn flip(&self, name: &str, at: usize) {
        let mut content = std::fs::read(self.file(name)).unwrap();
        content[at] ^= 1;
        std::fs::write(self.file(name), content).unwrap();
    }
}

/// Every `{"name", "size", "sha256"}` of a manifest.
fn for_each_file(value: &mut Value, change: &mut impl FnMut(&mut Value)) {
    if value.get("sha256").is_some() && value.get("size").is_some() {
        return change(value);
    }
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| for_each_file(value, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| for_each_file(value, change)),
        _ => (),
    }
}
