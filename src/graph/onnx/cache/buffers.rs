//! The buffers of a cache: one per tensor, `[rows, heads, capacity, head size]`.

use std::ops::Range;
use std::ptr::NonNull;

use ort::value::{DynTensor, DynTensorValueType, Value};
use ort::{AsPointer, ortsys};

use super::{CacheForm, CacheLayout, CacheMemory, Line};
use crate::graph::onnx::session::run_error;
use crate::graph::{CachedRow, GraphError};

/// The cache itself, wherever it lies.
pub(in crate::graph::onnx) struct CacheBuffers {
    pub(in crate::graph::onnx) layout: CacheLayout,
    memory: CacheMemory,
    tensors: Vec<DynTensor>,
    rows: usize,
    capacity: usize,
}

impl CacheBuffers {
    /// A cache of no rows.
    pub(in crate::graph::onnx) fn new(layout: CacheLayout, memory: CacheMemory) -> Self {
        Self { layout, memory, tensors: Vec::new(), rows: 0, capacity: 0 }
    }

    /// Where the cache lies, if not in the host's memory from which the graph reads it.
    pub(in crate::graph::onnx) fn place(&self) -> Option<&str> {
        self.memory.place.as_deref()
    }

    /// Rows and positions of each.
    pub(in crate::graph::onnx) fn size(&self) -> (usize, usize) {
        (self.rows, self.capacity)
    }

    /// Whether the graph reads the buffers themselves, so that what is bound stays bound.
    pub(in crate::graph::onnx) fn are_read_in_place(&self) -> bool {
        self.memory.is_read_in_place
    }

    /// Refuses a row or a length that is not in the cache.
    pub(in crate::graph::onnx) fn check(&self, row: usize, positions: usize) -> Result<(), GraphError> {
        if row < self.rows && positions <= self.capacity {
            Ok(())
        } else {
            Err(GraphError::Cache { row, position: positions, rows: self.rows, capacity: self.capacity })
        }
    }

    /// Makes the cache one of so many rows and positions; only what is kept is carried over. Nothing may be bound.
    pub(in crate::graph::onnx) fn reserve(
        &mut self,
        rows: usize,
        capacity: usize,
        keep: &[CachedRow],
    ) -> Result<(), GraphError> {
        for kept in keep {
            self.check(kept.row, kept.positions)?;
            if kept.row >= rows || kept.positions > capacity {
                return Err(GraphError::Cache { row: kept.row, position: kept.positions, rows, capacity });
            }
        }
        if keep.is_empty() {
            // Nothing to carry over: let go of the old cache before the new one is allocated.
            (self.rows, self.capacity) = (0, 0);
            self.tensors.clear();
        }
        let mut tensors = self.allocate(rows, capacity).map_err(|error| {
            let megabytes = (rows * capacity * self.layout.position_bytes()).div_ceil(1 << 20);
            GraphError::OutOfMemory {
                what: format!("a cache of {rows} rows of {capacity} positions ({megabytes} MiB)"),
                message: error.message().to_owned(),
            }
        })?;
        self.clear(&mut tensors, rows, capacity)?;
        let old = Lines::of(&mut self.tensors, self.capacity, &self.layout);
        let new = Lines::of(&mut tensors, capacity, &self.layout);
        for kept in keep.iter().filter(|kept| kept.positions > 0) {
            let lines = new.of_row(kept.row, 0).zip(old.of_row(kept.row, 0));
            let lines = lines.map(|(to, from)| Line { from: from.cast_const(), to });
            // SAFETY: both buffers hold a line of `positions` vectors there: both were compared with what is kept above.
            // They are distinct allocations.
            unsafe { self.memory.copy(lines, kept.positions * self.layout.head_dim, self.layout.dtype) }
                .map_err(|error| copy_error(&error))?;
        }
        (self.tensors, self.rows, self.capacity) = (tensors, rows, capacity);
        Ok(())
    }

    fn allocate(&self, rows: usize, capacity: usize) -> ort::Result<Vec<DynTensor>> {
        let shape = [rows, self.layout.heads, capacity, self.layout.head_dim];
        let tensor = |_| DynTensor::new(&self.memory.allocator, self.layout.dtype.element(), shape);
        (0..self.layout.tensors.len()).map(tensor).collect()
    }

    /// Writes zeros where the graph reads what was never written: what is masked is multiplied by 0, and must be a number.
    fn clear(&mut self, tensors: &mut [DynTensor], rows: usize, capacity: usize) -> Result<(), GraphError> {
        if self.layout.form == CacheForm::InPlace {
            return Ok(());
        }
        let lines = Lines::of(tensors, capacity, &self.layout);
        let starts = (0..rows).flat_map(|row| lines.of_row(row, 0));
        // SAFETY: the lines are those of the tensors, `capacity` vectors each.
        unsafe { self.memory.clear(starts, capacity * self.layout.head_dim, self.layout.dtype) }
            .map_err(|error| copy_error(&error))
    }

