//! The finished sequences of a beam search, and whether a running one could still join them.

use super::settings::as_written;
use super::{BeamSearch, EarlyStopping, FinishReason, GeneratedSequence, TokenId, TokenLogprob};

/// A finished sequence.
#[derive(Clone, Debug)]
pub(super) struct Hypothesis {
    score: f64,
    pub(super) tokens: Vec<TokenId>,
    pub(super) logprobs: Vec<TokenLogprob>,
    finish: FinishReason,
}

/// The best `num_beams` finished sequences.
#[derive(Clone, Debug)]
pub(super) struct Hypotheses {
    capacity: usize,
    length_penalty: f64,
    early_stopping: EarlyStopping,
    max_new_tokens: usize,
    /// In the order they were added.
    list: Vec<Hypothesis>,
}

impl Hypotheses {
    pub(super) fn new(beam: &BeamSearch, max_new_tokens: usize) -> Self {
        Self {
            capacity: beam.num_beams,
            length_penalty: as_written(beam.length_penalty),
            early_stopping: beam.early_stopping,
            max_new_tokens,
            list: Vec::new(),
        }
    }

    /// Adds `tokens`, if they are better than the worst or there is room. Their length, which
    /// counts eos, is what the score divides by.
    pub(super) fn add(&mut self, tokens: Vec<TokenId>, logprobs: Vec<TokenLogprob>, sum: f32, finish: FinishReason) {
        let score = self.scored(sum, tokens.len());
        if self.list.len() < self.capacity || score > self.worst() {
            self.list.push(Hypothesis { score, tokens, logprobs, finish });
            if self.list.len() > self.capacity {
                self.drop_worst();
            }
        }
    }

    /// Whether the search may stop: `best_sum` is the highest candidate sum of this step and
    /// `length` the length of its candidates.
    pub(super) fn is_done(&self, best_sum: f32, length: usize) -> bool {
        if self.list.len() < self.capacity {
            return false;
        }
        let length = match self.early_stopping {
            EarlyStopping::True => return true,
            // Sums are negative: dividing by the largest length gives the highest score that can be
            // had.
            EarlyStopping::Never if self.length_penalty > 0.0 => self.max_new_tokens,
            EarlyStopping::False | EarlyStopping::Never => length,
        };
        self.worst() >= self.scored(best_sum, length)
    }

    /// The `count` best, best first; of equal scores the one added last.
    pub(super) fn best(&self, count: usize) -> Vec<&Hypothesis> {
        let mut sorted: Vec<&Hypothesis> = self.list.iter().rev().collect();
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
        sorted.truncate(count);
        sorted
    }

    fn scored(&self, sum: f32, length: usize) -> f64 {
        f64::from(sum) / (length as f64).powf(self.length_penalty)
    }

    fn worst(&self) -> f64 {
        self.list.iter().map(|hypothesis| hypothesis.score).fold(f64::INFINITY, f64::min)
    }

    /// Drops the lowest score; of equal ones the oldest.
    fn drop_worst(&mut self) {
        let worst = self.worst();
        if let Some(position) = self.list.iter().position(|hypothesis| hypothesis.score <= worst) {
            self.list.remove(position);
        }
    }
}

