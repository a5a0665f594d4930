//! Registers of eight lanes.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

use std::arch::x86_64::{
    __m256, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_add_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_cvtps_ph,
    _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_round_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
};

use half::f16;

use super::{LANES, transpose};
use crate::kernels::element::Element;
use crate::kernels::vector::{LN_2, POWERS, Vector};

// SAFETY (all of them): as the trait says.
impl Vector for __m256 {
    const LANES: usize = LANES;
    const QUERIES: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16) {
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm256_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { _mm256_max_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, factor, term) }
    }

    #[inline(always)]
    unsafe fn exponential(self) -> Self {
        unsafe { exponential(self) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { lanes(self).into_iter().fold(f32::NEG_INFINITY, f32::max) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let lanes = lanes(self);
            let [a, b, c, d] = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
            (a + c) + (b + d)
        }
    }

    #[inline(always)]
    unsafe fn turn<E: Element>(from: *const E, stride: usize, count: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let mut square = [_mm256_setzero_si256(); LANES];
            for (lane, row) in square.iter_mut().enumerate().take(count) {
                *row = _mm256_castps_si256(E::load(from.add(lane * stride)));
            }
            transpose(&mut square);
            for (index, column) in square.into_iter().enumerate() {
                _mm256_storeu_ps(to.add(index * to_stride), _mm256_castsi256_ps(column));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn lanes(register: __m256) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: eight lanes fit.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), register) };
    lanes
}

/// e^x for x <= 0, within 2 units in the last place, 0 below e^-88: 2^n times a polynomial.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exponential(x: __m256) -> __m256 {
    // What is no number stays what it is: it is the second operand.
    let x = _mm256_max_ps(_mm256_set1_ps(-88.0), x);
    let n = _mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2[0]), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2[1]), r);
    let mut p = _mm256_set1_ps(POWERS[0]);
    for factor in &POWERS[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*factor));
    }
    // 2^n by its exponent; -127 gives 0.
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
}
