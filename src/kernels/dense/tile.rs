//! Sums of some rows and outputs, in registers.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

use crate::kernels::element::Element;
use crate::kernels::vector::{Vector, prefetch};

/// Rows whose sums are in registers together.
pub(super) const TOGETHER: usize = 6;

/// Some rows' values for at most `DEPTH` inputs, `[rows, DEPTH]`, what they are multiplied by, and where the sums are.
#[derive(Clone, Copy)]
pub(super) struct Tile<E, const DEPTH: usize> {
    pub(super) values: *const f32,
    pub(super) weights: *const E,
    pub(super) weights_stride: usize,
    pub(super) depth: usize,
    pub(super) totals: *mut f32,
    pub(super) totals_stride: usize,
    /// Whether to ask memory for the weights of as many inputs behind these, which are next.
    pub(super) asks_ahead: bool,
}

impl<E: Element, const DEPTH: usize> Tile<E, DEPTH> {
    /// The same values with a panel and other sums.
    pub(super) fn of(self, panel: *const f32, weights_stride: usize, totals: *mut f32) -> Tile<f32, DEPTH> {
        let Self { values, depth, totals_stride, .. } = self;
        Tile { values, weights: panel, weights_stride, depth, totals, totals_stride, asks_ahead: false }
    }

    /// Adds to the sums of so many rows and outputs: whole registers.
    ///
    /// # Safety
    /// As [`super::Dense::run`]; all that the tile names is there.
    #[inline(always)]
    pub(super) unsafe fn across<V: Vector>(self, rows: usize, width: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            match rows {
                1 => self.across_by::<V, 1, 8>(width),
                2 => self.across_by::<V, 2, 4>(width),
                3 => self.across_by::<V, 3, 4>(width),
                4 => self.across_by::<V, 4, 2>(width),
                5 => self.across_by::<V, 5, 2>(width),
                TOGETHER => self.across_by::<V, TOGETHER, 2>(width),
                more => unreachable!("{more} rows are more than are worked on together"),
            }
        }
    }

    /// As [`Self::across`] for `R` rows, by `A` registers.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn across_by<V: Vector, const R: usize, const A: usize>(self, width: usize) {
        let mut first = 0;
        // SAFETY: as the caller vouches.
        unsafe {
            while first + A * V::LANES <= width {
                self.add_asking::<V, R, A>(first);
                first += A * V::LANES;
            }
            while first < width {
                self.add_asking::<V, R, 1>(first);
                first += V::LANES;
            }
        }
    }

    /// As [`Self::add`], which asks memory for what is next where there is something.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn add_asking<V: Vector, const R: usize, const A: usize>(self, first: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            if self.asks_ahead {
                self.add::<V, R, A, true>(first);
            } else {
                self.add::<V, R, A, false>(first);
            }
        }
    }

    /// Adds to the sums of `R` rows and `A` registers of outputs from `first` on.
    ///
    /// # Safety
    /// As [`Self::across`].
    #[inline(always)]
    unsafe fn add<V: Vector, const R: usize, const A: usize, const ASKS: bool>(self, first: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            let totals = self.totals.add(first);
            let mut sums = [[V::splat(0.0); A]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (a, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(totals.add(r * self.totals_stride + a * V::LANES));
                }
            }
            let mut weights = self.weights.add(first);
            for input in 0..self.depth {
                if ASKS {
                    for line in (0..A * V::LANES).step_by(E::LINE) {
                        prefetch(weights.wrapping_add(self.depth * self.weights_stride + line));
                    }
                }
                self.add_input::<V, R, A>(input, weights, &mut sums);
                weights = weights.wrapping_add(self.weights_stride);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (a, sum) in sums.into_iter().enumerate() {
                    sum.store(totals.add(r * self.totals_stride + a * V::LANES));
                }
            }
        }
    }

    /// Adds the products of one input. What is used again next is kept in registers, of which there are 16.
    ///
    /// # Safety
    /// As [`Self::across`].
    #[inline(always)]
    unsafe fn add_input<V: Vector, const R: usize, const A: usize>(
        self,
        input: usize,
        weights: *const E,
        sums: &mut [[V; A]; R],
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            if R < A {
                let mut values = [V::splat(0.0); R];
                for (r, value) in values.iter_mut().enumerate() {
                    *value = V::splat(*self.values.add(r * DEPTH + input));
                }
                for a in 0..A {
                    let weights = E::load::<V>(weights.add(a * V::LANES));
                    for (sums, value) in sums.iter_mut().zip(values) {
                        sums[a] = value.mul_add(weights, sums[a]);
                    }
                }
            } else {
                let mut found = [V::splat(0.0); A];
                for (a, found) in found.iter_mut().enumerate() {
                    *found = E::load(weights.add(a * V::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*self.values.add(r * DEPTH + input));
                    for (sum, weights) in sums.iter_mut().zip(found) {
                        *sum = value.mul_add(weights, *sum);
                    }
                }
            }
        }
    }
}
