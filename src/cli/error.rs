use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::engine::EngineError;
use crate::generate::SettingsError;
use crate::graph::GraphError;
use crate::model::ModelError;
use crate::package::PackageError;
use crate::preprocess::ImageError;
use crate::prompt::PromptError;
use crate::provider::ProviderError;
use crate::settings::ChoiceError;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Flags that contradict each other.
    #[error("{message}\nhint: {hint}")]
    Usage {
        /// What contradicts what.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A file cannot be read.
    #[error("the {what} {} {}", file.display(), unreadable(what, file, error))]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{} cannot be written: {source}\nhint: choose another folder with --output", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The recorded results of a package cannot be used.
    #[error(
        "the recorded results {} cannot be used: {message}\nhint: record them again with `vintern-export verify DIR --record`",
        file.display()
    )]
    Recorded {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The history file is not a list of pairs.
    #[error(
        "{} is not a history: {source}\nhint: it must be a JSON list of [question, answer] pairs",
        file.display()
    )]
    History {
        /// The file.
        file: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// An image cannot be used.
    #[error("{}: {source}", file.display())]
    Image {
        /// The file.
        file: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// The settings file cannot be used.
    #[error("{}, line {line}: {message}", file.display())]
    SettingsFile {
        /// The file.
        file: PathBuf,
        /// The line at fault.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The settings are out of range.
    #[error("{message}")]
    Settings {
        /// The setting by the name of its flag, its value, what is allowed.
        message: String,
    },
    /// The provider spec cannot be honoured.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The package cannot be used.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The prompt cannot be made.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The engine could not be made ready or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A check found something wrong; what it is was printed.
    #[error("{0}")]
    Check(String),
    /// `doctor` found something that does not work.
    #[error("{failed} check(s) failed")]
    Doctor {
        /// Number of failed checks.
        failed: usize,
        /// Exit code of the gravest one.
        exit_code: u8,
    },
    /// A server that was to be measured does not answer.
    #[error("the server at {url} cannot be asked: {message}\nhint: check --server, and --api-key if it wants one")]
    AskedServer {
        /// Address that was asked.
        url: String,
        /// What it or the connection said.
        message: String,
    },
    /// The server cannot listen, or its engine ended by itself.
    #[error(
        "the server at {address} ended: {error}{}",
        if error.kind() == ErrorKind::AddrInUse { "\nhint: another program listens there; choose another --port" } else { "" }
    )]
    Serve {
        /// Where it listened or should have.
        address: std::net::SocketAddr,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The terminal or a pipe could not be written to or read.
    #[error("{0}")]
    Terminal(#[from] std::io::Error),
}

impl CliError {
    /// Flags that contradict each other.
    pub(super) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// Exit code: 1 part of the work failed, 2 wrong usage or configuration, 3 the environment.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Recorded { .. }
            | Self::History { .. }
            | Self::Image { .. }
            | Self::SettingsFile { .. }
            | Self::Settings { .. }
            | Self::Provider(_)
            | Self::Package(_)
            | Self::Prompt(_) => 2,
            Self::Engine(error) => engine_exit_code(error),
            Self::Doctor { exit_code, .. } => *exit_code,
            Self::AskedServer { .. } | Self::Serve { .. } => 3,
            Self::Check(_) | Self::Terminal(_) => 1,
        }
    }
}

impl From<ChoiceError> for CliError {
    fn from(error: ChoiceError) -> Self {
        let flag = |name: &str| format!("--{}", name.replace('_', "-"));
        let message = error.message(flag);
        match error.hint(flag) {
            Some(hint) => Self::Usage { message, hint },
            None => Self::Settings { message },
        }
    }
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        ChoiceError::from(error).into()
    }
}

impl From<GraphError> for CliError {
    fn from(error: GraphError) -> Self {
        Self::Engine(EngineError::Model(error.into()))
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        Self::Engine(error.into())
    }
}

/// What is wrong with a file that could not be read, and what to do.
fn unreadable(what: &str, file: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            let folder = std::env::current_dir().ok().filter(|_| file.is_relative());
            let searched =
                folder.map_or(String::new(), |folder| format!("; it was looked for in {}", folder.display()));
            format!("does not exist\nhint: check the path{searched}")
        }
        ErrorKind::IsADirectory => format!("is a folder\nhint: pass the {what} file itself"),
        _ => format!("cannot be read: {error}"),
    }
}

fn engine_exit_code(error: &EngineError) -> u8 {
    match error {
        EngineError::Model(error) => model_exit_code(error),
        EngineError::Step(error) => model_exit_code(error),
        EngineError::Search(_) => 1,
        EngineError::Thread(_) => 3,
        _ => 2,
    }
}

fn model_exit_code(error: &ModelError) -> u8 {
    match error {
        ModelError::Graph(GraphError::Mismatch { .. }) => 2,
        ModelError::Graph(GraphError::Engine(error)) if error.is_of_configuration() => 2,
        ModelError::Graph(GraphError::Interrupted | GraphError::Cache { .. } | GraphError::Run { .. }) => 1,
        ModelError::Graph(_) => 3,
        _ => 2,
    }
}
