//! Which cache row holds what, and which rows a search's next beams take over.

use std::ops::Range;

use crate::generate::{NextRow, TokenId};

/// What a cached position was computed from. Equal prefixes have equal keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The embedding of a token.
    Token(TokenId),
    /// An embedding of an image.
    Image {
        /// Digest of the image's tiles.
        digest: u128,
        /// Index among the image's embeddings.
        index: usize,
    },
}

/// The contents of every cache row, live or left over from earlier requests.
#[derive(Debug, Default)]
pub(super) struct RowContents {
    rows: Vec<Row>,
    /// Counts changes.
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Row {
    positions: Vec<Position>,
    /// When it last changed.
    used: u64,
}

impl RowContents {
    /// Makes the table `rows` long and forgets all but the named rows.
    pub(super) fn resize(&mut self, rows: usize, keep: &[usize]) {
        for (row, content) in self.rows.iter_mut().enumerate() {
            if !keep.contains(&row) {
                *content = Row::default();
            }
        }
        self.rows.resize(rows, Row::default());
    }

    /// Positions a row holds.
    pub(super) fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.positions.len())
    }

    /// When a row last changed: the greater, the later. Rows that hold nothing come first.
    pub(super) fn last_use(&self, row: usize) -> u64 {
        if self.len(row) == 0 { 0 } else { self.rows[row].used }
    }

    /// Cuts a row to its first `positions`.
    pub(super) fn truncate(&mut self, row: usize, positions: usize) {
        self.changed(row).truncate(positions);
    }

    /// Appends to a row.
    pub(super) fn extend(&mut self, row: usize, positions: impl IntoIterator<Item = Position>) {
        self.changed(row).extend(positions);
    }

    /// Makes `to` hold the first `positions` of `from`; returns those whose cache entries must be copied for that.
    pub(super) fn copy(&mut self, from: usize, to: usize, positions: usize) -> Range<usize> {
        let source = self.rows[from].positions[..positions].to_vec();
        let shared = shared_prefix(&source, &self.rows[to].positions);
        *self.changed(to) = source;
        shared..positions
    }

    /// The row that begins with most of `wanted`, and how much of it.
    pub(super) fn longest_match(&self, wanted: &[Position]) -> Option<(usize, usize)> {
        let matches = self.rows.iter().map(|row| shared_prefix(&row.positions, wanted)).enumerate();
        matches.filter(|(_, shared)| *shared > 0).max_by_key(|(row, shared)| (*shared, std::cmp::Reverse(*row)))
    }

    /// Positions two rows share from the start.
    pub(super) fn shared(&self, a: usize, b: usize) -> usize {
        shared_prefix(&self.rows[a].positions, &self.rows[b].positions)
    }

    fn changed(&mut self, row: usize) -> &mut Vec<Position> {
        self.clock += 1;
        let row = &mut self.rows[row];
        row.used = self.clock;
        &mut row.positions
    }
}

fn shared_prefix(a: &[Position], b: &[Position]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How the rows of a group change hands for its next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reassignment {
    /// Row of each next beam.
    pub(super) rows: Vec<usize>,
    /// Copies to make first, from row to row. No row is copied from after it was copied to.
    pub(super) copies: Vec<(usize, usize)>,
    /// Rows no longer needed.
    pub(super) freed: Vec<usize>,
}

/// Gives each next beam a row: the first child of a parent stays in its parent's row; further children take a spare row
/// or that of a beam without children, the one that shares most with their parent, so that least is copied.
pub(super) fn reassign(next: &[NextRow], rows: &[usize], spare: &[usize], contents: &RowContents) -> Reassignment {
    let childless = (0..rows.len()).filter(|parent| next.iter().all(|row| row.parent != *parent));
    let mut free: Vec<usize> = childless.map(|parent| rows[parent]).chain(spare.iter().copied()).collect();
    let mut taken = vec![false; rows.len()];
    let mut copies = Vec::new();
    let mut assigned = Vec::with_capacity(next.len());
    for child in next {
        let parent = rows[child.parent];
        if !std::mem::replace(&mut taken[child.parent], true) {
            assigned.push(parent);
            continue;
        }
        let best = (0..free.len()).max_by_key(|index| contents.shared(parent, free[*index]));
        if let Some(best) = best {
            let row = free.swap_remove(best);
            copies.push((parent, row));
            assigned.push(row);
        }
    }
    Reassignment { rows: assigned, copies, freed: free }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(rows: &[&[u32]]) -> RowContents {
        let mut contents = RowContents::default();
        contents.resize(rows.len(), &[]);
        for (index, row) in rows.iter().enumerate() {
            contents.extend(index, row.iter().map(|token| Position::Token(*token)));
        }
        contents
    }

    fn next(parents: &[usize]) -> Vec<NextRow> {
        parents.iter().map(|parent| NextRow { parent: *parent, token: 0 }).collect()
    }

    #[test]
    fn beams_that_keep_their_parents_copy_nothing() {
        let contents = contents(&[&[1, 2], &[1, 3], &[1, 4]]);
        let change = reassign(&next(&[2, 0, 1]), &[0, 1, 2], &[], &contents);
        assert_eq!(change, Reassignment { rows: vec![2, 0, 1], copies: vec![], freed: vec![] });
    }

    #[test]
    fn a_second_child_takes_the_dead_row_that_shares_most() {
        let contents = contents(&[&[1, 2, 9], &[7, 2, 3], &[1, 2, 5]]);
        let change = reassign(&next(&[0, 0]), &[0, 1, 2], &[], &contents);
        assert_eq!(change, Reassignment { rows: vec![0, 2], copies: vec![(0, 2)], freed: vec![1] });
    }

    #[test]
    fn beams_that_come_back_take_spare_rows() {
        let contents = contents(&[&[1, 2], &[1, 3], &[1, 2, 7]]);
        let change = reassign(&next(&[0, 0]), &[0], &[1, 2], &contents);
        assert_eq!(change, Reassignment { rows: vec![0, 2], copies: vec![(0, 2)], freed: vec![1] });
    }

    #[test]
    fn a_copy_moves_only_what_differs() {
        let mut contents = contents(&[&[1, 2, 9, 4], &[1, 2, 3]]);
        assert_eq!(contents.copy(0, 1, 4), 2..4);
        assert_eq!(contents.shared(0, 1), 4);
        assert_eq!(contents.copy(0, 1, 3), 3..3);
        assert_eq!(contents.len(1), 3);
    }

    #[test]
    fn the_row_that_changed_first_is_missed_least_but_for_empty_ones() {
        let mut contents = contents(&[&[1], &[2], &[3]]);
        contents.truncate(0, 1);
        assert!(contents.last_use(1) < contents.last_use(2) && contents.last_use(2) < contents.last_use(0));
        contents.truncate(2, 0);
        assert_eq!(contents.last_use(2), 0);
    }

    #[test]
    fn the_longest_match_wins() {
        let contents = contents(&[&[1], &[1, 2, 3], &[1, 2]]);
        let wanted = [1, 2, 4].map(Position::Token);
        assert_eq!(contents.longest_match(&wanted), Some((1, 2)));
        assert_eq!(contents.longest_match(&[Position::Token(8)]), None);
    }
}
