//! Few rows: sums along the inputs, codes read as they lie.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_blend_epi32,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_maskstore_ps, _mm256_permute2x128_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_ps, _mm256_srli_epi16,
};
use std::ops::Range;

use super::{BLOCKS, EightRows, LANES};
use crate::kernels::product::parts_of_strip;
use crate::kernels::{Activations, BlockMatrix, GROUP, STRIP};

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
) {
    for (first, added) in parts_of_strip(first, matrix.table.outputs, added) {
        // SAFETY: as the caller vouches.
        unsafe { outputs::<BITS, UNITS>(activations, rows.clone(), matrix, first, added, out) };
    }
}

/// As [`strip`] for 8 outputs.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma")]
unsafe fn outputs<const BITS: usize, const UNITS: usize>(
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
                1 => some_rows::<1, BITS, UNITS>(activations, rows.start, matrix, first, added, out),
                2 => some_rows::<2, BITS, UNITS>(activations, rows.start, matrix, first, added, out),
                3 => some_rows::<3, BITS, UNITS>(activations, rows.start, matrix, first, added, out),
                _ => some_rows::<4, BITS, UNITS>(activations, rows.start, matrix, first, added, out),
            }
        };
        rows.start += done;
    }
}

/// As [`outputs`] for `ROWS` rows from `row` on; returns their number.
#[target_feature(enable = "avx2,fma")]
unsafe fn some_rows<const ROWS: usize, const BITS: usize, const UNITS: usize>(
    activations: &Activations,
    row: usize,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; LANES],
    out: *mut f32,
) -> usize {
    let blocks = BLOCKS / UNITS;
    let group_bytes = GROUP * BITS / 8;
    let weights = EightRows::new(matrix, first, LANES);
    let mut totals = [_mm256_setzero_ps(); ROWS];
    let mut padded = [[0; GROUP]; LANES];
    for group in 0..activations.groups {
        let at = group * group_bytes;
        weights.prefetch(at, group_bytes);
        let codes = weights.group::<BITS>(at, &mut padded);
        let place = activations.place(group, row);
        let mut parts = [_mm256_setzero_ps(); ROWS];
        // SAFETY: codes, sums and scales are there for every group of `ROWS` rows from `row` on, as the caller vouches.
        unsafe {
            let values = activations.codes.as_ptr().add(place * GROUP);
            let entry = |block: usize| {
                let block = group * blocks + block;
                (weights.table.scale(block), weights.table.zero::<BITS>(block))
            };
            // One row would wait for its table at the end; more of them need the registers.
            let mut table = [(_mm256_setzero_ps(), _mm256_setzero_si256()); BLOCKS];
            if ROWS == 1 {
                for (block, found) in table.iter_mut().enumerate().take(blocks) {
                    *found = entry(block);
                }
            }
            // In place: as a result they would be copied.
            let mut sums = [[_mm256_setzero_si256(); BLOCKS]; ROWS];
            if BITS == 4 {
                sums_of_4::<ROWS, UNITS>(codes, values, &mut sums);
            } else {
                sums_of_8::<ROWS>(codes, values, &mut sums);
            }
            let negated = activations.negated_sums.as_ptr().add(place * blocks);
            for block in 0..blocks {
                let (scale, zero) = if ROWS == 1 { table[block] } else { entry(block) };
                for (r, (part, sums)) in parts.iter_mut().zip(&sums).enumerate() {
                    let rest = _mm256_madd_epi16(zero, _mm256_set1_epi32(*negated.add(r * blocks + block)));
                    *part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sums[block], rest)), scale, *part);
                }
            }
            for (r, (total, part)) in totals.iter_mut().zip(parts).enumerate() {
                let scale = _mm256_set1_ps(*activations.scales.as_ptr().add(place + r));
                *total = _mm256_fmadd_ps(part, scale, *total);
            }
        }
    }
    let width = _mm256_set1_epi32((matrix.table.outputs - first).min(LANES) as i32);
    let mask = _mm256_cmpgt_epi32(width, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (r, total) in totals.into_iter().enumerate() {
        // SAFETY: `out` has a place for each of the rows, and the mask ends at its width.
        unsafe {
            let total = _mm256_add_ps(total, _mm256_loadu_ps(added.as_ptr()));
            _mm256_maskstore_ps(out.add((row + r) * matrix.table.outputs + first), mask, total);
        }
    }
    ROWS
}

