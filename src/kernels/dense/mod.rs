//! Products with matrices as they lie, of float32 or float16 numbers. All is computed in float32.
//!
//! A result is the sum of its products in the order of the inputs, each added with one rounding, whatever the rows, the piece of
//! work or the instructions: all of these give the same bits. Few rows meet the matrix as it lies, again for every [`TOGETHER`]
//! of them; for many, parts of it become panels.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

mod tile;

use std::ops::Range;

use super::FEW_ROWS;
use super::element::Element;
use super::product::{Shared, threads};
use super::vector::{Vector, prefetch};
use tile::{TOGETHER, Tile};

/// Inputs and outputs, at most, that few rows meet at a time. Memory is read faster in long rows, one soon after the other, so
/// sums leave the registers often.
const FEW_DEPTH: usize = 8;
const FEW_WIDTH: usize = 1024;

/// Outputs of a piece of work for few rows are a multiple of this: whole lines of memory.
const FEW_STEP: usize = 32;

/// Least products worth a piece of work of its own.
const LEAST_WORK: usize = 1 << 16;

/// Most rows, inputs and outputs of a piece of work for many rows: its values and sums leave room in the second-level cache, a
/// panel in the first.
const MANY_ROWS: usize = 192;
const MANY_DEPTH: usize = 256;
const MANY_WIDTH: usize = 128;

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// Values of some rows and inputs, and of a row.
    values: Vec<f32>,
    row: Vec<f32>,
    /// Part of the matrix, `[inputs, registers' lanes]`.
    panel: Vec<f32>,
    /// Sums, `[rows, width]`.
    totals: Vec<f32>,
}

/// A product and its sizes.
pub(super) struct Dense<'a, E> {
    /// `[rows, inputs]`.
    values: &'a [E],
    /// `[inputs, outputs]`.
    matrix: &'a [E],
    rows: usize,
    inputs: usize,
    outputs: usize,
    /// Pieces of the rows, and outputs of a piece of work.
    pieces: usize,
    width: usize,
}

impl<'a, E: Element> Dense<'a, E> {
    /// Cuts a product with a matrix of so many inputs and outputs into pieces of work.
    ///
    /// # Panics
    /// When the sizes do not fit together.
    pub(super) fn new(values: &'a [E], matrix: &'a [E], (inputs, outputs): (usize, usize)) -> Self {
        let rows = values.len() / inputs.max(1);
        assert_eq!(values.len(), rows * inputs, "values are not rows of the matrix's inputs");
        assert_eq!(matrix.len(), inputs * outputs, "the matrix has another size");
        let (pieces, width) = if rows <= FEW_ROWS {
            // As many pieces for each thread.
            let most = outputs.div_ceil(FEW_WIDTH).next_multiple_of(threads());
            let worth = (rows * matrix.len()).div_ceil(LEAST_WORK);
            (1, outputs.div_ceil(most.min(worth).max(1)).max(1).next_multiple_of(FEW_STEP))
        } else {
            let wanted = (2 * threads()).div_ceil(outputs.div_ceil(MANY_WIDTH).max(1));
            (rows.div_ceil(MANY_ROWS).max(wanted.min(rows.div_ceil(4 * TOGETHER))), MANY_WIDTH)
        };
        Self { values, matrix, rows, inputs, outputs, pieces, width }
    }

    /// Results there will be.
    pub(super) fn results(&self) -> usize {
        self.rows * self.outputs
    }

    /// Pieces of work.
    pub(super) fn tasks(&self) -> usize {
        self.outputs.div_ceil(self.width) * self.pieces
    }

    /// Does a piece of the work.
    ///
    /// # Safety
    /// The processor has the instructions of `V`, and the caller is compiled for them. `out` is `[rows, outputs]`, and nothing
    /// else touches this piece's part of it meanwhile.
    #[inline(always)]
    pub(super) unsafe fn run<V: Vector>(&self, task: usize, out: &Shared<E>, scratch: &mut Scratch) {
        let (first, piece) = (task / self.pieces * self.width, task % self.pieces);
        let rows = self.rows * piece / self.pieces..self.rows * (piece + 1) / self.pieces;
        let columns = first..self.outputs.min(first + self.width);
        let stride = columns.len().next_multiple_of(2 * V::LANES);
        scratch.totals.clear();
        scratch.totals.resize(rows.len() * stride, 0.0);
        // SAFETY: as the caller vouches.
        unsafe {
            if self.rows <= FEW_ROWS {
                self.add_as_it_lies::<V>(columns.clone(), stride, scratch);
            } else {
                self.add_in_panels::<V>(rows.clone(), columns.clone(), stride, scratch);
            }
        }
        for (row, totals) in rows.zip(scratch.totals.chunks(stride)) {
            // SAFETY: as the caller vouches.
            unsafe {
                let out = out.part(row * self.outputs + columns.start, columns.len());
                narrow::<V, E>(&totals[..columns.len()], out);
            }
        }
    }

