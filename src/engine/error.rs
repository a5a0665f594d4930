use std::sync::Arc;

use crate::generate::{SearchError, SettingsError};
use crate::model::ModelError;
use crate::package::PackageError;
use crate::preprocess::ImageError;
use crate::prompt::PromptError;

/// Why the engine could not be made ready, or a request not be served.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The package cannot be used.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The vision encoder has no thread.
    #[error("the system starts no thread for the vision encoder: {0}")]
    Thread(#[source] std::io::Error),
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The prompt cannot be made.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The settings contradict themselves or are out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The logits cannot be searched.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A decode step that this request shared with others failed.
    #[error(transparent)]
    Step(Arc<ModelError>),
    /// The package names a chat template this version does not know.
    #[error("manifest.json of the package: {source}\nhint: export the checkpoint again with --template NAME")]
    Template {
        /// The name, and the known ones.
        source: PromptError,
    },
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt} tokens ({image} from {tiles} image tiles, {text} of text), the package allows {max_length} for prompt and answer\nhint: {}",
        if image > text { "use fewer tiles (--max-tiles) or fewer images" } else { "shorten the question or the history" }
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Image tokens of it.
        image: usize,
        /// Tiles they come from.
        tiles: usize,
        /// The other tokens.
        text: usize,
        /// Tokens allowed.
        max_length: usize,
    },
    /// A request needs more rows than the engine has.
    #[error("the request needs {rows} rows (beams or samples), the engine was started with {max_rows}")]
    TooManyRows {
        /// Rows needed.
        rows: usize,
        /// Rows allowed.
        max_rows: usize,
    },
    /// A request needs more of the cache than there may be.
    #[error(
        "the request needs {rows} row(s) of {positions} positions (prompt and answer) of the cache, {} MiB; the cache has {} MiB\n\
         hint: ask for a shorter answer, fewer tiles or fewer beams, or give the cache more memory (--cache-memory)",
        bytes.div_ceil(1 << 20), max_bytes >> 20
    )]
    CacheTooSmall {
        /// Rows needed: beams or samples.
        rows: usize,
        /// Tokens of the prompt and most of the answer.
        positions: usize,
        /// Bytes they take.
        bytes: usize,
        /// Bytes there may be.
        max_bytes: usize,
    },
    /// Tiles of another size than the model takes.
    #[error("an image was cut into tiles of {found} pixels, the model takes tiles of {expected}")]
    TileSize {
        /// Side of the tiles.
        found: u32,
        /// Side the model takes.
        expected: u32,
    },
}
