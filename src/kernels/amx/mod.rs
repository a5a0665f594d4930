//! Many rows on processors with AMX: products of tiles of bfloat16.
//!
//! [`panel`] turns the codes of a wide strip of outputs into bfloat16 weights, a stretch of inputs at a time; [`tiles`]
//! multiplies them with all rows. Activations are rounded to bfloat16, products are added up in float32 along the inputs. A
//! row's result depends on no other row, but it differs from that of the kernels for few rows, which round activations to 8
//! bits in groups.

mod panel;
mod permission;
mod tiles;

use std::arch::x86_64::{
    __m512bh, __m512i, _mm_sfence, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_storeu_si512, _mm512_stream_ps,
};
use std::cell::RefCell;
use std::ops::Range;

use super::BlockMatrix;
use super::product::{Shared, Tasks, threads};

pub(super) use permission::available;

use tiles::{Configuration, Sums};

/// Rows of a tile, and outputs of one.
const SIDE: usize = 16;

/// Inputs of a tile.
const DEPTH: usize = 32;

/// Tiles along the inputs that are worked on together: what is read of the activations stays in the first-level cache.
const STRETCH: usize = 16;

/// Outputs of one piece of work.
const STRIP: usize = 128;

/// Groups of [`SIDE`] outputs of a strip.
const ACROSS: usize = STRIP / SIDE;

/// Most rows of one piece of work: their results stay in the second-level cache.
const MOST_ROWS: usize = 256;

/// Fewest, where pieces are made smaller to have some for every thread.
const FEWEST_ROWS: usize = 128;

/// Tiles of rows that are multiplied together.
const PAIR: usize = 2;

/// Sixteen rows of 64 bytes: [`DEPTH`] inputs of as many rows in bfloat16, or of weights `[pairs of inputs, outputs, 2]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([[u16; DEPTH]; SIDE]);

impl Tile {
    const ZERO: Self = Self([[0; DEPTH]; SIDE]);
}

/// Rows of activations in bfloat16.
#[derive(Default)]
struct Rows {
    count: usize,
    /// Tiles along the inputs.
    depth: usize,
    /// `[tiles of rows, depth]`, whole pairs of tiles; zeros where there is no row or no input.
    tiles: Vec<Tile>,
}

/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    /// Weights, `[ACROSS, STRETCH]`.
    panel: Vec<Tile>,
    /// Results, `[pairs of tiles of rows, PAIR, ACROSS]`.
    sums: Vec<Sums>,
}

/// `out = values x transpose(matrix) + bias`; see [`super::BlockProduct::run`], which has checked the sizes.
///
/// # Errors
/// What `tasks` says.
///
/// # Safety
/// [`available`] has said yes.
pub(super) unsafe fn product<T: Tasks>(
    values: &[f32],
    matrix: &BlockMatrix<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
    tasks: &T,
) -> Result<(), T::Error> {
    thread_local! {
        static ROWS: RefCell<Rows> = RefCell::default();
    }
    ROWS.with_borrow_mut(|rows| {
        rows.round(values, matrix.table.inputs, tasks)?;
        let (strips, pairs) = (matrix.table.outputs.div_ceil(STRIP), rows.count.div_ceil(PAIR * SIDE));
        // The fewer the pieces, the less often weights are made.
        let wanted = (4 * threads()).div_ceil(strips).min(rows.count.div_ceil(FEWEST_ROWS));
        let pieces = wanted.max(rows.count.div_ceil(MOST_ROWS));
        let out = Shared::new(out);
        tasks.run(strips * pieces, &|task| {
            let (strip, piece) = (task % strips, task / strips);
            let pairs = pairs * piece / pieces..pairs * (piece + 1) / pieces;
            thread_local! {
                static SCRATCH: RefCell<Scratch> = RefCell::default();
            }
            // SAFETY: the instructions are there, as the caller vouches; each task writes its own part.
            SCRATCH.with_borrow_mut(|scratch| unsafe {
                scratch.strip(rows, pairs.clone(), matrix, strip * STRIP);
                scratch.write(rows, pairs, matrix.table.outputs, strip * STRIP, bias, &out);
            });
        })
    })
}

impl Rows {
    /// Takes over rows of `inputs` values.
    fn round<T: Tasks>(&mut self, values: &[f32], inputs: usize, tasks: &T) -> Result<(), T::Error> {
        self.count = values.len() / inputs;
        self.depth = inputs.div_ceil(DEPTH);
        let (count, depth) = (self.count.div_ceil(PAIR * SIDE) * PAIR, self.depth);
        self.tiles.resize(count * depth, Tile::ZERO);
        let target = Shared::new(&mut self.tiles);
        tasks.run(count, &|task| {
            // SAFETY: each tile of rows is in one task.
            let tiles = unsafe { target.part(task * depth, depth) };
            for row in 0..SIDE {
                let values = values.get((task * SIDE + row) * inputs..).unwrap_or_default();
                let values = &values[..values.len().min(inputs)];
                let mut parts = values.chunks(DEPTH);
                for tile in tiles.iter_mut() {
                    // SAFETY: the instructions are there, as the caller of `product` vouches.
                    unsafe { round(parts.next().unwrap_or_default(), &mut tile.0[row]) };
                }
            }
        })
    }

