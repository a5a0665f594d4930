//! Products with block-quantised matrices: against the definition in double precision, and one way of computing against
//! the other.

use std::convert::Infallible;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use vintern::kernels::{BlockFormat, BlockMatrix, BlockProduct, FormatError, Tasks};

const FORMATS: [(usize, usize); 4] = [(4, 32), (4, 64), (4, 128), (8, 128)];
/// Outputs and inputs: whole strips and groups, and all kinds of remainders.
const SIZES: [(usize, usize); 6] = [(64, 128), (200, 320), (17, 96), (130, 1100), (1, 32), (65, 40)];

/// Runs the tasks one after the other, the last first.
struct Backwards;

impl Tasks for Backwards {
    type Error = Infallible;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Infallible> {
        (0..count).rev().for_each(task);
        Ok(())
    }
}

/// A matrix that owns its tensors.
struct Weights {
    format: BlockFormat,
    size: (usize, usize),
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<u8>>,
}

impl Weights {
    fn random(random: &mut StdRng, (bits, block_size): (usize, usize), size: (usize, usize), symmetric: bool) -> Self {
        let blocks = size.1.div_ceil(block_size);
        let mut bytes = |count: usize| (0..count).map(|_| random.random()).collect::<Vec<u8>>();
        let codes = bytes(size.0 * blocks * block_size * bits / 8);
        let zero_points = (!symmetric).then(|| bytes(size.0 * (blocks * bits).div_ceil(8)));
        let scales = (0..size.0 * blocks).map(|_| random.random_range(-0.01..0.01)).collect();
        Self { format: BlockFormat::new(bits, block_size).unwrap(), size, codes, scales, zero_points }
    }

    fn matrix(&self) -> BlockMatrix<'_> {
        BlockMatrix::new(self.format, self.size, &self.codes, &self.scales, self.zero_points.as_deref()).unwrap()
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
        let Ok(()) = product.run(values, &self.matrix(), bias, &mut out, &Backwards);
        out
    }
}

fn random_values(random: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// The fast kernels of this processor; a test of them passes where there are none.
fn fast() -> Option<BlockProduct> {
    let found = BlockProduct::detect();
    if found.is_none() {
        eprintln!("no fast kernels for this processor: not tested");
    }
    found
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

#[test]
fn the_fast_way_gives_the_same_bits() {
    let Some(fast) = fast() else { return };
    let mut random = StdRng::seed_from_u64(2);
    for format in FORMATS {
        for size in SIZES {
            for symmetric in [true, false] {
                let weights = Weights::random(&mut random, format, size, symmetric);
                for rows in [1, 2, 3, 4, 5, 16, 17, 18, 19, 270] {
                    let values = random_values(&mut random, rows * size.1);
                    let bias = random_values(&mut random, size.0);
                    let found = weights.product(fast, &values, Some(&bias));
                    let expected = weights.product(BlockProduct::portable(), &values, Some(&bias));
                    assert_eq!(found, expected, "{format:?} {size:?} {symmetric} {rows}");
                }
            }
        }
    }
}

/// Alone, in a small company and in a large one: a massive row among them costs the others nothing.
#[test]
fn a_row_does_not_depend_on_its_company() {
    let Some(fast) = fast() else { return };
    let mut random = StdRng::seed_from_u64(3);
    for format in FORMATS {
        let weights = Weights::random(&mut random, format, (130, 1100), false);
        let mut values = random_values(&mut random, 40 * 1100);
        values[1100..2200].iter_mut().for_each(|value| *value *= 1e6);
        let together = weights.product(fast, &values, None);
        for (row, together) in together.chunks(130).enumerate() {
            let alone = weights.product(fast, &values[row * 1100..][..1100], None);
            assert_eq!(alone, together, "{format:?}, row {row}");
        }
        assert_eq!(weights.product(fast, &values[..3 * 1100], None), together[..3 * 130]);
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
fn what_there_is_no_kernel_for_is_refused() {
    for (bits, block_size) in [(4, 16), (4, 256), (8, 32), (2, 128)] {
        assert_eq!(BlockFormat::new(bits, block_size), Err(FormatError::Unsupported { bits, block_size }));
    }
    let format = BlockFormat::new(4, 32).unwrap();
    let matrix = |codes: usize, scales: usize, zeros: usize| {
        let (codes, scales, zeros) = (vec![0; codes], vec![0.0; scales], vec![0; zeros]);
        BlockMatrix::new(format, (3, 40), &codes, &scales, Some(&zeros)).map(drop)
    };
    assert_eq!(matrix(96, 6, 3), Ok(()));
    let size = |tensor, found, expected| Err(FormatError::Size { tensor, found, expected, outputs: 3, inputs: 40 });
    assert_eq!(matrix(95, 6, 3), size("codes", 95, 96));
    assert_eq!(matrix(96, 5, 3), size("scales", 5, 6));
    assert_eq!(matrix(96, 6, 4), size("zero points", 4, 3));
}
