//! Products with block-quantised matrices, and attention: against the definition in double precision, and one way of
//! computing against the other.

#[path = "common/kernels.rs"]
mod common;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use vintern::kernels::{
    AttentionInputs, AttentionShape, BlockFormat, BlockMatrix, BlockProduct, BlockTable, FormatError, PackedCodes,
};

use common::Backwards;

const FORMATS: [(usize, usize); 4] = [(4, 32), (4, 64), (4, 128), (8, 128)];
/// Outputs and inputs: whole strips and groups, and all kinds of remainders.
const SIZES: [(usize, usize); 6] = [(64, 128), (200, 320), (17, 96), (130, 1100), (1, 32), (65, 40)];

/// A matrix that owns its tensors.
struct Weights {
    format: BlockFormat,
    size: (usize, usize),
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<u8>>,
}

impl Weights {
    /// Half of them with scales that fit a byte each.
    fn random(random: &mut StdRng, (bits, block_size): (usize, usize), size: (usize, usize), symmetric: bool) -> Self {
        let blocks = size.1.div_ceil(block_size);
        let mut bytes = |count: usize| (0..count).map(|_| random.random()).collect::<Vec<u8>>();
        let codes = bytes(size.0 * blocks * block_size * bits / 8);
        let zero_points = (!symmetric).then(|| bytes(size.0 * (blocks * bits).div_ceil(8)));
        let mut scales: Vec<f32> = (0..size.0 * blocks).map(|_| random.random_range(-0.01..0.01)).collect();
        let short = random.random_bool(0.5);
        if short {
            for scale in &mut scales {
                *scale = f32::from_bits(scale.abs().max(1e-6).to_bits() >> 19 << 19);
            }
        }
        let weights = Self { format: BlockFormat::new(bits, block_size).unwrap(), size, codes, scales, zero_points };
        assert_eq!(weights.table().has_short_scales(), short);
        weights
    }

    fn table(&self) -> BlockTable {
        BlockTable::new(self.format, self.size, &self.scales, self.zero_points.as_deref()).unwrap()
    }

    /// A weight, read off the packed tensors by the definition of `MatMulNBits`.
    fn value(&self, output: usize, input: usize) -> f64 {
        let (bits, block_size) = (self.format.bits(), self.format.block_size());
        let blocks = self.size.1.div_ceil(block_size);
        let block = input / block_size;
        let code = |bytes: &[u8], index: usize| match bits {
            4 if index.is_multiple_of(2) => f64::from(bytes[index / 2] & 15),
            4 => f64::from(bytes[index / 2] >> 4),
            _ => f64::from(bytes[index]),
        };
        let found = code(&self.codes[output * blocks * block_size * bits / 8..], input);
        let middle = f64::from(1 << (bits - 1));
        let zero_bytes = (blocks * bits).div_ceil(8);
        let zero = self.zero_points.as_ref().map_or(middle, |zeros| code(&zeros[output * zero_bytes..], block));
        (found - zero) * f64::from(self.scales[output * blocks + block])
    }

    fn product(&self, product: BlockProduct, values: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let mut out = vec![f32::NAN; values.len() / self.size.1 * self.size.0];
        let table = self.table();
        let matrix = BlockMatrix::new(&self.codes, &table).unwrap();
        let Ok(()) = product.run(values, &matrix, bias, &mut out, &Backwards);
        if product.reads_packed() || product == BlockProduct::portable() {
            let mut packed = PackedCodes::zeroed(&table).unwrap();
            let Ok(()) = packed.fill(&matrix, &Backwards);
            let mut with_packed = vec![f32::NAN; out.len()];
            let matrix = BlockMatrix::packed(&packed, &table).unwrap();
            let Ok(()) = product.run(values, &matrix, bias, &mut with_packed, &Backwards);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&with_packed), bits(&out), "packed codes: {} {:?}", product.name(), self.size);
        }
        out
    }
}

/// The fast kernels of this processor, each kind of instructions by itself; a test of them passes where there are none.
fn fast() -> Vec<BlockProduct> {
    let mut found = BlockProduct::all();
    found.retain(|product| *product != BlockProduct::portable());
    if found.is_empty() {
        eprintln!("no fast kernels for this processor: not tested");
    }
    found
}

/// The fastest kernels of this processor that have one for attention; a test of it passes where there are none.
fn with_attention() -> Option<BlockProduct> {
    let found = BlockProduct::all().into_iter().find(|product| product.has_attention());
    if found.is_none() {
        eprintln!("no attention kernel for this processor: not tested");
    }
    found
}

