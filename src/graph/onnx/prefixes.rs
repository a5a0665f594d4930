//! Which rows of a cache begin with the same memory contents.
//!
//! Rows of a beam search are copies of one prompt, and requests may begin with what another's row holds. The cache sees
//! every copy and every write, so it knows without being told.

use std::ops::Range;

use crate::graph::CachedRow;
use crate::kernels::{CHUNK, SharedStart};

/// For each pair of rows, how many of their first positions are known to be equal.
#[derive(Debug, Default)]
pub(super) struct CommonPrefixes {
    rows: usize,
    /// `[rows, rows]`, symmetric; the diagonal is not used.
    lengths: Vec<usize>,
}

impl CommonPrefixes {
    /// The cache now has so many rows, and only what is kept is still there.
    pub(super) fn resize(&mut self, rows: usize, keep: &[CachedRow]) {
        let old = std::mem::replace(self, Self { rows, lengths: vec![0; rows * rows] });
        for (index, first) in keep.iter().enumerate() {
            for second in &keep[index + 1..] {
                let length = old.get(first.row, second.row).min(first.positions).min(second.positions);
                self.set(first.row, second.row, length);
            }
        }
    }

    /// Row `to` has become equal to row `from` in these positions.
    pub(super) fn copied(&mut self, from: usize, to: usize, positions: &Range<usize>) {
        let before = self.get(from, to);
        let now = if before >= positions.start { before.max(positions.end) } else { before };
        for other in (0..self.rows).filter(|other| *other != from && *other != to) {
            let kept = self.get(to, other).min(positions.start);
            self.set(to, other, kept.max(now.min(self.get(from, other))));
        }
        self.set(from, to, now);
    }

    /// A row is written from position `start` on.
    pub(super) fn written(&mut self, row: usize, start: usize) {
        for other in (0..self.rows).filter(|other| *other != row) {
            self.set(row, other, self.get(row, other).min(start));
        }
    }

    /// Groups of these rows, counted from the first of them, that begin alike; such as let most memory be read once.
    pub(super) fn starts(&self, rows: &Range<usize>, pasts: &[usize]) -> Vec<SharedStart> {
        let mut left: Vec<usize> = (0..rows.len()).collect();
        let mut starts = Vec::new();
        while left.len() > 1 {
            let first = left.remove(0);
            let length = |row: usize| {
                let common = self.get(rows.start + first, rows.start + row);
                common.min(pasts[first]).min(pasts[row]) / CHUNK * CHUNK
            };
            let mut alike: Vec<(usize, usize)> = left.iter().map(|row| (length(*row), *row)).collect();
            alike.sort_unstable_by(|a, b| b.cmp(a));
            let saved = |count: &usize| count * alike[count - 1].0;
            let count = (1..=alike.len()).max_by_key(saved).unwrap_or(0);
            let positions = alike[count - 1].0;
            if positions > 0 {
                let mut rows: Vec<usize> = alike[..count].iter().map(|(_, row)| *row).collect();
                left.retain(|row| !rows.contains(row));
                rows.push(first);
                rows.sort_unstable();
                starts.push(SharedStart { rows, positions });
            }
        }
        starts
    }

    fn get(&self, first: usize, second: usize) -> usize {
        self.lengths.get(first * self.rows + second).copied().unwrap_or(0)
    }

    fn set(&mut self, first: usize, second: usize, length: usize) {
        self.lengths[first * self.rows + second] = length;
        self.lengths[second * self.rows + first] = length;
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Rows as they are: every write puts numbers there that were nowhere before.
    struct Rows {
        contents: Vec<Vec<u64>>,
        next: u64,
    }

    impl Rows {
        fn write(&mut self, row: usize, positions: Range<usize>) {
            for position in positions {
                self.contents[row][position] = self.next;
                self.next += 1;
            }
        }

        fn common(&self, first: usize, second: usize) -> usize {
            self.contents[first].iter().zip(&self.contents[second]).take_while(|(a, b)| a == b).count()
        }
    }

    #[test]
    fn it_never_claims_too_much_and_knows_what_beams_share() {
        let (count, capacity) = (5, 40);
        let mut random = StdRng::seed_from_u64(1);
        let mut rows = Rows { contents: vec![vec![0; capacity]; count], next: 1 };
        (0..count).for_each(|row| rows.write(row, 0..capacity));
        let mut prefixes = CommonPrefixes::default();
        prefixes.resize(count, &[]);
        let mut shared = 0;
        for _ in 0..2000 {
            let (from, to) = (random.random_range(0..count), random.random_range(0..count));
            let start = random.random_range(0..capacity);
            if random.random_bool(0.5) && from != to {
                // Half of the copies are those of beams: what differs, to the end.
                let start = if random.random_bool(0.5) { rows.common(from, to) } else { start };
                let positions = start..random.random_range(start..=capacity);
                let copy = rows.contents[from][positions.clone()].to_vec();
                rows.contents[to][positions.clone()].copy_from_slice(&copy);
                prefixes.copied(from, to, &positions);
            } else {
                rows.write(to, start..capacity);
                prefixes.written(to, start);
            }
            for (first, second) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
                assert!(prefixes.get(first, second) <= rows.common(first, second));
                shared += prefixes.get(first, second);
            }
        }
        assert!(shared > 0);
    }

    #[test]
    fn beams_share_their_prompt_through_reordering_and_growth() {
        let mut prefixes = CommonPrefixes::default();
        prefixes.resize(3, &[]);
        let prompt = 3 * CHUNK + 5;
        prefixes.copied(0, 1, &(0..prompt));
        prefixes.copied(0, 2, &(0..prompt));
        for step in 0..10 {
            (0..3).for_each(|row| prefixes.written(row, prompt + step));
            prefixes.copied(step % 3, (step + 1) % 3, &(prompt..prompt + step + 1));
        }
        let pasts = [prompt + 10; 3];
        let whole = SharedStart { rows: vec![0, 1, 2], positions: 3 * CHUNK };
        assert_eq!(prefixes.starts(&(0..3), &pasts), [whole]);
        let kept = [0, 2].map(|row| CachedRow { row, positions: 2 * CHUNK + 1 });
        prefixes.resize(4, &kept);
        let pair = SharedStart { rows: vec![0, 2], positions: 2 * CHUNK };
        assert_eq!(prefixes.starts(&(0..4), &[2 * CHUNK + 1; 4]), [pair]);
        assert_eq!(prefixes.starts(&(0..4), &[CHUNK - 1; 4]), []);
    }

    #[test]
    fn two_searches_are_two_groups() {
        let mut prefixes = CommonPrefixes::default();
        prefixes.resize(6, &[]);
        // Rows 0, 2, 4 and rows 1, 3, 5, which share a first chunk.
        prefixes.copied(0, 1, &(0..CHUNK));
        for row in 2..6 {
            prefixes.copied(row % 2, row, &(0..9 * CHUNK));
        }
        let groups = [vec![0, 2, 4], vec![1, 3, 5]].map(|rows| SharedStart { rows, positions: 9 * CHUNK });
        assert_eq!(prefixes.starts(&(0..6), &[9 * CHUNK; 6]), groups);
    }
}
