//! The settings file: what a machine's runtime is, once for all commands.
//!
//! TOML whose keys are the names of the runtime's flags. A flag wins over its environment variable, that over the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::RuntimeArgs;
use super::error::CliError;
use crate::graph::onnx::PluginLibrary;

/// What the file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SettingsFile {
    /// As `--provider`.
    provider: Option<String>,
    /// Paths by the names of plugin libraries, as `--provider-library NAME=PATH`.
    #[serde(default)]
    provider_library: BTreeMap<String, PathBuf>,
    /// As `--strict`.
    strict: Option<bool>,
    /// As `--ort-library`.
    ort_library: Option<PathBuf>,
    /// As `--threads`.
    threads: Option<std::num::NonZero<u16>>,
}

impl RuntimeArgs {
    /// Takes from the settings file what neither a flag nor the environment says.
    ///
    /// # Errors
    /// [`CliError::Read`] when a file that was asked for cannot be read, [`CliError::SettingsFile`] when it is no settings file.
    pub(super) fn with_file(&mut self) -> Result<(), CliError> {
        let asked = self.settings.is_some();
        let Some(file) = self.settings.clone().or_else(default_file) else { return Ok(()) };
        if !asked && !file.exists() {
            return Ok(());
        }
        let bytes = super::read_file("settings file", &file)?;
        let settings = parse(&String::from_utf8_lossy(&bytes), &file)?;
        // Paths in the file are seen from where it lies.
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        self.provider = self.provider.take().or(settings.provider);
        self.strict |= settings.strict.unwrap_or(false);
        self.ort_library = self.ort_library.take().or(settings.ort_library.map(|path| folder.join(path)));
        self.threads = self.threads.or(settings.threads.map(std::num::NonZero::get));
        for (name, path) in settings.provider_library {
            if self.provider_library.iter().all(|library| library.name != name) {
                self.provider_library.push(PluginLibrary { name, path: folder.join(path) });
            }
        }
        self.settings = Some(file);
        Ok(())
    }
}

fn parse(text: &str, file: &Path) -> Result<SettingsFile, CliError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text[..start].matches('\n').count();
        let message = error.message().to_owned();
        CliError::SettingsFile { file: file.to_path_buf(), line, message }
    })
}

/// `vintern/settings.toml` in the user's folder of configuration.
fn default_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("vintern/settings.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text, Path::new("s.toml")).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_line_and_the_known_keys() {
        let message = refused("threads = 2\n\nprovidr = \"cuda\"\n");
        assert!(
            message.starts_with("s.toml, line 3: unknown field `providr`, expected one of `provider`"),
            "{message}"
        );
        assert!(refused("threads = 0").contains("line 1"));
        assert!(refused("strict = 1").contains("line 1: invalid type"));
        assert!(refused("provider = ").contains("line 1"));
    }

    #[test]
    fn a_file_may_say_little_or_all() {
        assert!(parse("", Path::new("s.toml")).unwrap().provider.is_none());
        let all = "provider = 'vision=openvino,decoder=cpu'\nstrict = true\nort-library = 'a.so'\nthreads = 3\n\
                   [provider-library]\nnpu = 'b.so'\n";
        let settings = parse(all, Path::new("s.toml")).unwrap();
        assert_eq!(settings.threads.map(std::num::NonZero::get), Some(3));
        assert_eq!(settings.provider_library["npu"], Path::new("b.so"));
    }
}
