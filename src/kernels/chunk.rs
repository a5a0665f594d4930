//! Some queries against the keys and values of a chunk of the cache. All is computed in float32.

#![expect(clippy::inline_always, reason = "operations on registers are compiled into their callers: see `vector`")]

use super::element::Element;
use super::grouped_attention::{CHUNK, Weight};
use super::vector::{Vector, prefetch};

/// Calls a function that is compiled for each number of queries.
macro_rules! for_queries {
    ($count:expr, $function:ident($($argument:expr),*)) => {
        match $count {
            1 => $function::<V, E, 1>($($argument),*),
            2 => $function::<V, E, 2>($($argument),*),
            3 => $function::<V, E, 3>($($argument),*),
            4 => $function::<V, E, 4>($($argument),*),
            5 => $function::<V, E, 5>($($argument),*),
            6 => $function::<V, E, 6>($($argument),*),
            7 => $function::<V, E, 7>($($argument),*),
            8 => $function::<V, E, 8>($($argument),*),
            more => unreachable!("{more} lines are more than are worked on together"),
        }
    };
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// Keys of a block of two registers, turned: `[head size, block]`.
    panel: Vec<f32>,
    /// Scores, then powers, `[lines, chunk]`.
    scores: Vec<[f32; CHUNK]>,
}

/// Queries that meet a chunk, and what they find.
pub(super) struct Lines<'a> {
    /// `[lines, size]`.
    pub(super) queries: &'a [f32],
    /// For each line, how many keys of the chunk it sees.
    pub(super) limits: &'a [usize],
    /// Mixed values, `[lines, size]`.
    pub(super) mixed: &'a mut [f32],
    /// `[lines]`, [`Weight::NONE`] where no key is seen.
    pub(super) weights: &'a mut [Weight],
}

/// What is asked of memory while something else is worked on, a little at a time: a processor waits for few lines at once, and
/// computes nothing while it cannot ask for more.
struct Ahead<E> {
    next: *const E,
    /// Steps between two requests.
    every: usize,
    /// Lines of a request.
    lines: usize,
}

impl<E: Element> Ahead<E> {
    /// A chunk's keys or values, which are asked for while `groups` groups of queries go through another's with `block` keys or
    /// channels a pass.
    fn new(next: *const E, groups: usize, block: usize) -> Self {
        // A pass has a step for every channel or position, so all passes have groups x size x chunk / block of them.
        let (steps, lines) = (groups * E::LINE, block);
        Self { next, every: (steps / lines).max(1), lines: lines.div_ceil(steps) }
    }

    #[inline(always)]
    fn fetch(&mut self) {
        for _ in 0..self.lines {
            prefetch(self.next);
            self.next = self.next.wrapping_add(E::LINE);
        }
    }
}

/// Mixes the values of a chunk for each query by the powers of its scores, of which the largest is 1.
///
/// `keys`, `values`: `[most keys that are seen, size]`.
///
/// # Safety
/// The processor has the instructions of `V`, and the caller is compiled for them. The size is a multiple of the lanes, and
/// keys and values are there up to the largest limit.
#[inline(always)]
pub(super) unsafe fn attend<V: Vector, E: Element>(
    lines: Lines<'_>,
    (keys, values): (*const E, *const E),
    size: usize,
    scratch: &mut Scratch,
) {
    let Lines { queries, limits, mixed, weights } = lines;
    let lines = limits.len();
    assert!(queries.len() == lines * size && mixed.len() == lines * size && weights.len() == lines, "lines differ");
    let seen = limits.iter().copied().max().unwrap_or(0);
    let block = 2 * V::LANES;
    // While scores are found the values come, and while values are mixed the keys of the chunk behind.
    let mut ahead = Ahead::new(values, lines.div_ceil(V::QUERIES), block);
    scratch.scores.resize(lines, [0.0; CHUNK]);
    scratch.panel.resize(size * block, 0.0);
    for first in (0..seen).step_by(block) {
        // SAFETY: the block's keys are there, as the caller vouches.
        unsafe { turn::<V, E>(keys.add(first * size), block.min(seen - first), size, &mut scratch.panel) };
        let scores = scratch.scores.chunks_mut(V::QUERIES);
        for (queries, scores) in queries.chunks(V::QUERIES * size).zip(scores) {
            // SAFETY: so many queries and rows of scores are there.
            unsafe {
                for_queries!(scores.len(), find_scores(queries, size, &scratch.panel, first, scores, &mut ahead));
            };
        }
    }
    for ((scores, limit), weight) in scratch.scores.iter_mut().zip(limits).zip(weights) {
        // SAFETY: as the caller vouches.
        *weight = unsafe { powers::<V>(scores, *limit) };
    }
    ahead.next = keys.wrapping_add(CHUNK * size);
    for (scores, mixed) in scratch.scores.chunks(V::QUERIES).zip(mixed.chunks_mut(V::QUERIES * size)) {
        // SAFETY: so many rows of powers and of the result are there, and the values up to `seen`.
        unsafe { for_queries!(scores.len(), mix(scores, values, seen, size, mixed, &mut ahead)) };
    }
}

