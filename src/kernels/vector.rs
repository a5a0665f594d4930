//! What kernels in float32 need of a register, so that they are written once for all instructions.

use half::f16;

use super::element::Element;

/// A register of float32 lanes.
///
/// The operations are compiled into whoever calls them, who must be compiled for the register's instructions: everything
/// between such a function and an operation is `#[inline(always)]`, and there is no closure between them.
///
/// # Safety
/// All operations ask for a processor with the register's instructions.
pub trait Vector: Copy {
    /// Lanes of the register.
    const LANES: usize;

    /// Queries that share what is loaded of keys and values; two registers of sums for each must be had.
    const QUERIES: usize;

    /// The lanes from `from` on.
    ///
    /// # Safety
    /// They are there.
    unsafe fn load(from: *const f32) -> Self;

    /// The float16 numbers from `from` on.
    ///
    /// # Safety
    /// They are there.
    unsafe fn load_half(from: *const f16) -> Self;

    /// Writes the lanes to `to` and on.
    ///
    /// # Safety
    /// There is room for them.
    unsafe fn store(self, to: *mut f32);

    /// Writes the lanes as the nearest float16 numbers to `to` and on, ties to even.
    ///
    /// # Safety
    /// There is room for them.
    unsafe fn store_half(self, to: *mut f16);

    /// The value in all lanes.
    unsafe fn splat(value: f32) -> Self;

    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;

    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;

    /// The larger of each lane.
    unsafe fn max(self, other: Self) -> Self;

    /// `self x factor + term`, rounded once.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;

    /// e^x for x <= 0, within 2 units in the last place.
    unsafe fn exponential(self) -> Self;

    /// The largest lane.
    unsafe fn largest(self) -> f32;

    /// The sum of the lanes.
    unsafe fn sum(self) -> f32;

    /// Transposes a square of lanes: of `count` rows, `stride` apart; those past them are 0. Rows of the result are
    /// `to_stride` apart.
    ///
    /// # Safety
    /// So many rows of lanes are there, and there is room for the square.
    unsafe fn turn<E: Element>(from: *const E, stride: usize, count: usize, to: *mut f32, to_stride: usize);
}

/// ln 2 in two parts, of which the first times a small whole number is exact: the splitting of Cody and Waite.
pub(super) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// Taylor's series of e^r, the highest power first: |r| <= ln 2 / 2, where the seventh term is below 2^-24.
pub(super) const POWERS: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// Asks for a line of memory, wherever it points, into the second-level cache.
#[inline]
pub(super) fn prefetch<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
