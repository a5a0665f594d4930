//! The engine of sequence groups on a scripted network, without ONNX Runtime.
//!
//! What the scripted decoder answers depends on everything its cache holds for a row, so a row that was copied, moved,
//! reused or fed wrongly changes the answer. Expected answers come from the search alone, driven without any engine
//! ([`oracle`]), or from the reference (`tests/golden/search.json`).

#[path = "../common/reference_data.rs"]
mod reference_data;

mod beside;
mod budget;
mod cancellation;
mod failures;
mod golden;
mod harness;
mod images;
mod logprobs;
mod network;
mod oracle;
mod overtaking;
mod prefix;
mod properties;
mod sampling;
mod scheduling;
mod streaming;
