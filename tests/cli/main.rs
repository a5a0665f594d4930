//! The command line through the program: exit code, stdout and stderr of what people type.

#[path = "../common/mod.rs"]
mod common;
