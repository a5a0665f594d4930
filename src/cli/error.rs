use std::path::PathBuf;

use crate::engine::EngineError;
use crate::generate::SettingsError;
use crate::graph::GraphError;
use crate::model::ModelError;
use crate::package::PackageError;
use crate::preprocess::ImageError;
use crate::prompt::PromptError;
use crate::provider::ProviderError;

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
    /// A file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
    /// The settings are out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
            | Self::File { .. }
            | Self::History { .. }
            | Self::Image { .. }
            | Self::Settings(_)
            | Self::Provider(_)
            | Self::Package(_)
            | Self::Prompt(_) => 2,
            Self::Engine(error) => engine_exit_code(error),
            Self::Check(_) | Self::Terminal(_) => 1,
        }
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

fn engine_exit_code(error: &EngineError) -> u8 {
    match error {
        EngineError::Model(ModelError::Graph(error)) => match error {
            GraphError::Mismatch { .. } => 2,
            GraphError::Interrupted | GraphError::Cache { .. } => 1,
            _ => 3,
        },
        EngineError::Search(_) | EngineError::Step { .. } => 1,
        _ => 2,
    }
}
