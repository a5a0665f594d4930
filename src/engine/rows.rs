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
pub(super) struct RowContents(Vec<Vec<Position>>);

impl RowContents {
    /// Makes the table `rows` long and forgets all but the named rows.
    pub(super) fn resize(&mut self, rows: usize, keep: &[usize]) {
        for (row, content) in self.0.iter_mut().enumerate() {
            if !keep.contains(&row) {
                content.clear();
            }
        }
        self.0.resize(rows, Vec::new());
    }

    /// Positions a row holds.
    pub(super) fn len(&self, row: usize) -> usize {
        self.0[row].len()
    }

    /// Cuts a row to its first `positions`.
    pub(super) fn truncate(&mut self, row: usize, positions: usize) {
        self.0[row].truncate(positions);
    }

    /// Appends to a row.
    pub(super) fn extend(&mut self, row: usize, positions: impl IntoIterator<Item = Position>) {
        self.0[row].extend(positions);
    }

    /// Makes `to` hold what `from` holds; returns the positions whose cache entries must be copied for that.
    pub(super) fn copy(&mut self, from: usize, to: usize) -> Range<usize> {
        let source = self.0[from].clone();
        let shared = shared_prefix(&source, &self.0[to]);
        let range = shared..source.len();
        self.0[to] = source;
        range
    }

    /// The row that begins with most of `wanted`, and how much of it.
    pub(super) fn longest_match(&self, wanted: &[Position]) -> Option<(usize, usize)> {
        let matches = self.0.iter().map(|content| shared_prefix(content, wanted)).enumerate();
        matches.filter(|(_, shared)| *shared > 0).max_by_key(|(row, shared)| (*shared, std::cmp::Reverse(*row)))
    }

    /// Positions two rows share from the start.
    pub(super) fn shared(&self, a: usize, b: usize) -> usize {
        shared_prefix(&self.0[a], &self.0[b])
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
        RowContents(rows.iter().map(|row| row.iter().map(|token| Position::Token(*token)).collect()).collect())
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
        assert_eq!(contents.copy(0, 1), 2..4);
        assert_eq!(contents.shared(0, 1), 4);
    }

    #[test]
    fn the_longest_match_wins() {
        let contents = contents(&[&[1], &[1, 2, 3], &[1, 2]]);
        let wanted = [1, 2, 4].map(Position::Token);
        assert_eq!(contents.longest_match(&wanted), Some((1, 2)));
        assert_eq!(contents.longest_match(&[Position::Token(8)]), None);
    }
}
