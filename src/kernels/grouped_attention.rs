//! Causal grouped-query attention over a cache of keys and values.
//!
//! Keys are worked on in chunks of [`CHUNK`] positions counted from the beginning of the row. Each chunk gives a query the
//! largest of its scores, the sum of their powers and the mixed values, and chunks are joined in order. What a query gets
//! depends on nothing but itself and its row: not on the rows beside it, nor on how many positions a call has.
//!
//! Rows that begin with the same keys and values are told as [`SharedStart`]: these chunks are then read from memory once for
//! all of them.

use std::cell::RefCell;

use super::chunk::{self, Lines};
use super::element::Element;
use super::product::{BlockProduct, Shared, Tasks};

/// Positions of a chunk of keys.
pub const CHUNK: usize = 128;

/// Most queries of one piece of work.
const LINES: usize = 64;

/// Positions that are rotated in one piece of work.
const ROTATED: usize = 16;

/// Values that the calling thread is done with before another one has begun.
const FEW_VALUES: usize = 1 << 13;

/// Sizes of an attention with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupedShape {
    /// Rows: sequences.
    pub rows: usize,
    /// New positions of each row.
    pub positions: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and of values; each serves as many heads of queries.
    pub shared_heads: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Positions the cache has room for.
    pub capacity: usize,
}

impl GroupedShape {
    /// Largest width of a head there is a kernel for.
    pub const MAX_HEAD_SIZE: usize = 256;

    /// Whether there is a kernel for heads of this width.
    pub fn is_supported_size(head_size: usize) -> bool {
        (1..=Self::MAX_HEAD_SIZE / 16).contains(&(head_size / 16)) && head_size.is_multiple_of(16)
    }

    /// Width of a position's queries, keys and values.
    pub fn packed_width(&self) -> usize {
        (self.heads + 2 * self.shared_heads) * self.head_size
    }

    /// Width of a position's result.
    pub fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Values of the keys, and of the values, in the cache.
    pub fn cache_len(&self) -> usize {
        self.rows * self.shared_heads * self.capacity * self.head_size
    }

    /// Heads of queries that share a head of keys.
    fn group(&self) -> usize {
        self.heads / self.shared_heads
    }

    /// Queries of a row that share a head of keys.
    fn lines(&self) -> usize {
        self.positions * self.group()
    }

    /// Where a row's keys of a head begin in the cache.
    fn cache_start(&self, row: usize, head: usize) -> usize {
        (row * self.shared_heads + head) * self.capacity * self.head_size
    }
}

/// What goes into an attention with a cache.
#[derive(Clone, Copy, Debug)]
pub struct GroupedInputs<'a, E = f32> {
    /// Queries, then keys, then values of the new positions, `[rows, positions, packed width]`.
    pub packed: &'a [E],
    /// Positions in the cache of each row.
    pub pasts: &'a [usize],
    /// Cosines of the rotary embedding, `[at least past + positions, head size / 2]`.
    pub cosines: &'a [E],
    /// Sines, of the same shape.
    pub sines: &'a [E],
    /// What scores are multiplied with.
    pub scale: f32,
    /// Rows whose cache begins alike. A row is in one of them at most.
    pub shared: &'a [SharedStart],
}

/// Rows whose keys and values are the same at their first positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedStart {
    /// The rows, two at least.
    pub rows: Vec<usize>,
    /// How many positions, none of them new.
    pub positions: usize,
}

/// Keys and values, `[rows, shared heads, capacity, head size]` each.
#[derive(Debug)]
pub struct GroupedCache<'a, E = f32> {
    /// Keys, rotated.
    pub keys: &'a mut [E],
    /// Values.
    pub values: &'a mut [E],
}

/// Memory of a call.
#[derive(Default)]
struct Buffers {
    /// Rotated and scaled queries, `[rows, shared heads, positions, group, head size]`.
    queries: Vec<f32>,
    /// Mixed values of every chunk, `[rows, shared heads, lines, chunks, head size]`, where queries are few.
    mixed: Vec<f32>,
    /// What belongs to them, `[rows, shared heads, lines, chunks]`.
    weights: Vec<Weight>,
}