    /// A tensor over some rows of each buffer, in the order of the layout.
    ///
    /// # Safety
    /// The rows must be in the cache, and the tensors may not be used after the next call of [`Self::reserve`].
    pub(in crate::graph::onnx) unsafe fn parts(&mut self, rows: &Range<usize>) -> ort::Result<Vec<DynTensor>> {
        let shape = [rows.len(), self.layout.heads, self.capacity, self.layout.head_dim].map(|size| size as i64);
        let row_bytes = self.layout.heads * self.capacity * self.layout.vector_bytes();
        let (allocator, element) = (&self.memory.allocator, self.layout.dtype.element());
        let part = |buffer: &mut DynTensor| {
            let mut value = std::ptr::null_mut();
            // SAFETY: the caller vouches for the rows and for the time the tensor is used.
            unsafe {
                let start = buffer.data_ptr_mut().cast::<u8>().add(rows.start * row_bytes);
                ortsys![
                    unsafe CreateTensorWithDataAsOrtValue(
                        buffer.memory_info().ptr(),
                        start.cast(),
                        rows.len() * row_bytes,
                        shape.as_ptr(),
                        shape.len(),
                        element.into(),
                        &mut value
                    )?
                ];
                let value = NonNull::new(value).ok_or_else(|| ort::Error::new("no tensor was created"))?;
                Ok(Value::<DynTensorValueType>::from_ptr(value, Some(allocator)))
            }
        };
        self.tensors.iter_mut().map(part).collect()
    }

    /// A tensor for new keys or values that a graph gives apart, `[rows, heads, positions, head size]`.
    pub(in crate::graph::onnx) fn room_for_new(&self, rows: usize, positions: usize) -> ort::Result<DynTensor> {
        let shape = [rows, self.layout.heads, positions, self.layout.head_dim];
        DynTensor::new(&self.memory.allocator, self.layout.dtype.element(), shape)
    }

    /// Copies positions of one row to the same ones of another.
    pub(in crate::graph::onnx) fn copy(
        &mut self,
        from: usize,
        to: usize,
        positions: &Range<usize>,
    ) -> Result<(), GraphError> {
        self.check(from, positions.end)?;
        self.check(to, positions.end)?;
        if from == to {
            return Ok(());
        }
        let cache = Lines::of(&mut self.tensors, self.capacity, &self.layout);
        let lines = cache.of_row(from, positions.start).zip(cache.of_row(to, positions.start));
        let lines = lines.map(|(from, to)| Line { from: from.cast_const(), to });
        // SAFETY: both rows and the positions were checked; lines of two rows do not overlap.
        unsafe { self.memory.copy(lines, positions.len() * self.layout.head_dim, self.layout.dtype) }
            .map_err(|error| copy_error(&error))
    }

    /// Copies new keys and values, tensors of [`Self::room_for_new`], behind the past of each row from `first` on.
    pub(in crate::graph::onnx) fn append(
        &mut self,
        new: &mut [DynTensor],
        positions: usize,
        first: usize,
        pasts: &[usize],
    ) -> Result<(), GraphError> {
        for (index, past) in pasts.iter().enumerate() {
            self.check(first + index, past + positions)?;
        }
        let cache = Lines::of(&mut self.tensors, self.capacity, &self.layout);
        let new = Lines::of(new, positions, &self.layout);
        let lines = pasts.iter().enumerate().flat_map(|(index, past)| {
            let lines = new.of_row(index, 0).zip(cache.of_row(first + index, *past));
            lines.map(|(from, to)| Line { from: from.cast_const(), to })
        });
        // SAFETY: rows and positions were checked against the cache, and the new tensors hold so many.
        unsafe { self.memory.copy(lines, positions * self.layout.head_dim, self.layout.dtype) }
            .map_err(|error| copy_error(&error))
    }
}

fn copy_error(error: &ort::Error) -> GraphError {
    run_error("the cache", error.message())
}

/// Addresses inside tensors of shape `[rows, heads, length, head size]`.
struct Lines {
    starts: Vec<*mut u8>,
    heads: usize,
    length: usize,
    vector_bytes: usize,
}

impl Lines {
    fn of(tensors: &mut [DynTensor], length: usize, layout: &CacheLayout) -> Self {
        let starts = tensors.iter_mut().map(|tensor| tensor.data_ptr_mut().cast::<u8>()).collect();
        Self { starts, heads: layout.heads, length, vector_bytes: layout.vector_bytes() }
    }

    /// A position of a row in each tensor and head. The row and the position must be there.
    fn of_row(&self, row: usize, position: usize) -> impl Iterator<Item = *mut u8> {
        self.starts.iter().flat_map(move |start| {
            let line = move |head| (row * self.heads + head) * self.length + position;
            (0..self.heads).map(move |head| start.wrapping_add(line(head) * self.vector_bytes))
        })
    }
}
