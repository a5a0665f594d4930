//! Filter weights of one axis (`precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow).

/// Fractional bits of a weight: 32 bits less 8 for the byte and 2 for overshoot.
pub(super) const PRECISION_BITS: u32 = 22;

/// Half width of the bicubic filter in pixels of the coarser grid.
const SUPPORT: f64 = 2.0;

/// For every output position, the first source position and the weights from there on.
pub(super) struct Weights {
    /// First source position and range of `values`, for each output position.
    spans: Vec<Span>,
    values: Vec<i32>,
    max_taps: usize,
}

struct Span {
    start: usize,
    values: std::ops::Range<usize>,
}

impl Weights {
    /// Weights that take `input` pixels to `output` pixels. Both are at least 1.
    pub(super) fn bicubic(input: u32, output: u32) -> Self {
        // Pillow keeps the source box in single precision.
        let scale = f64::from(input as f32) / f64::from(output);
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let inverse = 1.0 / filter_scale;

        let mut weights = Self { spans: Vec::with_capacity(output as usize), values: Vec::new(), max_taps: 0 };
        if input == output {
            // The weights below would be one 1 among zeros.
            (0..output as usize).for_each(|position| weights.push(position, &[1.0]));
            return weights;
        }
        let mut raw = Vec::new();
        for position in 0..output {
            let center = (f64::from(position) + 0.5) * scale;
            // Casts truncate towards zero, as in C.
            let low = ((center - support + 0.5) as i64).max(0);
            let high = ((center + support + 0.5) as i64).min(i64::from(input));
            raw.clear();
            raw.extend((low..high).map(|source| cubic((source as f64 - center + 0.5) * inverse)));
            weights.push(low as usize, &raw);
        }
        weights
    }

    /// Normalises and quantises the weights of the next output position.
    fn push(&mut self, start: usize, raw: &[f64]) {
        let sum: f64 = raw.iter().sum();
        let quantised: Vec<i32> = raw
            .iter()
            .map(|&weight| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                // Rounds half away from zero by truncation, as Pillow does.
                (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            })
            .collect();
        let first = self.values.len();
        self.values.extend_from_slice(&quantised);
        self.max_taps = self.max_taps.max(quantised.len());
        self.spans.push(Span { start, values: first..self.values.len() });
    }

    /// Number of output positions.
    pub(super) fn outputs(&self) -> usize {
        self.spans.len()
    }

    /// Most weights of any output position.
    pub(super) fn max_taps(&self) -> usize {
        self.max_taps
    }

    /// First source position and weights of output position `position`.
    pub(super) fn taps(&self, position: usize) -> (usize, &[i32]) {
        let span = &self.spans[position];
        (span.start, &self.values[span.values.clone()])
    }
}

/// Cubic convolution kernel with a = -1/2 (Keys 1981), in the order of operations of Pillow.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_length_is_one_tap() {
        let weights = Weights::bicubic(9, 9);
        for position in 0..9 {
            assert_eq!(weights.taps(position), (position, &[1 << 22][..]));
        }
    }

    #[test]
    fn spans_stay_inside_and_never_go_back() {
        for input in (1..200).chain([1999, 20_000]) {
            for output in [1, 2, 3, 56, 112, 448, 500] {
                let weights = Weights::bicubic(input, output);
                let (mut start, mut end) = (0, 0);
                for position in 0..weights.outputs() {
                    let (first, taps) = weights.taps(position);
                    assert!(!taps.is_empty());
                    assert!(first >= start && first + taps.len() >= end);
                    (start, end) = (first, first + taps.len());
                    assert!(end <= input as usize);
                }
            }
        }
    }

    /// The sums of the kernel are 32-bit: no partial sum of weights times 255 may leave `i32`.
    #[test]
    fn sums_fit_in_32_bits() {
        let mut worst = 0;
        for input in (1..120).chain([447, 448, 449, 1000, 4000, 12_345, 20_000]) {
            for output in (1..120).chain([448, 896, 1344, 2688]) {
                let weights = Weights::bicubic(input, output);
                for position in 0..weights.outputs() {
                    let (_, taps) = weights.taps(position);
                    let magnitude: i64 = taps.iter().map(|&w| i64::from(w.abs())).sum();
                    worst = worst.max(magnitude * 255 + (1 << 21));
                }
            }
        }
        assert!(worst < i64::from(i32::MAX), "{worst}");
    }
}
