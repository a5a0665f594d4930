//! Few rows of a matrix whose codes are packed: read front to back, as each row's sums ask for them.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_and_si256, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_srli_epi16, _mm256_storeu_ps,
};
use std::ops::Range;

use super::group::{QUADS, ROWS, Source, TOGETHER, WIDTH, results};
use super::{BLOCKS, LANES};
use crate::kernels::matrix_rows::TableRows;
use crate::kernels::packed::{QUAD, SIDE, from_output};
use crate::kernels::product::{parts_of_strip, write_totals};
use crate::kernels::vector::prefetch;
use crate::kernels::{Activations, BlockMatrix, GROUP, STRIP};

const _: () = assert!(WIDTH == SIDE, "what is worked on together stands side by side");

/// How many bytes ahead codes are asked for.
const AHEAD: usize = 2048;

/// A group of sixteen outputs.
struct Group<'a> {
    /// Its codes.
    codes: *const u8,
    table: &'a [TableRows<'a, LANES>; TOGETHER],
    /// Number of its first block.
    first_block: usize,
}

/// Computes a strip of outputs from `first` for some rows; `codes` are those of the matrix. `UNITS`: units of inputs in a block.
///
/// # Safety
/// As [`super::strip`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn strip<const BITS: usize, const UNITS: usize>(
    activations: &Activations,
    rows: Range<usize>,
    matrix: &BlockMatrix<'_>,
    codes: &[u8],
    first: usize,
    added: &[f32; STRIP],
    out: *mut f32,
) {
    for (first, added) in parts_of_strip(first, matrix.table.outputs, added) {
        let table = std::array::from_fn(|index| TableRows::new(matrix.table, first + index * LANES));
        let codes = from_output(codes, matrix.table, first);
        for row in rows.clone().step_by(ROWS) {
            let rows = row..rows.end.min(row + ROWS);
            let mut totals = [[0.0; WIDTH]; ROWS];
            let totals = &mut totals[..rows.len()];
            // SAFETY: as the caller vouches.
            unsafe {
                match rows.len() {
                    1 => some_rows::<1, BITS, UNITS>(activations, row, codes, &table, totals),
                    2 => some_rows::<2, BITS, UNITS>(activations, row, codes, &table, totals),
                    3 => some_rows::<3, BITS, UNITS>(activations, row, codes, &table, totals),
                    _ => some_rows::<ROWS, BITS, UNITS>(activations, row, codes, &table, totals),
                }
                write_totals(totals, added, rows, (first, matrix.table.outputs), out);
            }
        }
    }
}

/// Results of sixteen outputs for `COUNT` rows from `row` on; `codes` begin with theirs.
///
/// # Safety
/// As [`strip`].
#[target_feature(enable = "avx2,fma")]
unsafe fn some_rows<const COUNT: usize, const BITS: usize, const UNITS: usize>(
    activations: &Activations,
    row: usize,
    codes: &[u8],
    table: &[TableRows<'_, LANES>; TOGETHER],
    totals: &mut [[f32; WIDTH]],
) {
    let mut sums = [[_mm256_setzero_ps(); TOGETHER]; COUNT];
    for group in 0..activations.groups {
        let place = activations.place(group, row);
        let source = Group { codes: group_of::<BITS>(codes, group), table, first_block: group * BLOCKS / UNITS };
        // SAFETY: as the caller vouches.
        unsafe {
            let results = results::<COUNT, BITS, UNITS>(&source, activations, place);
            for (r, (sums, results)) in sums.iter_mut().zip(results).enumerate() {
                let scale = _mm256_set1_ps(*activations.scales.get_unchecked(place + r));
                for (sum, result) in sums.iter_mut().zip(results) {
                    *sum = _mm256_fmadd_ps(result, scale, *sum);
                }
            }
        }
    }
    for (sums, totals) in sums.into_iter().zip(totals) {
        for (sum, total) in sums.into_iter().zip(totals.as_chunks_mut::<LANES>().0) {
            // SAFETY: the lanes are there.
            unsafe { _mm256_storeu_ps(total.as_mut_ptr(), sum) };
        }
    }
}

/// Where a group begins in the codes of sixteen outputs.
#[inline]
pub(super) fn group_of<const BITS: usize>(codes: &[u8], group: usize) -> *const u8 {
    codes[group * SIDE * GROUP * BITS / 8..].as_ptr()
}

/// Doubleword `quad` of a unit of sixteen outputs, of which `codes` begin with the group; see [`Source::codes`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn codes_of<const BITS: usize>(
    codes: *const u8,
    unit: usize,
    half: usize,
    quad: usize,
) -> [__m256i; TOGETHER] {
    // Four bits: a doubleword has eight inputs, and a unit four of its quads from lower halves before four from upper ones.
    let (quad, half) = if BITS == 4 { (quad % (QUADS / 2), quad / (QUADS / 2)) } else { (quad, half) };
    let at = codes.wrapping_add((unit * QUADS * BITS / 8 + quad) * SIDE * QUAD);
    if half == 0 {
        prefetch(at.wrapping_add(AHEAD));
    }
    std::array::from_fn(|index| {
        // SAFETY: as the caller vouches.
        let codes = unsafe { _mm256_loadu_si256(at.add(index * LANES * QUAD).cast()) };
        _mm256_and_si256(if half == 0 { codes } else { _mm256_srli_epi16::<4>(codes) }, _mm256_set1_epi8(15))
    })
}

impl<const BITS: usize> Source<BITS> for Group<'_> {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn codes(&self, unit: usize, half: usize, quad: usize) -> [__m256i; TOGETHER] {
        // SAFETY: as the caller vouches.
        unsafe { codes_of::<BITS>(self.codes, unit, half, quad) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn scales(&self, block: usize) -> [__m256; TOGETHER] {
        std::array::from_fn(|index| self.table[index].scale(self.first_block + block))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn zeros(&self, block: usize) -> [__m256i; TOGETHER] {
        std::array::from_fn(|index| self.table[index].zero::<BITS>(self.first_block + block))
    }
}
