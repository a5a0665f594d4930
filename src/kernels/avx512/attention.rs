//! Attention of one head: scores and mixed values by 8-bit products, the softmax between them in float32.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_UNORD_Q, _mm_storeu_si128, _mm512_abs_ps, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_cvtsepi32_epi8,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
    _mm512_max_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sllv_epi32, _mm512_srli_epi32,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{LANES, transpose};
use crate::kernels::activations::step;
use crate::kernels::attention::{AttentionInputs, AttentionShape};
use crate::kernels::vector::{LN_2, POWERS};

/// Positions whose scores are found together.
const ROWS: usize = 3;

/// Registers across a piece of keys or of channels.
const ACROSS: usize = 4;

/// Largest size of a head.
const MAX_SIZE: usize = AttentionShape::MAX_HEAD_SIZE;

/// Memory of one thread.
pub(in crate::kernels) struct Scratch {
    /// The head's queries, keys and values, `[3, positions, head size]`.
    values: Vec<f32>,
    /// Queries as unsigned bytes, 128 more than the code, `[positions, head size]`.
    queries: Vec<u8>,
    /// Scales of the queries, the softmax's factor included.
    query_scales: Vec<f32>,
    /// Keys as signed bytes, `[pieces of 64 positions, head size / 4, 4 x 16 positions, 4 channels]`.
    keys: Vec<[u8; 64]>,
    /// Scales of the keys, and -128 times the sum of their codes.
    key_scales: Vec<f32>,
    key_starts: Vec<i32>,
    /// Values as signed bytes, `[pieces of 64 channels, positions / 4, up to 4 x 16 channels, 4 positions]`.
    mixed: Vec<[u8; 64]>,
    /// Scales and means of the channels of values.
    value_scales: [f32; MAX_SIZE],
    value_means: [f32; MAX_SIZE],
    /// Scores of some rows.
    scores: Vec<f32>,
    /// Probabilities of some rows, upper and lower byte.
    upper: Vec<u8>,
    lower: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            queries: Vec::new(),
            query_scales: Vec::new(),
            keys: Vec::new(),
            key_scales: Vec::new(),
            key_starts: Vec::new(),
            mixed: Vec::new(),
            value_scales: [0.0; MAX_SIZE],
            value_means: [0.0; MAX_SIZE],
            scores: Vec::new(),
            upper: Vec::new(),
            lower: Vec::new(),
        }
    }
}

/// Sizes of one head.
#[derive(Clone, Copy)]
struct Head {
    positions: usize,
    /// Channels.
    width: usize,
    /// Channels, to the next multiple of a register; what is added is 0.
    size: usize,
    /// Positions, to the next multiple of a piece.
    padded: usize,
}

/// Computes head `task` % heads of sequence `task` / heads.
///
/// # Safety
/// The processor has AVX-512 VNNI. Inputs and `out` have the shape's size, and nothing else touches this head of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::kernels) unsafe fn attention(
    shape: AttentionShape,
    task: usize,
    inputs: AttentionInputs<'_>,
    scale: f32,
    out: *mut f32,
    scratch: &mut Scratch,
) {
    let head = Head {
        positions: shape.positions,
        width: shape.head_size,
        size: shape.head_size.next_multiple_of(LANES),
        padded: shape.positions.next_multiple_of(LANES * ACROSS),
    };
    let (sequence, number) = (task / shape.heads, task % shape.heads);
    let (width, channel) = (shape.width(), number * head.width);
    let first = sequence * shape.positions * width + channel;
    scratch.gather(head, inputs, first, channel, width);
    scratch.round_queries(head, scale);
    scratch.round_keys(head);
    scratch.round_values(head);
    scratch.scores.resize(ROWS * head.padded, 0.0);
    scratch.upper.resize(ROWS * head.padded, 0);
    scratch.lower.resize(ROWS * head.padded, 0);
    let mut row = 0;
    while row < head.positions {
        let rows = ROWS.min(head.positions - row);
        // SAFETY: the scratch was filled for all positions of the head; `out` has a place for each.
        unsafe {
            let out = out.add(first + row * width);
            match rows {
                1 => scratch.rows::<1>(head, row, out, width),
                2 => scratch.rows::<2>(head, row, out, width),
                _ => scratch.rows::<ROWS>(head, row, out, width),
            }
        }
        row += rows;
    }
}

