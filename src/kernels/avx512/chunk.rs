//! Some queries against the keys and values of a chunk of the cache, in float32.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use super::attention::exponential;
use super::{LANES, transpose};
use crate::kernels::grouped_attention::{CHUNK, GroupedShape, Weight};

/// Keys whose scores are found together.
const BLOCK: usize = 2 * LANES;

/// Queries that share what is loaded of keys and values.
const QUERIES: usize = 8;

/// Calls a function that is compiled for each number of queries.
macro_rules! for_queries {
    ($count:expr, $function:ident($($argument:expr),*)) => {
        match $count {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            6 => $function::<6>($($argument),*),
            7 => $function::<7>($($argument),*),
            QUERIES => $function::<QUERIES>($($argument),*),
            _ => unreachable!("a chunk has at most {QUERIES} lines"),
        }
    };
}

/// Memory of one thread.
pub(in crate::kernels) struct Scratch {
    /// Keys of a block, turned: `[head size, block]`.
    panel: Vec<[f32; BLOCK]>,
    /// Scores, then powers, `[lines, chunk]`.
    scores: Vec<[f32; CHUNK]>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { panel: vec![[0.0; BLOCK]; GroupedShape::MAX_HEAD_SIZE], scores: Vec::new() }
    }
}

/// Mixes the values of a chunk for each query by the powers of its scores, of which the largest is 1.
///
/// `queries`: `[lines, size]`; `limits`: for each line, how many keys of the chunk it sees; `keys`, `values`:
/// `[most keys that are seen, size]`; `mixed`: `[lines, size]`; `weights`: `[lines]`, [`Weight::NONE`] where no key is seen.
///
/// # Safety
/// The processor has AVX-512. The size is a multiple of 16, and keys and values are there up to the largest limit.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::kernels) unsafe fn attend(
    queries: &[f32],
    limits: &[usize],
    (keys, values): (*const f32, *const f32),
    size: usize,
    scratch: &mut Scratch,
    mixed: &mut [f32],
    weights: &mut [Weight],
) {
    let lines = limits.len();
    assert!(queries.len() == lines * size && mixed.len() == lines * size && weights.len() == lines, "lines differ");
    let seen = limits.iter().copied().max().unwrap_or(0);
    scratch.scores.resize(lines, [0.0; CHUNK]);
    for block in (0..seen).step_by(BLOCK) {
        // SAFETY: the block's keys are there, as the caller vouches.
        unsafe { turn(keys.add(block * size), BLOCK.min(seen - block), size, &mut scratch.panel) };
        let scores = scratch.scores.chunks_mut(QUERIES);
        for (queries, scores) in queries.chunks(QUERIES * size).zip(scores) {
            // SAFETY: so many queries and rows of scores are there.
            unsafe { for_queries!(scores.len(), find_scores(queries, size, &scratch.panel, block, scores)) };
        }
    }
    for ((scores, limit), weight) in scratch.scores.iter_mut().zip(limits).zip(weights) {
        *weight = powers(scores, *limit);
    }
    for (scores, mixed) in scratch.scores.chunks(QUERIES).zip(mixed.chunks_mut(QUERIES * size)) {
        // SAFETY: so many rows of powers and of the result are there, and the values up to `seen`.
        unsafe { for_queries!(scores.len(), mix(scores, values, seen, size, mixed)) };
    }
}

/// Turns `count` keys into columns; the columns past them are 0.
///
/// # Safety
/// So many keys of `size` are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn turn(keys: *const f32, count: usize, size: usize, panel: &mut [[f32; BLOCK]]) {
    for first in (0..BLOCK).step_by(LANES) {
        for channel in (0..size).step_by(LANES) {
            let mut block = std::array::from_fn(|lane| {
                if first + lane < count {
                    // SAFETY: the key is there, and has sixteen channels from this one on.
                    unsafe { _mm512_loadu_si512(keys.add((first + lane) * size + channel).cast()) }
                } else {
                    _mm512_setzero_si512()
                }
            });
            transpose(&mut block);
            for (column, panel) in block.into_iter().zip(&mut panel[channel..]) {
                // SAFETY: half a row of the panel is a register.
                unsafe { _mm512_storeu_ps(panel.as_mut_ptr().add(first), _mm512_castsi512_ps(column)) };
            }
        }
    }
}

