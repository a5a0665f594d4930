//! The seam to the graph runtime: run one graph with named tensors, know where its nodes ran.
//!
//! [`Graph`] has no memory between calls; [`CachedGraph`] keeps a cache of past keys and values, one row per sequence,
//! where it computes. ONNX Runtime is behind both in [`onnx`]; [`scripted`] is a test double that needs no library.

mod error;
mod interrupt;
pub mod onnx;
pub mod placement;
pub mod scripted;

use std::ops::Range;

use ndarray::{ArrayD, ArrayView2, ArrayView3, ArrayViewD};

pub use error::GraphError;
pub use interrupt::Interrupt;
pub use placement::Placement;

/// A named input tensor.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Name in the graph.
    pub name: &'a str,
    /// Values, in row-major order.
    pub values: ArrayViewD<'a, f32>,
}

/// A graph without memory between calls.
pub trait Graph: Send {
    /// Runs the graph and returns its first output.
    ///
    /// # Errors
    /// [`GraphError::Run`] when the runtime refuses or fails, [`GraphError::Interrupted`] when `interrupt` was raised.
    fn run(&mut self, inputs: &[Input<'_>], interrupt: &Interrupt) -> Result<ArrayD<f32>, GraphError>;

    /// Where the nodes run.
    fn placement(&self) -> &Placement;
}

/// A row of the cache that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedRow {
    /// Index of the row.
    pub row: usize,
    /// Positions of it that are filled, from 0.
    pub positions: usize,
}

/// A graph with a cache of past keys and values: `rows` sequences of up to `capacity` positions.
///
/// A call writes the new positions of each row into the cache in place; nothing else of the cache is touched or copied.
pub trait CachedGraph: Send {
    /// Makes the cache one of `rows` rows of `capacity` positions. What `keep` names, which lies inside the old cache and the
    /// new one, survives; the rest may be lost.
    ///
    /// # Errors
    /// [`GraphError::OutOfMemory`] when the cache cannot be allocated.
    fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), GraphError>;

    /// Rows and positions there is room for.
    fn reserved(&self) -> (usize, usize);

    /// Copies `positions` of row `from` to the same positions of row `to`.
    ///
    /// # Errors
    /// [`GraphError::Cache`] when a row or position is out of range.
    fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), GraphError>;

    /// Appends positions to a contiguous range of rows and returns the logits of each row's last one, `[rows, vocabulary]`.
    ///
    /// `embeds` is `[rows, positions, hidden size]`, `pasts` how many positions each row holds already. Several new positions
    /// in one call are allowed for a single row only.
    ///
    /// # Errors
    /// [`GraphError::Cache`] when a row or position is out of range, [`GraphError::Run`] when the runtime refuses or fails,
    /// [`GraphError::Interrupted`] when `interrupt` was raised.
    fn run(
        &mut self,
        rows: Range<usize>,
        embeds: ArrayView3<'_, f32>,
        pasts: &[usize],
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, GraphError>;

    /// Where the nodes run.
    fn placement(&self) -> &Placement;
}
