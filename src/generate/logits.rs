//! Passes over whole rows of logits: validity, maximum, and the normaliser of the log-softmax.
//!
//! A row is a whole vocabulary (about 150,000 values), so these are the loops that cost time. They
//! work on arrays of [`LANES`] values, which compile to vector instructions of whatever width the
//! target has.

use std::borrow::Cow;

use ndarray::ArrayView2;

use super::SearchError;

/// Values handled side by side.
pub(super) const LANES: usize = 16;

/// Blocks of [`LANES`] values summed in float32 before the partial sums go to a float64 total.
const BLOCKS: usize = 16;

/// The checked logits of one call: no NaN, no +infinity, a finite maximum in every row.
pub(super) struct LogitsBatch<'a> {
    values: Cow<'a, [f32]>,
    vocab: usize,
    maxima: Vec<f32>,
}

/// One checked row.
#[derive(Clone, Copy)]
pub(super) struct LogitsRow<'a> {
    pub(super) values: &'a [f32],
    pub(super) max: f32,
}

impl<'a> LogitsBatch<'a> {
    /// Checks `logits` for `rows` rows of the vocabulary of the calls before, if there were any.
    pub(super) fn new(logits: &ArrayView2<'a, f32>, rows: usize, vocab: Option<usize>) -> Result<Self, SearchError> {
        let (found_rows, found_vocab) = logits.dim();
        if found_rows != rows || found_vocab != vocab.unwrap_or(found_vocab) || found_vocab == 0 {
            return Err(SearchError::Shape { rows, vocab, found_rows, found_vocab });
        }
        let values = match logits.to_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(logits.iter().copied().collect()),
        };
        let maxima = values.chunks_exact(found_vocab).enumerate().map(|(row, values)| checked_max(row, values));
        let maxima = maxima.collect::<Result<_, _>>()?;
        Ok(Self { values, vocab: found_vocab, maxima })
    }

    pub(super) fn vocab(&self) -> usize {
        self.vocab
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = LogitsRow<'_>> + Clone {
        self.values.chunks_exact(self.vocab).zip(&self.maxima).map(|(values, &max)| LogitsRow { values, max })
    }
}

fn checked_max(row: usize, values: &[f32]) -> Result<f32, SearchError> {
    let (max, any_nan) = scan(values);
    if max.is_finite() && !any_nan {
        return Ok(max);
    }
    let vocab = values.len();
    let invalid = values.iter().filter(|value| value.is_nan() || **value == f32::INFINITY).count();
    // None of the two: then the maximum is -infinity.
    let invalid = if invalid == 0 { vocab } else { invalid };
    Err(SearchError::InvalidLogits { row, invalid, vocab })
}

/// The largest value, not counting NaN, and whether there is a NaN.
fn scan(values: &[f32]) -> (f32, bool) {
    let (blocks, tail) = values.as_chunks::<LANES>();
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut nan = [0_u32; LANES];
    for block in blocks {
        for lane in 0..LANES {
            max[lane] = if block[lane] > max[lane] { block[lane] } else { max[lane] };
            nan[lane] |= u32::from(block[lane].is_nan());
        }
    }
    let max = max.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max);
    let nan = nan.iter().any(|&lane| lane != 0) || tail.iter().any(|value| value.is_nan());
    (max, nan)
}

/// What turns a raw logit into the score that the logits processors see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normalizer {
    max: f32,
    log_sum: f32,
}

impl Normalizer {
    /// Leaves logits as they are: greedy search and sampling.
    pub(super) const RAW: Self = Self { max: 0.0, log_sum: 0.0 };

    /// The log-softmax of `row`: beam search.
    pub(super) fn log_softmax(row: LogitsRow<'_>) -> Self {
        Self { max: row.max, log_sum: sum_of_exponentials(row.values, row.max).ln() as f32 }
    }

    /// The score of `logit`: float32 and in this order, as the reference's operator computes it.
    #[inline]
    pub(super) fn score(self, logit: f32) -> f32 {
        (logit - self.max) - self.log_sum
    }
}

/// The sum of exp(value - max), which is at least 1.
fn sum_of_exponentials(values: &[f32], max: f32) -> f64 {
    let (blocks, tail) = values.as_chunks::<LANES>();
    let mut total = 0.0_f64;
    for blocks in blocks.chunks(BLOCKS) {
        let mut sums = [0.0_f32; LANES];
        for block in blocks {
            for lane in 0..LANES {
                sums[lane] += exp_of_nonpositive(block[lane] - max);
            }
        }
        total += sums.iter().copied().map(f64::from).sum::<f64>();
    }
    total + tail.iter().map(|value| f64::from(exp_of_nonpositive(value - max))).sum::<f64>()
}

