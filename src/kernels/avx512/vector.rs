//! Registers of sixteen lanes.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

use std::arch::x86_64::{
    __m512, _MM_FROUND_TO_NEAREST_INT, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_ps, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_ps, _mm512_sub_ps,
};

use half::f16;

use super::attention::exponential;
use super::{LANES, transpose};
use crate::kernels::element::Element;
use crate::kernels::vector::Vector;

// SAFETY (all of them): as the trait says.
impl Vector for __m512 {
    const LANES: usize = LANES;
    const QUERIES: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { _mm512_max_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factor, term) }
    }

    #[inline(always)]
    unsafe fn exponential(self) -> Self {
        unsafe { exponential(self) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self) }
    }

    #[inline(always)]
    unsafe fn turn<E: Element>(from: *const E, stride: usize, count: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let mut square = [_mm512_setzero_si512(); LANES];
            for (lane, row) in square.iter_mut().enumerate().take(count) {
                *row = _mm512_castps_si512(E::load(from.add(lane * stride)));
            }
            transpose(&mut square);
            for (index, column) in square.into_iter().enumerate() {
                _mm512_storeu_ps(to.add(index * to_stride), _mm512_castsi512_ps(column));
            }
        }
    }
}
