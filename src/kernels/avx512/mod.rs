//! Kernels for processors with AVX-512 VNNI.
//!
//! [`dot`] serves few rows: it reads the codes as they lie and adds up along the inputs. [`gemm`] serves many: it turns the
//! codes of a strip of outputs into a panel once and uses it for all rows. Both find the same integers and apply scales in
//! the same order, so their results are equal.

mod attention;
mod dot;
mod gemm;
mod quantise;
mod vector;

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadl_epi64, _mm_unpacklo_epi64, _mm256_castps_pd, _mm256_loadu_ps, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps256_ps512, _mm512_castsi512_ps,
    _mm512_cvtepu8_epi32, _mm512_insertf64x4, _mm512_loadu_si512, _mm512_mask_set1_epi32, _mm512_maskz_loadu_epi8,
    _mm512_set1_epi32, _mm512_setr_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32,
    _mm512_srlv_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::ops::Range;

use super::activations::CodeForm;
use super::chunk::{self, Lines};
use super::dense::{self, Dense};
use super::element::Element;
use super::matrix_rows::{MatrixRows, TableRows};
use super::product::{Shared, parts_of_strip};
use super::table::{LEFT_OUT, SET, Scales};
use super::vector::prefetch;
use super::{Activations, BlockMatrix, FEW_ROWS, STRIP};

pub(super) use attention::{Scratch as AttentionScratch, attention};
pub(super) use quantise::quantise;

/// 32-bit lanes of a register.
pub(super) const LANES: usize = 16;

/// Whether this processor can run the kernels.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// The form of codes that so many rows are multiplied in; see [`strip`].
pub(super) fn code_form(rows: usize) -> CodeForm {
    if rows > FEW_ROWS { CodeForm::Unsigned } else { CodeForm::Signed }
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch(gemm::Scratch);

/// Computes [`STRIP`] outputs from `first` for some rows; `added` is the bias.
///
/// # Safety
/// The processor has what [`available`] asks for. `out` is `[activations.rows, matrix.table.outputs]`, and nothing else touches
/// this part of it meanwhile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn strip(
    activations: &Activations,
    rows: Range<usize>,
    matrix: &BlockMatrix<'_>,
    first: usize,
    added: &[f32; STRIP],
    out: *mut f32,
    scratch: &mut Scratch,
) {
    let lanes_per_block = LANES * matrix.table.format.block_size() / super::GROUP;
    if activations.code_form == CodeForm::Unsigned {
        // SAFETY: as the caller vouches.
        return unsafe {
            match (matrix.table.format.bits(), lanes_per_block) {
                (4, 4) => gemm::strip::<4, 4>(activations, rows, matrix, first, added, out, &mut scratch.0),
                (4, 8) => gemm::strip::<4, 8>(activations, rows, matrix, first, added, out, &mut scratch.0),
                (4, _) => gemm::strip::<4, 16>(activations, rows, matrix, first, added, out, &mut scratch.0),
                _ => gemm::strip::<8, 16>(activations, rows, matrix, first, added, out, &mut scratch.0),
            }
        };
    }
    for (first, added) in parts_of_strip(first, matrix.table.outputs, added) {
        // SAFETY: as the caller vouches.
        unsafe {
            match (matrix.table.format.bits(), lanes_per_block) {
                (4, 4) => dot::outputs::<4, 4>(activations, rows.clone(), matrix, first, added, out),
                (4, 8) => dot::outputs::<4, 8>(activations, rows.clone(), matrix, first, added, out),
                (4, _) => dot::outputs::<4, 16>(activations, rows.clone(), matrix, first, added, out),
                _ => dot::outputs::<8, 16>(activations, rows.clone(), matrix, first, added, out),
            }
        }
    }
}

/// As [`chunk::attend`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn attend<E: Element>(
    lines: Lines<'_>,
    cached: (*const E, *const E),
    size: usize,
    scratch: &mut chunk::Scratch,
) {
    // SAFETY: as the caller vouches.
    unsafe { chunk::attend::<__m512, E>(lines, cached, size, scratch) };
}

/// As [`Dense::run`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<E: Element>(
    dense: &Dense<'_, E>,
    task: usize,
    out: &Shared<E>,
    scratch: &mut dense::Scratch,
) {
    // SAFETY: as the caller vouches.
    unsafe { dense.run::<__m512>(task, out, scratch) };
}

/// Sixteen rows of a matrix.
pub(super) type SixteenRows<'a> = MatrixRows<'a, LANES>;

