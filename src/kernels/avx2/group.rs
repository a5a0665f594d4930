//! Sums over a group for sixteen outputs, whose codes come four inputs of eight outputs at a time.

use std::arch::asm;
use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
};

use super::{BLOCKS, LANES, UNIT};
use crate::kernels::{Activations, GROUP};

/// Registers side by side.
pub(super) const TOGETHER: usize = 2;

/// Outputs that are worked on together.
pub(super) const WIDTH: usize = TOGETHER * LANES;

/// Rows that are worked on together: their sums are in registers.
pub(super) const ROWS: usize = 4;

/// Doublewords of a unit: each has four inputs of an output.
pub(super) const QUADS: usize = UNIT / 4;

/// Where the codes of a group come from, and what belongs to its blocks.
///
/// # Safety
/// The operations ask for a processor with AVX2, and places that a group has.
pub(super) trait Source<const BITS: usize> {
    /// Codes of 4 bits as unsigned bytes: doubleword `quad` of a unit, with codes of 8 bits their lower halves or their upper.
    unsafe fn codes(&self, unit: usize, half: usize, quad: usize) -> [__m256i; TOGETHER];

    /// Scales of a block.
    unsafe fn scales(&self, block: usize) -> [__m256; TOGETHER];

    /// Zero points of a block, 32 bits each.
    unsafe fn zeros(&self, block: usize) -> [__m256i; TOGETHER];
}

/// Results of a group for `COUNT` rows, without the scales of their activations, of which the first row's are at `place`.
///
/// # Safety
/// As [`Source`] says; the activations have the rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn results<const COUNT: usize, const BITS: usize, const UNITS: usize>(
    source: &impl Source<BITS>,
    activations: &Activations,
    place: usize,
) -> [[__m256; TOGETHER]; COUNT] {
    let blocks = BLOCKS / UNITS;
    let mut parts = [[_mm256_setzero_ps(); TOGETHER]; COUNT];
    // SAFETY: codes and sums are there for every group of every row.
    unsafe {
        let values = activations.codes.as_ptr().add(place * GROUP);
        let negated = activations.negated_sums.as_ptr().add(place * blocks);
        for block in 0..blocks {
            let mut sums = [[_mm256_setzero_si256(); TOGETHER]; COUNT];
            for unit in block * UNITS..(block + 1) * UNITS {
                add_unit::<COUNT, BITS>(source, values, unit, &mut sums);
            }
            let (scales, zeros) = (source.scales(block), source.zeros(block));
            for (r, (parts, sums)) in parts.iter_mut().zip(sums).enumerate() {
                let negated = _mm256_set1_epi32(*negated.add(r * blocks + block));
                for (index, (part, sum)) in parts.iter_mut().zip(sums).enumerate() {
                    let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(zeros[index], negated));
                    *part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales[index], *part);
                }
            }
        }
    }
    parts
}

/// Adds code x activation over a unit.
///
/// # Safety
/// As [`results`]; `values` are the group's activations of each of `COUNT` rows, one after the other.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_unit<const COUNT: usize, const BITS: usize>(
    source: &impl Source<BITS>,
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
                let codes = source.codes(unit, half, quad);
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