/// For each of `ROWS` rows of activations and each block of a group, the sums of code x activation of the eight outputs;
/// codes of 4 bits. `sums` hold zeros before; what lies past the blocks of the group stays as it is.
///
/// # Safety
/// `codes` points to the group's of each output, `activations` to a group of each of `ROWS` rows, one after the other.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_of_4<const ROWS: usize, const UNITS: usize>(
    codes: [*const u8; LANES],
    activations: *const i8,
    sums: &mut [[__m256i; BLOCKS]; ROWS],
) {
    for half in 0..2 {
        let mut fours = [[_mm256_setzero_si256(); 2]; ROWS];
        for four in 0..2 {
            // Sums of two outputs each, four and four lanes of 16 bits in both halves of a register.
            let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
            for pair in 0..2 {
                let lane = 4 * four + 2 * pair;
                // SAFETY: as the caller vouches.
                let (first, second) = unsafe {
                    let activations = activations.add(32 * half);
                    (
                        products_of_4::<ROWS>(codes[lane].add(32 * half), activations),
                        products_of_4::<ROWS>(codes[lane + 1].add(32 * half), activations),
                    )
                };
                for (pairs, (first, second)) in pairs.iter_mut().zip(first.into_iter().zip(second)) {
                    // A lane has the sum of four products of at most 15 x 127, and sixteen fit.
                    let rest = shuffle::<0x4e>(first, second);
                    pairs[pair] = _mm256_add_epi16(_mm256_blend_epi32::<0xcc>(first, second), rest);
                }
            }
            for (fours, pairs) in fours.iter_mut().zip(pairs) {
                let even = shuffle::<0x88>(pairs[0], pairs[1]);
                fours[four] = widen(_mm256_add_epi16(even, shuffle::<0xdd>(pairs[0], pairs[1])));
            }
        }
        for (sums, [lower, upper]) in sums.iter_mut().zip(fours) {
            let (front, back) = halves(lower, upper);
            match UNITS {
                1 => (sums[2 * half], sums[2 * half + 1]) = (front, back),
                2 => sums[half] = _mm256_add_epi32(front, back),
                _ => sums[0] = _mm256_add_epi32(sums[0], _mm256_add_epi32(front, back)),
            }
        }
    }
}

/// As [`sums_of_4`] for codes of 8 bits, whose only block is the group.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_of_8<const ROWS: usize>(
    codes: [*const u8; LANES],
    activations: *const i8,
    sums: &mut [[__m256i; BLOCKS]; ROWS],
) {
    let mut fours = [[_mm256_setzero_si256(); 2]; ROWS];
    for four in 0..2 {
        let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
        for pair in 0..2 {
            let lane = 4 * four + 2 * pair;
            // SAFETY: as the caller vouches.
            let (first, second) =
                unsafe { (sum_of_8::<ROWS>(codes[lane], activations), sum_of_8::<ROWS>(codes[lane + 1], activations)) };
            for (pairs, (first, second)) in pairs.iter_mut().zip(first.into_iter().zip(second)) {
                pairs[pair] = _mm256_hadd_epi32(first, second);
            }
        }
        for (fours, pairs) in fours.iter_mut().zip(pairs) {
            fours[four] = _mm256_hadd_epi32(pairs[0], pairs[1]);
        }
    }
    for (sums, [lower, upper]) in sums.iter_mut().zip(fours) {
        let (front, back) = halves(lower, upper);
        sums[0] = _mm256_add_epi32(front, back);
    }
}

/// Eight sums for one output and each row, which together are that over the group.
///
/// # Safety
/// As [`sums_of_4`], for one output.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sum_of_8<const ROWS: usize>(codes: *const u8, activations: *const i8) -> [__m256i; ROWS] {
    let low = _mm256_set1_epi8(15);
    let mut halves = [[_mm256_setzero_si256(); 2]; ROWS];
    for start in (0..GROUP).step_by(32) {
        // SAFETY: as the caller vouches.
        let codes = unsafe { _mm256_loadu_si256(codes.add(start).cast()) };
        let codes = [_mm256_and_si256(codes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low)];
        for (r, halves) in halves.iter_mut().enumerate() {
            // SAFETY: as the caller vouches.
            let values = unsafe { _mm256_loadu_si256(activations.add(r * GROUP + start).cast()) };
            for (half, codes) in halves.iter_mut().zip(codes) {
                *half = _mm256_add_epi16(*half, _mm256_maddubs_epi16(codes, values));
            }
        }
    }
    let mut sums = [_mm256_setzero_si256(); ROWS];
    for (sum, [low, high]) in sums.iter_mut().zip(halves) {
        *sum = _mm256_add_epi32(widen(low), _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
    }
    sums
}

/// Products of 64 codes of 4 bits with `ROWS` rows, four of them added up in each lane of 16 bits.
///
/// # Safety
/// The codes are there; `activations` and what lies `GROUP / 2` behind are what meets their lower and their upper halves, for
/// each row.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn products_of_4<const ROWS: usize>(codes: *const u8, activations: *const i8) -> [__m256i; ROWS] {
    // SAFETY: as the caller vouches.
    let (codes, low) = (unsafe { _mm256_loadu_si256(codes.cast()) }, _mm256_set1_epi8(15));
    let (front, back) = (_mm256_and_si256(codes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low));
    let mut products = [_mm256_setzero_si256(); ROWS];
    for (r, product) in products.iter_mut().enumerate() {
        // SAFETY: as the caller vouches.
        let (even, odd) = unsafe {
            let activations = activations.add(r * GROUP);
            (_mm256_loadu_si256(activations.cast()), _mm256_loadu_si256(activations.add(GROUP / 2).cast()))
        };
        *product = _mm256_add_epi16(_mm256_maddubs_epi16(front, even), _mm256_maddubs_epi16(back, odd));
    }
    products
}

/// Two doublewords of `first` and two of `second`, in each half of a register.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn shuffle<const WHICH: i32>(first: __m256i, second: __m256i) -> __m256i {
    _mm256_castps_si256(_mm256_shuffle_ps::<WHICH>(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second)))
}

/// Adds up pairs of lanes of 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(sums: __m256i) -> __m256i {
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

/// The lower halves of two registers, and the upper ones.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn halves(first: __m256i, second: __m256i) -> (__m256i, __m256i) {
    (_mm256_permute2x128_si256::<0x20>(first, second), _mm256_permute2x128_si256::<0x31>(first, second))
}
