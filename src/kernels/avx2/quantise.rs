//! Rounding activations to 8 bits.

use std::arch::x86_64::{
    __m256i, _CMP_UNORD_Q, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_ps, _mm256_cmp_ps, _mm256_cvtps_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_movemask_ps, _mm256_mul_ps, _mm256_packs_epi16,
    _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_permutevar8x32_epi32, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_storeu_si256, _mm256_xor_si256,
};

use super::LANES;
use crate::kernels::activations::{GroupMut, negated, step};
use crate::kernels::{BlockFormat, GROUP};

/// Registers of a group.
const REGISTERS: usize = GROUP / LANES;

/// Rounds up to [`GROUP`] values; see [`crate::kernels::Activations`].
#[target_feature(enable = "avx2,fma")]
pub(in crate::kernels) fn quantise(values: &[f32], format: BlockFormat, group: &mut GroupMut<'_>) {
    let (scale, rounded) = if let Some(whole) = values.first_chunk() {
        round(whole)
    } else {
        let mut padded = [0.0; GROUP];
        padded[..values.len()].copy_from_slice(values);
        round(&padded)
    };
    *group.scale = scale;
    let registers = REGISTERS / format.blocks_per_group();
    for (sum, rounded) in group.negated_sums.iter_mut().zip(rounded.chunks_exact(registers)) {
        let total = rounded.iter().fold(_mm256_setzero_si256(), |total, codes| _mm256_add_epi32(total, *codes));
        let mut lanes = [0_i32; LANES];
        // SAFETY: eight lanes fit.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), total) };
        // What is no number has a code that is out of range; its group's scale is no number either.
        *sum = negated(lanes.into_iter().fold(0, i32::wrapping_add));
    }
    store(&rounded, format, group);
}

/// The scale of the values of a group, and their codes in order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn round(values: &[f32; GROUP]) -> (f32, [__m256i; REGISTERS]) {
    let (registers, _) = values.as_chunks::<LANES>();
    // SAFETY: eight values are there, here and below.
    let load = |values: &[f32; LANES]| unsafe { _mm256_loadu_ps(values.as_ptr()) };
    let (mut largest, mut spoilt) = (_mm256_setzero_ps(), 0);
    for values in registers {
        let values = load(values);
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(_mm256_set1_ps(-0.0), values));
        spoilt |= _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
    }
    let mut lanes = [0.0_f32; LANES];
    // SAFETY: eight lanes fit.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), largest) };
    let largest = lanes.into_iter().fold(0.0, f32::max);
    let (scale, inverse) = step(largest, spoilt != 0);
    let inverse = _mm256_set1_ps(inverse);
    (scale, std::array::from_fn(|index| _mm256_cvtps_epi32(_mm256_mul_ps(load(&registers[index]), inverse))))
}

/// Writes the codes of a group in the order the format asks for.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(rounded: &[__m256i; REGISTERS], format: BlockFormat, group: &mut GroupMut<'_>) {
    let flipped = _mm256_set1_epi8(group.code_form.flipped_bits());
    let mut ordered = [[0_i8; 32]; GROUP / 32];
    for (ordered, rounded) in ordered.iter_mut().zip(rounded.as_chunks::<4>().0) {
        let pairs = [_mm256_packs_epi32(rounded[0], rounded[1]), _mm256_packs_epi32(rounded[2], rounded[3])];
        let bytes = _mm256_packs_epi16(pairs[0], pairs[1]);
        // Packing keeps to the halves of registers.
        let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: 32 bytes fit.
        unsafe { _mm256_storeu_si256(ordered.as_mut_ptr().cast(), _mm256_xor_si256(bytes, flipped)) };
    }
    if format.bits() == 8 {
        group.codes.copy_from_slice(ordered.as_flattened());
        return;
    }
    let low = _mm256_set1_epi16(0xff);
    let (even, odd) = group.codes.split_at_mut(GROUP / 2);
    let halves = ordered.as_chunks::<2>().0.iter().zip(even.chunks_exact_mut(32).zip(odd.chunks_exact_mut(32)));
    for (ordered, (even, odd)) in halves {
        // SAFETY: 64 bytes are read, and 32 written to each.
        unsafe {
            let [first, second] = [0, 1].map(|index: usize| _mm256_loadu_si256(ordered[index].as_ptr().cast()));
            let lower = _mm256_packus_epi16(_mm256_and_si256(first, low), _mm256_and_si256(second, low));
            let upper = _mm256_packus_epi16(_mm256_srli_epi16::<8>(first), _mm256_srli_epi16::<8>(second));
            _mm256_storeu_si256(even.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0xd8>(lower));
            _mm256_storeu_si256(odd.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0xd8>(upper));
        }
    }
}
