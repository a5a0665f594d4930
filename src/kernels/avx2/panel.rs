//! More than a few rows: the codes of a group become a panel, which all rows then share.

use std::arch::asm;
use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps,
};
use std::ops::Range;

use super::{BLOCKS, EightRows, LANES, PaddedGroups, UNIT, transpose};
use crate::kernels::product::{parts_of_strip, write_totals};
use crate::kernels::{Activations, BlockMatrix, GROUP, STRIP};

/// Registers side by side.
const TOGETHER: usize = 2;

/// Outputs of a panel.
const WIDTH: usize = TOGETHER * LANES;

/// Rows that are worked on together: their sums are in registers.
const ROWS: usize = 4;

/// Doublewords of a unit: each has four inputs of an output.
const QUADS: usize = UNIT / 4;

/// A group's codes of [`WIDTH`] outputs and what belongs to their blocks.
struct Panel {
    /// Codes of 4 bits as unsigned bytes, `[units, BITS / 4, QUADS]`, lower halves of 8 bits before upper.
    codes: [[__m256i; TOGETHER]; 2 * BLOCKS * QUADS],
    /// Scales of the blocks.
    scales: [[__m256; TOGETHER]; BLOCKS],
    /// Their zero points, 32 bits each.
    zeros: [[__m256i; TOGETHER]; BLOCKS],
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    panel: Option<Panel>,
    /// Results, `[rows, WIDTH]`.
    totals: Vec<[f32; WIDTH]>,
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
    Scratch { panel, totals }: &mut Scratch,
) {
    let panel = panel.get_or_insert_with(|| Panel::empty());
    for (first, added) in parts_of_strip(first, matrix.table.outputs, added) {
        let weights: [_; TOGETHER] = std::array::from_fn(|index| EightRows::new(matrix, first + index * LANES, WIDTH));
        let mut padded = [[0; GROUP]; LANES];
        totals.clear();
        totals.resize(rows.len(), [0.0; WIDTH]);
        for group in 0..activations.groups {
            panel.fill::<BITS, UNITS>(&weights, group, &mut padded);
            // SAFETY: there are so many rows, as the caller vouches.
            unsafe { panel.add::<BITS, UNITS>(activations, group, rows.clone(), totals) };
        }
        // SAFETY: as the caller vouches.
        unsafe { write_totals(totals, added, rows.clone(), (first, matrix.table.outputs), out) };
    }
}

