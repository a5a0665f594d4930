//! Codes to bfloat16 weights.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh,
    _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_permutexvar_epi32, _mm512_permutexvar_ps,
    _mm512_rorv_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_si512, _mm512_sub_ps,
    _mm512_ternarylogic_epi32,
};

use super::{DEPTH, Tile};
use crate::kernels::BlockMatrix;
use crate::kernels::avx512::{LANES, SixteenRows, transpose};

/// The lanes of outputs 0 to 7, and of 8 to 15, each twice.
const TWICE: [[i32; LANES]; 2] =
    [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7], [8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15]];

/// Makes tiles of the weights of 16 outputs from `first` on; the first holds the inputs from `start` tiles on.
///
/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
pub(super) unsafe fn fill(matrix: &BlockMatrix<'_>, first: usize, start: usize, tiles: &mut [Tile]) {
    match matrix.table.format.bits() {
        4 => fill_bits::<4>(matrix, first, start, tiles),
        _ => fill_bits::<8>(matrix, first, start, tiles),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
fn fill_bits<const BITS: usize>(matrix: &BlockMatrix<'_>, first: usize, start: usize, tiles: &mut [Tile]) {
    let weights = SixteenRows::new(matrix, first, LANES);
    // Tiles in 64 bytes of codes.
    let tiles_per_load = 64 * 8 / BITS / DEPTH;
    let twice = TWICE.map(|lanes| {
        // SAFETY: sixteen lanes are a register.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    });
    let block_of = |tile: usize| tile * DEPTH / matrix.table.format.block_size();
    weights.prefetch_codes(tiles.len() * DEPTH * BITS / 8, (start + tiles.len()) * DEPTH * BITS / 8);
    let (mut block, mut factors) = (usize::MAX, [(_mm512_setzero_ps(), _mm512_setzero_ps()); 2]);
    for (index, loaded) in tiles.chunks_mut(tiles_per_load).enumerate() {
        let tile = start + index * tiles_per_load;
        let mut codes: [__m512i; LANES] = std::array::from_fn(|lane| weights.codes(lane, tile * DEPTH * BITS / 8));
        transpose(&mut codes);
        for ((offset, target), codes) in loaded.iter_mut().enumerate().zip(codes.chunks_exact(DEPTH * BITS / 32)) {
            if block_of(tile + offset) != block {
                block = block_of(tile + offset);
                let (scale, zero) = (weights.table.scale(block), weights.table.zero::<BITS>(block));
                factors = twice.map(|lanes| line::<BITS>(scale, zero, lanes));
            }
            write_tile::<BITS>(codes, twice, factors, target);
        }
    }
}

/// What a code of the form that [`write_tile`] gives it is multiplied with, and what is added then.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
fn line<const BITS: usize>(scale: __m512, zero: __m512i, lanes: __m512i) -> (__m512, __m512) {
    let zero = _mm512_sub_ps(_mm512_set1_ps(-magic::<BITS>()), _mm512_cvtepi32_ps(zero));
    (_mm512_permutexvar_ps(lanes, scale), _mm512_permutexvar_ps(lanes, _mm512_mul_ps(zero, scale)))
}

/// A power of two of which the lowest bit of a code that stands in bits 16 (4 bits) or 15 (8 bits) of the mantissa is 1.
const fn magic<const BITS: usize>() -> f32 {
    if BITS == 4 { 128.0 } else { 256.0 }
}

/// Writes a tile from its codes, outputs across lanes: code -> magic + code -> weight -> bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
fn write_tile<const BITS: usize>(
    codes: &[__m512i],
    twice: [__m512i; 2],
    factors: [(__m512, __m512); 2],
    tile: &mut Tile,
) {
    let place = if BITS == 4 { 16 } else { 15 };
    let mask = _mm512_set1_epi32(((1 << BITS) - 1) << place);
    let magic = _mm512_castps_si512(_mm512_set1_ps(magic::<BITS>()));
    let pairs = 32 / (2 * BITS);
    for (codes, rows) in codes.iter().zip(tile.0.chunks_exact_mut(pairs)) {
        let halves = twice.map(|lanes| _mm512_permutexvar_epi32(lanes, *codes));
        for (pair, row) in rows.iter_mut().enumerate() {
            let first = (2 * BITS * pair) as i32 - place;
            let turns: [i32; LANES] = std::array::from_fn(|lane| first + (lane % 2 * BITS) as i32);
            // SAFETY: sixteen lanes are a register.
            let turns = unsafe { _mm512_loadu_si512(turns.as_ptr().cast()) };
            let mut weights = [_mm512_setzero_ps(); 2];
            for ((weights, codes), (scale, added)) in weights.iter_mut().zip(halves).zip(factors) {
                // (codes and mask) or magic.
                let found = _mm512_ternarylogic_epi32::<0xea>(_mm512_rorv_epi32(codes, turns), mask, magic);
                *weights = _mm512_fmadd_ps(_mm512_castsi512_ps(found), scale, added);
            }
            let rounded = _mm512_cvtne2ps_pbh(weights[1], weights[0]);
            // SAFETY: both are 64 bytes of plain numbers, and rows of a tile are aligned.
            unsafe { _mm512_store_si512(row.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(rounded)) };
        }
    }
}
