//! A decoder graph whose past keys and values live in buffers that are bound as past and present at once.
//!
//! One buffer per tensor holds `[rows, heads, capacity, head size]`. A call on rows `a..b` binds the part of each buffer
//! that holds those rows, so the graph reads and writes the cache in place and no call copies it.

use std::ops::Range;
use std::ptr::NonNull;

use ndarray::{ArrayView2, ArrayView3, ArrayViewD, arr0};
use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::value::{DynTensor, DynTensorValueType, Tensor, TensorElementType, Value};
use ort::{AsPointer, ortsys};

use super::OnnxGraph;
use super::memory::inputs_are_on_the_host;
use super::prefixes::CommonPrefixes;
use super::session::run_error;
use crate::graph::{CachedGraph, CachedRow, GraphError, Interrupt, Placement};

/// Element type of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheDtype {
    /// float32
    F32,
    /// float16
    F16,
}

impl CacheDtype {
    fn element(self) -> TensorElementType {
        match self {
            Self::F32 => TensorElementType::Float32,
            Self::F16 => TensorElementType::Float16,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// How a graph treats its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheForm {
    /// Past and present are one buffer, in which the graph writes (the fused variant).
    InPlace,
    /// The graph reads the past, masked by a bias, and gives the new keys and values, which are copied behind it here (the
    /// standard variant).
    Apart,
}

/// Bias of a position that takes no part: the lowest float16.
const MASKED: f32 = -65504.0;

/// Shape and names of the cache.
#[derive(Clone, Debug)]
pub struct CacheLayout {
    /// Names of each cache tensor as input (past) and output (present).
    pub tensors: Vec<(String, String)>,
    /// Key/value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Element type.
    pub dtype: CacheDtype,
    /// How the graph treats it.
    pub form: CacheForm,
    /// Width of the graph's first output.
    pub output_width: usize,
}

impl CacheLayout {
    /// Bytes one position of one row takes.
    pub fn position_bytes(&self) -> usize {
        self.tensors.len() * self.heads * self.head_dim * self.dtype.size()
    }
}

/// A graph with a cache.
pub struct OnnxCachedGraph {
    graph: OnnxGraph,
    layout: CacheLayout,
    output: String,
    buffers: Vec<DynTensor>,
    rows: usize,
    capacity: usize,
    prefixes: CommonPrefixes,
    binding: IoBinding,
    bound: Option<Bound>,
    /// Whether the graph reads and writes the buffers themselves, so that what is bound stays bound.
    on_host: bool,
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
    /// A graph with a cache of the given layout. The first output is float32 `[rows, output_width]`.
    ///
    /// # Errors
    /// [`GraphError::Run`] when the runtime cannot bind inputs to it.
    pub fn new(graph: OnnxGraph, layout: CacheLayout) -> Result<Self, GraphError> {
        let binding = graph.session.create_binding().map_err(|error| run_error(&graph.name, error.message()))?;
        let on_host =
            inputs_are_on_the_host(&graph.session).map_err(|error| run_error(&graph.name, error.message()))?;
        let output = graph.variant.outputs.first().map(|output| output.name.clone()).unwrap_or_default();
        Ok(Self {
            graph,
            layout,
            output,
            buffers: Vec::new(),
            rows: 0,
            capacity: 0,
            prefixes: CommonPrefixes::default(),
            binding,
            bound: None,
            on_host,
        })
    }

    fn failed(&self, error: &ort::Error) -> GraphError {
        run_error(&self.graph.name, error.message())
    }

    fn allocate(&self, rows: usize, capacity: usize) -> Result<Vec<DynTensor>, GraphError> {
        let shape = [rows, self.layout.heads, capacity, self.layout.head_dim];
        let allocator = Allocator::default();
        let bytes = shape.iter().product::<usize>() * self.layout.dtype.size();
        let tensor = |_| {
            let mut tensor = DynTensor::new(&allocator, self.layout.dtype.element(), shape)?;
            if self.layout.form == CacheForm::Apart {
                // What is masked is still multiplied, by 0: it must be a number.
                // SAFETY: the tensor is so many bytes of host memory, and zeros are numbers.
                unsafe { std::ptr::write_bytes(tensor.data_ptr_mut().cast::<u8>(), 0, bytes) };
            }
            Ok(tensor)
        };
        (0..self.layout.tensors.len()).map(tensor).collect::<ort::Result<_>>().map_err(|error: ort::Error| {
            let megabytes = (rows * capacity * self.layout.position_bytes()).div_ceil(1 << 20);
            GraphError::OutOfMemory {
                what: format!("a cache of {rows} rows of {capacity} positions ({megabytes} MiB)"),
                message: error.message().to_owned(),
            }
        })
    }

    /// Binds the cache of `rows` and outputs for them.
    fn bind(&mut self, rows: &Range<usize>, positions: usize) -> ort::Result<()> {
        let fits = |bound: &Bound| {
            bound.rows == *rows && (self.layout.form == CacheForm::InPlace || bound.positions == positions)
        };
        if self.on_host && self.bound.as_ref().is_some_and(fits) {
            return Ok(());
        }
        self.bound = None;
        let allocator = Allocator::default();
        let shape = [rows.len(), self.layout.heads, self.capacity, self.layout.head_dim];
        let new_shape = [rows.len(), self.layout.heads, positions, self.layout.head_dim];
        let row_bytes = shape[1..].iter().product::<usize>() * self.layout.dtype.size();
        let mut new = Vec::new();
        for (buffer, (past, present)) in self.buffers.iter_mut().zip(&self.layout.tensors) {
            // SAFETY: `rows` was checked against the buffer, which outlives the binding: it is replaced only together
            // with a cleared binding, in `reserve`.
            let mut view = unsafe { part_of(buffer, &allocator, rows.start * row_bytes, shape, self.layout.dtype) }?;
            self.binding.bind_input(past.as_str(), &view)?;
            match self.layout.form {
                CacheForm::InPlace => self.binding.bind_output(present.as_str(), &mut view)?,
                CacheForm::Apart => {
                    let mut tensor = DynTensor::new(&allocator, self.layout.dtype.element(), new_shape)?;
                    self.binding.bind_output(present.as_str(), &mut tensor)?;
                    new.push(tensor);
                }
            }
        }
        let mut output = Tensor::<f32>::new(&allocator, [rows.len(), self.layout.output_width])?;
        self.binding.bind_output(self.output.as_str(), &mut output)?;
        self.bound = Some(Bound { rows: rows.clone(), positions, output, new });
        Ok(())
    }

    /// Binds the new positions of each row in the way the graph wants them.
    fn bind_inputs(&mut self, embeds: ArrayView3<'_, f32>, pasts: &[usize]) -> ort::Result<()> {
        let (rows, positions, _) = embeds.dim();
        self.binding.bind_input("inputs_embeds", &owned(&embeds.into_dyn())?)?;
        // Lengths are below the model's longest, which fits.
        if self.layout.form == CacheForm::InPlace {
            let last: Vec<i32> = pasts.iter().map(|past| (past + positions) as i32 - 1).collect();
            let total = last.iter().max().map_or(0, |last| last + 1);
            self.binding.bind_input("seqlens_k", &Tensor::from_array(([rows], last))?)?;
            return self.binding.bind_input("total_sequence_length", &owned(&arr0(total).view().into_dyn())?);
        }
        let ids: Vec<i32> = pasts.iter().flat_map(|past| (*past..past + positions).map(|id| id as i32)).collect();
        self.binding.bind_input("position_ids", &Tensor::from_array(([rows, positions], ids))?)?;
        let width = self.capacity + positions;
        let mut bias = vec![MASKED; rows * positions * width];
        for (index, line) in bias.chunks_exact_mut(width).enumerate() {
            let (row, position) = (index / positions, index % positions);
            line[..pasts[row]].fill(0.0);
            line[self.capacity..=self.capacity + position].fill(0.0);
        }
        self.binding.bind_input("attention_bias", &Tensor::from_array(([rows, 1, positions, width], bias))?)
    }

    /// Copies new keys and values that the graph gave apart behind each row's past.
    fn keep_new(&mut self, pasts: &[usize]) {
        let Some(bound) = &self.bound else { return };
        let vector_bytes = self.layout.head_dim * self.layout.dtype.size();
        for (new, buffer) in bound.new.iter().zip(&mut self.buffers) {
            let lines = pasts
                .iter()
                .enumerate()
                .flat_map(|(row, past)| (0..self.layout.heads).map(move |head| (row, head, *past)));
            for (row, head, past) in lines {
                let from = (row * self.layout.heads + head) * bound.positions;
                let to = ((bound.rows.start + row) * self.layout.heads + head) * self.capacity + past;
                // SAFETY: `run` checked the rows and the positions against the cache; both are in host memory and apart.
                unsafe {
                    let from = new.data_ptr().cast::<u8>().add(from * vector_bytes);
                    let to = buffer.data_ptr_mut().cast::<u8>().add(to * vector_bytes);
                    std::ptr::copy_nonoverlapping(from, to, bound.positions * vector_bytes);
                }
            }
        }
    }

    fn check(&self, row: usize, position: usize) -> Result<(), GraphError> {
        if row < self.rows && position <= self.capacity {
            Ok(())
        } else {
            Err(GraphError::Cache { row, position, rows: self.rows, capacity: self.capacity })
        }
    }
}

impl CachedGraph for OnnxCachedGraph {
    fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), GraphError> {
        if (rows, capacity) == (self.rows, self.capacity) {
            return Ok(());
        }
        for kept in keep {
            self.check(kept.row, kept.positions)?;
            if kept.row >= rows || kept.positions > capacity {
                return Err(GraphError::Cache { row: kept.row, position: kept.positions, rows, capacity });
            }
        }
        self.binding.clear();
        self.bound = None;
        let old_capacity = self.capacity;
        if keep.is_empty() {
            // Nothing to carry over: let go of the old cache before the new one is allocated.
            (self.rows, self.capacity) = (0, 0);
            self.buffers.clear();
        }
        let mut buffers = self.allocate(rows, capacity)?;
        let vector_bytes = self.layout.head_dim * self.layout.dtype.size();
        for (old, new) in self.buffers.iter().zip(&mut buffers) {
            for (kept, head) in keep.iter().flat_map(|kept| (0..self.layout.heads).map(move |head| (kept, head))) {
                let line = kept.row * self.layout.heads + head;
                // SAFETY: both buffers hold a line of `positions` vectors there: both were compared with what is
                // kept above. They are distinct allocations in host memory.
                unsafe {
                    let from = old.data_ptr().cast::<u8>().add(line * old_capacity * vector_bytes);
                    let to = new.data_ptr_mut().cast::<u8>().add(line * capacity * vector_bytes);
                    std::ptr::copy_nonoverlapping(from, to, kept.positions * vector_bytes);
                }
            }
        }
        self.buffers = buffers;
        self.prefixes.resize(rows, keep);
        (self.rows, self.capacity) = (rows, capacity);
        Ok(())
    }

    fn reserved(&self) -> (usize, usize) {
        (self.rows, self.capacity)
    }

    fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), GraphError> {
        self.check(from, positions.end)?;
        self.check(to, positions.end)?;
        if from == to || positions.is_empty() {
            return Ok(());
        }
        self.prefixes.copied(from, to, &positions);
        let vector_bytes = self.layout.head_dim * self.layout.dtype.size();
        for buffer in &mut self.buffers {
            let data = buffer.data_ptr_mut().cast::<u8>();
            for head in 0..self.layout.heads {
                let offset =
                    |row: usize| ((row * self.layout.heads + head) * self.capacity + positions.start) * vector_bytes;
                // SAFETY: both rows and the positions were checked above; two rows do not overlap. The buffer is in
                // host memory, as `allocate` asks for.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        data.add(offset(from)),
                        data.add(offset(to)),
                        positions.len() * vector_bytes,
                    );
                }
            }
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
            return Err(GraphError::Cache { row: rows.end, position: 0, rows: self.rows, capacity: self.capacity });
        }
        self.check(rows.end - 1, furthest)?;
        for (axis, size) in [("rows", count), ("positions", positions), ("capacity", self.capacity)] {
            self.graph.check_size(axis, size)?;
        }
        rows.clone().zip(pasts).for_each(|(row, past)| self.prefixes.written(row, *past));
        if let Some(starts) = &self.graph.shared_starts {
            starts.set(self.prefixes.starts(&rows, pasts));
        }
        self.bind(&rows, positions)
            .and_then(|()| self.bind_inputs(embeds, pasts))
            .map_err(|error| self.failed(&error))?;
        let binding = &self.binding;
        self.graph.interruptible(interrupt, |session, options| {
            session.run_binding_with_options(binding, options).map(drop)
        })?;
        self.keep_new(pasts);
        let Some(bound) = &self.bound else {
            return Err(run_error(&self.graph.name, "the graph has no output"));
        };
        let shape = (rows.len(), self.layout.output_width);
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

/// A tensor over a part of `buffer`.
///
/// # Safety
/// The part must lie inside the buffer, and the buffer must outlive every use of the tensor.
unsafe fn part_of(
    buffer: &mut DynTensor,
    allocator: &Allocator,
    offset: usize,
    shape: [usize; 4],
    dtype: CacheDtype,
) -> ort::Result<Value<DynTensorValueType>> {
    let shape = shape.map(|size| size as i64);
    let bytes = shape.iter().product::<i64>() as usize * dtype.size();
    let data = buffer.data_ptr_mut();
    let mut value = std::ptr::null_mut();
    // SAFETY: the caller vouches for the memory; the other arguments are valid for the call.
    unsafe {
        ortsys![
            unsafe CreateTensorWithDataAsOrtValue(
                buffer.memory_info().ptr(),
                data.cast::<u8>().add(offset).cast(),
                bytes,
                shape.as_ptr(),
                shape.len(),
                dtype.element().into(),
                &mut value
            )?
        ];
        let value = NonNull::new(value).ok_or_else(|| ort::Error::new("no tensor was created"))?;
        Ok(Value::from_ptr(value, Some(allocator)))
    }
}