impl Scratch {
    /// Copies the head's queries, keys and values together and adds their biases.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn gather(&mut self, head: Head, inputs: AttentionInputs<'_>, first: usize, channel: usize, width: usize) {
        self.values.clear();
        for (part, source) in [inputs.query, inputs.key, inputs.value].into_iter().enumerate() {
            let bias = inputs.bias.map(|bias| &bias[part * width + channel..][..head.width]);
            for position in 0..head.positions {
                let start = self.values.len();
                self.values.extend_from_slice(&source[first + position * width..][..head.width]);
                if let Some(bias) = bias {
                    self.values[start..].iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                }
                self.values.resize(start + head.size, 0.0);
            }
        }
    }

    /// Queries: a scale for each position.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn round_queries(&mut self, head: Head, scale: f32) {
        self.queries.resize(head.positions * head.size, 0);
        self.query_scales.clear();
        let zero = [0.0; MAX_SIZE];
        let values = self.values[..head.positions * head.size].chunks_exact(head.size);
        for (values, codes) in values.zip(self.queries.chunks_exact_mut(head.size)) {
            let step = round_row(values, &zero, codes);
            self.query_scales.push(step * scale);
            for code in codes {
                *code ^= 0x80;
            }
        }
    }

    /// Keys without their mean: a scale for each position.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn round_keys(&mut self, head: Head) {
        let values = &self.values[head.positions * head.size..][..head.positions * head.size];
        let means = means(values, head.size);
        self.keys.resize(head.padded * head.size / 64, [0; 64]);
        self.key_scales.clear();
        self.key_scales.resize(head.padded, 0.0);
        self.key_starts.clear();
        self.key_starts.resize(head.padded, 0);
        let quads = head.size / 4;
        for first in (0..head.padded).step_by(LANES) {
            // Sixteen positions, a row each; past the end they are 0.
            let mut rows = [[0_u8; MAX_SIZE]; LANES];
            for (lane, codes) in rows.iter_mut().enumerate().take(head.positions.saturating_sub(first)) {
                let position = first + lane;
                let codes = &mut codes[..head.size];
                self.key_scales[position] = round_row(&values[position * head.size..][..head.size], &means, codes);
                let sum: i32 = codes.iter().map(|code| i32::from(*code as i8)).sum();
                self.key_starts[position] = -128 * sum;
            }
            let (piece, across) = (first / (LANES * ACROSS), first / LANES % ACROSS);
            for start in (0..quads).step_by(LANES) {
                let mut block: [__m512i; LANES] = std::array::from_fn(|lane| {
                    // SAFETY: 64 bytes of the row from there on: `start` is 0 or 16 doublewords.
                    unsafe { rows[lane].as_ptr().add(4 * start).cast::<__m512i>().read_unaligned() }
                });
                transpose(&mut block);
                for (quad, codes) in block.into_iter().enumerate().take(quads - start) {
                    let place = (piece * quads + start + quad) * ACROSS + across;
                    // SAFETY: an entry is a register.
                    unsafe { self.keys[place].as_mut_ptr().cast::<__m512i>().write_unaligned(codes) };
                }
            }
        }
    }

    /// Values without their mean: a scale for each channel.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn round_values(&mut self, head: Head) {
        let values = &self.values[2 * head.positions * head.size..];
        self.value_means = means(values, head.size);
        let mut largest = [0.0_f32; MAX_SIZE];
        for values in values.chunks_exact(head.size) {
            for ((largest, value), mean) in largest.iter_mut().zip(values).zip(&self.value_means) {
                *largest = largest.max((value - mean).abs());
            }
        }
        self.value_scales = largest.map(|largest| largest / 127.0);
        let inverses = largest.map(|largest| if largest > 0.0 { 127.0 / largest } else { 0.0 });
        let low = _mm512_set1_epi32(0xff);
        self.mixed.resize(head.padded * head.size / 64, [0; 64]);
        for channel in (0..head.size).step_by(LANES) {
            // SAFETY: sixteen channels are there.
            let (mean, inverse) = unsafe {
                (
                    _mm512_loadu_ps(self.value_means.as_ptr().add(channel)),
                    _mm512_loadu_ps(inverses.as_ptr().add(channel)),
                )
            };
            let start = channel / (LANES * ACROSS) * ACROSS;
            let across = ACROSS.min(head.size / LANES - start);
            for quad in 0..head.positions.div_ceil(4) {
                let mut bytes = _mm512_setzero_si512();
                for position in (4 * quad..head.positions.min(4 * quad + 4)).rev() {
                    // SAFETY: the position has sixteen channels from this one on.
                    let value = unsafe { _mm512_loadu_ps(values.as_ptr().add(position * head.size + channel)) };
                    let code = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(value, mean), inverse));
                    let shift = _mm512_set1_epi32(8 * (position % 4) as i32);
                    bytes = _mm512_or_si512(bytes, _mm512_sllv_epi32(_mm512_and_si512(code, low), shift));
                }
                let place = start * head.padded / 4 + quad * across + channel / LANES - start;
                // SAFETY: an entry is a register.
                unsafe { self.mixed[place].as_mut_ptr().cast::<__m512i>().write_unaligned(bytes) };
            }
        }
    }

    /// Some rows from their scores to their results.
    ///
    /// # Safety
    /// The scratch is that of the head, which has rows from `row` on; `out` has a place for them, `width` apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn rows<const R: usize>(&mut self, head: Head, row: usize, out: *mut f32, width: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            self.find_scores::<R>(head, row);
            let mut factors = [0.0; R];
            for (r, factor) in factors.iter_mut().enumerate() {
                *factor = self.softmax(head, r);
            }
            for start in (0..head.size).step_by(LANES * ACROSS) {
                match (head.size - start).min(LANES * ACROSS) / LANES {
                    1 => self.mix::<R, 1>(head, start, factors, out, width),
                    2 => self.mix::<R, 2>(head, start, factors, out, width),
                    3 => self.mix::<R, 3>(head, start, factors, out, width),
                    _ => self.mix::<R, 4>(head, start, factors, out, width),
                }
            }
        }
    }

    /// Scores of `R` rows with all keys; those past the end are not numbers of any key.
    ///
    /// # Safety
    /// As [`Self::rows`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn find_scores<const R: usize>(&mut self, head: Head, row: usize) {
        // SAFETY: all reads and writes are inside what the scratch holds for the head.
        unsafe {
            let queries = self.queries.as_ptr().add(row * head.size);
            let mut keys = self.keys.as_ptr();
            for piece in (0..head.padded).step_by(LANES * ACROSS) {
                let mut sums = [[_mm512_setzero_si512(); ACROSS]; R];
                for sums in &mut sums {
                    for (across, sum) in sums.iter_mut().enumerate() {
                        *sum = self.key_starts.as_ptr().add(piece + across * LANES).cast::<__m512i>().read_unaligned();
                    }
                }
                for channel in (0..head.size).step_by(4) {
                    let weights: [__m512i; ACROSS] = std::array::from_fn(|across| register(keys.add(across)));
                    keys = keys.add(ACROSS);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let codes = queries.add(r * head.size + channel).cast::<i32>().read_unaligned();
                        let codes = _mm512_set1_epi32(codes);
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = _mm512_dpbusd_epi32(*sum, codes, weights);
                        }
                    }
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    let scale = _mm512_set1_ps(self.query_scales[row + r]);
                    let scores = self.scores.as_mut_ptr().add(r * head.padded + piece);
                    for (across, sum) in sums.into_iter().enumerate() {
                        let key_scale = _mm512_loadu_ps(self.key_scales.as_ptr().add(piece + across * LANES));
                        let score = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, key_scale));
                        _mm512_storeu_ps(scores.add(across * LANES), score);
                    }
                }
            }
        }
    }

    /// Probabilities of a row of scores in 16 bits, not yet divided by their sum; returns the inverse of the sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn softmax(&mut self, head: Head, r: usize) -> f32 {
        let scores = &mut self.scores[r * head.padded..][..head.padded];
        scores[head.positions..].fill(f32::NEG_INFINITY);
        let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
        for scores in scores.chunks_exact(LANES) {
            // SAFETY: a chunk is a register.
            largest = _mm512_max_ps(largest, unsafe { _mm512_loadu_ps(scores.as_ptr()) });
        }
        let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        let top = _mm512_set1_ps(65535.0);
        let mut sum = _mm512_setzero_si512();
        let upper = self.upper[r * head.padded..][..head.padded].chunks_exact_mut(LANES);
        let lower = self.lower[r * head.padded..][..head.padded].chunks_exact_mut(LANES);
        for ((scores, upper), lower) in scores.chunks_exact(LANES).zip(upper).zip(lower) {
            // SAFETY: chunks are registers of floats and of bytes.
            unsafe {
                let powers = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores.as_ptr()), largest));
                let codes = _mm512_cvtps_epi32(_mm512_mul_ps(powers, top));
                sum = _mm512_add_epi32(sum, codes);
                _mm_storeu_si128(upper.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(codes)));
                _mm_storeu_si128(lower.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(codes));
            }
        }
        // Lanes hold up to 65535 x positions / 16: they are added in double precision.
        let mut lanes = [0_i32; LANES];
        // SAFETY: sixteen lanes fit.
        unsafe { lanes.as_mut_ptr().cast::<__m512i>().write_unaligned(sum) };
        (1.0 / lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>()) as f32
    }

    /// Mixes `16 A` channels of values from `start` on for `R` rows.
    ///
    /// # Safety
    /// As [`Self::rows`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn mix<const R: usize, const A: usize>(
        &self,
        head: Head,
        start: usize,
        factors: [f32; R],
        out: *mut f32,
        width: usize,
    ) {
        // SAFETY: as `find_scores`.
        unsafe {
            let mut values = self.mixed.as_ptr().add(start / LANES * head.padded / 4);
            let (upper, lower) = (self.upper.as_ptr(), self.lower.as_ptr());
            let mut uppers = [[_mm512_setzero_si512(); A]; R];
            let mut lowers = uppers;
            for position in (0..head.positions).step_by(4) {
                let codes: [__m512i; A] = std::array::from_fn(|across| register(values.add(across)));
                values = values.add(A);
                for r in 0..R {
                    let at = r * head.padded + position;
                    let high = _mm512_set1_epi32(upper.add(at).cast::<i32>().read_unaligned());
                    let low = _mm512_set1_epi32(lower.add(at).cast::<i32>().read_unaligned());
                    for across in 0..A {
                        uppers[r][across] = _mm512_dpbusd_epi32(uppers[r][across], high, codes[across]);
                        lowers[r][across] = _mm512_dpbusd_epi32(lowers[r][across], low, codes[across]);
                    }
                }
            }
            for r in 0..R {
                let factor = _mm512_set1_ps(factors[r]);
                for across in 0..A {
                    let channel = start + across * LANES;
                    let (high, low) = (_mm512_cvtepi32_ps(uppers[r][across]), _mm512_cvtepi32_ps(lowers[r][across]));
                    let sum = _mm512_fmadd_ps(high, _mm512_set1_ps(256.0), low);
                    let scale = _mm512_mul_ps(_mm512_loadu_ps(self.value_scales.as_ptr().add(channel)), factor);
                    let mean = _mm512_loadu_ps(self.value_means.as_ptr().add(channel));
                    let mask = ((1u32 << (head.width - channel).min(LANES)) - 1) as u16;
                    _mm512_mask_storeu_ps(out.add(r * width + channel), mask, _mm512_fmadd_ps(sum, scale, mean));
                }
            }
        }
    }
}