    /// Finds the sums of all rows for some outputs.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[inline(always)]
    unsafe fn add_as_it_lies<V: Vector>(&self, columns: Range<usize>, stride: usize, scratch: &mut Scratch) {
        // SAFETY: as the caller vouches.
        unsafe { self.spread_values::<V>(scratch) };
        let whole = columns.len() / V::LANES * V::LANES;
        let rest = columns.start + whole..columns.end;
        for inputs in pieces_of(self.inputs, FEW_DEPTH) {
            if !rest.is_empty() {
                // SAFETY: as the caller vouches.
                unsafe { self.fill_panel::<V>(inputs.clone(), rest.clone(), V::LANES, &mut scratch.panel) };
            }
            for rows in groups_of_rows(self.rows) {
                // SAFETY: values and sums of the rows are there; the rest as the caller vouches.
                unsafe {
                    let tile = Tile::<_, FEW_DEPTH> {
                        values: scratch.values.as_ptr().add(inputs.start * self.rows + rows.start * FEW_DEPTH),
                        weights: self.matrix.as_ptr().add(inputs.start * self.outputs + columns.start),
                        weights_stride: self.outputs,
                        depth: inputs.len(),
                        totals: scratch.totals.as_mut_ptr().add(rows.start * stride),
                        totals_stride: stride,
                        asks_ahead: rows.start == 0,
                    };
                    tile.across::<V>(rows.len(), whole);
                    if !rest.is_empty() {
                        let totals = tile.totals.add(whole);
                        tile.of(scratch.panel.as_ptr(), V::LANES, totals).across::<V>(rows.len(), V::LANES);
                    }
                }
            }
        }
    }

