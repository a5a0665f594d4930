//! A decoder graph whose past keys and values live in buffers that are bound as past and present at once.
//!
//! A call on rows `a..b` binds the part of each buffer that holds those rows, so the graph reads and writes the cache in
//! place, on whatever device it is, and no call copies it.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView3, ArrayViewD, arr0};
use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::value::{DynTensor, Tensor};

use super::OnnxGraph;
use super::cache::{CacheBuffers, CacheForm, CacheLayout, CacheMemory};
use super::prefixes::CommonPrefixes;
use super::session::run_error;
use crate::graph::{CachedGraph, CachedRow, GraphError, Interrupt, Placement};

/// Bias of a position that takes no part: the lowest float16.
const MASKED: f32 = -65504.0;

/// A graph with a cache.
pub struct OnnxCachedGraph {
    graph: OnnxGraph,
    output: String,
    cache: CacheBuffers,
    prefixes: CommonPrefixes,
    binding: IoBinding,
    bound: Option<Bound>,
}

/// What the binding refers to.
struct Bound {
    rows: Range<usize>,
    positions: usize,
    output: Tensor<f32>,
    /// New keys and values where the graph gives them apart, `[rows, heads, positions, head size]` each.
    new: Vec<DynTensor>,
}

// SAFETY: the raw pointers inside are to buffers and bindings that this value owns; ONNX Runtime lets them be used from
// any one thread at a time, which `&mut self` on every method that touches them ensures.
unsafe impl Send for OnnxCachedGraph {}

impl OnnxCachedGraph {
    /// A graph with a cache of the given layout, which lies in `memory`. The first output is float32 `[rows, output_width]`.
    ///
    /// # Errors
    /// [`GraphError::Run`] when the runtime cannot bind inputs to it.
    pub fn new(mut graph: OnnxGraph, layout: CacheLayout, memory: CacheMemory) -> Result<Self, GraphError> {
        let binding = graph.session.create_binding().map_err(|error| run_error(&graph.name, error.message()))?;
        let output = graph.variant.outputs.first().map(|output| output.name.clone()).unwrap_or_default();
        let cache = CacheBuffers::new(layout, memory);
        graph.placement.cache = cache.place().map(str::to_owned);
        Ok(Self { graph, output, cache, prefixes: CommonPrefixes::default(), binding, bound: None })
    }

    fn failed(&self, error: &ort::Error) -> GraphError {
        run_error(&self.graph.name, error.message())
    }

    /// Binds the cache of `rows` and outputs for them. The rows must be in the cache.
    fn bind(&mut self, rows: &Range<usize>, positions: usize) -> ort::Result<()> {
        let form = self.cache.layout.form;
        let fits = |bound: &Bound| bound.rows == *rows && (form == CacheForm::InPlace || bound.positions == positions);
        if self.cache.are_read_in_place() && self.bound.as_ref().is_some_and(fits) {
            return Ok(());
        }
        self.bound = None;
        // SAFETY: the caller vouches for the rows; `reserve` clears the binding before the buffers are replaced.
        let parts = unsafe { self.cache.parts(rows) }?;
        let mut new = Vec::new();
        for (mut part, (past, present)) in parts.into_iter().zip(&self.cache.layout.tensors) {
            self.binding.bind_input(past.as_str(), &part)?;
            match form {
                CacheForm::InPlace => self.binding.bind_output(present.as_str(), &mut part)?,
                CacheForm::Apart => {
                    let mut tensor = self.cache.room_for_new(rows.len(), positions)?;
                    self.binding.bind_output(present.as_str(), &mut tensor)?;
                    new.push(tensor);
                }
            }
        }
        // The search reads the logits: they are bound to the host's memory, wherever they are computed.
        let mut output = Tensor::<f32>::new(&Allocator::default(), [rows.len(), self.cache.layout.output_width])?;
        self.binding.bind_output(self.output.as_str(), &mut output)?;
        self.bound = Some(Bound { rows: rows.clone(), positions, output, new });
        Ok(())
    }

    /// What is bound from the host may still be on its way to a device.
    fn wait_for_uploads(&self) -> ort::Result<()> {
        if self.cache.place().is_some() { self.binding.synchronize_inputs() } else { Ok(()) }
    }

