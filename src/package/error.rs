use std::path::PathBuf;

use super::{FORMAT, FORMAT_VERSION};

/// Why a folder is not a usable model package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The path is not a folder.
    #[error(
        "model package {} is not a folder\nhint: pass the folder that vintern-export wrote (it holds manifest.json)",
        folder.display()
    )]
    NoFolder {
        /// The path asked for.
        folder: PathBuf,
    },
    /// The folder has no manifest.
    #[error(
        "{} holds no manifest.json, so it is not a model package\nhint: make one with `vintern-export CHECKPOINT OUT`",
        folder.display()
    )]
    NoManifest {
        /// The folder asked for.
        folder: PathBuf,
    },
    /// The manifest is not what it should be.
    #[error("{} cannot be understood: {source}\nhint: the manifest is written by vintern-export; export again", file.display())]
    Manifest {
        /// The manifest.
        file: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// The file is a manifest of something else.
    #[error(
        "{} has format {found}, expected \"{FORMAT}\"\nhint: pass the folder that vintern-export wrote",
        file.display()
    )]
    Format {
        /// The manifest.
        file: PathBuf,
        /// The field as found.
        found: String,
    },
    /// The package was written in another format version.
    #[error(
        "{} has package format version {found}, this vintern reads version {FORMAT_VERSION}\nhint: export the checkpoint again with the vintern-export of this version",
        file.display()
    )]
    FormatVersion {
        /// The manifest.
        file: PathBuf,
        /// The field as found.
        found: String,
    },
    /// A field holds a value that cannot be worked with.
    #[error("{}: {field} is {found}, expected {expected}\nhint: the manifest was changed; export again", file.display())]
    Field {
        /// The manifest.
        file: PathBuf,
        /// Name of the field.
        field: String,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A file name that would leave the package's folder.
    #[error(
        "{}/manifest.json names the file {name:?}; only bare file names inside the package are allowed\nhint: the manifest was changed; do not use a package of unknown origin",
        folder.display()
    )]
    FileName {
        /// The package.
        folder: PathBuf,
        /// The name found.
        name: String,
    },
    /// A file is not there.
    #[error("{} is missing from the model package\nhint: copy the whole folder, or export again", file.display())]
    MissingFile {
        /// The file.
        file: PathBuf,
    },
    /// A file has another size than the manifest states.
    #[error(
        "{} has {found} bytes, the manifest says {expected}\nhint: the file was cut off or exchanged; copy the package again",
        file.display()
    )]
    Size {
        /// The file.
        file: PathBuf,
        /// Bytes stated.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file has another content than the manifest states.
    #[error(
        "{} has SHA-256 {found}, the manifest says {expected}\nhint: the file was changed or damaged; copy the package again",
        file.display()
    )]
    Hash {
        /// The file.
        file: PathBuf,
        /// Hash stated.
        expected: String,
        /// Hash found.
        found: String,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
