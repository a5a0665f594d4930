//! TensorRT without surprises: which shapes an engine is built for, where it is kept, and whether a kept one still fits.
//!
//! TensorRT compiles a graph into an *engine* for one kind of GPU and a range of shapes, which takes minutes. ONNX Runtime
//! keeps engines in a folder and builds one anew, without a word, when the one it finds does not fit. So
//!
//! - the shapes ([`Profile`]) follow from the manifest and are given in full, and an engine is built when the graph is
//!   loaded, never in the middle of a question;
//! - beside each engine lies an [`EngineRecord`] of what it was built from; one that does not fit is an error that names it.

mod error;
mod limits;
mod machine;
mod plan;
mod profile;
mod record;

pub use error::EngineError;
pub use limits::{LIMIT_OPTIONS, ShapeLimits, Sizes};
pub use machine::Machine;
pub use plan::{EnginePlan, EngineSource, EngineState, default_folder};
pub use profile::{MAX_OPTION_LENGTH, Profile};
pub use record::EngineRecord;

pub(super) use limits::check_options;
pub(super) use plan::passed_on;

/// Name of the provider in specs.
pub const TENSORRT: &str = "tensorrt";
