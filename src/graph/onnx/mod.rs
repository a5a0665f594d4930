//! Graphs on ONNX Runtime.

mod cached;
mod library;
mod session;

pub use cached::{CacheDtype, CacheLayout, OnnxCachedGraph};
pub use library::{LIBRARY_VARIABLE, Library, LibraryOptions, MINIMUM_MINOR_VERSION, locate};
pub use session::{GraphSource, OnnxGraph};
