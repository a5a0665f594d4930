//! The reference's own results, reproduced: exported golden checkpoints through the program and through the library.
//!
//! `tests/golden/README.md` says how the data was made.

#[path = "../common/mod.rs"]
mod common;

mod chat;
mod gpu;
mod network;
mod other_layouts;
mod providers;
