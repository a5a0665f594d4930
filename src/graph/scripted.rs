//! A graph whose answers are a script: tests of generation and scheduling run on it without ONNX Runtime.
//!
//! The scripted decoder has a real cache, of token ids instead of keys and values. Its logits are a function of the
//! tokens the cache holds for a row, so a row that was copied wrongly gives wrong answers, as it would in a network.

use std::ops::Range;

use ndarray::{Array2, ArrayD, ArrayView2, ArrayView3, IxDyn};

use super::{CachedGraph, CachedRow, Graph, GraphError, Input, Interrupt, Placement};

/// Computes the logits that follow the tokens of a row.
pub type Script = Box<dyn FnMut(&[u32]) -> Vec<f32> + Send>;

/// A decoder whose "embedding" of a token is its id, as the first of `hidden_size` numbers.
pub struct ScriptedDecoder {
    script: Script,
    cache: Vec<Vec<Option<u32>>>,
    capacity: usize,
    logits: Array2<f32>,
    placement: Placement,
    calls: Vec<Call>,
}

/// One call of the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Rows it ran on.
    pub rows: Range<usize>,
    /// New positions of each row.
    pub positions: usize,
}

impl ScriptedDecoder {
    /// A decoder that answers with `script`.
    pub fn new(script: Script) -> Self {
        let mut placement = Placement::default();
        placement.add("Scripted", "Script");
        Self { script, cache: Vec::new(), capacity: 0, logits: Array2::zeros((0, 0)), placement, calls: Vec::new() }
    }

    /// The calls so far.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    fn failed(message: impl Into<String>) -> GraphError {
        GraphError::Run { graph: "scripted decoder".into(), message: message.into() }
    }

    fn outside(&self, row: usize, position: usize) -> GraphError {
        GraphError::Cache { row, position, rows: self.cache.len(), capacity: self.capacity }
    }

    /// Writes the new tokens of a row and returns all it holds.
    fn extend(&mut self, row: usize, past: usize, tokens: &[u32]) -> Result<Vec<u32>, GraphError> {
        if past + tokens.len() > self.capacity {
            return Err(self.outside(row, past + tokens.len()));
        }
        for (slot, token) in self.cache[row][past..].iter_mut().zip(tokens) {
            *slot = Some(*token);
        }
        self.cache[row][..past + tokens.len()]
            .iter()
            .map(|token| token.ok_or_else(|| Self::failed(format!("row {row} has a hole below position {past}"))))
            .collect()
    }
}

impl CachedGraph for ScriptedDecoder {
    fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), GraphError> {
        if (rows, capacity) == self.reserved() {
            return Ok(());
        }
        let mut cache = vec![vec![None; capacity]; rows];
        for kept in keep {
            cache[kept.row][..kept.positions].copy_from_slice(&self.cache[kept.row][..kept.positions]);
        }
        (self.cache, self.capacity) = (cache, capacity);
        Ok(())
    }

    fn reserved(&self) -> (usize, usize) {
        (self.cache.len(), self.capacity)
    }

    fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), GraphError> {
        if from.max(to) >= self.cache.len() || positions.end > self.capacity {
            return Err(self.outside(from.max(to), positions.end));
        }
        let copied = self.cache[from][positions.clone()].to_vec();
        self.cache[to][positions].copy_from_slice(&copied);
        Ok(())
    }

    fn run(
        &mut self,
        rows: Range<usize>,
        embeds: ArrayView3<'_, f32>,
        pasts: &[usize],
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, GraphError> {
        if interrupt.is_raised() {
            return Err(GraphError::Interrupted);
        }
        let (batch, positions, _) = embeds.dim();
        if batch != rows.len() || pasts.len() != batch || rows.end > self.cache.len() {
            return Err(Self::failed(format!("{batch} rows of input for rows {rows:?} of {}", self.cache.len())));
        }
        if batch > 1 && positions > 1 {
            return Err(Self::failed("several rows take one new position each"));
        }
        let mut logits = Vec::new();
        for (index, row) in rows.clone().enumerate() {
            let tokens: Vec<u32> = (0..positions).map(|position| embeds[[index, position, 0]] as u32).collect();
            let history = self.extend(row, pasts[index], &tokens)?;
            logits.extend((self.script)(&history));
        }
        self.calls.push(Call { rows: rows.clone(), positions });
        let width = logits.len() / rows.len();
        self.logits =
            Array2::from_shape_vec((rows.len(), width), logits).map_err(|error| Self::failed(error.to_string()))?;
        Ok(self.logits.view())
    }

    fn placement(&self) -> &Placement {
        &self.placement
    }
}

/// A graph that returns a constant for each tile (its first axis), and counts its runs.
pub struct ScriptedGraph {
    output: Vec<usize>,
    value: f32,
    placement: Placement,
    runs: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl ScriptedGraph {
    /// A graph that returns `[tiles, output…]` filled with `value`; `runs` counts the tiles it saw.
    pub fn new(output: &[usize], value: f32, runs: std::sync::Arc<std::sync::atomic::AtomicUsize>) -> Self {
        let mut placement = Placement::default();
        placement.add("Scripted", "Constant");
        Self { output: output.to_vec(), value, placement, runs }
    }
}

impl Graph for ScriptedGraph {
    fn run(&mut self, inputs: &[Input<'_>], interrupt: &Interrupt) -> Result<ArrayD<f32>, GraphError> {
        if interrupt.is_raised() {
            return Err(GraphError::Interrupted);
        }
        let tiles = inputs.first().map_or(0, |input| input.values.shape()[0]);
        self.runs.fetch_add(tiles, std::sync::atomic::Ordering::SeqCst);
        let shape: Vec<usize> = std::iter::once(tiles).chain(self.output.iter().copied()).collect();
        Ok(ArrayD::from_elem(IxDyn(&shape), self.value))
    }

    fn placement(&self) -> &Placement {
        &self.placement
    }
}