    /// Binds the new positions of each row in the way the graph wants them.
    fn bind_inputs(&mut self, embeds: ArrayView3<'_, f32>, pasts: &[usize]) -> ort::Result<()> {
        let (rows, positions, _) = embeds.dim();
        self.binding.bind_input("inputs_embeds", &owned(&embeds.into_dyn())?)?;
        // Lengths are below the model's longest, which fits.
        if self.cache.layout.form == CacheForm::InPlace {
            let last: Vec<i32> = pasts.iter().map(|past| (past + positions) as i32 - 1).collect();
            let total = last.iter().max().map_or(0, |last| last + 1);
            self.binding.bind_input("seqlens_k", &Tensor::from_array(([rows], last))?)?;
            return self.binding.bind_input("total_sequence_length", &owned(&arr0(total).view().into_dyn())?);
        }
        let ids: Vec<i32> = pasts.iter().flat_map(|past| (*past..past + positions).map(|id| id as i32)).collect();
        self.binding.bind_input("position_ids", &Tensor::from_array(([rows, positions], ids))?)?;
        let capacity = self.cache.size().1;
        let width = capacity + positions;
        let mut bias = vec![MASKED; rows * positions * width];
        for (index, line) in bias.chunks_exact_mut(width).enumerate() {
            let (row, position) = (index / positions, index % positions);
            line[..pasts[row]].fill(0.0);
            line[capacity..=capacity + position].fill(0.0);
        }
        self.binding.bind_input("attention_bias", &Tensor::from_array(([rows, 1, positions, width], bias))?)
    }
}

impl CachedGraph for OnnxCachedGraph {
    fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), GraphError> {
        if (rows, capacity) == self.cache.size() {
            return Ok(());
        }
        self.binding.clear();
        self.bound = None;
        self.cache.reserve(rows, capacity, keep)?;
        self.prefixes.resize(rows, keep);
        Ok(())
    }

    fn reserved(&self) -> (usize, usize) {
        self.cache.size()
    }

    fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), GraphError> {
        self.cache.copy(from, to, &positions)?;
        if from != to && !positions.is_empty() {
            self.prefixes.copied(from, to, &positions);
        }
        Ok(())
    }

    fn run(
        &mut self,
        rows: Range<usize>,
        embeds: ArrayView3<'_, f32>,
        pasts: &[usize],
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, GraphError> {
        let (count, positions, _) = embeds.dim();
        let furthest = pasts.iter().max().map_or(0, |past| past + positions);
        if rows.is_empty() || count != rows.len() || pasts.len() != count {
            let (rows_there, capacity) = self.cache.size();
            return Err(GraphError::Cache { row: rows.end, position: 0, rows: rows_there, capacity });
        }
        self.cache.check(rows.end - 1, furthest)?;
        for (axis, size) in [("rows", count), ("positions", positions), ("capacity", self.cache.size().1)] {
            self.graph.check_size(axis, size)?;
        }
        rows.clone().zip(pasts).for_each(|(row, past)| self.prefixes.written(row, *past));
        if let Some(starts) = &self.graph.shared_starts {
            starts.set(self.prefixes.starts(&rows, pasts));
        }
        self.bind(&rows, positions)
            .and_then(|()| self.bind_inputs(embeds, pasts))
            .and_then(|()| self.wait_for_uploads())
            .map_err(|error| self.failed(&error))?;
        let binding = &self.binding;
        self.graph.interruptible(interrupt, |session, options| {
            session.run_binding_with_options(binding, options).map(drop)
        })?;
        let Some(bound) = &mut self.bound else {
            return Err(run_error(&self.graph.name, "the graph has no output"));
        };
        if !bound.new.is_empty() {
            self.cache.append(&mut bound.new, positions, rows.start, pasts)?;
        }
        let shape = (rows.len(), self.cache.layout.output_width);
        ArrayView2::from_shape(shape, bound.output.extract_tensor().1)
            .map_err(|error| run_error(&self.graph.name, &error.to_string()))
    }

    fn placement(&self) -> &Placement {
        &self.graph.placement
    }
}

/// A tensor of its own memory with the values of `view`; the binding may read it after the call.
fn owned<T>(view: &ArrayViewD<'_, T>) -> ort::Result<Tensor<T>>
where
    T: ort::value::PrimitiveTensorElementType + Copy + std::fmt::Debug + 'static,
{
    Tensor::from_array((view.shape().to_vec(), view.iter().copied().collect::<Vec<T>>()))
}
