//! Graphs on ONNX Runtime.

#![expect(clippy::borrow_as_ptr, reason = "out-parameters of the C interface")]

mod cached;
mod library;
mod memory;
mod operators;
mod prefixes;
mod session;

pub use cached::{CacheDtype, CacheForm, CacheLayout, OnnxCachedGraph};
pub use library::{
    LIBRARY_VARIABLE, Library, LibraryOptions, MINIMUM_MINOR_VERSION, PluginLibrary, RuntimeLog, locate,
};
pub use session::{GraphSource, OnnxGraph, try_provider};
