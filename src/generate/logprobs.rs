//! Log-probabilities of the tokens that were chosen, and of the likeliest beside them.
//!
//! They are those of the model: the log-softmax of its logits before any logits processor, temperature or filter
//! (transformers' `output_logits`). The same tokens after the same prompt have the same figures whatever the search.

use std::sync::Arc;

use super::TokenId;
use super::logits::{LogitsRow, Normalizer};
use super::processors::Edits;
use super::top_candidates::TopCandidates;

/// A generated token and how likely the model found it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of its probability; -infinity where it had none.
    pub logprob: f32,
    /// The likeliest tokens at its place and their log-probabilities, likeliest first; of equals the lower token. As many
    /// as were asked for, or the whole vocabulary. The token itself need not be one of them.
    pub top: Arc<[(TokenId, f32)]>,
}

/// Takes down log-probabilities, step by step.
pub(super) struct Recorder {
    /// How many of the likeliest tokens are kept.
    count: usize,
    top: TopCandidates,
}

/// The log-probabilities of one row.
#[derive(Clone)]
pub(super) struct RowLogprobs<'a> {
    row: LogitsRow<'a>,
    normalizer: Normalizer,
    top: Arc<[(TokenId, f32)]>,
}

impl Recorder {
    pub(super) fn new(count: usize) -> Self {
        Self { count, top: TopCandidates::default() }
    }

    /// Reads a row; `normalizer` is that of its log-softmax.
    pub(super) fn read<'a>(&mut self, row: LogitsRow<'a>, normalizer: Normalizer) -> RowLogprobs<'a> {
        self.top.restart(self.count);
        if self.count > 0 {
            self.top.offer_row(row, normalizer, &Edits::default(), 0.0, 0);
        }
        let top = self.top.as_slice().iter().map(|candidate| (candidate.index as TokenId, candidate.score)).collect();
        RowLogprobs { row, normalizer, top }
    }
}

impl RowLogprobs<'_> {
    /// What is to be kept if `token` is chosen.
    pub(super) fn of(&self, token: TokenId) -> TokenLogprob {
        let logprob =
            self.row.values.get(token as usize).map_or(f32::NEG_INFINITY, |&logit| self.normalizer.score(logit));
        TokenLogprob { token, logprob, top: Arc::clone(&self.top) }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::super::logits::LogitsBatch;
    use super::*;

    fn read(logits: [f32; 4], count: usize, token: TokenId) -> TokenLogprob {
        let logits = arr2(&[logits]);
        let batch = LogitsBatch::new(&logits.view(), 1, None).unwrap();
        let row = batch.rows().next().unwrap();
        Recorder::new(count).read(row, Normalizer::log_softmax(row)).of(token)
    }

    #[test]
    fn the_likeliest_come_first_and_of_equals_the_lower_token() {
        let half = 0.5_f32.ln();
        let quarter = 0.25_f32.ln();
        let kept = read([quarter, half, f32::NEG_INFINITY, quarter], 2, 3);
        assert_eq!((kept.token, kept.top.len()), (3, 2));
        assert!((kept.logprob - quarter).abs() < 1e-6);
        assert_eq!((kept.top[0].0, kept.top[1].0), (1, 0));
        assert!((kept.top[0].1 - half).abs() < 1e-6 && (kept.top[1].1 - quarter).abs() < 1e-6);
    }

    #[test]
    fn no_more_than_the_vocabulary_and_none_if_none_is_asked_for() {
        let all = read([1.0, 0.0, f32::NEG_INFINITY, 0.5], 20, 2);
        assert_eq!(all.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 3, 1, 2]);
        assert!(all.logprob == f32::NEG_INFINITY && all.top[3].1 == f32::NEG_INFINITY);
        assert!(read([1.0; 4], 0, 1).top.is_empty());
    }
}