/// The softmax of a query over some keys, before it is divided by its sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    /// The largest score.
    pub(super) largest: f32,
    /// The sum of e^(score - largest).
    pub(super) sum: f32,
}

impl Weight {
    pub(super) const NONE: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };
}

/// Queries that meet the same keys, and what they find: memory of one thread.
#[derive(Default)]
struct Tile {
    /// Row, and line of the row's queries, of each.
    lines: Vec<(usize, usize)>,
    /// The queries, `[lines, head size]`.
    queries: Vec<f32>,
    /// Keys of the chunk that each of them sees.
    limits: Vec<usize>,
    /// Mixed values, `[lines, head size]`, and what belongs to them.
    mixed: Vec<f32>,
    weights: Vec<Weight>,
    /// The same for the chunks so far.
    total: Vec<f32>,
    totals: Vec<Weight>,
    scratch: chunk::Scratch,
}

thread_local! {
    static TILE: RefCell<Tile> = RefCell::default();
    /// What a position is rotated in.
    static WIDE: RefCell<Vec<f32>> = RefCell::default();
}

impl BlockProduct {
    /// Rotates the new queries and keys, adds the new keys and values to the cache, and computes
    /// softmax(scale x query x keys up to its own position) x values, head by head.
    ///
    /// `out`: `[rows, positions, heads x head size]`. All is computed in float32; only keys and results are rounded to `E`. The
    /// rotary embedding turns the first half of a head against the second.
    ///
    /// # Errors
    /// What `tasks` says.
    ///
    /// # Panics
    /// When the sizes do not fit together, or the head size is not supported.
    pub fn grouped_attention<E: Element, T: Tasks>(
        self,
        shape: GroupedShape,
        inputs: GroupedInputs<'_, E>,
        cache: GroupedCache<'_, E>,
        out: &mut [E],
        tasks: &T,
    ) -> Result<(), T::Error> {
        check(shape, &inputs, &cache, out);
        assert!(GroupedShape::is_supported_size(shape.head_size), "there is no kernel for {shape:?}");
        if out.is_empty() {
            return Ok(());
        }
        thread_local! {
            static BUFFERS: RefCell<Buffers> = RefCell::default();
        }
        BUFFERS.with_borrow_mut(|buffers| {
            buffers.queries.resize(shape.rows * shape.positions * shape.width(), 0.0);
            let call =
                Call { product: self, shape, inputs, keys: Shared::new(cache.keys), values: Shared::new(cache.values) };
            call.rotate(&mut buffers.queries, tasks)?;
            if shape.lines() > LINES { call.many(&buffers.queries, out, tasks) } else { call.few(buffers, out, tasks) }
        })
    }
}

fn check<E>(shape: GroupedShape, inputs: &GroupedInputs<'_, E>, cache: &GroupedCache<'_, E>, out: &[E]) {
    assert!(shape.shared_heads > 0 && shape.heads.is_multiple_of(shape.shared_heads), "heads do not fit in {shape:?}");
    let new = shape.rows * shape.positions;
    for (name, found, expected) in [
        ("packed", inputs.packed.len(), new * shape.packed_width()),
        ("keys", cache.keys.len(), shape.cache_len()),
        ("values", cache.values.len(), shape.cache_len()),
        ("output", out.len(), new * shape.width()),
        ("pasts", inputs.pasts.len(), shape.rows),
        ("sines", inputs.sines.len(), inputs.cosines.len()),
    ] {
        assert_eq!(found, expected, "{name} has another size than {shape:?}");
    }
    let total = inputs.pasts.iter().max().map_or(0, |past| past + shape.positions);
    assert!(total <= shape.capacity, "{total} positions are more than the cache of {shape:?} holds");
    assert!(inputs.cosines.len() >= total * (shape.head_size / 2), "the rotary tables end before position {total}");
    let mut seen = vec![false; shape.rows];
    for start in inputs.shared {
        for &row in &start.rows {
            assert!(start.positions <= inputs.pasts[row], "row {row} has no {} positions to share", start.positions);
            assert!(!std::mem::replace(&mut seen[row], true), "row {row} shares its start twice");
        }
    }
}

