//! Rounding activations to 8 bits.

use std::arch::x86_64::{
    __m512i, _CMP_UNORD_Q, _mm_set1_epi8, _mm_storeu_si128, _mm_xor_si128, _mm256_storeu_si256, _mm512_abs_ps,
    _mm512_add_epi32, _mm512_cmp_ps_mask, _mm512_cvtepi16_epi8, _mm512_cvtps_epi32, _mm512_cvtsepi32_epi8,
    _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_epi32,
    _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
};

use super::LANES;
use crate::kernels::activations::{GroupMut, negated, step};
use crate::kernels::{BlockFormat, GROUP};

/// Registers of a group.
const REGISTERS: usize = GROUP / LANES;

/// Rounds up to [`GROUP`] values; see [`crate::kernels::Activations`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::kernels) fn quantise(values: &[f32], format: BlockFormat, group: &mut GroupMut<'_>) {
    let (scale, rounded) = round(values);
    *group.scale = scale;
    let registers = REGISTERS / format.blocks_per_group();
    for (sum, rounded) in group.negated_sums.iter_mut().zip(rounded.chunks_exact(registers)) {
        let total = rounded.iter().fold(_mm512_setzero_si512(), |total, codes| _mm512_add_epi32(total, *codes));
        *sum = negated(_mm512_reduce_add_epi32(total));
    }
    store(&rounded, format, group);
}

/// The scale of up to [`GROUP`] values, and their codes in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn round(values: &[f32]) -> (f32, [__m512i; REGISTERS]) {
    let mut loaded = [_mm512_setzero_ps(); REGISTERS];
    let (mut largest, mut spoilt) = (_mm512_setzero_ps(), 0);
    for (loaded, values) in loaded.iter_mut().zip(values.chunks(LANES)) {
        let mask = ((1u32 << values.len()) - 1) as u16;
        // SAFETY: the mask leaves out what lies past the values.
        *loaded = unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) };
        largest = _mm512_max_ps(largest, _mm512_abs_ps(*loaded));
        spoilt |= _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(*loaded, *loaded);
    }
    let largest = _mm512_reduce_max_ps(largest);
    let (scale, inverse) = step(largest, spoilt != 0);
    let inverse = _mm512_set1_ps(inverse);
    (scale, loaded.map(|values| _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse))))
}

/// Writes the codes of a group in the order the format asks for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn store(rounded: &[__m512i; REGISTERS], format: BlockFormat, group: &mut GroupMut<'_>) {
    let flipped = _mm_set1_epi8(group.code_form.flipped_bits());
    let mut ordered = [[0i8; LANES]; REGISTERS];
    for (ordered, rounded) in ordered.iter_mut().zip(rounded) {
        // SAFETY: sixteen bytes fit.
        unsafe {
            _mm_storeu_si128(ordered.as_mut_ptr().cast(), _mm_xor_si128(_mm512_cvtsepi32_epi8(*rounded), flipped));
        };
    }
    if format.bits() == 8 {
        group.codes.copy_from_slice(ordered.as_flattened());
        return;
    }
    let (even, odd) = group.codes.split_at_mut(GROUP / 2);
    let halves = ordered.as_flattened().chunks_exact(64).zip(even.chunks_exact_mut(32).zip(odd.chunks_exact_mut(32)));
    for (ordered, (even, odd)) in halves {
        // SAFETY: 64 bytes are read, and 32 written to each.
        unsafe {
            let pairs = _mm512_loadu_si512(ordered.as_ptr().cast());
            _mm256_storeu_si256(even.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(pairs));
            _mm256_storeu_si256(odd.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(pairs)));
        }
    }
}
