//! The language model with its cache.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView3, Axis};

use super::ModelError;
use crate::graph::{CachedGraph, CachedRow, Interrupt, Placement};
use crate::package::{Architecture, Component};

/// The decoder: new positions in, logits of the last position out, past keys and values kept where it computes.
pub struct Decoder {
    graph: Box<dyn CachedGraph>,
    vocab_size: usize,
    max_length: usize,
}

impl Decoder {
    /// A decoder over a graph with a cache.
    pub fn new(graph: Box<dyn CachedGraph>, sizes: &Architecture) -> Self {
        Self { graph, vocab_size: sizes.vocab_size, max_length: sizes.max_length }
    }

    /// Longest prompt plus answer in tokens.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Makes the cache one of `rows` sequences of `capacity` positions; what `keep` names survives.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), ModelError> {
        Ok(self.graph.reserve(rows, capacity, keep)?)
    }

    /// Rows and positions there is room for.
    pub fn reserved(&self) -> (usize, usize) {
        self.graph.reserved()
    }

    /// Copies cached `positions` from one row to another.
    ///
    /// # Errors
    /// When a row or position is out of range.
    pub fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), ModelError> {
        Ok(self.graph.copy(from, to, positions)?)
    }

    /// Appends positions to one row: `embeds` is `[positions, hidden size]`, `past` what the row holds already.
    /// Returns the logits of the last one, `[1, vocabulary]`.
    ///
    /// # Errors
    /// When the graph fails or is interrupted.
    pub fn prefill(
        &mut self,
        row: usize,
        past: usize,
        embeds: ArrayView2<'_, f32>,
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, ModelError> {
        self.run(row..row + 1, &[past], embeds.insert_axis(Axis(0)), interrupt)
    }

    /// Appends one position to each of a range of rows: `embeds` is `[rows, hidden size]`, `pasts` what each row holds.
    /// Returns their logits, `[rows, vocabulary]`.
    ///
    /// # Errors
    /// When the graph fails.
    pub fn step(
        &mut self,
        rows: Range<usize>,
        pasts: &[usize],
        embeds: ArrayView2<'_, f32>,
    ) -> Result<ArrayView2<'_, f32>, ModelError> {
        self.run(rows, pasts, embeds.insert_axis(Axis(1)), &Interrupt::new())
    }

    fn run(
        &mut self,
        rows: Range<usize>,
        pasts: &[usize],
        embeds: ArrayView3<'_, f32>,
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, ModelError> {
        let expected = [rows.len(), self.vocab_size];
        let logits = self.graph.run(rows, embeds, pasts, interrupt)?;
        if logits.shape() == expected {
            Ok(logits)
        } else {
            let (found, expected) = (logits.shape().to_vec(), expected.to_vec());
            Err(ModelError::Shape { component: Component::Decoder, found, expected })
        }
    }

    /// Where the nodes run.
    pub fn placement(&self) -> &Placement {
        self.graph.placement()
    }
}