/// Scores of `R` queries with the keys of the panel; they stand from `block` on.
///
/// # Safety
/// There are `R` queries of `size` and `R` rows of scores, and the panel has `size` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn find_scores<const R: usize>(
    queries: &[f32],
    size: usize,
    panel: &[[f32; BLOCK]],
    block: usize,
    scores: &mut [[f32; CHUNK]],
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let (queries, panel) = (queries.as_ptr(), panel.as_ptr().cast::<f32>());
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for channel in 0..size {
            let keys = panel.add(channel * BLOCK);
            let keys = [_mm512_loadu_ps(keys), _mm512_loadu_ps(keys.add(LANES))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let query = _mm512_set1_ps(*queries.add(r * size + channel));
                for (sum, keys) in sums.iter_mut().zip(keys) {
                    *sum = _mm512_fmadd_ps(query, keys, *sum);
                }
            }
        }
        for (sums, scores) in sums.into_iter().zip(scores) {
            for (half, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(scores.as_mut_ptr().add(block + half * LANES), sum);
            }
        }
    }
}

/// Turns the first `limit` scores of a chunk into e^(score - largest), the others into 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn powers(scores: &mut [f32; CHUNK], limit: usize) -> Weight {
    if limit == 0 {
        scores.fill(0.0);
        return Weight::NONE;
    }
    scores[limit..].fill(f32::NEG_INFINITY);
    let (registers, _) = scores.as_chunks_mut::<LANES>();
    let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
    for scores in registers.iter() {
        // SAFETY: a chunk of lanes is a register, here and below.
        largest = _mm512_max_ps(largest, unsafe { _mm512_loadu_ps(scores.as_ptr()) });
    }
    let largest = _mm512_reduce_max_ps(largest);
    let mut sum = _mm512_setzero_ps();
    for scores in registers {
        // SAFETY: as above.
        unsafe {
            let powers = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores.as_ptr()), _mm512_set1_ps(largest)));
            sum = _mm512_add_ps(sum, powers);
            _mm512_storeu_ps(scores.as_mut_ptr(), powers);
        }
    }
    scores[limit..].fill(0.0);
    Weight { largest, sum: _mm512_reduce_add_ps(sum) }
}

/// Mixes `seen` values by the powers of `R` queries.
///
/// # Safety
/// There are `R` rows of powers, so many values of `size`, and room for `R` results of `size`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn mix<const R: usize>(
    powers: &[[f32; CHUNK]],
    values: *const f32,
    seen: usize,
    size: usize,
    mixed: &mut [f32],
) {
    let mut channel = 0;
    while channel < size {
        let across = ((size - channel) / LANES).min(2);
        // SAFETY: as the caller vouches; the channels are inside the size.
        unsafe {
            let (values, mixed) = (values.add(channel), mixed.as_mut_ptr().add(channel));
            if across == 2 {
                mix_channels::<R, 2>(powers, values, seen, size, mixed);
            } else {
                mix_channels::<R, 1>(powers, values, seen, size, mixed);
            }
        }
        channel += across * LANES;
    }
}

/// As [`mix`], `A` registers of channels.
///
/// # Safety
/// As [`mix`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn mix_channels<const R: usize, const A: usize>(
    powers: &[[f32; CHUNK]],
    values: *const f32,
    seen: usize,
    size: usize,
    mixed: *mut f32,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let powers = powers.as_ptr().cast::<f32>();
        let mut sums = [[_mm512_setzero_ps(); A]; R];
        for position in 0..seen {
            let values: [_; A] =
                std::array::from_fn(|across| _mm512_loadu_ps(values.add(position * size + across * LANES)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let power = _mm512_set1_ps(*powers.add(r * CHUNK + position));
                for (sum, values) in sums.iter_mut().zip(values) {
                    *sum = _mm512_fmadd_ps(power, values, *sum);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (across, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(mixed.add(r * size + across * LANES), sum);
            }
        }
    }
}