fn random_values(random: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Within what 8 bits of the group's largest activation can make of the product.
#[test]
fn the_portable_way_is_the_definition() {
    let mut random = StdRng::seed_from_u64(1);
    for format in FORMATS {
        for size in SIZES {
            for symmetric in [true, false] {
                let weights = Weights::random(&mut random, format, size, symmetric);
                let (values, bias) = (random_values(&mut random, 2 * size.1), random_values(&mut random, size.0));
                let found = weights.product(BlockProduct::portable(), &values, Some(&bias));
                for (row, values) in values.chunks(size.1).enumerate() {
                    for output in 0..size.0 {
                        let terms = values.iter().enumerate().map(|(i, x)| weights.value(output, i) * f64::from(*x));
                        let expected = terms.sum::<f64>() + f64::from(bias[output]);
                        let magnitude: f64 = (0..size.1).map(|input| weights.value(output, input).abs()).sum();
                        let tolerance = magnitude * (0.5 / 127.0) + 1e-5;
                        let difference = (f64::from(found[row * size.0 + output]) - expected).abs();
                        assert!(difference <= tolerance, "{format:?} {size:?}: {difference} > {tolerance}");
                    }
                }
            }
        }
    }
}

/// Few rows in every way of computing; many, where it is exact.
#[test]
fn the_fast_ways_give_the_same_bits() {
    let mut random = StdRng::seed_from_u64(2);
    for (fast, format, size) in fast().into_iter().flat_map(every_form) {
        for symmetric in [true, false] {
            let weights = Weights::random(&mut random, format, size, symmetric);
            let all = [1, 2, 3, 4, 5, 8, 9, 11, 16, 17, 18, 19, 270];
            for rows in all.into_iter().filter(|rows| *rows <= 16 || fast.is_exact()) {
                let values = random_values(&mut random, rows * size.1);
                let bias = random_values(&mut random, size.0);
                let found = weights.product(fast, &values, Some(&bias));
                let expected = weights.product(BlockProduct::portable(), &values, Some(&bias));
                assert_eq!(found, expected, "{} {format:?} {size:?} {symmetric} {rows}", fast.name());
            }
        }
    }
}

/// Many rows where they are not exact: within what rounding both factors to bfloat16 can make of the product.
#[test]
fn many_rows_of_bfloat16_are_the_definition() {
    let mut random = StdRng::seed_from_u64(7);
    for (fast, format, size) in fast().into_iter().filter(|product| !product.is_exact()).flat_map(every_form) {
        for (rows, symmetric) in [(17, true), (32, false), (50, false), (290, true)] {
            let weights = Weights::random(&mut random, format, size, symmetric);
            let (values, bias) = (random_values(&mut random, rows * size.1), random_values(&mut random, size.0));
            let found = weights.product(fast, &values, Some(&bias));
            for row in (0..rows).step_by(1 + rows / 20).chain([rows - 1]) {
                for output in (0..size.0).step_by(1 + size.0 / 20).chain([size.0 - 1]) {
                    let terms =
                        (0..size.1).map(|input| weights.value(output, input) * f64::from(values[row * size.1 + input]));
                    let (sum, magnitude) =
                        terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
                    let tolerance = magnitude * (2.1 / 256.0 / 2.0) + 1e-5;
                    let difference = (f64::from(found[row * size.0 + output] - bias[output]) - sum).abs();
                    assert!(difference <= tolerance, "{format:?} {size:?} {rows}: {difference} > {tolerance}");
                }
            }
        }
    }
}

/// A way of computing with each format and size.
fn every_form(product: BlockProduct) -> impl Iterator<Item = (BlockProduct, (usize, usize), (usize, usize))> {
    FORMATS.into_iter().flat_map(move |format| SIZES.map(|size| (product, format, size)))
}

/// Alone, in a small company and in a large one: a massive row among them costs the others nothing.
#[test]
fn a_row_does_not_depend_on_its_company() {
    let mut random = StdRng::seed_from_u64(3);
    for (fast, format) in fast().into_iter().flat_map(|fast| FORMATS.map(|format| (fast, format))) {
        let weights = Weights::random(&mut random, format, (130, 1100), false);
        let mut values = random_values(&mut random, 60 * 1100);
        values[1100..2200].iter_mut().for_each(|value| *value *= 1e6);
        let together = weights.product(fast, &values, None);
        let part =
            |rows: std::ops::Range<usize>| weights.product(fast, &values[rows.start * 1100..rows.end * 1100], None);
        assert_eq!(part(3..43), together[3 * 130..43 * 130], "{} {format:?}", fast.name());
        if fast.is_exact() {
            for (row, together) in together.chunks(130).enumerate() {
                assert_eq!(part(row..row + 1), together, "{} {format:?}, row {row}", fast.name());
            }
            assert_eq!(part(0..3), together[..3 * 130]);
        }
    }
}

#[test]
fn rows_without_a_scale() {
    let mut random = StdRng::seed_from_u64(4);
    for product in std::iter::once(BlockProduct::portable()).chain(fast()) {
        for rows in [2, 40] {
            let weights = Weights::random(&mut random, (4, 32), (70, 256), false);
            let mut values = random_values(&mut random, rows * 256);
            values[..256].fill(0.0);
            values[256 + 7] = f32::NAN;
            let found = weights.product(product, &values, None);
            assert!(found[..70].iter().all(|value| *value == 0.0), "{}", product.name());
            assert!(found[70..140].iter().all(|value| value.is_nan()), "{}", product.name());
            assert!(found[140..].iter().all(|value| value.is_finite()), "{}", product.name());
        }
    }
}

#[test]
fn scales_that_do_not_fit_a_byte_stay_whole() {
    let format = BlockFormat::new(4, 32).unwrap();
    let short =
        |scales: &[f32]| BlockTable::new(format, (scales.len() / 2, 64), scales, None).unwrap().has_short_scales();
    // There are 16 numbers from a power of two to the next, and 256 in a byte.
    assert!(short(&[1.0, 1.0625, 0.25, 0.25 * 1.9375]));
    assert!(short(&[1.0, 63488.0]));
    assert!(!short(&[1.0, 65536.0]));
    // Each output has a range of its own.
    assert!(short(&[1.0, 2.0, 65536.0, 131_072.0]));
    assert!(!short(&[1.0, 1.03125]));
    assert!(!short(&[1.0, -1.0]));
    assert!(!short(&[f32::INFINITY, 1.0]) && !short(&[f32::NAN, 1.0]));
    assert!(short(&[0.0, 0.0]));
}

#[test]
fn what_there_is_no_kernel_for_is_refused() {
    for (bits, block_size) in [(4, 16), (4, 256), (8, 32), (2, 128)] {
        assert_eq!(BlockFormat::new(bits, block_size), Err(FormatError::Unsupported { bits, block_size }));
    }
    let format = BlockFormat::new(4, 32).unwrap();
    let matrix = |codes: usize, scales: usize, zeros: usize| {
        let (codes, scales, zeros) = (vec![0; codes], vec![0.0; scales], vec![0; zeros]);
        let table = BlockTable::new(format, (3, 40), &scales, Some(&zeros))?;
        BlockMatrix::new(&codes, &table).map(drop)
    };
    assert_eq!(matrix(96, 6, 3), Ok(()));
    let size = |tensor, found, expected| Err(FormatError::Size { tensor, found, expected, outputs: 3, inputs: 40 });
    assert_eq!(matrix(95, 6, 3), size("codes", 95, 96));
    assert_eq!(matrix(96, 5, 3), size("scales", 5, 6));
    assert_eq!(matrix(96, 6, 4), size("zero points", 4, 3));
    let table = |outputs: usize| BlockTable::new(format, (outputs, 32), &vec![0.0; outputs], None).unwrap();
    let packed = PackedCodes::zeroed(&table(17)).unwrap();
    assert!(BlockMatrix::packed(&packed, &table(17)).is_ok());
    let error = BlockMatrix::packed(&packed, &table(16)).err();
    assert_eq!(
        error,
        Some(FormatError::Size { tensor: "codes", found: 2048, expected: 1024, outputs: 16, inputs: 32 })
    );
}

/// Queries, keys, values and biases of an attention.
struct Attention {
    shape: AttentionShape,
    tensors: [Vec<f32>; 3],
    bias: Option<Vec<f32>>,
    scale: Option<f32>,
}

impl Attention {
    /// Keys and values have a mean far from 0, as those of trained networks do.
    fn random(random: &mut StdRng, (batch, positions, heads, head_size): (usize, usize, usize, usize)) -> Self {
        let shape = AttentionShape { batch, positions, heads, head_size };
        let mut tensor = |factor: f32, mean: f32| {
            let values = random_values(random, shape.len());
            values.into_iter().map(|value| value * factor + mean).collect()
        };
        let tensors = [tensor(2.0, 0.1), tensor(2.0, 5.0), tensor(1.0, -3.0)];
        Self { shape, tensors, bias: Some(random_values(random, 3 * shape.width())), scale: None }
    }

    fn inputs(&self) -> AttentionInputs<'_> {
        let [query, key, value] = &self.tensors;
        AttentionInputs { query, key, value, bias: self.bias.as_deref() }
    }

    fn found(&self, product: BlockProduct) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.shape.len()];
        let Ok(()) = product.attention(self.shape, self.inputs(), self.scale, &mut out, &Backwards);
        out
    }

    /// Query (0), key (1) or value (2) with its bias.
    fn value(&self, part: usize, sequence: usize, position: usize, channel: usize) -> f64 {
        let width = self.shape.width();
        let value = self.tensors[part][(sequence * self.shape.positions + position) * width + channel];
        f64::from(value) + self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[part * width + channel]))
    }

    /// softmax(q k / sqrt(d)) v of one head at one position, and the mean of the values.
    fn expected(&self, sequence: usize, head: usize, position: usize) -> (Vec<f64>, Vec<f64>) {
        let AttentionShape { positions, head_size, .. } = self.shape;
        let channels = head * head_size..(head + 1) * head_size;
        let scale = self.scale.map_or((head_size as f64).sqrt().recip(), f64::from);
        let score = |key: usize| {
            let term = |c| self.value(0, sequence, position, c) * self.value(1, sequence, key, c);
            channels.clone().map(term).sum::<f64>() * scale
        };
        let scores: Vec<f64> = (0..positions).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        let mix = |weight: &dyn Fn(usize) -> f64| {
            let channel = |c| (0..positions).map(|key| weight(key) * self.value(2, sequence, key, c)).sum();
            channels.clone().map(channel).collect()
        };
        (mix(&|key| powers[key] / sum), mix(&|_| 1.0 / positions as f64))
    }
}

