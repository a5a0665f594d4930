//! Rows of a matrix that are worked on together.

use super::table::{SET, Scales};
use super::vector::prefetch;
use super::{BlockMatrix, BlockTable};

/// As many rows of a matrix as a register has 32-bit lanes; past the matrix's end, the last row again.
pub(super) struct MatrixRows<'a, const LANES: usize> {
    pub(super) table: TableRows<'a, LANES>,
    /// Where the codes of each row begin.
    pub(super) codes: [&'a [u8]; LANES],
    /// Where the codes of those begin that are worked on next.
    next: *const u8,
}

impl<'a, const LANES: usize> MatrixRows<'a, LANES> {
    /// The rows from `first` on, a multiple of the lanes; those that are worked on next are `ahead` of them.
    ///
    /// # Panics
    /// When the matrix is packed.
    #[inline]
    pub(super) fn new(matrix: &BlockMatrix<'a>, first: usize, ahead: usize) -> Self {
        let (codes, row_bytes) = (matrix.rows(), matrix.row_bytes());
        let row = |lane: usize| &codes[(first + lane).min(matrix.table.outputs - 1) * row_bytes..][..row_bytes];
        Self {
            table: TableRows::new(matrix.table, first),
            codes: std::array::from_fn(row),
            next: codes.as_ptr().wrapping_add((first + ahead) * row_bytes),
        }
    }

    /// Asks for a piece of what comes next: the codes of the next rows are fetched front to back while `count`
    /// bytes of these, from byte `at` on, are worked on.
    #[inline]
    pub(super) fn prefetch(&self, at: usize, count: usize) {
        for line in (0..LANES * count).step_by(64) {
            prefetch(self.next.wrapping_add(LANES * at + line));
        }
    }
}

/// What a table has for as many rows of a matrix as a register has 32-bit lanes; past the matrix's end, for the last ones.
pub(super) struct TableRows<'a, const LANES: usize> {
    pub(super) table: &'a BlockTable,
    /// First output of the rows' sets in the table.
    pub(super) set: usize,
    /// Where the sets begin in the table, counted in blocks of a set.
    pub(super) first_block: usize,
}

impl<'a, const LANES: usize> TableRows<'a, LANES> {
    /// Those of the rows from `first` on, a multiple of the lanes.
    #[inline]
    pub(super) fn new(table: &'a BlockTable, first: usize) -> Self {
        debug_assert!(first.is_multiple_of(LANES), "rows are those of whole sets");
        let set = first.min((table.outputs - 1) / LANES * LANES);
        Self { table, set, first_block: set / SET * table.blocks }
    }

    /// Asks for what belongs to a group of blocks of the rows that are `ahead` of these, from `block` on. A processor does so
    /// itself where rows follow one another without a gap.
    #[inline]
    pub(super) fn prefetch(&self, block: usize, ahead: usize) {
        let place = (self.first_block + block) * SET + ahead * self.table.blocks;
        match &self.table.scales {
            Scales::Whole(scales) => {
                let values = scales.as_ptr().wrapping_add(place);
                prefetch(values);
                prefetch(values.wrapping_add(2 * SET));
            }
            Scales::Short { codes, .. } => prefetch(codes.as_ptr().wrapping_add(place)),
        }
        prefetch(self.table.zero_points.as_ptr().wrapping_add(place * self.table.format.bits() / 8));
    }
}
