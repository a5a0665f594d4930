//! Attention with a cache: against the definition in double precision, and calls of all kinds against each other, bit by bit.

#[path = "common/kernels.rs"]
mod common;

use half::f16;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use vintern::kernels::{BlockProduct, CHUNK, Element, GroupedCache, GroupedInputs, GroupedShape, SharedStart};

use common::Backwards;

const HEADS: usize = 6;
const SHARED_HEADS: usize = 2;
const SCALE: f32 = 0.2;

/// One number as an element of a cache, and back.
trait Number: Element + PartialEq + std::fmt::Debug {
    /// Most that a result differs from its definition: an element's rounding, that of keys, and of the sums.
    const TOLERANCE: f64;

    fn of(value: f32) -> Self {
        let mut element = [Self::default()];
        Self::narrow(&[value], &mut element);
        element[0]
    }

    fn value(self) -> f64 {
        let mut value = [0.0];
        Self::widen(&[self], &mut value);
        f64::from(value[0])
    }
}

impl Number for f32 {
    const TOLERANCE: f64 = 2e-5;
}

impl Number for f16 {
    const TOLERANCE: f64 = 5e-3;
}

/// Sequences of random queries, keys and values, and the rotary tables.
struct Sequences<E> {
    head_size: usize,
    /// Of each: `[positions, (heads + 2 x shared heads) x head size]`.
    packed: Vec<Vec<E>>,
    cosines: Vec<E>,
    sines: Vec<E>,
}

impl<E: Number> Sequences<E> {
    fn random(seed: u64, head_size: usize, lengths: &[usize]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let width = (HEADS + 2 * SHARED_HEADS) * head_size;
        let packed =
            lengths.iter().map(|length| (0..length * width).map(|_| E::of(random.random_range(-2.0..2.0))).collect());
        let packed = packed.collect();
        let longest = lengths.iter().max().unwrap() * head_size / 2;
        let angles: Vec<f32> = (0..longest).map(|_| random.random_range(0.0..std::f32::consts::TAU)).collect();
        let (cosines, sines) =
            (angles.iter().map(|a| E::of(a.cos())).collect(), angles.iter().map(|a| E::of(a.sin())).collect());
        Self { head_size, packed, cosines, sines }
    }

    fn width(&self) -> usize {
        (HEADS + 2 * SHARED_HEADS) * self.head_size
    }

    /// A head of a position's queries, keys and values, rotated or not.
    fn head(&self, row: usize, position: usize, head: usize, rotated: bool) -> Vec<f64> {
        let (size, half) = (self.head_size, self.head_size / 2);
        let values = &self.packed[row][position * self.width() + head * size..][..size];
        let value = |index: usize| values[index].value();
        let table = |table: &[E], index: usize| table[position * half + index % half].value();
        let turned = |index: usize| {
            let (cosine, sine) = (table(&self.cosines, index), table(&self.sines, index));
            if index < half {
                value(index) * cosine - value(index + half) * sine
            } else {
                value(index) * cosine + value(index - half) * sine
            }
        };
        (0..size).map(|index| if rotated { turned(index) } else { value(index) }).collect()
    }

    /// What one head of one position is by definition.
    fn expected(&self, row: usize, position: usize, head: usize) -> Vec<f64> {
        let query = self.head(row, position, head, true);
        let shared = HEADS + head / (HEADS / SHARED_HEADS);
        let score = |key: usize| {
            let key = self.head(row, key, shared, true);
            query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(SCALE)
        };
        let scores: Vec<f64> = (0..=position).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let mut mixed = vec![0.0; self.head_size];
        for (key, power) in powers.iter().enumerate() {
            let values = self.head(row, key, shared + SHARED_HEADS, false);
            mixed.iter_mut().zip(values).for_each(|(mixed, value)| *mixed += power * value);
        }
        let sum: f64 = powers.iter().sum();
        mixed.into_iter().map(|value| value / sum).collect()
    }
}

/// A cache, and how far each of its rows is filled.
struct Cache<'a, E> {
    sequences: &'a Sequences<E>,
    capacity: usize,
    keys: Vec<E>,
    values: Vec<E>,
    pasts: Vec<usize>,
}

impl<'a, E: Number> Cache<'a, E> {
    /// What was not written is not a number: nothing may be read there.
    fn new(sequences: &'a Sequences<E>, rows: usize, capacity: usize) -> Self {
        let empty = vec![E::of(f32::NAN); rows * SHARED_HEADS * capacity * sequences.head_size];
        Self { sequences, capacity, keys: empty.clone(), values: empty, pasts: vec![0; rows] }
    }

