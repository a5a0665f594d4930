use std::path::PathBuf;

use crate::provider::tensorrt::EngineError;

/// Why a graph could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// No ONNX Runtime library was found.
    #[error(
        "no ONNX Runtime library was found; looked at {}\nhint: run `make setup`, or install it with `pip install onnxruntime` and pass --ort-library PATH (or set ORT_DYLIB_PATH) to its libonnxruntime.so",
        looked_at.join(", ")
    )]
    LibraryNotFound {
        /// The places looked at, in order.
        looked_at: Vec<String>,
    },
    /// The path named for the library does not exist or is not a file.
    #[error(
        "the ONNX Runtime library {} (from {origin}) {found}\nhint: pass the path of libonnxruntime.so, onnxruntime.dll or libonnxruntime.dylib",
        path.display()
    )]
    LibraryPath {
        /// The path asked for.
        path: PathBuf,
        /// Where the path was named.
        origin: String,
        /// What is wrong with it.
        found: &'static str,
    },
    /// The file cannot be loaded as a library.
    #[error(
        "{} cannot be loaded as a library: {message}\nhint: it must be an ONNX Runtime library for this system; get one with `pip install onnxruntime`",
        path.display()
    )]
    LibraryLoad {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        message: String,
    },
    /// The library is something else.
    #[error(
        "{} is a library, but not ONNX Runtime: it does not export OrtGetApiBase\nhint: pass the path of libonnxruntime itself",
        path.display()
    )]
    NotOnnxRuntime {
        /// The library.
        path: PathBuf,
    },
    /// The library is older than this program needs.
    #[error(
        "{} is ONNX Runtime {found}, vintern needs 1.{minimum} or newer\nhint: `pip install --upgrade onnxruntime`, or pass another library with --ort-library",
        path.display()
    )]
    LibraryTooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: String,
        /// Oldest minor version that works.
        minimum: u32,
    },
    /// A second, different library was asked for in one process.
    #[error("ONNX Runtime was already loaded from {}; a process uses one library", loaded.display())]
    LibraryAlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
    },
    /// The library of a provider is not there.
    #[error(
        "the provider library {} (--provider-library {name}=…) does not exist or is not a file\nhint: pass the path of the provider's own library",
        path.display()
    )]
    PluginPath {
        /// Name it was to have.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// The library is no provider.
    #[error(
        "{} cannot be used as the provider {name}: {message}\nhint: it must be a plugin library for this ONNX Runtime, which exports CreateEpFactories",
        path.display()
    )]
    PluginLoad {
        /// Name it was to have.
        name: String,
        /// The path.
        path: PathBuf,
        /// What the runtime said.
        message: String,
    },
    /// The provider finds nothing to run on.
    #[error(
        "the provider {name} ({}) was loaded and offers no device on this machine\nhint: it needs hardware, or a driver, that is not there",
        path.display()
    )]
    PluginWithoutDevice {
        /// Name it was to have.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// A graph could not be loaded.
    #[error(
        "{} could not be loaded: {message}\nhint: `vintern verify` tells whether the file is damaged; if it is not, this ONNX Runtime cannot run it",
        file.display()
    )]
    Load {
        /// The graph.
        file: PathBuf,
        /// What the runtime said.
        message: String,
    },
    /// A graph is not the one its manifest describes.
    #[error(
        "{} is not the graph its manifest describes: {difference}\nhint: files of two packages were mixed up; copy the package again",
        file.display()
    )]
    Mismatch {
        /// The graph.
        file: PathBuf,
        /// The first difference.
        difference: String,
    },
    /// A provider cannot be had.
    #[error("the execution provider {provider} cannot be had: {message}\nhint: {how_to_get}")]
    ProviderUnavailable {
        /// Its name in the spec.
        provider: String,
        /// What the runtime said.
        message: String,
        /// How to get it.
        how_to_get: String,
    },
    /// A provider is there and cannot load the graph.
    #[error(
        "{} could not be loaded on {provider}: {message}\nhint: a list such as {provider};cpu goes on with the next provider",
        file.display()
    )]
    ProviderLoad {
        /// Its name in the spec.
        provider: String,
        /// The graph.
        file: PathBuf,
        /// What the runtime said.
        message: String,
    },
    /// TensorRT cannot run the graph as it was asked to.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A provider is there and takes nothing of the graph.
    #[error(
        "{provider} takes no node of {}; they would all run elsewhere: {placement}\nhint: a list such as {provider};cpu goes on with the next provider",
        file.display()
    )]
    NoNodes {
        /// Its name in the spec.
        provider: String,
        /// The graph.
        file: PathBuf,
        /// Where the nodes would run.
        placement: String,
    },
    /// Nodes run on the CPU provider that were not to.
    #[error(
        "{provider} leaves nodes of {} to the CPU provider: {operators}\nhint: without --strict they run there",
        file.display()
    )]
    FellToCpu {
        /// The provider that was to run all of them.
        provider: String,
        /// The graph.
        file: PathBuf,
        /// How many nodes of each operator.
        operators: String,
    },
    /// Kernels were asked for that cannot run the graph.
    #[error(
        "the kernels asked for (kernels=vintern) cannot run {}: {reason}\nhint: kernels=auto takes ONNX Runtime's own where they are needed",
        file.display()
    )]
    Kernels {
        /// The graph.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// There is no folder for profiles.
    #[error("the folder {} for profiles cannot be made: {message}\nhint: name another one", folder.display())]
    Profile {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        message: String,
    },
    /// The runtime failed while running a graph.
    #[error("{graph} failed: {message}")]
    Run {
        /// The graph.
        graph: String,
        /// What the runtime said.
        message: String,
    },
    /// Memory ran out.
    #[error(
        "no memory for {what}: {message}\nhint: use fewer tiles, beams or new tokens, or a package of lower precision"
    )]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// What the runtime said.
        message: String,
    },
    /// The cache was addressed outside its bounds.
    #[error("row {row}, positions up to {position} are outside the cache of {rows} rows of {capacity} positions")]
    Cache {
        /// The row.
        row: usize,
        /// End of the positions.
        position: usize,
        /// Rows there are.
        rows: usize,
        /// Positions a row has.
        capacity: usize,
    },
    /// The run was stopped on request.
    #[error("interrupted")]
    Interrupted,
}

impl GraphError {
    /// Whether another provider may do better.
    pub(super) fn is_of_provider(&self) -> bool {
        match self {
            Self::ProviderUnavailable { .. } | Self::ProviderLoad { .. } | Self::NoNodes { .. } => true,
            Self::Engine(error) => error.is_of_graph(),
            _ => false,
        }
    }

    /// The message without its hint.
    pub(super) fn reason(&self) -> String {
        self.to_string().split("\nhint: ").next().unwrap_or_default().to_owned()
    }
}
