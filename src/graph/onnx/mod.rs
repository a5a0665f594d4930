//! Graphs on ONNX Runtime.

#![expect(clippy::borrow_as_ptr, reason = "out-parameters of the C interface")]

mod cache;
mod cached;
mod library;
mod operators;
mod prefixes;
mod session;

pub use cache::{CacheDtype, CacheForm, CacheLayout, CacheMemory};
pub use cached::OnnxCachedGraph;
pub use library::{
    LIBRARY_VARIABLE, Library, LibraryOptions, MINIMUM_MINOR_VERSION, PluginLibrary, RuntimeLog, locate,
};
pub use session::{GraphSource, OnnxGraph, try_provider};