    /// Runs the next positions of all rows; row `r` goes on with sequence `of[r]`.
    fn run(&mut self, product: BlockProduct, of: &[usize], positions: usize, shared: &[SharedStart]) -> Vec<E> {
        let sequences = self.sequences;
        let width = sequences.width();
        let rows = of.iter().zip(&self.pasts);
        let packed: Vec<E> = rows
            .flat_map(|(of, past)| &sequences.packed[*of][past * width..(past + positions) * width])
            .copied()
            .collect();
        let shape = GroupedShape {
            rows: of.len(),
            positions,
            heads: HEADS,
            shared_heads: SHARED_HEADS,
            head_size: sequences.head_size,
            capacity: self.capacity,
        };
        let (cosines, sines) = (&sequences.cosines, &sequences.sines);
        let inputs = GroupedInputs { packed: &packed, pasts: &self.pasts, cosines, sines, scale: SCALE, shared };
        let mut out = vec![E::of(f32::NAN); of.len() * positions * shape.width()];
        let cache = GroupedCache { keys: &mut self.keys, values: &mut self.values };
        let Ok(()) = product.grouped_attention(shape, inputs, cache, &mut out, &Backwards);
        self.pasts.iter_mut().for_each(|past| *past += positions);
        out
    }
}

#[test]
fn it_is_its_definition() {
    is_its_definition::<f32>();
    is_its_definition::<f16>();
}

fn is_its_definition<E: Number>() {
    for product in BlockProduct::all() {
        for (seed, (head_size, positions)) in
            [(16, 1), (48, 40), (64, CHUNK), (128, 2 * CHUNK + 37)].into_iter().enumerate()
        {
            let sequences = Sequences::<E>::random(seed as u64, head_size, &[positions]);
            let out = Cache::new(&sequences, 1, positions + 3).run(product, &[0], positions, &[]);
            for (index, found) in out.chunks_exact(head_size).enumerate() {
                let expected = sequences.expected(0, index / HEADS, index % HEADS);
                for (found, expected) in found.iter().zip(expected) {
                    let difference = (found.value() - expected).abs();
                    assert!(
                        difference < E::TOLERANCE,
                        "head size {head_size}, head {index}: {found:?} instead of {expected}"
                    );
                }
            }
        }
    }
}

/// A position's result is the same whether it is computed alone, among many positions, or beside other rows.
#[test]
fn company_changes_nothing() {
    company_changes_nothing_of::<f32>();
    company_changes_nothing_of::<f16>();
}

fn company_changes_nothing_of<E: Number>() {
    for product in BlockProduct::all() {
        let lengths = [CHUNK + 70, 200, 150];
        let sequences = Sequences::<E>::random(7, 32, &lengths);
        let width = HEADS * 32;
        let whole: Vec<Vec<E>> =
            (0..3).map(|of| Cache::new(&sequences, 1, 300).run(product, &[of], lengths[of], &[])).collect();
        let mut cache = Cache::new(&sequences, 3, 256);
        let mut done = 0;
        for positions in [60, 1, 30, 3, 34, 1, 1, 5, 15] {
            let out = cache.run(product, &[0, 1, 2], positions, &[]);
            for (of, out) in out.chunks_exact(positions * width).enumerate() {
                assert_eq!(
                    out,
                    &whole[of][done * width..(done + positions) * width],
                    "{positions} positions of row {of}"
                );
            }
            done += positions;
        }
    }
}

/// Rows that are told to begin alike give what they give when they are not.
#[test]
fn a_shared_start_changes_nothing() {
    a_shared_start_changes_nothing_of::<f32>();
    a_shared_start_changes_nothing_of::<f16>();
}

fn a_shared_start_changes_nothing_of<E: Number>() {
    for product in BlockProduct::all() {
        let start = 2 * CHUNK + 20;
        let mut sequences = Sequences::<E>::random(8, 64, &[start + 9; 9]);
        let width = sequences.width();
        for row in [2, 3, 5, 6, 7, 8] {
            let (first, rest) = sequences.packed.split_at_mut(row);
            rest[0][..start * width].copy_from_slice(&first[1][..start * width]);
        }
        let rows: Vec<usize> = (0..9).collect();
        let (mut apart, mut together) = (Cache::new(&sequences, 9, 400), Cache::new(&sequences, 9, 400));
        assert!(apart.run(product, &rows, start, &[]) == together.run(product, &rows, start, &[]));
        let shared = SharedStart { rows: vec![2, 1, 8, 3, 5, 6, 7], positions: start };
        for positions in [1, 1, 4, 2] {
            let found = together.run(product, &rows, positions, std::slice::from_ref(&shared));
            assert!(apart.run(product, &rows, positions, &[]) == found, "{positions} positions");
        }
        // The other rows' keys are not read there.
        let taken = SHARED_HEADS * 400 * 64 * 3;
        together.keys[taken..][..CHUNK * 64].fill(E::of(f32::NAN));
        together.pasts.iter_mut().chain(&mut apart.pasts).for_each(|past| *past -= 1);
        assert!(apart.run(product, &rows, 1, &[]) == together.run(product, &rows, 1, &[shared]));
    }
}
