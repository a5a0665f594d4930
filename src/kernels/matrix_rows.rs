//! Rows of a matrix that are worked on together.

use super::BlockMatrix;
use super::vector::prefetch;

/// As many rows of a matrix as a register has 32-bit lanes; past the matrix's end, the last row again.
pub(super) struct MatrixRows<'a, const LANES: usize> {
    pub(super) matrix: &'a BlockMatrix<'a>,
    pub(super) rows: [usize; LANES],
    pub(super) row_bytes: usize,
}

impl<'a, const LANES: usize> MatrixRows<'a, LANES> {
    /// The rows from `first` on.
    #[inline]
    pub(super) fn new(matrix: &'a BlockMatrix<'a>, first: usize) -> Self {
        let rows = std::array::from_fn(|lane| (first + lane).min(matrix.outputs - 1));
        Self { matrix, rows, row_bytes: matrix.row_bytes() }
    }

    /// Asks for a piece of what comes next in a tensor of `row_len` elements a row: the rows that follow these are fetched
    /// front to back while elements `at` to `at + count` of these are worked on.
    #[inline]
    pub(super) fn prefetch<T>(&self, tensor: *const T, row_len: usize, at: usize, count: usize) {
        let next = tensor.wrapping_add((self.rows[0] + LANES) * row_len + LANES * at).cast::<u8>();
        for line in (0..LANES * count * size_of::<T>()).step_by(64) {
            prefetch(next.wrapping_add(line));
        }
    }

    /// Asks for the packed zero points of the rows that follow these, `count` bytes of each from byte `at` on.
    #[inline]
    pub(super) fn prefetch_zero_points(&self, at: usize, count: usize) {
        if let Some(packed) = self.matrix.zero_points {
            self.prefetch(packed.as_ptr(), self.matrix.zero_point_bytes(), at, count);
        }
    }

    /// Four bytes of the packed zero points of each row, from byte `at` on; what lies past a row is of no meaning.
    #[inline]
    pub(super) fn zero_point_words(&self, at: usize) -> [u32; LANES] {
        let mut words = [0; LANES];
        for (word, row) in words.iter_mut().zip(self.rows) {
            *word = self.matrix.zero_point_word(row, at);
        }
        words
    }
}
