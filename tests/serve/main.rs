//! The server, as its clients meet it.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bench;
mod contract;
mod faults;
mod golden;
mod life;
mod load;
mod logprobs;
mod memory;
mod page;
mod refusals;
mod support;
