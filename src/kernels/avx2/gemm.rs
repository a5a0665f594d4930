//! Many rows: the codes of a strip of outputs become a panel, which all rows then share.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps,
};
use std::ops::Range;

use super::{EightRows, LANES, UNIT, transpose};
use crate::kernels::product::write_totals;
use crate::kernels::{Activations, BlockMatrix, GROUP, STRIP};

/// Registers across a strip.
const ACROSS: usize = STRIP / LANES;

/// Registers across that are worked on together.
const TOGETHER: usize = 2;

/// Units of a group.
const GROUP_UNITS: usize = GROUP / UNIT;

/// Doublewords of a unit.
const QUADS: usize = UNIT / 4;

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// Codes of 4 bits as unsigned bytes, `[ACROSS / TOGETHER, groups, units, BITS / 4, QUADS, TOGETHER]`,
    /// lower halves of 8 bits before upper.
    panel: Vec<[__m256i; TOGETHER]>,
    /// What belongs to the blocks, `[ACROSS / TOGETHER, groups, blocks]`.
    blocks: Vec<Block>,
    /// Results, `[rows, STRIP]`.
    totals: Vec<[f32; STRIP]>,
}

/// What belongs to a block of the outputs of [`TOGETHER`] registers.
#[derive(Clone, Copy)]
struct Block {
    scale: [__m256; TOGETHER],
    /// Zero points, 32 bits each.
    zero: [__m256i; TOGETHER],
}

/// Computes a strip of outputs from `first` for some rows. `UNITS`: units of inputs in a block.
///
/// # Safety
/// As [`super::strip`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn strip<const BITS: usize, const UNITS: usize>(
    activations: &Activations,
    rows: Range<usize>,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; STRIP],
    out: *mut f32,
    scratch: &mut Scratch,
) {
    scratch.totals.clear();
    scratch.totals.resize(rows.len(), [0.0; STRIP]);
    // What leaves room in the first-level cache.
    let together = 8 / BITS;
    for start in (0..activations.groups).step_by(together) {
        let groups = start..activations.groups.min(start + together);
        scratch.fill::<BITS, UNITS>(matrix, first, groups.clone());
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the rows are there, as the caller vouches.
            row += unsafe {
                match rows.end - row {
                    1 => scratch.add::<1, BITS, UNITS>(activations, row, row - rows.start, groups.clone()),
                    2 => scratch.add::<2, BITS, UNITS>(activations, row, row - rows.start, groups.clone()),
                    3 => scratch.add::<3, BITS, UNITS>(activations, row, row - rows.start, groups.clone()),
                    _ => scratch.add::<4, BITS, UNITS>(activations, row, row - rows.start, groups.clone()),
                }
            };
        }
    }
    // SAFETY: as the caller vouches.
    unsafe { write_totals(&mut scratch.totals, added, rows, (first, matrix.table.outputs), out) };
}

impl Scratch {
    /// Makes the panel of a strip.
    #[target_feature(enable = "avx2,fma")]
    fn fill<const BITS: usize, const UNITS: usize>(
        &mut self,
        matrix: &BlockMatrix<'_>,
        first: usize,
        groups: Range<usize>,
    ) {
        let blocks_per_group = GROUP_UNITS / UNITS;
        let (places, blocks) = (groups.len() * GROUP * BITS / 16, groups.len() * blocks_per_group);
        let unset = Block { scale: [_mm256_setzero_ps(); TOGETHER], zero: [_mm256_setzero_si256(); TOGETHER] };
        self.panel.resize(ACROSS / TOGETHER * places, [_mm256_setzero_si256(); TOGETHER]);
        self.blocks.resize(ACROSS / TOGETHER * blocks, unset);
        let low = _mm256_set1_epi8(15);
        for across in 0..ACROSS {
            let weights = EightRows::new(matrix, first + across * LANES);
            let (set, across) = (across / TOGETHER, across % TOGETHER);
            let mut padded = [[0; GROUP]; LANES];
            for (index, group) in groups.clone().enumerate() {
                let panel = &mut self.panel[set * places + index * GROUP * BITS / 16..];
                let codes = weights.group::<BITS>(group * GROUP * BITS / 8, &mut padded);
                for start in (0..GROUP * BITS / 8).step_by(32) {
                    let mut columns = [_mm256_setzero_si256(); LANES];
                    for (column, codes) in columns.iter_mut().zip(codes) {
                        // SAFETY: a group's codes are there.
                        *column = unsafe { _mm256_loadu_si256(codes.add(start).cast()) };
                    }
                    transpose(&mut columns);
                    for (column, codes) in columns.into_iter().enumerate() {
                        let place = panel_place::<BITS>(start / 4 + column);
                        panel[place][across] = _mm256_and_si256(codes, low);
                        let upper = place + if BITS == 4 { QUADS / 2 } else { QUADS };
                        panel[upper][across] = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                    }
                }
                for block in 0..blocks_per_group {
                    let entry = &mut self.blocks[set * blocks + index * blocks_per_group + block];
                    let block = group * blocks_per_group + block;
                    (entry.scale[across], entry.zero[across]) = (weights.scale(block), weights.zero::<BITS>(block));
                }
            }
        }
    }

