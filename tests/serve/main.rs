//! The server, as its clients meet it.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bench;
mod golden;
mod life;
mod memory;
mod page;
mod refusals;
mod support;
