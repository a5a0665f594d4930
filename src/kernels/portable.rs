//! The same results without special instructions: what the fast kernels are tested against.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

use half::f16;

use super::activations::{GroupMut, negated, step};
use super::element::Element;
use super::vector::Vector;
use super::{Activations, BlockFormat, BlockMatrix, GROUP};

/// Rounds up to [`GROUP`] values; see [`Activations`].
pub(super) fn quantise(values: &[f32], format: BlockFormat, group: &mut GroupMut<'_>) {
    let flipped = group.code_form.flipped_bits();
    group.codes.fill(flipped);
    let largest = values.iter().fold(0.0, |largest: f32, value| value.abs().max(largest));
    let (scale, inverse) = step(largest, values.iter().any(|value| value.is_nan()));
    *group.scale = scale;
    let mut sums = [0; GROUP / 32];
    for (index, value) in values.iter().enumerate() {
        let code = (value * inverse).round_ties_even() as i8;
        group.codes[format.activation_at(index)] = code ^ flipped;
        sums[index / format.block_size()] += i32::from(code);
    }
    for (kept, sum) in group.negated_sums.iter_mut().zip(sums) {
        *kept = negated(sum);
    }
}

/// One output of one row.
pub(super) fn output(activations: &Activations, row: usize, matrix: &BlockMatrix<'_>, output: usize) -> f32 {
    let format = matrix.table.format;
    let blocks = matrix.blocks();
    let mut total = 0.0;
    for group in 0..activations.groups {
        let mut part = 0.0;
        let first = group * format.blocks_per_group();
        for block in first..(first + format.blocks_per_group()).min(blocks) {
            let mut sum = 0;
            for input in (block * format.block_size()..).take(format.block_size()) {
                let (byte, shift) = format.code_at(input % GROUP);
                let mask = (1 << format.bits()) - 1;
                let code = matrix.code_byte(output, group * format.group_bytes() + byte);
                let code = i32::from(code) >> shift & mask;
                let at = activations.place(group, row) * GROUP + format.activation_at(input % GROUP);
                sum += (code - matrix.table.zero_point(output, block))
                    * i32::from(activations.codes[at] ^ activations.code_form.flipped_bits());
            }
            part = (sum as f32).mul_add(matrix.table.scale(output, block), part);
        }
        total = f32::mul_add(part, activations.scales[activations.place(group, row)], total);
    }
    total
}

// SAFETY (all of them): as the trait says.
impl Vector for f32 {
    const LANES: usize = 1;
    const QUERIES: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { *from }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        unsafe { *from }.to_f32()
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { *to = self }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16) {
        unsafe { *to = f16::from_f32(self) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        f32::max(self, other)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        f32::mul_add(self, factor, term)
    }

    #[inline(always)]
    unsafe fn exponential(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn turn<E: Element>(from: *const E, _stride: usize, count: usize, to: *mut f32, _to_stride: usize) {
        unsafe { *to = if count > 0 { E::load(from) } else { 0.0 } };
    }
}