    /// Adds the panel's part to the results of `ROWS` rows; returns their number.
    ///
    /// # Safety
    /// The activations have the rows from `row` on, and there are results for them from `place` on.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add<const ROWS: usize, const BITS: usize, const UNITS: usize>(
        &mut self,
        activations: &Activations,
        row: usize,
        place: usize,
        groups: Range<usize>,
    ) -> usize {
        let blocks_per_group = GROUP_UNITS / UNITS;
        let run = run_length::<BITS>();
        let (mut panel, mut blocks) = (self.panel.as_ptr(), self.blocks.as_ptr());
        for set in 0..ACROSS / TOGETHER {
            for group in groups.clone() {
                let first = activations.place(group, row);
                let mut parts = [[_mm256_setzero_ps(); TOGETHER]; ROWS];
                // SAFETY: tables and panel hold what `fill` wrote for the groups, in this order; the rows are there.
                unsafe {
                    let codes = activations.codes.as_ptr().add(first * GROUP);
                    for block in 0..blocks_per_group {
                        let mut sums = [[_mm256_setzero_si256(); TOGETHER]; ROWS];
                        for unit in block * UNITS..(block + 1) * UNITS {
                            add_unit::<ROWS, BITS>(panel, codes, unit, run, &mut sums);
                            panel = panel.add(QUADS * BITS / 4);
                        }
                        let entry = &*blocks;
                        blocks = blocks.add(1);
                        for (r, (parts, sums)) in parts.iter_mut().zip(sums).enumerate() {
                            let negated = (first + r) * blocks_per_group + block;
                            let negated = _mm256_set1_epi32(*activations.negated_sums.get_unchecked(negated));
                            for (index, (part, sum)) in parts.iter_mut().zip(sums).enumerate() {
                                let rest = _mm256_madd_epi16(entry.zero[index], negated);
                                let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, rest));
                                *part = _mm256_fmadd_ps(sum, entry.scale[index], *part);
                            }
                        }
                    }
                    for (r, parts) in parts.into_iter().enumerate() {
                        let scale = _mm256_set1_ps(*activations.scales.get_unchecked(first + r));
                        let totals = self.totals.get_unchecked_mut(place + r).as_mut_ptr();
                        for (index, part) in parts.into_iter().enumerate() {
                            let total = totals.add((set * TOGETHER + index) * LANES);
                            _mm256_storeu_ps(total, _mm256_fmadd_ps(part, scale, _mm256_loadu_ps(total)));
                        }
                    }
                }
            }
        }
        ROWS
    }
}

/// Where the lower halves of doubleword `index` of a group's codes are in the group's panel.
fn panel_place<const BITS: usize>(index: usize) -> usize {
    // Four bits: a doubleword has eight inputs, and a unit four of its quads from lower halves before four from upper ones.
    if BITS == 4 { index / 4 * QUADS + index % 4 } else { index / QUADS * 2 * QUADS + index % QUADS }
}

/// Adds code x activation over a unit for `ROWS` rows and the outputs of [`TOGETHER`] registers.
///
/// # Safety
/// `panel` is that of the unit, `activations` the group's of each of `ROWS` rows, one after the other; `run` is what
/// [`run_length`] gave.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_unit<const ROWS: usize, const BITS: usize>(
    mut panel: *const [__m256i; TOGETHER],
    activations: *const i8,
    unit: usize,
    run: usize,
    sums: &mut [[__m256i; TOGETHER]; ROWS],
) {
    // Where the activations of each run of quads begin, and of what weight the codes are.
    let runs = if BITS == 4 {
        [(unit * UNIT / 2, 1), (GROUP / 2 + unit * UNIT / 2, 1)]
    } else {
        [(unit * UNIT, 1), (unit * UNIT, 16)]
    };
    // Eight times two products of at most 15 x 127 fit 16 bits.
    let mut found = [[_mm256_setzero_si256(); TOGETHER]; ROWS];
    for (index, (at, weight)) in runs.into_iter().enumerate() {
        for quad in 0..run {
            // SAFETY: as the caller vouches.
            unsafe {
                let codes = &*panel;
                panel = panel.add(1);
                for (r, found) in found.iter_mut().enumerate() {
                    let values = activations.add(r * GROUP + at + 4 * quad).cast::<i32>().read_unaligned();
                    for (found, codes) in found.iter_mut().zip(codes) {
                        *found = _mm256_add_epi16(*found, _mm256_maddubs_epi16(*codes, _mm256_set1_epi32(values)));
                    }
                }
            }
        }
        if BITS == 8 || index == 1 {
            for (sums, found) in sums.iter_mut().zip(&mut found) {
                for (sum, found) in sums.iter_mut().zip(found) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*found, _mm256_set1_epi16(weight)));
                    *found = _mm256_setzero_si256();
                }
            }
        }
    }
}

/// Quads of a unit that follow one another in memory. The compiler shall not know the number: it would unroll the loop over
/// them, add up in another order, and run out of registers.
fn run_length<const BITS: usize>() -> usize {
    std::hint::black_box(if BITS == 4 { QUADS / 2 } else { QUADS })
}