impl Panel {
    /// A panel that holds nothing yet.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn empty() -> Self {
        Self {
            codes: [[_mm256_setzero_si256(); TOGETHER]; 2 * BLOCKS * QUADS],
            scales: [[_mm256_setzero_ps(); TOGETHER]; BLOCKS],
            zeros: [[_mm256_setzero_si256(); TOGETHER]; BLOCKS],
        }
    }

    /// Takes a group of the rows of a matrix; `padded` holds zeros.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fill<const BITS: usize, const UNITS: usize>(
        &mut self,
        weights: &[EightRows<'_>; TOGETHER],
        group: usize,
        padded: &mut PaddedGroups,
    ) {
        let low = _mm256_set1_epi8(15);
        let (at, blocks) = (group * GROUP * BITS / 8, BLOCKS / UNITS);
        for weights in weights {
            weights.prefetch(at, GROUP * BITS / 8);
            weights.prefetch_table(group * blocks);
        }
        let (places, _) = self.codes.as_chunks_mut::<{ 2 * LANES }>();
        for (index, weights) in weights.iter().enumerate() {
            let codes = weights.group::<BITS>(at, padded);
            for (part, places) in places.iter_mut().enumerate().take(GROUP * BITS / 8 / 32) {
                // SAFETY: a group's codes are there.
                let mut columns = codes.map(|codes| unsafe { _mm256_loadu_si256(codes.add(32 * part).cast()) });
                transpose(&mut columns);
                for (column, codes) in columns.into_iter().enumerate() {
                    // Four bits: a doubleword has eight inputs, and a unit four of its quads from lower halves before four
                    // from upper ones.
                    let (place, upper) =
                        if BITS == 4 { (column / 4 * QUADS + column % 4, QUADS / 2) } else { (column, QUADS) };
                    places[place][index] = _mm256_and_si256(codes, low);
                    places[place + upper][index] = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                }
            }
            for (block, (scales, zeros)) in self.scales.iter_mut().zip(&mut self.zeros).enumerate().take(blocks) {
                let block = group * blocks + block;
                (scales[index], zeros[index]) = (weights.scale(block), weights.zero::<BITS>(block));
            }
        }
    }

    /// Adds the panel's part to the results of some rows, of which `totals` has as many.
    ///
    /// # Safety
    /// The activations have the group and the rows.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add<const BITS: usize, const UNITS: usize>(
        &self,
        activations: &Activations,
        group: usize,
        rows: Range<usize>,
        totals: &mut [[f32; WIDTH]],
    ) {
        for (row, totals) in rows.step_by(ROWS).zip(totals.chunks_mut(ROWS)) {
            let place = activations.place(group, row);
            // SAFETY: as the caller vouches.
            unsafe {
                match totals.len() {
                    1 => self.add_rows::<1, BITS, UNITS>(activations, place, totals),
                    2 => self.add_rows::<2, BITS, UNITS>(activations, place, totals),
                    3 => self.add_rows::<3, BITS, UNITS>(activations, place, totals),
                    _ => self.add_rows::<ROWS, BITS, UNITS>(activations, place, totals),
                }
            }
        }
    }

    /// As [`Self::add`] for `COUNT` rows, the first of which has its group of activations at `place`.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add_rows<const COUNT: usize, const BITS: usize, const UNITS: usize>(
        &self,
        activations: &Activations,
        place: usize,
        totals: &mut [[f32; WIDTH]],
    ) {
        let blocks = BLOCKS / UNITS;
        let mut parts = [[_mm256_setzero_ps(); TOGETHER]; COUNT];
        // SAFETY: codes, sums and scales are there for every group of every row.
        unsafe {
            let values = activations.codes.as_ptr().add(place * GROUP);
            let negated = activations.negated_sums.as_ptr().add(place * blocks);
            let mut codes = self.codes.as_ptr();
            for block in 0..blocks {
                let mut sums = [[_mm256_setzero_si256(); TOGETHER]; COUNT];
                for unit in block * UNITS..(block + 1) * UNITS {
                    add_unit::<COUNT, BITS>(codes, values, unit, &mut sums);
                    codes = codes.add(QUADS * BITS / 4);
                }
                let (scales, zeros) = (self.scales.get_unchecked(block), self.zeros.get_unchecked(block));
                for (r, (parts, sums)) in parts.iter_mut().zip(sums).enumerate() {
                    let negated = _mm256_set1_epi32(*negated.add(r * blocks + block));
                    for (index, (part, sum)) in parts.iter_mut().zip(sums).enumerate() {
                        let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(zeros[index], negated));
                        *part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales[index], *part);
                    }
                }
            }
            for (r, (parts, totals)) in parts.into_iter().zip(totals).enumerate() {
                let scale = _mm256_set1_ps(*activations.scales.get_unchecked(place + r));
                for (part, total) in parts.into_iter().zip(totals.as_chunks_mut::<LANES>().0) {
                    let sum = _mm256_fmadd_ps(part, scale, _mm256_loadu_ps(total.as_ptr()));
                    _mm256_storeu_ps(total.as_mut_ptr(), sum);
                }
            }
        }
    }
}

/// Adds code x activation over a unit.
///
/// # Safety
/// `codes` are those of the unit, `values` the group's activations of each of `COUNT` rows, one after the other.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_unit<const COUNT: usize, const BITS: usize>(
    codes: *const [__m256i; TOGETHER],
    values: *const i8,
    unit: usize,
    sums: &mut [[__m256i; TOGETHER]; COUNT],
) {
    for half in 0..BITS / 4 {
        // Eight times two products of at most 15 x 127 fit 16 bits.
        let mut found = [[_mm256_setzero_si256(); TOGETHER]; COUNT];
        for quad in 0..QUADS {
            let at =
                if BITS == 4 { quad / 4 * GROUP / 2 + unit * UNIT / 2 + quad % 4 * 4 } else { unit * UNIT + 4 * quad };
            // SAFETY: as the caller vouches.
            unsafe {
                let codes = *codes.add(half * QUADS + quad);
                for (r, found) in found.iter_mut().enumerate() {
                    let values = _mm256_set1_epi32(values.add(r * GROUP + at).cast::<i32>().read_unaligned());
                    for (found, codes) in found.iter_mut().zip(codes) {
                        *found = if quad == 0 {
                            _mm256_maddubs_epi16(codes, values)
                        } else {
                            add_products(*found, codes, values)
                        };
                    }
                }
            }
        }
        let weight = _mm256_set1_epi16(if half == 0 { 1 } else { 16 });
        for (sums, found) in sums.iter_mut().zip(found) {
            for (sum, found) in sums.iter_mut().zip(found) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(found, weight));
            }
        }
    }
}

/// `sum` and the products of codes and activations, two of them added up in each lane of 16 bits.
///
/// The compiler would add up in another order, and run out of registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products(mut sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
    // SAFETY: nothing but the registers that are named is touched.
    unsafe {
        asm!(
            "vpmaddubsw {products}, {codes}, {values}",
            "vpaddw {sum}, {sum}, {products}",
            products = out(ymm_reg) _,
            codes = in(ymm_reg) codes,
            values = in(ymm_reg) values,
            sum = inout(ymm_reg) sum,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
