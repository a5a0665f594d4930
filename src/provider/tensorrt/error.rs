//! What can be wrong with an engine.

use std::path::PathBuf;

/// Why TensorRT cannot run a graph as it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The package has the graph in the fused variant only.
    #[error(
        "TensorRT does not take the {graph} of this package: it is there in the fused variant only\nhint: export it with `vintern-export --variant standard` or `both`"
    )]
    Fused {
        /// The graph.
        graph: &'static str,
    },
    /// An axis whose sizes are not known.
    #[error(
        "input {input} of {graph} has an axis {axis:?}, for which TensorRT's profile has no sizes\nhint: export the package with the vintern-export of this version"
    )]
    Axis {
        /// The graph.
        graph: &'static str,
        /// The input.
        input: String,
        /// Its axis.
        axis: String,
    },
    /// The profile is longer than ONNX Runtime takes.
    #[error(
        "the shapes of {graph} come to an option of {length} bytes, ONNX Runtime takes {limit} at most\nhint: run it on CUDA: --provider vision=tensorrt,decoder=cuda"
    )]
    ProfileTooLong {
        /// The graph.
        graph: &'static str,
        /// Bytes of the longest option.
        length: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A call needs sizes that the engine was not built for.
    #[error(
        "TensorRT compiled {graph} for {axis} from {min} to {max}; {found} is needed\nhint: --provider tensorrt:{axis}={found} makes room; `vintern engine build` builds the engine for it"
    )]
    OutOfRange {
        /// The graph.
        graph: String,
        /// The axis, by the name of its option.
        axis: &'static str,
        /// The size that is needed.
        found: u64,
        /// Least size.
        min: u64,
        /// Greatest size.
        max: u64,
    },
    /// A kept engine was built from something else.
    #[error(
        "the engine {} was built for something else: {differences}\nhint: `vintern engine build --force` with the same --provider builds it anew, and engine_cache=DIR keeps engines elsewhere",
        file.display()
    )]
    Stale {
        /// The engine.
        file: PathBuf,
        /// In what.
        differences: String,
    },
    /// A kept engine without a record.
    #[error(
        "nothing says what the engine {} was built from: {} is missing or cannot be read\nhint: `vintern engine build --force` with the same --provider builds it anew, and engine_cache=DIR keeps engines elsewhere",
        file.display(), record.display()
    )]
    NoRecord {
        /// The engine.
        file: PathBuf,
        /// The record there should be.
        record: PathBuf,
    },
    /// There is no folder for engines.
    #[error(
        "there is no folder to keep engines in: neither XDG_CACHE_HOME nor HOME is set\nhint: name one with --provider tensorrt:engine_cache=DIR"
    )]
    NoFolder,
    /// The folder for engines cannot be used.
    #[error(
        "{} cannot be used to keep engines: {error}\nhint: name another with --provider tensorrt:engine_cache=DIR",
        path.display()
    )]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

impl EngineError {
    /// Whether TensorRT cannot run the graph at all, so that another provider may do better.
    pub(crate) fn is_of_graph(&self) -> bool {
        matches!(self, Self::Fused { .. } | Self::Axis { .. } | Self::ProfileTooLong { .. })
    }

    /// Whether the spec or the package must change, and not the machine.
    pub(crate) fn is_of_configuration(&self) -> bool {
        self.is_of_graph() || matches!(self, Self::OutOfRange { .. })
    }
}
