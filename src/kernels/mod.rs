//! Products with block-quantised and float16 matrices, and attention, on the CPU, for where ONNX Runtime has no good kernel.
//!
//! The quantised matrices are those of ONNX Runtime's `MatMulNBits`, in its own layout: their codes are used where they lie in the
//! mapped file, or packed for instructions that gain by it ([`PackedCodes`]); of scales and zero points a small copy is made on
//! load ([`BlockTable`]). Activations are rounded to 8 bits in
//! groups of [`GROUP`], products are exact integers, and scales are applied in a fixed order. A row's result therefore never
//! depends on the rows beside it: prefill, one decode step and a step of many beams give the same bits. With AMX many rows are
//! multiplied in bfloat16 instead: a row's result then depends on whether there are many, and on nothing else.
//!
//! [`BlockProduct::all`] says what this processor has the instructions for.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod chunk;
mod dense;
mod element;
mod grouped_attention;
mod matrix;
#[cfg(target_arch = "x86_64")]
mod matrix_rows;
mod packed;
mod portable;
mod product;
mod table;
mod vector;

pub use attention::{AttentionInputs, AttentionShape};
pub use element::Element;
pub use grouped_attention::{CHUNK, GroupedCache, GroupedInputs, GroupedShape, SharedStart};
pub use matrix::{BlockFormat, BlockMatrix, FormatError};
pub use packed::PackedCodes;
pub use product::{BlockProduct, Tasks};
pub use table::BlockTable;

use activations::Activations;

/// Inputs whose activations share a scale.
pub const GROUP: usize = 128;

/// Outputs of one piece of work.
pub const STRIP: usize = 64;

/// Most rows that count as few: a matrix is then read once for each call and little is computed.
const FEW_ROWS: usize = 16;
