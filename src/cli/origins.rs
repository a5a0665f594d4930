//! Where each setting of the runtime comes from: a flag, else its environment variable, else the settings file.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::Serialize;

use super::args::RuntimeArgs;
use super::error::CliError;
use super::settings_file::{SettingsFile, Stated};
use crate::graph::onnx::LIBRARY_VARIABLE;

/// A setting that somebody made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Origin {
    /// Name of its flag, without the dashes.
    name: &'static str,
    value: String,
    /// The flag, the environment variable, or the file with the line.
    from: String,
}

impl std::fmt::Display for Origin {
    /// `provider = cuda;cpu, from VINTERN_PROVIDER`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}, from {}", self.name, self.value, self.from)
    }
}

/// What the settings of the runtime are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// The settings file that was read.
    pub(super) file: Option<PathBuf>,
    /// The settings that are not the defaults.
    pub(super) settings: Vec<Origin>,
    /// Where the path of the library was named, if it was in the file.
    pub(super) ort_library: Option<String>,
}

impl Origins {
    fn add(&mut self, name: &'static str, value: impl ToString, from: &str) {
        self.settings.push(Origin { name, value: value.to_string(), from: from.to_owned() });
    }

    /// One line for the file and for each setting.
    pub(super) fn lines(&self) -> Vec<String> {
        let file = self.file.iter().map(|file| format!("read {}", file.display()));
        file.chain(self.settings.iter().map(ToString::to_string)).collect()
    }
}

impl RuntimeArgs {
    /// Takes from the settings file what neither a flag nor the environment says. `matches` are those of the command.
    ///
    /// # Errors
    /// [`CliError::Read`] when a file that was asked for cannot be read, [`CliError::SettingsFile`] when it is no settings file.
    pub(super) fn complete(&mut self, matches: &ArgMatches) -> Result<(), CliError> {
        let file = match &self.settings {
            Some(name) if name.is_empty() => None,
            Some(name) => Some(PathBuf::from(name)),
            None => default_file().filter(|file| file.exists()),
        };
        let stated = file.as_deref().map_or(Ok(SettingsFile::default()), SettingsFile::read)?;
        let mut origins = Origins { file: file.clone(), ..Origins::default() };
        let file = file.unwrap_or_default();
        let environment = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);

        let from = if environment("provider") { "VINTERN_PROVIDER" } else { "--provider" };
        self.provider = choose(&mut origins, "provider", (self.provider.take(), from), stated.provider, &file);
        self.strict = choose(&mut origins, "strict", (self.strict, "--strict"), stated.strict, &file);
        self.threads = choose(&mut origins, "threads", (self.threads, "--threads"), stated.threads, &file);
        self.choose_library(&mut origins, stated.ort_library, &file);
        for library in &self.provider_library {
            origins.add(
                "provider-library",
                format!("{}={}", library.name, library.path.display()),
                "--provider-library",
            );
        }
        for Stated { value: library, line } in stated.provider_library {
            if self.provider_library.iter().all(|other| other.name != library.name) {
                let text = format!("{}={}", library.name, library.path.display());
                origins.add("provider-library", text, &in_file(&file, line));
                self.provider_library.push(library);
            }
        }
        self.origins = origins;
        Ok(())
    }

    /// `--ort-library`, else the variable, which is looked at where libraries are looked for, else the file.
    fn choose_library(&mut self, origins: &mut Origins, stated: Option<Stated<PathBuf>>, file: &Path) {
        let variable = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty());
        if let Some(path) = &self.ort_library {
            origins.add("ort-library", path.display(), "--ort-library");
        } else if let Some(path) = variable {
            origins.add("ort-library", Path::new(&path).display(), LIBRARY_VARIABLE);
        } else if let Some(Stated { value, line }) = stated {
            let from = in_file(file, line);
            origins.add("ort-library", value.display(), &from);
            origins.ort_library = Some(from);
            self.ort_library = Some(value);
        }
    }
}

/// The setting as it was asked for and where, else as the file states it.
fn choose<T: ToString>(
    origins: &mut Origins,
    name: &'static str,
    asked: (Option<T>, &str),
    stated: Option<Stated<T>>,
    file: &Path,
) -> Option<T> {
    let (value, from) = match (asked, stated) {
        ((Some(value), from), _) => (value, from.to_owned()),
        (_, Some(Stated { value, line })) => (value, in_file(file, line)),
        _ => return None,
    };
    origins.add(name, value.to_string(), &from);
    Some(value)
}

fn in_file(file: &Path, line: usize) -> String {
    format!("{}, line {line}", file.display())
}

/// `vintern/settings.toml` in the user's folder of configuration.
fn default_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let configuration = if cfg!(windows) { folder("APPDATA") } else { None };
    let configuration = configuration.or_else(|| folder("XDG_CONFIG_HOME"));
    let configuration = configuration.or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(configuration.join("vintern").join("settings.toml"))
}

/// The matches of the command that was given, below all groups of commands.
pub(super) fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| innermost(matches))
}
