//! Durations summed up.

use std::time::Duration;

use serde::Serialize;

use crate::cli::output::milliseconds;

/// Milliseconds over several durations.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

/// A [`Spread`] of so many durations that the slowest of them matter as well.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Tail {
    pub(super) min: f64,
    pub(super) median: f64,
    /// The smallest duration that at most one in twenty is above.
    pub(super) p95: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let Tail { min, median, max, .. } = Tail::of(durations);
        Self { min, median, max }
    }
}

impl Tail {
    pub(super) fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut values: Vec<f64> = durations.into_iter().map(milliseconds).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        Self {
            min: at(0),
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            p95: at((values.len() * 19).div_ceil(20).saturating_sub(1)),
            max: at(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(milliseconds: impl IntoIterator<Item = u64>) -> Tail {
        Tail::of(milliseconds.into_iter().map(Duration::from_millis))
    }

    #[test]
    fn a_spread_names_the_middle() {
        let odd = tail([3, 1, 2]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert!((tail([1, 2]).median - 1.5).abs() < 1e-9);
        assert!(tail([]).max.abs() < 1e-9);
    }

    #[test]
    fn at_most_one_in_twenty_is_above_the_95th_percentile() {
        for (most, expected) in [(1, 1.0), (19, 19.0), (20, 19.0), (40, 38.0), (100, 95.0)] {
            assert!((tail(1..=most).p95 - expected).abs() < 1e-9, "{most}");
        }
    }
}
