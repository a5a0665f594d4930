//! Many rows: the codes of a strip of outputs become a panel, which all rows then share.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mullo_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_epi8, _mm512_sub_epi32,
};
use std::ops::Range;

use super::{LANES, SixteenRows, transpose};
use crate::kernels::product::write_totals;
use crate::kernels::{Activations, BlockMatrix, GROUP, STRIP};

/// Registers across a strip.
const ACROSS: usize = STRIP / LANES;

/// Groups of inputs of a panel: what fits in the first-level cache.
const GROUPS: usize = 2;

/// Memory of one thread.
pub(super) struct Scratch {
    /// Weights as signed bytes, `[groups, doublewords of 64 bytes, front and back, across]`.
    panel: Vec<[[__m512i; ACROSS]; 2]>,
    /// What belongs to the blocks, `[groups, blocks]`.
    blocks: Vec<Block>,
    /// Results, `[rows, STRIP]`.
    totals: Vec<[f32; STRIP]>,
}

/// What belongs to a block of each output of a strip.
///
/// The instruction multiplies unsigned by signed bytes. The activations are made unsigned by adding 128, which `start`
/// takes back: -128 times the sum of the weights. Weights of 4 bits are code - zero point; those of 8 bits may not fit a
/// byte and are code - 128, and `rest` is the zero point - 128, by which the sum of the activations is still to be
/// multiplied.
#[derive(Clone, Copy)]
struct Block {
    scale: [__m512; ACROSS],
    start: [__m512i; ACROSS],
    rest: [__m512i; ACROSS],
}

impl Default for Scratch {
    fn default() -> Self {
        // SAFETY: zeros are numbers of these types.
        let (panel, block) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self { panel: vec![panel; GROUPS * LANES], blocks: vec![block; GROUPS * 4], totals: Vec::new() }
    }
}

/// Computes a strip of outputs from `first` for some rows. `BLOCK_LANES`: doublewords of 64 bytes of codes that belong to one
/// block.
///
/// # Safety
/// As [`super::strip`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn strip<const BITS: usize, const BLOCK_LANES: usize>(
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
    for start in (0..activations.groups).step_by(GROUPS) {
        let groups = start..activations.groups.min(start + GROUPS);
        scratch.fill::<BITS, BLOCK_LANES>(matrix, first, groups.clone());
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the rows are there, as the caller vouches.
            row += unsafe {
                match rows.end - row {
                    1 => scratch.add::<1, BITS, BLOCK_LANES>(activations, row, row - rows.start, groups.clone()),
                    2 => scratch.add::<2, BITS, BLOCK_LANES>(activations, row, row - rows.start, groups.clone()),
                    _ => scratch.add::<3, BITS, BLOCK_LANES>(activations, row, row - rows.start, groups.clone()),
                }
            };
        }
    }
    // SAFETY: as the caller vouches.
    unsafe { write_totals(&mut scratch.totals, added, rows, (first, matrix.table.outputs), out) };
}

