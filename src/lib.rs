//! Runs Vintern-3B-beta, the Vietnamese vision-language model, and its InternVL siblings on ONNX Runtime, with the answers
//! of the reference implementation.
//!
//! ```text
//! image bytes ─ decode ─ tile ─ pixels ─▶ vision encoder ─▶ projector ─┐
//!              (preprocess)                       (model)              ├▶ embeddings ─▶ decoder (prefill) ─▶ decode steps ─▶ text
//! messages ─ chat template ─ tokens ─▶ token embeddings ───────────────┘                     ▲                 │
//!              (prompt)                                                          KV cache ───┘   logits processors,
//!                                                                                                beams, stop (generate)
//! ```
//!
//! | module | one idea |
//! | --- | --- |
//! | [`preprocess`] | bytes → RGB → grid → tiles → normalised pixel values |
//! | [`prompt`] | messages → template text → token ids with image placeholders; ids → text |
//! | [`package`] | the model package on disk: manifest, files, checks |
//! | [`provider`] | execution-provider specs |
//! | [`kernels`] | products with block-quantised matrices, and attention, on the CPU |
//! | [`graph`] | the seam: run one graph with named tensors, know where its nodes ran |
//! | [`model`] | vision encoder, projector, token embeddings, decoder with its cache |
//! | [`generate`] | logits in, token choices out |
//! | [`engine`] | sequence groups: scheduling, caches, cancellation |
//! | [`settings`] | what a caller chooses → typed settings: presets, defaults, conflicts |
//! | [`serve`] | an OpenAI-compatible server |
//! | [`cli`] | the command line |
//!
//! A front end loads a package into an [`engine::Engine`], submits [`engine::Request`]s and receives
//! [`engine::Event`]s; `examples/ask.rs` shows it in forty lines.

pub mod cli;
pub mod engine;
pub mod generate;
pub mod graph;
pub mod kernels;
pub mod model;
mod nearest;
pub mod package;
pub mod preprocess;
pub mod prompt;
pub mod provider;
mod recent;
pub mod serve;
pub mod settings;