    /// The tiles of a tile of rows from `at` on.
    fn tiles(&self, tile: usize, at: usize) -> &[Tile] {
        &self.tiles[tile * self.depth..(tile + 1) * self.depth][at..]
    }
}

/// Rounds up to [`DEPTH`] values; zeros past them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
fn round(values: &[f32], out: &mut [u16; DEPTH]) {
    let mut halves = [_mm512_setzero_ps(); 2];
    for (half, values) in halves.iter_mut().zip(values.chunks(SIDE)) {
        // SAFETY: the mask leaves out what lies past the values.
        *half = unsafe { _mm512_maskz_loadu_ps(((1u32 << values.len()) - 1) as u16, values.as_ptr()) };
    }
    let rounded = _mm512_cvtne2ps_pbh(halves[1], halves[0]);
    // SAFETY: the two are 64 bytes of plain numbers.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(rounded)) };
}

impl Scratch {
    /// Finds the results of a strip of outputs from `first` on for some pairs of tiles of rows.
    ///
    /// # Safety
    /// The instructions are there.
    unsafe fn strip(&mut self, rows: &Rows, pairs: Range<usize>, matrix: &BlockMatrix<'_>, first: usize) {
        let across = (matrix.table.outputs - first).div_ceil(SIDE).min(ACROSS);
        self.panel.resize(ACROSS * STRETCH, Tile::ZERO);
        self.sums.resize(pairs.len() * PAIR * ACROSS, Sums::ZERO);
        // SAFETY: as the caller vouches.
        let configuration = unsafe { Configuration::load() };
        for start in (0..rows.depth).step_by(STRETCH) {
            let depth = STRETCH.min(rows.depth - start);
            for (index, panel) in self.panel.chunks_exact_mut(STRETCH).enumerate().take(across) {
                // SAFETY: as above.
                unsafe { panel::fill(matrix, first + index * SIDE, start, &mut panel[..depth]) };
            }
            for (sums, pair) in self.sums.chunks_exact_mut(PAIR * ACROSS).zip(pairs.clone()) {
                let tiles = [rows.tiles(PAIR * pair, start), rows.tiles(PAIR * pair + 1, start)];
                for index in (0..across).step_by(2) {
                    let weights = [&self.panel[index * STRETCH..], &self.panel[(index + 1) * STRETCH..]];
                    tiles::add(&configuration, tiles, weights, depth, start == 0, sums, index);
                }
            }
        }
    }

    /// Writes the results to the output, `[rows, outputs]`.
    ///
    /// # Safety
    /// The instructions are there, and nothing else touches this part of the output.
    unsafe fn write(
        &self,
        rows: &Rows,
        pairs: Range<usize>,
        outputs: usize,
        first: usize,
        bias: Option<&[f32]>,
        out: &Shared<f32>,
    ) {
        for (sums, tile) in self.sums.chunks_exact(ACROSS).zip(PAIR * pairs.start..) {
            for row in 0..SIDE.min(rows.count.saturating_sub(tile * SIDE)) {
                for (sums, at) in sums.iter().zip((first..outputs).step_by(SIDE)) {
                    let width = SIDE.min(outputs - at);
                    let bias = bias.map_or(&[][..], |bias| &bias[at..at + width]);
                    // SAFETY: as the caller vouches.
                    unsafe {
                        let out = out.part((tile * SIDE + row) * outputs + at, width);
                        add_bias(&sums.0[row], bias, out);
                    }
                }
            }
        }
        // Another thread may read the results.
        // SAFETY: every x86-64 processor has it.
        unsafe { _mm_sfence() };
    }
}

/// Writes up to [`SIDE`] results, with the bias where there is one: past the cache where they are a whole line of it, since
/// what many rows give does not stay there until it is read.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_bias(sums: &[f32; SIDE], bias: &[f32], out: &mut [f32]) {
    let mask = |len: usize| ((1u32 << len) - 1) as u16;
    // SAFETY: the masks leave out what lies past the slices.
    unsafe {
        let bias = _mm512_maskz_loadu_ps(mask(bias.len()), bias.as_ptr());
        let sums = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), bias);
        if out.len() == SIDE && out.as_ptr().addr().is_multiple_of(align_of::<Tile>()) {
            _mm512_stream_ps(out.as_mut_ptr(), sums);
        } else {
            _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), sums);
        }
    }
}
