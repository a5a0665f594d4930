//! The settings file: what a machine's runtime is, once for all commands.
//!
//! TOML whose keys are the names of the runtime's flags. A provider is a spec as on the command line, or tables of names and
//! options, which become the same spec: there is one syntax behind both.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::CliError;
use crate::graph::onnx::PluginLibrary;
use crate::nearest::nearest;
use crate::provider::{COMPONENTS, ComponentProviders};

/// Keys of the file.
const KEYS: [&str; 5] = ["provider", "provider-library", "strict", "ort-library", "threads"];

/// A setting with the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stated<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// What the file says. Paths are seen from where it lies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SettingsFile {
    /// As `--provider`.
    pub(super) provider: Option<Stated<String>>,
    /// As `--provider-library NAME=PATH`.
    pub(super) provider_library: Vec<Stated<PluginLibrary>>,
    /// As `--strict`.
    pub(super) strict: Option<Stated<bool>>,
    /// As `--ort-library`.
    pub(super) ort_library: Option<Stated<PathBuf>>,
    /// As `--threads`.
    pub(super) threads: Option<Stated<u16>>,
}

impl SettingsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CliError::Read`] when it cannot be read, [`CliError::SettingsFile`] when it is no settings file.
    pub(super) fn read(file: &Path) -> Result<Self, CliError> {
        let bytes = super::read_file("settings file", file)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| refusal(file, lines(&bytes[..error.valid_up_to()]), "this is not UTF-8 text"))?;
        Self::parse(text, file)
    }

    fn parse(text: &str, file: &Path) -> Result<Self, CliError> {
        let source = Source { text, file };
        let parsed = DeTable::parse(text)
            .map_err(|error| source.refuse(error.span().unwrap_or_default(), error.message()))?
            .into_inner();
        // A path in the file is seen from where it lies.
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut settings = Self::default();
        for (key, value) in &parsed {
            let line = source.line(&key.span());
            match key.get_ref().as_ref() {
                "provider" => settings.provider = Some(Stated { value: source.providers(value)?, line }),
                "strict" => settings.strict = Some(Stated { value: source.switch(value)?, line }),
                "ort-library" => {
                    settings.ort_library = Some(Stated { value: folder.join(source.string(value)?), line });
                }
                "threads" => settings.threads = Some(Stated { value: source.threads(value)?, line }),
                "provider-library" => {
                    for (name, path) in source.table(value)? {
                        let library =
                            PluginLibrary { name: name.get_ref().to_string(), path: folder.join(source.string(path)?) };
                        let line = source.line(&name.span());
                        settings.provider_library.push(Stated { value: library, line });
                    }
                }
                unknown => return Err(source.unknown(&key.span(), "setting", unknown, &KEYS)),
            }
        }
        Ok(settings)
    }
}

/// The file, for what is wrong in it.
struct Source<'a> {
    text: &'a str,
    file: &'a Path,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Source<'_> {
    fn line(&self, at: &Range<usize>) -> usize {
        lines(&self.text.as_bytes()[..at.start.min(self.text.len())])
    }

    fn refuse(&self, at: Range<usize>, message: impl Into<String>) -> CliError {
        refusal(self.file, self.line(&at), message)
    }

    fn unknown(&self, at: &Range<usize>, what: &str, name: &str, known: &[&'static str]) -> CliError {
        let nearest = nearest(name, known.iter().copied());
        let meant = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
        self.refuse(at.clone(), format!("there is no {what} {name:?}{meant}\nhint: there are {}", known.join(", ")))
    }

    fn expected(&self, value: &Value<'_>, expected: &str) -> CliError {
        self.refuse(value.span(), format!("found a value of type {}, expected {expected}", value.get_ref().type_str()))
    }

    fn string<'v>(&self, value: &'v Value<'_>) -> Result<&'v str, CliError> {
        value.get_ref().as_str().ok_or_else(|| self.expected(value, "a string"))
    }

    fn switch(&self, value: &Value<'_>) -> Result<bool, CliError> {
        value.get_ref().as_bool().ok_or_else(|| self.expected(value, "true or false"))
    }

    fn table<'v, 'i>(&self, value: &'v Value<'i>) -> Result<&'v DeTable<'i>, CliError> {
        value.get_ref().as_table().ok_or_else(|| self.expected(value, "a table of names and paths"))
    }

    fn threads(&self, value: &Value<'_>) -> Result<u16, CliError> {
        let DeValue::Integer(number) = value.get_ref() else { return Err(self.expected(value, "a number")) };
        let threads = number.to_string().parse().ok().filter(|threads| *threads > 0);
        threads.ok_or_else(|| self.refuse(value.span(), format!("threads is {number}; it must be 1 to 65535")))
    }

    /// The spec of a value: a list for all graphs, or a table with one for each.
    fn providers(&self, value: &Value<'_>) -> Result<String, CliError> {
        let DeValue::Table(graphs) = value.get_ref() else {
            let list = self.list(value)?;
            return self.checked(&list, value.span()).map(|()| list);
        };
        let mut lists = Vec::new();
        for (graph, list) in graphs {
            if !COMPONENTS.contains(&graph.get_ref().as_ref()) {
                return Err(self.unknown(&graph.span(), "graph", graph.get_ref(), &COMPONENTS));
            }
            let list = format!("{}={}", graph.get_ref(), self.list(list)?);
            self.checked(&list, graph.span())?;
            lists.push(list);
        }
        let spec = lists.join(",");
        self.checked(&spec, value.span()).map(|()| spec)
    }

    /// What is wrong with a spec is said of the line it stands on.
    fn checked(&self, spec: &str, at: Range<usize>) -> Result<(), CliError> {
        spec.parse::<ComponentProviders>().map(drop).map_err(|error| self.refuse(at, error.to_string()))
    }

    fn list(&self, value: &Value<'_>) -> Result<String, CliError> {
        match value.get_ref() {
            DeValue::String(spec) => Ok(spec.to_string()),
            DeValue::Array(entries) => {
                let entries = entries.iter().map(|entry| self.entry(entry));
                Ok(entries.collect::<Result<Vec<_>, _>>()?.join(";"))
            }
            _ => Err(self.expected(value, "a list of providers")),
        }
    }

    /// `name:option=value` of a name, or of a table with a name and options.
    fn entry(&self, value: &Value<'_>) -> Result<String, CliError> {
        let options = match value.get_ref() {
            DeValue::String(entry) => return Ok(entry.to_string()),
            DeValue::Table(options) => options,
            _ => return Err(self.expected(value, "a provider: its name, or a table with a name and options")),
        };
        let name = options.iter().find(|(key, _)| key.get_ref() == "name").map(|(_, name)| self.string(name));
        let name = name.ok_or_else(|| self.refuse(value.span(), "the provider has no name"))??;
        let others = options.iter().filter(|(key, _)| key.get_ref() != "name");
        let pairs = others.map(|(key, value)| Ok(format!("{}={}", key.get_ref(), self.option(value)?)));
        let pairs = pairs.collect::<Result<Vec<_>, CliError>>()?.join(",");
        let entry = format!("{name}:{pairs}");
        self.checked(&entry, value.span())?;
        Ok(entry)
    }

    fn option(&self, value: &Value<'_>) -> Result<String, CliError> {
        match value.get_ref() {
            DeValue::String(text) if text.contains('"') => {
                Err(self.refuse(value.span(), "an option of a provider cannot hold a double quote"))
            }
            DeValue::String(text) => Ok(format!("\"{text}\"")),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(switch) => Ok(switch.to_string()),
            _ => Err(self.expected(value, "a string, a number, true or false")),
        }
    }
}

/// Number of lines, one that is not at its end included.
fn lines(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').count()
}

fn refusal(file: &Path, line: usize, message: impl Into<String>) -> CliError {
    CliError::SettingsFile { file: file.to_path_buf(), line, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SettingsFile, CliError> {
        SettingsFile::parse(text, Path::new("folder/s.toml"))
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn provider(text: &str) -> String {
        parse(text).unwrap().provider.unwrap().value
    }

    #[test]
    fn errors_name_the_line_and_the_nearest_key() {
        let message = refused("threads = 2\n\nprovidr = \"cuda\"\n");
        assert!(
            message.starts_with("folder/s.toml, line 3: there is no setting \"providr\"; did you mean provider?"),
            "{message}"
        );
        for (text, expected) in [
            ("threads = 0", "line 1: threads is 0; it must be 1 to 65535"),
            ("\nthreads = 70000", "line 2: threads is 70000"),
            ("threads = 'many'", "line 1: found a value of type string, expected a number"),
            ("strict = 1", "line 1: found a value of type integer, expected true or false"),
            ("provider = ", "line 1: "),
            ("provider = 3", "line 1: found a value of type integer, expected a list of providers"),
            ("strict = true\nprovider = 'cud4'", "line 2: there is no execution provider \"cud4\"; did you mean cuda?"),
            ("[provider]\nvision = 'cuda'\nvison = 'cpu'", "line 3: there is no graph \"vison\"; did you mean vision?"),
            ("[provider]\nvision = 'cuda'\ndecoder = 'cudaa'", "line 3: there is no execution provider"),
            (
                "provider = [\n  'cuda',\n  { name = 'tensorrt', fp61 = true },\n]",
                "line 3: provider tensorrt has no option \"fp61\"; did you mean fp16?",
            ),
            ("provider = [{ device = 1 }]", "line 1: the provider has no name"),
            ("provider = [{ name = 'cuda', device = [1] }]", "line 1: found a value of type array"),
            ("provider = []", "line 1: the provider list is empty"),
            ("provider-library = 'a'", "line 1: found a value of type string, expected a table"),
            ("provider-library.a = 1", "line 1: found a value of type integer, expected a string"),
        ] {
            assert!(refused(text).contains(expected), "{text}\n{}", refused(text));
        }
    }

    #[test]
    fn a_file_may_say_little_or_all() {
        assert_eq!(parse("").unwrap(), SettingsFile::default());
        let all = "provider = 'vision=openvino,decoder=cpu'\nstrict = true\nort-library = 'a.so'\nthreads = 3\n\
                   [provider-library]\nnpu = '/b.so'\n";
        let settings = parse(all).unwrap();
        assert_eq!(settings.provider, Some(Stated { value: "vision=openvino,decoder=cpu".to_owned(), line: 1 }));
        assert_eq!(settings.strict, Some(Stated { value: true, line: 2 }));
        assert_eq!(settings.ort_library, Some(Stated { value: "folder/a.so".into(), line: 3 }));
        assert_eq!(settings.threads, Some(Stated { value: 3, line: 4 }));
        let library = PluginLibrary { name: "npu".to_owned(), path: "/b.so".into() };
        assert_eq!(settings.provider_library, [Stated { value: library, line: 6 }]);
    }

    #[test]
    fn providers_are_a_spec_a_list_or_a_list_for_each_graph() {
        assert_eq!(provider("provider = 'cuda:device=1;cpu'"), "cuda:device=1;cpu");
        assert_eq!(
            provider("provider = [{ name = 'cuda', device = 1, tf32 = false }, 'cpu']"),
            "cuda:device=1,tf32=false;cpu"
        );
        let tables = "[[provider.vision]]\nname = 'tensorrt'\nfp16 = true\nengine_cache = 'a, b'\n\
                      [[provider.vision]]\nname = 'cuda'\n";
        assert_eq!(provider(tables), "vision=tensorrt:engine_cache=\"a, b\",fp16=true;cuda:");
        assert_eq!(provider("[provider]\ndecoder = 'cuda;cpu'\nvision = ['cpu']"), "decoder=cuda;cpu,vision=cpu");
    }
}