/// A call, its sizes checked.
struct Call<'a, E> {
    product: BlockProduct,
    shape: GroupedShape,
    inputs: GroupedInputs<'a, E>,
    keys: Shared<E>,
    values: Shared<E>,
}

impl<E: Element> Call<'_, E> {
    /// Rotates queries and keys; keys and values go into the cache.
    fn rotate<T: Tasks>(&self, queries: &mut [f32], tasks: &T) -> Result<(), T::Error> {
        let (shape, queries) = (self.shape, Shared::new(queries));
        let pieces = shape.positions.div_ceil(ROTATED);
        run(shape.rows * pieces, self.inputs.packed.len(), tasks, &|task| {
            let (row, piece) = (task / pieces, task % pieces);
            WIDE.with_borrow_mut(|wide| {
                wide.resize(shape.packed_width() + shape.head_size, 0.0);
                for position in (piece * ROTATED..shape.positions).take(ROTATED) {
                    // SAFETY: each position of each row is in one task.
                    unsafe { self.rotate_position(row, position, &queries, wide) };
                }
            });
        })
    }

    /// `wide`: room for the position's queries, keys and values, and for its cosines and sines, `[packed width + head size]`.
    ///
    /// # Safety
    /// Nothing else touches what belongs to this position meanwhile.
    unsafe fn rotate_position(&self, row: usize, position: usize, queries: &Shared<f32>, wide: &mut [f32]) {
        let (shape, size, half) = (self.shape, self.shape.head_size, self.shape.head_size / 2);
        let place = self.inputs.pasts[row] + position;
        let (wide, tables) = wide.split_at_mut(shape.packed_width());
        let (cosines, sines) = tables.split_at_mut(half);
        E::widen(&self.inputs.cosines[place * half..][..half], cosines);
        E::widen(&self.inputs.sines[place * half..][..half], sines);
        let packed = &self.inputs.packed[(row * shape.positions + position) * shape.packed_width()..];
        let packed = &packed[..shape.packed_width()];
        E::widen(packed, wide);
        let turn = |from: &[f32], scale: f32, to: &mut [f32]| {
            let ((first, second), (front, back)) = (from.split_at(half), to.split_at_mut(half));
            for index in 0..half {
                front[index] = (first[index] * cosines[index] - second[index] * sines[index]) * scale;
                back[index] = (second[index] * cosines[index] + first[index] * sines[index]) * scale;
            }
        };
        let mut heads = wide.chunks_exact(size);
        for (head, query) in heads.by_ref().take(shape.heads).enumerate() {
            let line = self.line(row, head / shape.group()) + position * shape.group() + head % shape.group();
            // SAFETY: as the caller vouches; `queries` has a line for every head of every position.
            turn(query, self.inputs.scale, unsafe { queries.part(line * size, size) });
        }
        for (head, key) in heads.take(shape.shared_heads).enumerate() {
            let mut turned = [0.0; GroupedShape::MAX_HEAD_SIZE];
            turn(key, 1.0, &mut turned[..size]);
            // SAFETY: as above; the place is inside the cache.
            E::narrow(&turned[..size], unsafe { self.keys.part(shape.cache_start(row, head) + place * size, size) });
        }
        let values = packed[(shape.heads + shape.shared_heads) * size..].chunks_exact(size);
        for (head, value) in values.enumerate() {
            // SAFETY: as above.
            unsafe { self.values.part(shape.cache_start(row, head) + place * size, size) }.copy_from_slice(value);
        }
    }

    /// First line of a row's queries for a head of keys.
    fn line(&self, row: usize, head: usize) -> usize {
        (row * self.shape.shared_heads + head) * self.shape.lines()
    }

    /// Where a line's result belongs in the output.
    fn place(&self, row: usize, head: usize, line: usize) -> usize {
        let (shape, group) = (self.shape, self.shape.group());
        let position = row * shape.positions + line / group;
        (position * shape.heads + head * group + line % group) * shape.head_size
    }

    /// Many queries: a task takes some of them through all chunks.
    fn many<T: Tasks>(&self, queries: &[f32], out: &mut [E], tasks: &T) -> Result<(), T::Error> {
        let (shape, size, out) = (self.shape, self.shape.head_size, Shared::new(out));
        let tiles = shape.lines().div_ceil(LINES);
        let heads = shape.rows * shape.shared_heads;
        tasks.run(heads * tiles, &|task| {
            // The last queries see most keys: they come first.
            let (first, head) = ((tiles - 1 - task / heads) * LINES, task % shape.shared_heads);
            let row = task % heads / shape.shared_heads;
            let lines = (first..shape.lines()).take(LINES);
            let positions = self.inputs.pasts[row] + lines.clone().next_back().unwrap_or(0) / shape.group() + 1;
            TILE.with_borrow_mut(|tile| {
                self.gather(tile, queries, head, lines.map(|line| (row, line)));
                tile.total.clear();
                tile.total.resize(tile.queries.len(), 0.0);
                tile.totals.clear();
                tile.totals.resize(tile.lines.len(), Weight::NONE);
                for chunk in 0..positions.div_ceil(CHUNK) {
                    self.attend(tile, row, head, chunk);
                    let parts = tile.total.chunks_exact_mut(size).zip(tile.mixed.chunks_exact(size));
                    for ((total, mixed), (sum, weight)) in parts.zip(tile.totals.iter_mut().zip(&tile.weights)) {
                        join(sum, total, *weight, mixed);
                    }
                }
                let totals = tile.total.chunks_exact_mut(size).zip(&tile.totals);
                for ((_, line), (total, sum)) in tile.lines.iter().zip(totals) {
                    // SAFETY: each line is in one task, and has its own place in the output.
                    finish(total, *sum, unsafe { out.part(self.place(row, head, *line), size) });
                }
            });
        })
    }

    /// Few queries: a task takes one chunk of a head, for all rows that share it; what they find is joined after.
    fn few<T: Tasks>(&self, buffers: &mut Buffers, out: &mut [E], tasks: &T) -> Result<(), T::Error> {
        let (shape, size) = (self.shape, self.shape.head_size);
        let furthest = self.inputs.pasts.iter().max().map_or(0, |past| past + shape.positions);
        let (chunks, heads) = (furthest.div_ceil(CHUNK), shape.rows * shape.shared_heads);
        buffers.weights.resize(heads * shape.lines() * chunks, Weight::NONE);
        buffers.mixed.resize(heads * shape.lines() * chunks * size, 0.0);
        let (weights, mixed) = (Shared::new(&mut buffers.weights), Shared::new(&mut buffers.mixed));
        let every: Vec<usize> = (0..shape.rows).collect();
        let jobs = self.jobs(&every);
        tasks.run(jobs.len() * shape.shared_heads, &|task| {
            // In the order of memory: what is asked for ahead of time is mostly what the same thread needs next.
            let ((rows, chunk), head) = (jobs[task % jobs.len()], task / jobs.len());
            let mut lines = rows.iter().flat_map(|row| (0..shape.lines()).map(|line| (*row, line))).peekable();
            while lines.peek().is_some() {
                TILE.with_borrow_mut(|tile| {
                    self.gather(tile, &buffers.queries, head, lines.by_ref().take(LINES));
                    self.attend(tile, rows[0], head, chunk);
                    for (((row, line), weight), found) in
                        tile.lines.iter().zip(&tile.weights).zip(tile.mixed.chunks_exact(size))
                    {
                        let place = (self.line(*row, head) + line) * chunks + chunk;
                        // SAFETY: a chunk of a line is in one task.
                        unsafe {
                            weights.part(place, 1)[0] = *weight;
                            mixed.part(place * size, size).copy_from_slice(found);
                        }
                    }
                });
            }
        })?;
        let (values, out) = (buffers.mixed.len(), Shared::new(out));
        run(heads, values, tasks, &|task| {
            let (row, head) = (task / shape.shared_heads, task % shape.shared_heads);
            for line in 0..shape.lines() {
                let first = (self.line(row, head) + line) * chunks;
                let positions = self.inputs.pasts[row] + line / shape.group() + 1;
                let (mut total, mut sum) = ([0.0; GroupedShape::MAX_HEAD_SIZE], Weight::NONE);
                let total = &mut total[..size];
                for chunk in first..first + positions.div_ceil(CHUNK) {
                    join(&mut sum, total, buffers.weights[chunk], &buffers.mixed[chunk * size..][..size]);
                }
                // SAFETY: each line is in one task, and has its own place in the output.
                finish(total, sum, unsafe { out.part(self.place(row, head, line), size) });
            }
        })
    }

    /// Chunks to work on and the rows that meet in them, the first of which has its keys read. `every`: all rows in order.
    fn jobs<'r>(&'r self, every: &'r [usize]) -> Vec<(&'r [usize], usize)> {
        let mut first_own = vec![0; every.len()];
        let mut jobs = Vec::new();
        for start in self.inputs.shared {
            let chunks = start.positions / CHUNK;
            jobs.extend((0..chunks).map(|chunk| (start.rows.as_slice(), chunk)));
            for &row in &start.rows {
                first_own[row] = chunks;
            }
        }
        for (row, past) in every.iter().zip(self.inputs.pasts) {
            let chunks = (past + self.shape.positions).div_ceil(CHUNK);
            jobs.extend((first_own[*row]..chunks).map(|chunk| (std::slice::from_ref(row), chunk)));
        }
        jobs
    }

    /// Makes a tile of some lines.
    fn gather(&self, tile: &mut Tile, queries: &[f32], head: usize, lines: impl Iterator<Item = (usize, usize)>) {
        let size = self.shape.head_size;
        tile.lines.clear();
        tile.lines.extend(lines);
        tile.queries.clear();
        for (row, line) in &tile.lines {
            tile.queries.extend_from_slice(&queries[(self.line(*row, head) + line) * size..][..size]);
        }
        tile.mixed.resize(tile.queries.len(), 0.0);
        tile.weights.resize(tile.lines.len(), Weight::NONE);
    }

    /// Lets a tile's queries meet the keys of a chunk, as they stand in `row`.
    fn attend(&self, tile: &mut Tile, row: usize, head: usize, chunk: usize) {
        let (group, pasts) = (self.shape.group(), self.inputs.pasts);
        let limit = |(row, line): &(usize, usize)| (pasts[*row] + line / group + 1).saturating_sub(chunk * CHUNK);
        tile.limits.clear();
        tile.limits.extend(tile.lines.iter().map(|line| limit(line).min(CHUNK)));
        let size = self.shape.head_size;
        let start = self.shape.cache_start(row, head) + chunk * CHUNK * size;
        let lines =
            Lines { queries: &tile.queries, limits: &tile.limits, mixed: &mut tile.mixed, weights: &mut tile.weights };
        // SAFETY: the limits are inside the row's part of the cache, whose keys and values up to there were written, before
        // or by `rotate`, and are not written now; sizes of heads are multiples of all registers.
        unsafe {
            let cached = (self.keys.pointer().add(start).cast_const(), self.values.pointer().add(start).cast_const());
            self.product.attend(lines, cached, size, &mut tile.scratch);
        }
    }
}

/// Adds what a chunk gave to what the chunks before it gave.
fn join(sum: &mut Weight, total: &mut [f32], weight: Weight, mixed: &[f32]) {
    if weight.sum == 0.0 {
        return;
    }
    let largest = sum.largest.max(weight.largest);
    // The first chunk finds a sum of 0, and e^-inf is 0.
    let (kept, added) = ((sum.largest - largest).exp(), (weight.largest - largest).exp());
    for (total, mixed) in total.iter_mut().zip(mixed) {
        *total = *total * kept + *mixed * added;
    }
    *sum = Weight { largest, sum: sum.sum * kept + weight.sum * added };
}

/// Divides by the sum.
fn finish<E: Element>(total: &mut [f32], weight: Weight, out: &mut [E]) {
    let factor = 1.0 / weight.sum;
    for total in &mut *total {
        *total *= factor;
    }
    E::narrow(total, out);
}

/// Runs tasks that touch so many `values` together.
fn run<T: Tasks>(count: usize, values: usize, tasks: &T, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), T::Error> {
    if values > FEW_VALUES {
        return tasks.run(count, task);
    }
    (0..count).for_each(task);
    Ok(())
}
