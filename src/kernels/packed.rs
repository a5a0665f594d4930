//! Codes in the order in which kernels for sixteen outputs read them.

use std::io;

use memmap2::MmapMut;

use super::product::Shared;
use super::{BlockMatrix, BlockTable, GROUP, Tasks};

/// Outputs side by side.
pub(super) const SIDE: usize = 16;

/// Bytes of an output that stay together.
pub(super) const QUAD: usize = 4;

/// Bytes of an output that are moved at a time.
const PIECE: usize = 128;

/// Bytes of a huge page on most systems.
const HUGE_PAGE: usize = 2 << 20;

/// A copy of the codes of a matrix: of sixteen outputs the first four bytes each, then the next four, and so on.
///
/// A kernel reads it front to back and finds in a register what belongs to eight outputs; it lies in huge pages where the system
/// has some. Whole groups of whole sixteens of outputs: the rest is zeros.
#[derive(Debug)]
pub struct PackedCodes {
    /// `[sixteens of outputs, groups x bytes of a group / QUAD, SIDE, QUAD]` from `start` on.
    memory: MmapMut,
    start: usize,
    size: usize,
}

impl PackedCodes {
    /// Memory for the codes of a matrix with this table, all zeros.
    ///
    /// # Errors
    /// When the system has no memory.
    pub fn zeroed(table: &BlockTable) -> io::Result<Self> {
        let size = size(table);
        let memory = MmapMut::map_anon(size + HUGE_PAGE)?;
        let start = memory.as_ptr().align_offset(HUGE_PAGE);
        // A system without huge pages says so, and does without.
        #[cfg(target_os = "linux")]
        let _ = memory.advise_range(memmap2::Advice::HugePage, start, size / HUGE_PAGE * HUGE_PAGE);
        Ok(Self { memory, start, size })
    }

    /// Takes the codes of the matrix that the memory was asked for.
    ///
    /// # Errors
    /// What `tasks` says.
    ///
    /// # Panics
    /// When the matrix is another, or packed.
    pub fn fill<T: Tasks>(&mut self, matrix: &BlockMatrix<'_>, tasks: &T) -> Result<(), T::Error> {
        let (codes, row_bytes, side_bytes) = (matrix.rows(), matrix.row_bytes(), side_bytes(matrix.table));
        assert_eq!(self.size, size(matrix.table), "a matrix of another size");
        let packed = Shared::new(&mut self.memory[self.start..][..self.size]);
        tasks.run(matrix.table.outputs.div_ceil(SIDE), &|task| {
            // SAFETY: each task has sixteen outputs to itself.
            let packed = unsafe { packed.part(task * side_bytes, side_bytes) };
            let codes = &codes[task * SIDE * row_bytes..];
            // A piece of each of the outputs at a time: the part that is written to stays in the nearest cache.
            for (piece, packed) in packed.chunks_mut(SIDE * PIECE).enumerate() {
                for (lane, row) in codes.chunks_exact(row_bytes).take(SIDE).enumerate() {
                    let row = &row[(piece * PIECE).min(row_bytes)..row_bytes.min((piece + 1) * PIECE)];
                    let (packed, _) = packed.as_chunks_mut::<{ SIDE * QUAD }>();
                    // A block has at least sixteen bytes.
                    for (quad, packed) in row.as_chunks::<QUAD>().0.iter().zip(packed) {
                        packed[lane * QUAD..][..QUAD].copy_from_slice(quad);
                    }
                }
            }
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.size]
    }
}

/// Bytes of the packed codes of a matrix.
pub(super) fn size(table: &BlockTable) -> usize {
    table.outputs.div_ceil(SIDE) * side_bytes(table)
}

/// Bytes of sixteen outputs.
fn side_bytes(table: &BlockTable) -> usize {
    SIDE * table.inputs.div_ceil(GROUP) * table.format.group_bytes()
}

/// The packed codes from output `first` on, which begins sixteen of them.
#[cfg(target_arch = "x86_64")]
pub(super) fn from_output<'a>(codes: &'a [u8], table: &BlockTable, first: usize) -> &'a [u8] {
    &codes[first / SIDE * side_bytes(table)..]
}

/// Where byte `index` of the codes of an output stands.
pub(super) fn place(table: &BlockTable, output: usize, index: usize) -> usize {
    output / SIDE * side_bytes(table) + (index / QUAD * SIDE + output % SIDE) * QUAD + index % QUAD
}
