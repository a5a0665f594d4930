//! Kernels for processors with AVX2, which have no instruction that adds up four products of bytes.
//!
//! Codes are taken as unsigned numbers of 4 bits (those of 8 bits as two such numbers) and activations as signed bytes: the
//! products of a few dozen inputs then fit 16 bits, and are widened only once for all of them. [`packed`] serves few rows where
//! codes are packed; where they are not, [`dot`] adds up along the inputs. [`panel`] serves more rows: it keeps the codes of a
//! group such that a register holds those of eight outputs. The integers and the order in which scales are applied are the
//! same, and those of the kernels for AVX-512, and so are the results.

mod dot;
mod group;
mod packed;
mod panel;
mod quantise;
mod vector;

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepu8_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srlv_epi32, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};
use std::ops::Range;

use super::chunk::{self, Lines};
use super::dense::{self, Dense};
use super::element::Element;
use super::matrix::Codes;
use super::matrix_rows::{MatrixRows, TableRows};
use super::product::Shared;
use super::table::{LEFT_OUT, SET, Scales};
use super::{Activations, BlockMatrix, GROUP, STRIP};

pub(super) use quantise::quantise;

/// 32-bit lanes of a register.
const LANES: usize = 8;

/// Inputs whose products are added up in 16 bits: the smallest block.
const UNIT: usize = 32;

/// Units of a group, which is the most blocks it has.
const BLOCKS: usize = GROUP / UNIT;

/// Fewest rows that are worth a panel.
const PANEL_ROWS: usize = 5;

/// The same where codes are packed.
const PACKED_PANEL_ROWS: usize = 9;

/// Whether this processor can run the kernels.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch(panel::Scratch);

/// Computes [`STRIP`] outputs from `first` for some rows; `added` is the bias.
///
/// # Safety
/// The processor has what [`available`] asks for. `out` is `[activations.rows, matrix.table.outputs]`, and nothing else touches
/// this part of it meanwhile.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn strip(
    activations: &Activations,
    rows: Range<usize>,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; STRIP],
    out: *mut f32,
    scratch: &mut Scratch,
) {
    match (matrix.table.format.bits(), matrix.table.format.block_size() / UNIT) {
        // SAFETY: as the caller vouches.
        (4, 1) => unsafe { strip_of::<4, 1>(activations, rows, matrix, first, added, out, scratch) },
        (4, 2) => unsafe { strip_of::<4, 2>(activations, rows, matrix, first, added, out, scratch) },
        (4, _) => unsafe { strip_of::<4, 4>(activations, rows, matrix, first, added, out, scratch) },
        _ => unsafe { strip_of::<8, 4>(activations, rows, matrix, first, added, out, scratch) },
    }
}

/// As [`strip`]. `UNITS`: units of inputs in a block.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma")]
unsafe fn strip_of<const BITS: usize, const UNITS: usize>(
    activations: &Activations,
    rows: Range<usize>,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; STRIP],
    out: *mut f32,
    scratch: &mut Scratch,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        match matrix.codes {
            Codes::Rows(_) if rows.len() < PANEL_ROWS => {
                dot::strip::<BITS, UNITS>(activations, rows, matrix, first, added, out);
            }
            Codes::Packed(codes) if rows.len() < PACKED_PANEL_ROWS => {
                packed::strip::<BITS, UNITS>(activations, rows, matrix, codes, first, added, out);
            }
            _ => panel::strip::<BITS, UNITS>(activations, rows, matrix, first, added, out, &mut scratch.0),
        }
    }
}

/// As [`chunk::attend`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn attend<E: Element>(
    lines: Lines<'_>,
    cached: (*const E, *const E),
    size: usize,
    scratch: &mut chunk::Scratch,
) {
    // SAFETY: as the caller vouches.
    unsafe { chunk::attend::<__m256, E>(lines, cached, size, scratch) };
}

/// As [`Dense::run`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn multiply<E: Element>(
    dense: &Dense<'_, E>,
    task: usize,
    out: &Shared<E>,
    scratch: &mut dense::Scratch,
) {
    // SAFETY: as the caller vouches.
    unsafe { dense.run::<__m256>(task, out, scratch) };
}

/// Room for a group's codes of eight rows.
type PaddedGroups = [[u8; GROUP]; LANES];

/// Eight rows of a matrix.
type EightRows<'a> = MatrixRows<'a, LANES>;

impl EightRows<'_> {
    /// Where the codes of each row's group begin, which is at byte `at`. Those of a group that is not whole are copied to
    /// `padded`, which holds zeros before.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn group<const BITS: usize>(&self, at: usize, padded: &mut PaddedGroups) -> [*const u8; LANES] {
        let mut group = self.codes.map(|codes| codes.as_ptr().wrapping_add(at));
        if at + GROUP * BITS / 8 > self.codes[0].len() {
            for ((group, padded), codes) in group.iter_mut().zip(padded).zip(self.codes) {
                padded[..codes.len() - at].copy_from_slice(&codes[at..]);
                *group = padded.as_ptr();
            }
        }
        group
    }
}

impl TableRows<'_, LANES> {
    /// Scales of the rows in a block.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn scale(&self, block: usize) -> __m256 {
        let place = (self.first_block + block) * SET;
        // SAFETY: the table has the rows' set and whole groups of blocks.
        unsafe {
            match &self.table.scales {
                Scales::Whole(scales) => _mm256_loadu_ps(scales.as_ptr().add(place)),
                Scales::Short { codes, firsts } => {
                    let codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().add(place).cast()));
                    let first = firsts.as_ptr().add(self.set);
                    let steps = _mm256_slli_epi32::<{ LEFT_OUT as i32 }>(codes);
                    _mm256_castsi256_ps(_mm256_add_epi32(steps, _mm256_loadu_si256(first.cast())))
                }
            }
        }
    }

    /// Zero points of the rows in a block, 32 bits each.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn zero<const BITS: usize>(&self, block: usize) -> __m256i {
        let place = (self.first_block + block) * SET * BITS / 8;
        // SAFETY: as for the scales.
        unsafe {
            let packed = self.table.zero_points.as_ptr().add(place);
            if BITS == 4 {
                let words = _mm256_set1_epi32(packed.cast::<i32>().read_unaligned());
                let shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
                _mm256_and_si256(_mm256_srlv_epi32(words, shifts), _mm256_set1_epi32(15))
            } else {
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(packed.cast()))
            }
        }
    }
}

/// Transposes 8 x 8 doublewords.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose(rows: &mut [__m256i; LANES]) {
    let mut pairs = [_mm256_setzero_si256(); LANES];
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Half H of rows[4i + j] then holds column 4H + j of rows 4i to 4i + 3.
    for i in 0..2 {
        rows[4 * i] = _mm256_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
        rows[4 * i + 1] = _mm256_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
        rows[4 * i + 2] = _mm256_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        rows[4 * i + 3] = _mm256_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    for j in 0..4 {
        pairs[j] = _mm256_permute2x128_si256::<0x20>(rows[j], rows[4 + j]);
        pairs[4 + j] = _mm256_permute2x128_si256::<0x31>(rows[j], rows[4 + j]);
    }
    *rows = pairs;
}