    /// Finds the sums of some rows for some outputs.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[inline(always)]
    unsafe fn add_in_panels<V: Vector>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        stride: usize,
        scratch: &mut Scratch,
    ) {
        let width = 2 * V::LANES;
        scratch.values.resize(rows.len() * MANY_DEPTH, 0.0);
        for inputs in pieces_of(self.inputs, MANY_DEPTH) {
            for (row, values) in rows.clone().zip(scratch.values.chunks_mut(MANY_DEPTH)) {
                let from = &self.values[row * self.inputs..][inputs.clone()];
                // SAFETY: as the caller vouches.
                unsafe { widen::<V, E>(from, &mut values[..from.len()]) };
            }
            // Meanwhile the part of the next inputs comes, a few whole rows at a time.
            let groups = rows.len().div_ceil(TOGETHER);
            let steps = columns.len().div_ceil(width) * groups;
            let mut step = 0;
            for first in columns.clone().step_by(width) {
                let part = first..columns.end.min(first + width);
                // SAFETY: as the caller vouches.
                unsafe { self.fill_panel::<V>(inputs.clone(), part, width, &mut scratch.panel) };
                for rows in groups_of_rows(rows.len()) {
                    let next = MANY_DEPTH * step / steps..MANY_DEPTH * (step + 1) / steps;
                    self.ask_ahead(inputs.end + next.start..inputs.end + next.end, columns.clone());
                    step += 1;
                    // SAFETY: values, the panel and sums of the rows are there; the rest as the caller vouches.
                    unsafe {
                        let tile = Tile::<_, MANY_DEPTH> {
                            values: scratch.values.as_ptr().add(rows.start * MANY_DEPTH),
                            weights: scratch.panel.as_ptr(),
                            weights_stride: width,
                            depth: inputs.len(),
                            totals: scratch.totals.as_mut_ptr().add(rows.start * stride + first - columns.start),
                            totals_stride: stride,
                            asks_ahead: false,
                        };
                        tile.across::<V>(rows.len(), width);
                    }
                }
            }
        }
    }

    /// Asks memory for a part of the matrix; what is past its end is harmless.
    fn ask_ahead(&self, inputs: Range<usize>, columns: Range<usize>) {
        for input in inputs {
            for column in columns.clone().step_by(E::LINE) {
                prefetch(self.matrix.as_ptr().wrapping_add(input * self.outputs + column));
            }
        }
    }

    /// Copies the values of few rows, `[parts of the inputs, rows, FEW_DEPTH]`.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[inline(always)]
    unsafe fn spread_values<V: Vector>(&self, scratch: &mut Scratch) {
        let parts = self.inputs.div_ceil(FEW_DEPTH);
        scratch.row.resize(self.inputs, 0.0);
        scratch.values.resize(parts * self.rows * FEW_DEPTH, 0.0);
        for (row, values) in self.values.chunks_exact(self.inputs.max(1)).enumerate() {
            // SAFETY: as the caller vouches.
            unsafe { widen::<V, E>(values, &mut scratch.row) };
            for (part, values) in scratch.row.chunks(FEW_DEPTH).enumerate() {
                let place = (part * self.rows + row) * FEW_DEPTH;
                scratch.values[place..][..values.len()].copy_from_slice(values);
            }
        }
    }

    /// Copies a part of the matrix, to rows of `width` with zeros behind what there is.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[inline(always)]
    unsafe fn fill_panel<V: Vector>(
        &self,
        inputs: Range<usize>,
        columns: Range<usize>,
        width: usize,
        panel: &mut Vec<f32>,
    ) {
        panel.resize(inputs.len() * width, 0.0);
        if columns.len() == width {
            let block = &self.matrix[inputs.start * self.outputs + columns.start..];
            assert!((inputs.len() - 1) * self.outputs + width <= block.len(), "the panel is part of the matrix");
            for place in 0..inputs.len() {
                for lane in (0..width).step_by(V::LANES) {
                    // SAFETY: so many lanes are there, by the assertion, and in the panel; the rest as the caller vouches.
                    unsafe {
                        let lanes = E::load::<V>(block.as_ptr().add(place * self.outputs + lane));
                        lanes.store(panel.as_mut_ptr().add(place * width + lane));
                    }
                }
            }
            return;
        }
        for (input, panel) in inputs.zip(panel.chunks_exact_mut(width)) {
            let from = &self.matrix[input * self.outputs..][columns.clone()];
            let (elements, none) = panel.split_at_mut(from.len());
            // SAFETY: as the caller vouches.
            unsafe { widen::<V, E>(from, elements) };
            none.fill(0.0);
        }
    }
}

/// As [`Element::widen`].
///
/// # Safety
/// As [`Dense::run`].
#[inline(always)]
unsafe fn widen<V: Vector, E: Element>(from: &[E], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as many numbers as elements");
    let whole = from.len() / V::LANES * V::LANES;
    for lane in (0..whole).step_by(V::LANES) {
        // SAFETY: both have so many lanes; the rest as the caller vouches.
        unsafe { E::load::<V>(from.as_ptr().add(lane)).store(to.as_mut_ptr().add(lane)) };
    }
    if whole < from.len() {
        E::widen(&from[whole..], &mut to[whole..]);
    }
}

/// As [`Element::narrow`].
///
/// # Safety
/// As [`Dense::run`].
#[inline(always)]
unsafe fn narrow<V: Vector, E: Element>(from: &[f32], to: &mut [E]) {
    assert_eq!(from.len(), to.len(), "as many numbers as elements");
    let whole = from.len() / V::LANES * V::LANES;
    for lane in (0..whole).step_by(V::LANES) {
        // SAFETY: both have so many lanes; the rest as the caller vouches.
        unsafe { E::store(V::load(from.as_ptr().add(lane)), to.as_mut_ptr().add(lane)) };
    }
    if whole < from.len() {
        E::narrow(&from[whole..], &mut to[whole..]);
    }
}

/// Ranges of at most `most` that make up a whole.
fn pieces_of(whole: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..whole).step_by(most).map(move |start| start..whole.min(start + most))
}

/// Rows in groups of much the same size, none larger than [`TOGETHER`].
fn groups_of_rows(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let groups = rows.div_ceil(TOGETHER);
    (0..groups).map(move |group| rows * group / groups..rows * (group + 1) / groups)
}
