//! Few rows: sums along the inputs, codes read as they lie.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::ops::Range;

use super::{LANES, SixteenRows, transpose_quarters};
use crate::kernels::{Activations, BlockMatrix, GROUP};

/// Computes 16 outputs from `first` for some rows. `BLOCK_LANES`: 32-bit lanes of 64 bytes of codes that belong to one block.
///
/// # Safety
/// As [`super::strip`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn outputs<const BITS: usize, const BLOCK_LANES: usize>(
    activations: &Activations,
    mut rows: Range<usize>,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; LANES],
    out: *mut f32,
) {
    while !rows.is_empty() {
        // SAFETY: as the caller vouches.
        let done = unsafe {
            match rows.len() {
                1 => some_rows::<1, BITS, BLOCK_LANES>(activations, rows.start, matrix, first, added, out),
                2 => some_rows::<2, BITS, BLOCK_LANES>(activations, rows.start, matrix, first, added, out),
                3 => some_rows::<3, BITS, BLOCK_LANES>(activations, rows.start, matrix, first, added, out),
                _ => some_rows::<4, BITS, BLOCK_LANES>(activations, rows.start, matrix, first, added, out),
            }
        };
        rows.start += done;
    }
}

/// As [`outputs`] for `ROWS` rows from `row` on; returns their number.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn some_rows<const ROWS: usize, const BITS: usize, const BLOCK_LANES: usize>(
    activations: &Activations,
    row: usize,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; LANES],
    out: *mut f32,
) -> usize {
    let blocks_per_group = LANES / BLOCK_LANES;
    let group_bytes = GROUP * BITS / 8;
    let weights = SixteenRows::new(matrix, first, LANES);
    let mut totals = [_mm512_setzero_ps(); ROWS];
    for group in 0..activations.groups {
        let at = group * group_bytes;
        weights.prefetch(at, group_bytes);
        let block = group * blocks_per_group;
        let mut entries = [(_mm512_setzero_ps(), _mm512_setzero_si512()); 4];
        for (index, entry) in entries.iter_mut().enumerate().take(blocks_per_group) {
            *entry = (weights.table.scale(block + index), weights.table.zero::<BITS>(block + index));
        }
        // SAFETY: the codes of `ROWS` rows from `row` on are there, as the caller vouches.
        let sums = unsafe {
            weights.sums::<ROWS, BITS>(at, activations.codes.as_ptr().add(activations.place(group, row) * GROUP))
        };
        for (r, total) in totals.iter_mut().enumerate() {
            let sums = per_block::<BLOCK_LANES>(sums[r]);
            let mut part = _mm512_setzero_ps();
            for (index, sum) in sums.into_iter().take(blocks_per_group).enumerate() {
                // SAFETY: sums and scales are there for every group of every row.
                let negated = unsafe {
                    let place = activations.place(group, row + r) * blocks_per_group + index;
                    *activations.negated_sums.get_unchecked(place)
                };
                let (scale, zero) = entries[index];
                let sum = _mm512_dpwssd_epi32(sum, zero, _mm512_set1_epi32(negated));
                part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, part);
            }
            // SAFETY: as above.
            let scale = unsafe { *activations.scales.get_unchecked(activations.place(group, row + r)) };
            *total = _mm512_fmadd_ps(part, _mm512_set1_ps(scale), *total);
        }
    }
    let mask = ((1u32 << (matrix.table.outputs - first).min(LANES)) - 1) as u16;
    for (r, total) in totals.into_iter().enumerate() {
        // SAFETY: `out` has a place for each of the rows, and the mask ends at its width.
        unsafe {
            let total = _mm512_add_ps(total, _mm512_loadu_ps(added.as_ptr()));
            _mm512_mask_storeu_ps(out.add((row + r) * matrix.table.outputs + first), mask, total);
        }
    }
    ROWS
}

impl SixteenRows<'_> {
    /// For each of `ROWS` rows of activations, 4 x 16 sums: quarter Q of register J holds the sums of outputs 4J to 4J + 3
    /// over the inputs whose codes lie in quarter Q of 64 bytes.
    ///
    /// # Safety
    /// `activations` points to a group of each of `ROWS` rows, one after the other.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn sums<const ROWS: usize, const BITS: usize>(
        &self,
        at: usize,
        activations: *const i8,
    ) -> [[__m512i; 4]; ROWS] {
        let low = _mm512_set1_epi8(15);
        let mut sums = [[_mm512_setzero_si512(); 4]; ROWS];
        for four in 0..4 {
            let mut found = [[_mm512_setzero_si512(); 4]; ROWS];
            for i in 0..4 {
                let codes = self.codes(4 * four + i, at);
                let (front, back) = if BITS == 4 {
                    (_mm512_and_si512(codes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low))
                } else {
                    (codes, self.codes(4 * four + i, at + 64))
                };
                for (r, found) in found.iter_mut().enumerate() {
                    // SAFETY: as the caller vouches.
                    unsafe {
                        let activations = activations.add(r * GROUP);
                        let sum = _mm512_dpbusd_epi32(found[i], front, _mm512_loadu_si512(activations.cast()));
                        found[i] = _mm512_dpbusd_epi32(sum, back, _mm512_loadu_si512(activations.add(64).cast()));
                    }
                }
            }
            for (sums, found) in sums.iter_mut().zip(found) {
                sums[four] = add_within_quarters(found);
            }
        }
        sums
    }
}

/// Adds up the four lanes of each quarter; quarter Q of the result holds the sums of quarter Q of the four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_within_quarters(rows: [__m512i; 4]) -> __m512i {
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (upper, lower) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(upper, lower), _mm512_unpackhi_epi64(upper, lower))
}

/// From what [`SixteenRows::sums`] finds to one register of sixteen outputs for each block of the group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn per_block<const BLOCK_LANES: usize>(sums: [__m512i; 4]) -> [__m512i; 4] {
    let quarters = transpose_quarters(sums);
    if BLOCK_LANES == 4 {
        return quarters;
    }
    let halves = [_mm512_add_epi32(quarters[0], quarters[1]), _mm512_add_epi32(quarters[2], quarters[3])];
    let unused = _mm512_setzero_si512();
    if BLOCK_LANES == 8 {
        return [halves[0], halves[1], unused, unused];
    }
    [_mm512_add_epi32(halves[0], halves[1]), unused, unused, unused]
}
