//! How many positions a chunk of prefill has.

use std::time::Duration;

/// Fewest positions of a chunk that is kept short: a matrix is read once for all of them.
const FEWEST: usize = 64;

/// The length of chunks: as many positions as may be, or as take no longer than running answers may stand still.
///
/// Lengths are the most there may be, halved some times, so that a steady processor gives steady lengths.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    pause: Option<Duration>,
    /// What a position of the last chunk took.
    position: Option<Duration>,
}

impl Pace {
    /// Chunks of `most` positions, and at least one; fewer where they would take longer than `pause`.
    pub(super) fn new(most: usize, pause: Option<Duration>) -> Self {
        Self { most: most.max(1), pause, position: None }
    }

    /// Positions of the next chunk. The first is short, because nothing is known yet.
    pub(super) fn positions(&self) -> usize {
        let Some(pause) = self.pause else { return self.most };
        let fits = |positions: usize| {
            self.position
                .is_some_and(|position| position.saturating_mul(positions.try_into().unwrap_or(u32::MAX)) <= pause)
        };
        let mut positions = self.most;
        while positions / 2 >= FEWEST && !fits(positions) {
            positions /= 2;
        }
        positions
    }

    /// Takes note of what a chunk took.
    pub(super) fn took(&mut self, positions: usize, time: Duration) {
        self.position = u32::try_from(positions).ok().and_then(|positions| time.checked_div(positions));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pause_chunks_are_as_long_as_may_be() {
        let mut pace = Pace::new(512, None);
        assert_eq!(pace.positions(), 512);
        pace.took(512, Duration::from_mins(1));
        assert_eq!(pace.positions(), 512);
        assert_eq!(Pace::new(0, None).positions(), 1);
    }

    #[test]
    fn chunks_are_as_long_as_the_pause_allows() {
        let mut pace = Pace::new(512, Some(Duration::from_secs(1)));
        assert_eq!(pace.positions(), 64, "nothing is known yet");
        for (milliseconds, positions) in [(1, 512), (2, 256), (3, 256), (4, 128), (5, 128), (25, 64), (1000, 64)] {
            pace.took(64, Duration::from_millis(64 * milliseconds));
            assert_eq!(pace.positions(), positions, "{milliseconds} ms a position");
        }
    }

    #[test]
    fn short_chunks_stay() {
        let mut pace = Pace::new(16, Some(Duration::from_millis(1)));
        pace.took(16, Duration::from_secs(1));
        assert_eq!(pace.positions(), 16);
    }
}