impl Scratch {
    /// Makes the panel of a strip.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn fill<const BITS: usize, const BLOCK_LANES: usize>(
        &mut self,
        matrix: &BlockMatrix<'_>,
        first: usize,
        groups: Range<usize>,
    ) {
        let blocks_per_group = LANES / BLOCK_LANES;
        let (low, middle) = (_mm512_set1_epi8(15), _mm512_set1_epi8(-128));
        for across in 0..ACROSS {
            let weights = SixteenRows::new(matrix, first + across * LANES, LANES);
            for (index, group) in groups.clone().enumerate() {
                let at = group * GROUP * BITS / 8;
                let mut front = std::array::from_fn(|lane| weights.codes(lane, at));
                transpose(&mut front);
                let mut back = front;
                if BITS == 8 {
                    back = std::array::from_fn(|lane| weights.codes(lane, at + 64));
                    transpose(&mut back);
                }
                for block in 0..blocks_per_group {
                    let place = group * blocks_per_group + block;
                    let zero = weights.table.zero::<BITS>(place);
                    let bytes =
                        if BITS == 4 { _mm512_mullo_epi32(zero, _mm512_set1_epi32(0x0101_0101)) } else { middle };
                    let mut sum = _mm512_setzero_si512();
                    for lane in block * BLOCK_LANES..(block + 1) * BLOCK_LANES {
                        let (mut front, mut back) = (front[lane], back[lane]);
                        if BITS == 4 {
                            front = _mm512_and_si512(front, low);
                            back = _mm512_and_si512(_mm512_srli_epi16::<4>(back), low);
                        }
                        let weights = [_mm512_sub_epi8(front, bytes), _mm512_sub_epi8(back, bytes)];
                        sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, middle, weights[0]), middle, weights[1]);
                        let panel = &mut self.panel[index * LANES + lane];
                        (panel[0][across], panel[1][across]) = (weights[0], weights[1]);
                    }
                    let entry = &mut self.blocks[index * blocks_per_group + block];
                    entry.scale[across] = weights.table.scale(place);
                    entry.start[across] = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
                    entry.rest[across] =
                        _mm512_and_si512(_mm512_sub_epi32(zero, _mm512_set1_epi32(128)), _mm512_set1_epi32(0xffff));
                }
            }
        }
    }

    /// Adds the panel's part to the results of `ROWS` rows; returns their number.
    ///
    /// # Safety
    /// The activations have the rows from `row` on, and there are results for them from `place` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add<const ROWS: usize, const BITS: usize, const BLOCK_LANES: usize>(
        &mut self,
        activations: &Activations,
        row: usize,
        place: usize,
        groups: Range<usize>,
    ) -> usize {
        let blocks_per_group = LANES / BLOCK_LANES;
        for (index, group) in groups.enumerate() {
            let first = activations.place(group, row);
            let mut parts = [[_mm512_setzero_ps(); ACROSS]; ROWS];
            for block in 0..blocks_per_group {
                // SAFETY: tables and panel hold what `fill` wrote for the groups; the rows are there.
                unsafe {
                    let entry = self.blocks.get_unchecked(index * blocks_per_group + block);
                    let mut sums = [entry.start; ROWS];
                    if BITS == 8 {
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let negated = (first + r) * blocks_per_group + block;
                            let negated = _mm512_set1_epi32(*activations.negated_sums.get_unchecked(negated));
                            for (sum, rest) in sums.iter_mut().zip(&entry.rest) {
                                *sum = _mm512_dpwssd_epi32(*sum, *rest, negated);
                            }
                        }
                    }
                    let panel = self.panel.as_ptr().add(index * LANES + block * BLOCK_LANES);
                    let codes = activations.codes.as_ptr().add(first * GROUP + 4 * block * BLOCK_LANES);
                    for lane in 0..BLOCK_LANES {
                        for (half, weights) in (*panel.add(lane)).iter().enumerate() {
                            for (r, sums) in sums.iter_mut().enumerate() {
                                let codes = codes.add(r * GROUP + half * GROUP / 2 + 4 * lane);
                                let codes = _mm512_set1_epi32(codes.cast::<i32>().read_unaligned());
                                for (sum, weights) in sums.iter_mut().zip(weights) {
                                    *sum = _mm512_dpbusd_epi32(*sum, codes, *weights);
                                }
                            }
                        }
                    }
                    for (parts, sums) in parts.iter_mut().zip(sums) {
                        for ((part, sum), scale) in parts.iter_mut().zip(sums).zip(&entry.scale) {
                            *part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), *scale, *part);
                        }
                    }
                }
            }
            for (r, parts) in parts.into_iter().enumerate() {
                // SAFETY: as the caller vouches.
                unsafe {
                    let scale = _mm512_set1_ps(*activations.scales.get_unchecked(first + r));
                    let totals = self.totals.get_unchecked_mut(place + r).as_mut_ptr();
                    for (across, part) in parts.into_iter().enumerate() {
                        let total = totals.add(across * LANES);
                        _mm512_storeu_ps(total, _mm512_fmadd_ps(part, scale, _mm512_loadu_ps(total)));
                    }
                }
            }
        }
        ROWS
    }
}