/// exp(x) for x <= 0, branch-free so that loops over it vectorise; relative error below 1e-7, and 0
/// below exp(-87), next to the subnormals.
///
/// x = n ln 2 + r with |r| <= ln(2)/2; exp(r) by its Taylor series, whose first dropped term,
/// r^8/8!, is below 6e-9; 2^n goes into the exponent bits.
#[inline]
pub(super) fn exp_of_nonpositive(x: f32) -> f32 {
    /// Adding it rounds to an integer, which is then in the low mantissa bits (1.5 * 2^23).
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has few enough bits for n times it to be exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.0;

    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        series = series * r + coefficient;
    }
    let exp_r = 1.0 + (r + r * r * series);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < LOWEST { 0.0 } else { exp_r * power }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2, s};

    use super::*;

    fn error_of(logits: &Array2<f32>) -> SearchError {
        let rows = logits.nrows();
        LogitsBatch::new(&logits.view(), rows, None).err().unwrap()
    }

    #[test]
    fn exponentials_are_within_a_float32_rounding() {
        let mut worst = 0.0_f64;
        for step in 0..2_000_000 {
            let x = -87.0 * (step as f32 / 2_000_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_of_nonpositive(x)) - exact).abs() / exact);
        }
        assert!(worst < 1e-7, "{worst:e}");
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact values")]
    fn exponentials_at_the_ends() {
        assert_eq!(exp_of_nonpositive(0.0), 1.0);
        assert_eq!(exp_of_nonpositive(-0.0), 1.0);
        assert_eq!(exp_of_nonpositive(-88.0), 0.0);
        assert_eq!(exp_of_nonpositive(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn log_softmax_of_a_long_row() {
        // Lengths around the block sizes, values of a real row's spread.
        for length in [1, 2, 15, 16, 17, 255, 256, 257, 151_674] {
            let values: Vec<f32> = (0..length).map(|i: u32| ((i * 7919) % 4001) as f32 * 0.01 - 25.0).collect();
            let batch_of = Array2::from_shape_vec((1, values.len()), values.clone()).unwrap();
            let batch = LogitsBatch::new(&batch_of.view(), 1, None).unwrap();
            let normalizer = Normalizer::log_softmax(batch.rows().next().unwrap());
            let log_sum = values.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
            for &value in values.iter().take(50) {
                let found = f64::from(normalizer.score(value));
                assert!((found - (f64::from(value) - log_sum)).abs() < 5e-6, "{length}: {found}");
            }
        }
    }

    #[test]
    fn minus_infinity_is_a_logit_like_any_other() {
        let logits = arr2(&[[f32::NEG_INFINITY, 0.0, 0.0]]);
        let batch = LogitsBatch::new(&logits.view(), 1, None).unwrap();
        let normalizer = Normalizer::log_softmax(batch.rows().next().unwrap());
        assert!((normalizer.score(0.0) + std::f32::consts::LN_2).abs() < 1e-7);
        assert!(normalizer.score(f32::NEG_INFINITY) == f32::NEG_INFINITY);
    }

    #[test]
    fn unusable_rows_are_counted_wherever_they_are() {
        let wide = |bad: &[(usize, f32)]| {
            let mut logits = Array2::zeros((2, 40));
            for &(column, value) in bad {
                logits[[1, column]] = value;
            }
            error_of(&logits)
        };
        let expected = |invalid| SearchError::InvalidLogits { row: 1, invalid, vocab: 40 };
        assert_eq!(wide(&[(3, f32::NAN)]), expected(1));
        assert_eq!(wide(&[(39, f32::NAN)]), expected(1));
        assert_eq!(wide(&[(0, f32::NAN), (17, f32::INFINITY), (38, f32::NAN)]), expected(3));
        let message = wide(&[(3, f32::NAN)]).to_string();
        assert!(message.starts_with("row 1 of the logits is not usable: 1 of its 40 values"), "{message}");
        let nothing = Array2::from_elem((1, 20), f32::NEG_INFINITY);
        assert_eq!(error_of(&nothing), SearchError::InvalidLogits { row: 0, invalid: 20, vocab: 20 });
    }

    #[test]
    fn shapes_are_checked() {
        let logits = Array2::<f32>::zeros((2, 5));
        assert!(LogitsBatch::new(&logits.view(), 2, Some(5)).is_ok());
        let found = LogitsBatch::new(&logits.view(), 3, Some(6)).err().unwrap().to_string();
        assert_eq!(found, "the search needs logits of shape [3, 6], but got [2, 5]");
        let found = LogitsBatch::new(&logits.view(), 1, None).err().unwrap().to_string();
        assert_eq!(found, "the search needs logits of shape [1, vocab], but got [2, 5]");
        let empty = Array2::<f32>::zeros((1, 0));
        assert!(matches!(error_of(&empty), SearchError::Shape { found_vocab: 0, .. }));
    }

    #[test]
    fn a_view_with_gaps_reads_the_same() {
        let all = Array2::from_shape_fn((2, 40), |(row, column)| (row * 40 + column) as f32);
        let view = all.slice(s![.., ..;2]);
        let batch = LogitsBatch::new(&view, 2, None).unwrap();
        let rows: Vec<_> = batch.rows().collect();
        assert_eq!(rows[1].values[..3], [40.0, 42.0, 44.0]);
        assert!(rows[0].max > 37.9 && rows[0].max < 38.1);
    }
}
