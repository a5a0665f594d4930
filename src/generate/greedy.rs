//! Greedy search: the likeliest token each time.

use super::TokenId;
use super::independent::Pick;
use super::logits::{LogitsRow, Normalizer};
use super::processors::Edits;
use super::top_candidates::TopCandidates;

/// The token of the highest score; of equal scores the lowest token, also when all are forbidden.
#[derive(Default)]
pub(super) struct Argmax {
    top: TopCandidates,
}

impl Pick for Argmax {
    fn pick(&mut self, _sequence: usize, row: LogitsRow<'_>, edits: &Edits) -> Option<TokenId> {
        self.top.restart(1);
        self.top.offer_row(row, Normalizer::RAW, edits, 0.0, 0);
        self.top.as_slice().first().map(|best| best.index as TokenId)
    }
}
