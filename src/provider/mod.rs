//! Execution providers: which ones a graph shall run on, in which order, with which options.
//!
//! ```text
//! tensorrt:fp16=true,engine_cache=DIR;cuda:device=1;cpu        in order of preference, for every graph
//! vision=tensorrt;cuda,decoder=cuda                            a list for each graph
//! ```
//!
//! [`ProviderList`] is what a spec says; [`known_providers`] has them by name with their options; registering a provider
//! with a session never falls back quietly: what was asked for and cannot be had is an error that says how to get it.

mod catalogue;
mod components;
mod error;
mod register;
mod spec;
pub mod tensorrt;

pub use catalogue::{KnownProvider, known_providers};
pub(crate) use components::COMPONENTS;
pub use components::ComponentProviders;
pub use error::ProviderError;
pub use spec::{CpuOptions, Kernels, Provider, ProviderList};
