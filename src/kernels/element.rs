//! What attention's inputs, results and cache are made of; all is computed in float32.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::vector::Vector;

/// A floating-point number, float32 or float16.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Elements of a line of the caches, 64 bytes.
    const LINE: usize = 64 / size_of::<Self>();

    /// Converts elements to float32, which is exact. Both slices have one length.
    fn widen(from: &[Self], to: &mut [f32]);

    /// Converts float32 numbers to the nearest elements. Both slices have one length.
    fn narrow(from: &[f32], to: &mut [Self]);

    /// The elements from `from` on as the lanes of a register.
    ///
    /// # Safety
    /// They are there, and the processor has the register's instructions.
    unsafe fn load<V: Vector>(from: *const Self) -> V;

    /// Writes the lanes of a register as the nearest elements to `to` and on.
    ///
    /// # Safety
    /// There is room for them, and the processor has the register's instructions.
    unsafe fn store<V: Vector>(lanes: V, to: *mut Self);
}

impl Element for f32 {
    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(lanes: V, to: *mut Self) {
        // SAFETY: as the caller vouches.
        unsafe { lanes.store(to) }
    }
}

impl Element for f16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load_half(from) }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(lanes: V, to: *mut Self) {
        // SAFETY: as the caller vouches.
        unsafe { lanes.store_half(to) }
    }
}
