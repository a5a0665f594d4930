//! More than a few rows: the codes of a group become a panel, which all rows then share.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_and_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps,
};
use std::ops::Range;

use super::group::{QUADS, ROWS, Source, TOGETHER, WIDTH, results};
use super::{BLOCKS, EightRows, LANES, PaddedGroups, packed, transpose};
use crate::kernels::matrix::Codes;
use crate::kernels::matrix_rows::TableRows;
use crate::kernels::packed::from_output;
use crate::kernels::product::{parts_of_strip, write_totals};
use crate::kernels::{Activations, BlockMatrix, GROUP, STRIP};

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
        let mut weights = Weights::new(matrix, first);
        totals.clear();
        totals.resize(rows.len(), [0.0; WIDTH]);
        for group in 0..activations.groups {
            panel.fill::<BITS, UNITS>(&mut weights, group);
            // SAFETY: there are so many rows, as the caller vouches.
            unsafe { panel.add::<BITS, UNITS>(activations, group, rows.clone(), totals) };
        }
        // SAFETY: as the caller vouches.
        unsafe { write_totals(totals, added, rows.clone(), (first, matrix.table.outputs), out) };
    }
}

/// What panels of [`WIDTH`] outputs are made of.
struct Weights<'a> {
    codes: CodesOfPanel<'a>,
    table: [TableRows<'a, LANES>; TOGETHER],
}

enum CodesOfPanel<'a> {
    /// Those of the rows, and room for a group that is not whole.
    Rows(Box<([EightRows<'a>; TOGETHER], PaddedGroups)>),
    /// Packed, those of the outputs first.
    Packed(&'a [u8]),
}

impl<'a> Weights<'a> {
    /// Those of the outputs from `first` on.
    fn new(matrix: &BlockMatrix<'a>, first: usize) -> Self {
        let firsts = [first, first + LANES];
        let codes = match matrix.codes {
            Codes::Packed(codes) => CodesOfPanel::Packed(from_output(codes, matrix.table, first)),
            Codes::Rows(_) => {
                let rows = firsts.map(|first| EightRows::new(matrix, first, WIDTH));
                CodesOfPanel::Rows(Box::new((rows, [[0; GROUP]; LANES])))
            }
        };
        Self { codes, table: firsts.map(|first| TableRows::new(matrix.table, first)) }
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

    /// Takes a group of a matrix.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fill<const BITS: usize, const UNITS: usize>(&mut self, weights: &mut Weights<'_>, group: usize) {
        let blocks = BLOCKS / UNITS;
        match &mut weights.codes {
            CodesOfPanel::Rows(rows) => self.transpose::<BITS>(&rows.0, group, &mut rows.1),
            CodesOfPanel::Packed(codes) => {
                let codes = packed::group_of::<BITS>(codes, group);
                for (part, places) in self.codes.chunks_exact_mut(QUADS).enumerate().take(BLOCKS * BITS / 4) {
                    let (unit, half) = (part / (BITS / 4), part % (BITS / 4));
                    for (quad, place) in places.iter_mut().enumerate() {
                        // SAFETY: a group's codes are there.
                        *place = unsafe { packed::codes_of::<BITS>(codes, unit, half, quad) };
                    }
                }
            }
        }
        for (index, table) in weights.table.iter().enumerate() {
            table.prefetch(group * blocks, WIDTH);
            for (block, (scales, zeros)) in self.scales.iter_mut().zip(&mut self.zeros).enumerate().take(blocks) {
                let block = group * blocks + block;
                (scales[index], zeros[index]) = (table.scale(block), table.zero::<BITS>(block));
            }
        }
    }

    /// Takes the codes of a group of rows; `padded` holds zeros.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn transpose<const BITS: usize>(
        &mut self,
        rows: &[EightRows<'_>; TOGETHER],
        group: usize,
        padded: &mut PaddedGroups,
    ) {
        let (low, at) = (_mm256_set1_epi8(15), group * GROUP * BITS / 8);
        for rows in rows {
            rows.prefetch(at, GROUP * BITS / 8);
        }
        let (places, _) = self.codes.as_chunks_mut::<{ 2 * LANES }>();
        for (index, rows) in rows.iter().enumerate() {
            let codes = rows.group::<BITS>(at, padded);
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
        // SAFETY: as the caller vouches.
        unsafe {
            let parts = results::<COUNT, BITS, UNITS>(self, activations, place);
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

impl<const BITS: usize> Source<BITS> for Panel {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn codes(&self, unit: usize, half: usize, quad: usize) -> [__m256i; TOGETHER] {
        // SAFETY: as the caller vouches.
        unsafe { *self.codes.get_unchecked((unit * BITS / 4 + half) * QUADS + quad) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn scales(&self, block: usize) -> [__m256; TOGETHER] {
        // SAFETY: as the caller vouches.
        unsafe { *self.scales.get_unchecked(block) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn zeros(&self, block: usize) -> [__m256i; TOGETHER] {
        // SAFETY: as the caller vouches.
        unsafe { *self.zeros.get_unchecked(block) }
    }
}