impl SixteenRows<'_> {
    /// 64 bytes of the codes of one of the rows, from byte `at` on; zeros past its end.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn codes(&self, lane: usize, at: usize) -> __m512i {
        let left = self.codes[lane].len() - at;
        // SAFETY: so many bytes are left. A masked load does not touch what its mask leaves out.
        unsafe {
            let codes = self.codes[lane].as_ptr().add(at);
            if left >= 64 {
                _mm512_loadu_si512(codes.cast())
            } else {
                _mm512_maskz_loadu_epi8((1 << left) - 1, codes.cast())
            }
        }
    }

    /// Asks for `count` bytes of the codes of each row, from byte `at` on; past the row's end for what another row holds.
    #[inline]
    pub(super) fn prefetch_codes(&self, count: usize, at: usize) {
        for codes in self.codes {
            for line in (0..count).step_by(64) {
                prefetch(codes.as_ptr().wrapping_add(at + line));
            }
        }
    }
}

impl TableRows<'_, LANES> {
    /// Scales of the rows in a block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn scale(&self, block: usize) -> __m512 {
        let (place, next_set) = ((self.first_block + block) * SET, self.table.blocks * SET);
        // SAFETY: the table has the rows' two sets and whole groups of blocks.
        unsafe {
            match &self.table.scales {
                Scales::Whole(scales) => {
                    let scales = scales.as_ptr().add(place);
                    let [first, second] = [scales, scales.add(next_set)].map(|from| _mm256_loadu_ps(from));
                    let first = _mm512_castps_pd(_mm512_castps256_ps512(first));
                    _mm512_castpd_ps(_mm512_insertf64x4::<1>(first, _mm256_castps_pd(second)))
                }
                Scales::Short { codes, firsts } => {
                    let codes = bytes_of_sets(codes.as_ptr().add(place), next_set);
                    let first = firsts.as_ptr().add(self.set);
                    let steps = _mm512_slli_epi32::<LEFT_OUT>(codes);
                    _mm512_castsi512_ps(_mm512_add_epi32(steps, _mm512_loadu_si512(first.cast())))
                }
            }
        }
    }

    /// Zero points of the rows in a block, 32 bits each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn zero<const BITS: usize>(&self, block: usize) -> __m512i {
        let (place, next_set) = ((self.first_block + block) * SET * BITS / 8, self.table.blocks * SET * BITS / 8);
        // SAFETY: as for the scales.
        unsafe {
            let packed = self.table.zero_points.as_ptr().add(place);
            if BITS == 4 {
                let [first, second] = [packed, packed.add(next_set)].map(|from| from.cast::<i32>().read_unaligned());
                let words = _mm512_mask_set1_epi32(_mm512_set1_epi32(first), 0xff00, second);
                let shifts = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
                _mm512_and_si512(_mm512_srlv_epi32(words, shifts), _mm512_set1_epi32(15))
            } else {
                bytes_of_sets(packed, next_set)
            }
        }
    }
}

/// Eight bytes of each of two sets, 32 bits each.
///
/// # Safety
/// They are there, the second ones `next_set` bytes behind the first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn bytes_of_sets(first: *const u8, next_set: usize) -> __m512i {
    // SAFETY: as the caller vouches.
    let (first, second) = unsafe { (_mm_loadl_epi64(first.cast()), _mm_loadl_epi64(first.add(next_set).cast())) };
    _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(first, second))
}

/// Transposes 16 x 16 doublewords.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn transpose(rows: &mut [__m512i; LANES]) {
    let mut pairs = [_mm512_setzero_si512(); LANES];
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Quarter Q of rows[4i + j] then holds column 4Q + j of rows 4i to 4i + 3.
    for i in 0..4 {
        rows[4 * i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
        rows[4 * i + 1] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
        rows[4 * i + 2] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        rows[4 * i + 3] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    for j in 0..4 {
        let quarters = transpose_quarters([rows[j], rows[4 + j], rows[8 + j], rows[12 + j]]);
        for (quarter, found) in quarters.into_iter().enumerate() {
            pairs[4 * quarter + j] = found;
        }
    }
    *rows = pairs;
}

/// Transposes 4 x 4 quarters of registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn transpose_quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
    let even_upper = _mm512_shuffle_i32x4::<0x88>(rows[0], rows[1]);
    let odd_upper = _mm512_shuffle_i32x4::<0xdd>(rows[0], rows[1]);
    let even_lower = _mm512_shuffle_i32x4::<0x88>(rows[2], rows[3]);
    let odd_lower = _mm512_shuffle_i32x4::<0xdd>(rows[2], rows[3]);
    [
        _mm512_shuffle_i32x4::<0x88>(even_upper, even_lower),
        _mm512_shuffle_i32x4::<0x88>(odd_upper, odd_lower),
        _mm512_shuffle_i32x4::<0xdd>(even_upper, even_lower),
        _mm512_shuffle_i32x4::<0xdd>(odd_upper, odd_lower),
    ]
}
