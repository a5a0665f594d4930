//! The few best of very many scores, in one pass.

use super::TokenId;
use super::logits::{LANES, LogitsRow, Normalizer};
use super::processors::Edits;

/// A possible next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Its score, summed with that of its row.
    pub(super) score: f32,
    /// Row * vocabulary + token.
    pub(super) index: usize,
}

impl Candidate {
    /// Higher score first; of equal scores the lower index.
    fn precedes(&self, other: &Self) -> bool {
        self.score > other.score || (self.score >= other.score && self.index < other.index)
    }
}

/// The best candidates offered so far, best first.
#[derive(Debug, Default)]
pub(super) struct TopCandidates {
    capacity: usize,
    list: Vec<Candidate>,
}

impl TopCandidates {
    /// Forgets everything; keeps the `capacity` best from now on.
    pub(super) fn restart(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.list.clear();
    }

    /// The best candidates, best first.
    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.list
    }

    /// Offers every token of `row`, scored by `normalizer`, replaced by `edits` where they have an
    /// entry, plus `sum`. The tokens' indices start at `first_index`; rows must be offered in
    /// ascending order.
    pub(super) fn offer_row(
        &mut self,
        row: LogitsRow<'_>,
        normalizer: Normalizer,
        edits: &Edits,
        sum: f32,
        first_index: usize,
    ) {
        let score = |logit: f32| normalizer.score(logit) + sum;
        // Scores grow with logits, so the row's maximum tells whether any of them can enter. Later
        // indices lose ties: what enters is strictly better than the worst.
        if score(row.max) > self.floor() || !self.is_full() {
            let (blocks, tail) = row.values.as_chunks::<LANES>();
            for (number, block) in blocks.iter().enumerate() {
                let floor = self.floor();
                let above = block.iter().fold(false, |any, &logit| any | (score(logit) > floor));
                if above || !self.is_full() {
                    self.offer_block(block, number * LANES, score, edits, first_index);
                }
            }
            self.offer_block(tail, blocks.len() * LANES, score, edits, first_index);
        }
        for (token, edited) in edits.iter() {
            self.offer(Candidate { score: edited + sum, index: first_index + token as usize });
        }
    }

    fn offer_block(
        &mut self,
        block: &[f32],
        first_token: usize,
        score: impl Fn(f32) -> f32,
        edits: &Edits,
        first_index: usize,
    ) {
        for (token, &logit) in (first_token..).zip(block) {
            let candidate = Candidate { score: score(logit), index: first_index + token };
            if self.has_room_for(&candidate) && edits.get(token as TokenId).is_none() {
                self.offer(candidate);
            }
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        if !self.has_room_for(&candidate) {
            return;
        }
        self.list.truncate(self.capacity - 1);
        let position = self.list.partition_point(|kept| kept.precedes(&candidate));
        self.list.insert(position, candidate);
    }

    fn has_room_for(&self, candidate: &Candidate) -> bool {
        !self.is_full() || self.list.last().is_some_and(|worst| candidate.precedes(worst))
    }

    fn is_full(&self) -> bool {
        self.list.len() >= self.capacity
    }

    /// The score of the worst candidate kept.
    fn floor(&self) -> f32 {
        self.list.last().map_or(f32::NEG_INFINITY, |worst| worst.score)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::super::logits::LogitsBatch;
    use super::super::processors::Processors;
    use super::super::{GenerationSettings, Strategy};
    use super::*;

    fn penalty_of_half() -> Processors {
        let settings = GenerationSettings {
            max_new_tokens: 1,
            min_new_tokens: 0,
            repetition_penalty: 0.5,
            no_repeat_ngram_size: 0,
            num_return_sequences: 1,
            strategy: Strategy::Greedy,
        };
        Processors::new(&settings, 0)
    }

    fn top(logits: &Array2<f32>, generated: &[TokenId], sums: &[f32], capacity: usize) -> Vec<Candidate> {
        let batch = LogitsBatch::new(&logits.view(), logits.nrows(), None).unwrap();
        let mut edits = Edits::default();
        let mut top = TopCandidates::default();
        top.restart(capacity);
        for (number, row) in batch.rows().enumerate() {
            penalty_of_half().apply(generated, row.values, Normalizer::RAW, &mut edits);
            top.offer_row(row, Normalizer::RAW, &edits, sums[number], number * batch.vocab());
        }
        top.as_slice().to_vec()
    }

    #[test]
    fn equal_scores_go_by_index_across_rows() {
        let logits = Array2::from_elem((3, 40), 1.0);
        let found: Vec<usize> = top(&logits, &[], &[0.0, 0.5, 0.0], 43).iter().map(|c| c.index).collect();
        let expected: Vec<usize> = (40..80).chain(0..3).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_edited_score_replaces_the_logit_and_keeps_its_place_in_ties() {
        // Tokens 0 and 3 are doubled by the penalty of 0.5: 4 and 2.
        let logits = ndarray::arr2(&[[2.0, 2.0, 3.0, 1.0, 2.0]]);
        let found: Vec<_> = top(&logits, &[3, 0], &[0.0], 4).iter().map(|c| (c.index, c.score)).collect();
        assert_eq!(found, [(0, 4.0), (2, 3.0), (1, 2.0), (3, 2.0)]);
    }

    #[test]
    fn fewer_than_asked_for_when_there_are_no_more() {
        assert_eq!(top(&ndarray::arr2(&[[1.0, f32::NEG_INFINITY]]), &[], &[0.0], 5).len(), 2);
    }

    proptest! {
        /// The same list as sorting everything, many ties included.
        #[test]
        fn equals_a_full_sort(
            rows in 1_usize..4,
            vocab in 1_usize..70,
            capacity in 1_usize..12,
            generated in prop::collection::vec(0_u32..70, 0..6),
            seed in prop::collection::vec(-4_i8..4, 4 * 70),
            sums in prop::collection::vec(-3_i8..1, 4),
        ) {
            let logits = Array2::from_shape_fn((rows, vocab), |(row, token)| match seed[row * 70 + token] {
                -4 if token > 0 => f32::NEG_INFINITY,
                value => f32::from(value),
            });
            let sums: Vec<f32> = sums.into_iter().map(f32::from).collect();
            let mut all: Vec<(f32, usize)> = Vec::new();
            for ((row, token), &logit) in logits.indexed_iter() {
                let edited = if !generated.contains(&(token as TokenId)) { logit }
                    else if logit < 0.0 { logit * 0.5 } else { logit / 0.5 };
                all.push((edited + sums[row], row * vocab + token));
            }
            // Stable, and the list is in index order.
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            all.truncate(capacity);
            let found: Vec<_> = top(&logits, &generated, &sums, capacity).iter().map(|c| (c.score, c.index)).collect();
            prop_assert_eq!(found, all);
        }
    }
}