impl From<&Hypothesis> for GeneratedSequence {
    fn from(hypothesis: &Hypothesis) -> Self {
        let Hypothesis { score, tokens, logprobs, finish } = hypothesis.clone();
        Self { tokens, logprobs, score: Some(score as f32), finish }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(num_beams: usize, length_penalty: f32, early_stopping: EarlyStopping) -> Hypotheses {
        Hypotheses::new(&BeamSearch { num_beams, length_penalty, early_stopping }, 10)
    }

    fn add(pool: &mut Hypotheses, mark: TokenId, length: usize, sum: f32) {
        pool.add(vec![mark; length], Vec::new(), sum, FinishReason::Eos);
    }

    fn marks(pool: &Hypotheses) -> Vec<TokenId> {
        pool.best(9).iter().map(|hypothesis| hypothesis.tokens[0]).collect()
    }

    #[test]
    fn scores_divide_by_length_to_the_penalty() {
        for (length_penalty, expected) in [(1.0, -1.5), (0.0, -6.0), (2.0, -0.375), (-1.0, -24.0), (0.5, -3.0)] {
            let mut pool = pool(1, length_penalty, EarlyStopping::False);
            add(&mut pool, 1, 4, -6.0);
            let score = GeneratedSequence::from(pool.best(1)[0]).score.unwrap();
            assert!((score - expected).abs() < 1e-6, "{length_penalty}: {score}");
        }
    }

    #[test]
    fn a_full_pool_takes_only_what_beats_its_worst() {
        let mut pool = pool(2, 0.0, EarlyStopping::False);
        add(&mut pool, 1, 1, -3.0);
        add(&mut pool, 2, 1, -2.0);
        add(&mut pool, 3, 1, -3.0);
        assert_eq!(marks(&pool), [2, 1]);
        add(&mut pool, 4, 1, -1.0);
        assert_eq!(marks(&pool), [4, 2]);
    }

    #[test]
    fn of_equal_scores_the_oldest_goes_and_the_newest_leads() {
        let mut pool = pool(2, 0.0, EarlyStopping::False);
        add(&mut pool, 1, 1, -2.0);
        add(&mut pool, 2, 1, -2.0);
        assert_eq!(marks(&pool), [2, 1]);
        add(&mut pool, 3, 1, -1.0);
        assert_eq!(marks(&pool), [3, 2]);
    }

    #[test]
    fn not_done_before_it_is_full() {
        for early_stopping in [EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never] {
            let mut pool = pool(2, 1.0, early_stopping);
            add(&mut pool, 1, 1, 0.0);
            assert!(!pool.is_done(-100.0, 2));
            add(&mut pool, 1, 1, 0.0);
            assert!(pool.is_done(-100.0, 2));
        }
    }

    #[test]
    fn early_stopping_differs_in_the_length_it_divides_by() {
        // Worst score -1. The best candidate, -4 at length 2, is at -2 now and could reach -0.4 at
        // length 10.
        let done = |early_stopping, length_penalty| {
            let mut pool = pool(1, length_penalty, early_stopping);
            add(&mut pool, 1, 1, -1.0);
            pool.is_done(-4.0, 2)
        };
        assert!(done(EarlyStopping::True, 1.0));
        assert!(done(EarlyStopping::False, 1.0));
        assert!(!done(EarlyStopping::Never, 1.0));
        // Without a positive penalty no candidate gets better by growing.
        assert!(done(EarlyStopping::Never, 0.0));
        assert!(done(EarlyStopping::Never, -1.0));
        // -4 / 2^3 beats -1.
        assert!(!done(EarlyStopping::False, 3.0));
        assert!(done(EarlyStopping::True, 3.0));
        // A negative one makes growing worse: -2 * 2 beats -5 now, -2 * 10 would not.
        let mut pool = pool(1, -1.0, EarlyStopping::Never);
        add(&mut pool, 1, 1, -5.0);
        assert!(!pool.is_done(-2.0, 2));
    }

    #[test]
    fn equal_is_done() {
        let mut pool = pool(1, 1.0, EarlyStopping::False);
        add(&mut pool, 1, 1, -1.0);
        assert!(pool.is_done(-2.0, 2));
        assert!(!pool.is_done(-1.999, 2));
    }

    #[test]
    fn a_sequence_of_forbidden_tokens_counts_like_any_other() {
        let mut pool = pool(1, 1.0, EarlyStopping::False);
        add(&mut pool, 1, 1, f32::NEG_INFINITY);
        assert!(!pool.is_done(-50.0, 2));
        assert!(pool.is_done(f32::NEG_INFINITY, 2));
        add(&mut pool, 2, 2, -90.0);
        assert_eq!(marks(&pool), [2]);
    }
}
