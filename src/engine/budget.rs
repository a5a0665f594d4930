//! How much memory the cache may take, and which shape it gets within that.

/// What groups need of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Rows that must be there.
    pub(super) rows: usize,
    /// Further rows that are welcome.
    pub(super) spare: usize,
    /// Positions a row must hold.
    pub(super) capacity: usize,
}

/// A bound of the cache. Its buffers are rectangular: every row takes as much as the longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Bytes one position of one row takes.
    position_bytes: usize,
    max_bytes: usize,
}

impl Budget {
    /// A bound of `max_bytes`; none: no bound.
    pub(super) fn new(position_bytes: usize, max_bytes: Option<usize>) -> Self {
        Self { position_bytes: position_bytes.max(1), max_bytes: max_bytes.unwrap_or(usize::MAX) }
    }

    /// The bound in bytes.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Bytes of a cache of this shape.
    pub(super) fn bytes(&self, rows: usize, capacity: usize) -> usize {
        rows.saturating_mul(capacity).saturating_mul(self.position_bytes)
    }

    /// Whether a cache of this shape is within the bound.
    pub(super) fn holds(&self, rows: usize, capacity: usize) -> bool {
        self.bytes(rows, capacity) <= self.max_bytes
    }

    /// Rows and positions of a cache that has what is needed, where it is `(rows, capacity)` now: it only grows while there is
    /// memory, else gives up spare rows, and only then positions that nobody needs. `None` when it does not fit.
    pub(super) fn shape(&self, now: (usize, usize), need: Need) -> Option<(usize, usize)> {
        let (wide, long) = (now.0.max(need.rows + need.spare), now.1.max(need.capacity));
        if self.holds(wide, long) {
            return Some((wide, long));
        }
        if !self.holds(need.rows, need.capacity) {
            return None;
        }
        let positions = self.max_bytes / self.position_bytes;
        if self.holds(need.rows, long) {
            return Some((wide.min(positions / long.max(1)), long));
        }
        let rows = (need.rows + need.spare).min(positions / need.capacity.max(1));
        Some((rows, long.min(positions / rows.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need(rows: usize, spare: usize, capacity: usize) -> Need {
        Need { rows, spare, capacity }
    }

    #[test]
    fn spare_rows_go_before_positions() {
        let budget = Budget::new(2, Some(200));
        assert_eq!(budget.shape((0, 0), need(2, 3, 20)), Some((5, 20)));
        assert_eq!(budget.shape((5, 20), need(1, 3, 10)), Some((5, 20)), "it stays as it is");
        assert_eq!(budget.shape((5, 20), need(2, 3, 30)), Some((3, 30)));
        assert_eq!(budget.shape((3, 30), need(5, 3, 10)), Some((8, 12)));
        assert_eq!(budget.shape((8, 12), need(1, 3, 100)), Some((1, 100)));
        assert_eq!(budget.shape((1, 100), need(2, 0, 51)), None);
        assert_eq!(Budget::new(2, None).shape((8, 12), need(9, 1, 100)), Some((10, 100)));
    }

    proptest! {
        #[test]
        fn a_shape_has_what_is_needed_within_the_bound(
            now in (0_usize..40, 0_usize..400),
            (rows, spare, capacity) in (1_usize..40, 0_usize..9, 1_usize..400),
            max in 0_usize..40_000,
        ) {
            let budget = Budget::new(3, Some(max));
            let shape = budget.shape(now, need(rows, spare, capacity));
            prop_assert_eq!(shape.is_some(), budget.holds(rows, capacity));
            if let Some((found_rows, found_capacity)) = shape {
                prop_assert!(found_rows >= rows && found_capacity >= capacity);
                prop_assert!(budget.holds(found_rows, found_capacity));
            }
        }
    }
}