/// The register of an entry of the keys or of the values.
///
/// # Safety
/// The entry is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn register(entry: *const [u8; 64]) -> __m512i {
    // SAFETY: an entry is a register.
    unsafe { _mm512_loadu_si512(entry.cast()) }
}

/// Rounds a row without `means` to signed bytes; returns the step of the codes, not a number where a value is none.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn round_row(values: &[f32], means: &[f32; MAX_SIZE], codes: &mut [u8]) -> f32 {
    let (mut largest, mut spoilt) = (_mm512_setzero_ps(), 0);
    // SAFETY (here and below): rows are whole registers, and `means` is as long as the longest.
    let centred = |index: usize| unsafe {
        let mean = _mm512_loadu_ps(means.as_ptr().add(index * LANES));
        _mm512_sub_ps(_mm512_loadu_ps(values.as_ptr().add(index * LANES)), mean)
    };
    for index in 0..values.len() / LANES {
        let value = centred(index);
        largest = _mm512_max_ps(largest, _mm512_abs_ps(value));
        spoilt |= _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
    }
    let largest = _mm512_reduce_max_ps(largest);
    let (step, inverse) = step(largest, spoilt != 0);
    let inverse = _mm512_set1_ps(inverse);
    for (index, codes) in codes.chunks_exact_mut(LANES).enumerate() {
        let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(centred(index), inverse));
        // SAFETY: a chunk is sixteen bytes.
        unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(rounded)) };
    }
    step
}

/// Mean of each channel; what is past the size is 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn means(values: &[f32], size: usize) -> [f32; MAX_SIZE] {
    let mut sums = [0.0_f32; MAX_SIZE];
    for values in values.chunks_exact(size) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    let inverse = size as f32 / values.len() as f32;
    sums.map(|sum| sum * inverse)
}

/// e^x for x <= 0, within 2 units in the last place: 2^n times a polynomial.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn exponential(x: __m512) -> __m512 {
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2[0]), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2[1]), r);
    let mut p = _mm512_set1_ps(POWERS[0]);
    for factor in &POWERS[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*factor));
    }
    _mm512_scalef_ps(p, n)
}