/// Turns `count` keys into columns; the columns past them are 0.
///
/// # Safety
/// As [`attend`]; so many keys of `size` are there.
#[inline(always)]
unsafe fn turn<V: Vector, E: Element>(keys: *const E, count: usize, size: usize, panel: &mut [f32]) {
    for first in [0, V::LANES] {
        let count = count.saturating_sub(first).min(V::LANES);
        for channel in (0..size).step_by(V::LANES) {
            // SAFETY: as the caller vouches; the panel has a row of two registers for each channel.
            unsafe {
                let from = keys.wrapping_add(first * size + channel);
                V::turn(from, size, count, panel.as_mut_ptr().add(channel * 2 * V::LANES + first), 2 * V::LANES);
            }
        }
    }
}

/// Scores of `R` queries with the keys of the panel; they stand from `block` on.
///
/// # Safety
/// As [`attend`]; there are `R` queries of `size` and `R` rows of scores, and the panel has `size` rows.
#[inline(always)]
unsafe fn find_scores<V: Vector, E: Element, const R: usize>(
    queries: &[f32],
    size: usize,
    panel: &[f32],
    block: usize,
    scores: &mut [[f32; CHUNK]],
    ahead: &mut Ahead<E>,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let (queries, panel) = (queries.as_ptr(), panel.as_ptr());
        let mut sums = [[V::splat(0.0); 2]; R];
        for channel in (0..size).step_by(ahead.every) {
            ahead.fetch();
            for channel in channel..size.min(channel + ahead.every) {
                let keys = panel.add(channel * 2 * V::LANES);
                let keys = [V::load(keys), V::load(keys.add(V::LANES))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let query = V::splat(*queries.add(r * size + channel));
                    for (sum, keys) in sums.iter_mut().zip(keys) {
                        *sum = query.mul_add(keys, *sum);
                    }
                }
            }
        }
        for (sums, scores) in sums.into_iter().zip(scores) {
            for (half, sum) in sums.into_iter().enumerate() {
                sum.store(scores.as_mut_ptr().add(block + half * V::LANES));
            }
        }
    }
}

/// Turns the first `limit` scores of a chunk into e^(score - largest), the others into 0.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn powers<V: Vector>(scores: &mut [f32; CHUNK], limit: usize) -> Weight {
    if limit == 0 {
        scores.fill(0.0);
        return Weight::NONE;
    }
    scores[limit..].fill(f32::NEG_INFINITY);
    // SAFETY: as the caller vouches; a chunk is whole registers.
    unsafe {
        let mut largest = V::splat(f32::NEG_INFINITY);
        for scores in scores.chunks_exact(V::LANES) {
            largest = largest.max(V::load(scores.as_ptr()));
        }
        let largest = largest.largest();
        let mut sum = V::splat(0.0);
        for scores in scores.chunks_exact_mut(V::LANES) {
            let powers = V::load(scores.as_ptr()).sub(V::splat(largest)).exponential();
            sum = sum.add(powers);
            powers.store(scores.as_mut_ptr());
        }
        scores[limit..].fill(0.0);
        Weight { largest, sum: sum.sum() }
    }
}

/// Mixes `seen` values by the powers of `R` queries.
///
/// # Safety
/// As [`attend`]; there are `R` rows of powers, so many values of `size`, and room for `R` results of `size`.
#[inline(always)]
unsafe fn mix<V: Vector, E: Element, const R: usize>(
    powers: &[[f32; CHUNK]],
    values: *const E,
    seen: usize,
    size: usize,
    mixed: &mut [f32],
    ahead: &mut Ahead<E>,
) {
    let mut channel = 0;
    while channel < size {
        let across = ((size - channel) / V::LANES).min(2);
        // SAFETY: as the caller vouches; the channels are inside the size.
        unsafe {
            let (values, mixed) = (values.add(channel), mixed.as_mut_ptr().add(channel));
            if across == 2 {
                mix_channels::<V, E, R, 2>(powers, values, seen, size, mixed, ahead);
            } else {
                mix_channels::<V, E, R, 1>(powers, values, seen, size, mixed, ahead);
            }
        }
        channel += across * V::LANES;
    }
}

/// As [`mix`], `A` registers of channels.
///
/// # Safety
/// As [`mix`].
#[inline(always)]
unsafe fn mix_channels<V: Vector, E: Element, const R: usize, const A: usize>(
    powers: &[[f32; CHUNK]],
    values: *const E,
    seen: usize,
    size: usize,
    mixed: *mut f32,
    ahead: &mut Ahead<E>,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let powers = powers.as_ptr().cast::<f32>();
        let mut sums = [[V::splat(0.0); A]; R];
        for position in (0..seen).step_by(ahead.every) {
            ahead.fetch();
            for position in position..seen.min(position + ahead.every) {
                let mut found = [V::splat(0.0); A];
                for (across, found) in found.iter_mut().enumerate() {
                    *found = E::load(values.add(position * size + across * V::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let power = V::splat(*powers.add(r * CHUNK + position));
                    for (sum, values) in sums.iter_mut().zip(found) {
                        *sum = power.mul_add(values, *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (across, sum) in sums.into_iter().enumerate() {
                sum.store(mixed.add(r * size + across * V::LANES));
            }
        }
    }
}