/// The error is that of rounding to 8 bits, measured against what attention adds to the mean of the values.
#[test]
fn attention_is_its_definition() {
    let Some(fast) = with_attention() else { return };
    let mut random = StdRng::seed_from_u64(5);
    for size in [
        (2, 65, 3, 32),
        (1, 1, 1, 16),
        (1, 17, 2, 16),
        (1, 130, 2, 96),
        (1, 66, 2, 128),
        (2, 260, 1, 64),
        (1, 33, 3, 20),
    ] {
        let mut attention = Attention::random(&mut random, size);
        for (bias, scale) in [(true, None), (false, Some(0.3))] {
            if !bias {
                attention.bias = None;
            }
            attention.scale = scale;
            let found = attention.found(fast);
            let (mut error, mut reference) = (0.0, 0.0);
            let AttentionShape { batch, positions, heads, head_size } = attention.shape;
            for (sequence, position, head) in
                (0..batch).flat_map(|b| (0..positions).flat_map(move |p| (0..heads).map(move |h| (b, p, h))))
            {
                let (expected, mean) = attention.expected(sequence, head, position);
                let start = ((sequence * positions + position) * heads + head) * head_size;
                for ((found, expected), mean) in found[start..].iter().zip(expected).zip(mean) {
                    error += (f64::from(*found) - expected).powi(2);
                    reference += (expected - mean).powi(2);
                }
            }
            let relative = (error / reference.max(1e-6)).sqrt();
            assert!(relative < 0.025, "{size:?}, bias {bias}: {relative}");
        }
    }
}

#[test]
fn a_value_that_is_no_number_shows() {
    let Some(fast) = with_attention() else { return };
    for part in 0..2 {
        let mut attention = Attention::random(&mut StdRng::seed_from_u64(6), (1, 40, 2, 32));
        attention.tensors[part][5 * 64 + 3] = f32::NAN;
        let found = attention.found(fast);
        assert!(found[5 * 64..5 * 64 + 32].iter().all(|value| value.is_nan()), "part {part}");
        assert!(found[32..64].iter().all(|value| value.is_finite()), "the other head knows nothing of it");
    }
}

#[test]
fn head_sizes_there_is_no_kernel_for() {
    let shape = |head_size| AttentionShape { batch: 1, positions: 2, heads: 1, head_size };
    assert!([1, 16, 72, 128].into_iter().all(|size| shape(size).is_supported()));
    assert!(![0, 129].into_iter().any(|size| shape(size).is_supported()));
}
