//! Logits processors: rules that change the scores of a few tokens before one is chosen.
//!
//! They are stateless and see the generated tokens only. Because each touches few of the many
//! scores, they write to an overlay ([`Edits`]) and leave the row of logits alone.

use super::logits::Normalizer;
use super::{GenerationSettings, TokenId};

/// The scores that differ from the row's own: (token, score), ascending by token.
#[derive(Debug, Default)]
pub(super) struct Edits {
    entries: Vec<(TokenId, f32)>,
}

impl Edits {
    /// The edited score of `token`, if it has one.
    pub(super) fn get(&self, token: TokenId) -> Option<f32> {
        self.position(token).ok().map(|position| self.entries[position].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TokenId, f32)> {
        self.entries.iter().copied()
    }

    fn position(&self, token: TokenId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&token, |&(token, _)| token)
    }
}

/// The scores of one row as processors see and change them.
pub(super) struct Scores<'a> {
    logits: &'a [f32],
    normalizer: Normalizer,
    edits: &'a mut Edits,
}

impl Scores<'_> {
    /// Changes the score of `token`. A token outside the vocabulary has none and is passed over.
    fn update(&mut self, token: TokenId, change: impl FnOnce(f32) -> f32) {
        let Some(&logit) = self.logits.get(token as usize) else {
            return;
        };
        match self.edits.position(token) {
            Ok(position) => {
                let score = &mut self.edits.entries[position].1;
                *score = change(*score);
            }
            Err(position) => {
                let score = change(self.normalizer.score(logit));
                self.edits.entries.insert(position, (token, score));
            }
        }
    }
}

/// One rule over the scores of the next token.
trait LogitsProcessor: Send {
    /// Changes `scores` of the token after `generated`.
    fn process(&self, generated: &[TokenId], scores: &mut Scores<'_>);
}

/// Makes tokens that were generated before less likely (penalty above 1); from CTRL (Keskar et al.
/// 2019), with the sign rule of transformers: a negative score is multiplied, any other divided.
/// Each token counts once.
struct RepetitionPenalty {
    penalty: f32,
}

impl LogitsProcessor for RepetitionPenalty {
    fn process(&self, generated: &[TokenId], scores: &mut Scores<'_>) {
        for token in distinct(generated.to_vec()) {
            scores.update(token, |score| {
                let penalized = if score < 0.0 { score * self.penalty } else { score / self.penalty };
                // A tiny penalty must not make +infinity, which sampling could not normalise.
                penalized.min(f32::MAX)
            });
        }
    }
}

/// Forbids the tokens that would complete a run of `size` tokens that was generated before.
struct NoRepeatNgram {
    size: usize,
}

impl LogitsProcessor for NoRepeatNgram {
    fn process(&self, generated: &[TokenId], scores: &mut Scores<'_>) {
        let Some(start) = (generated.len() + 1).checked_sub(self.size) else {
            return;
        };
        let prefix = &generated[start..];
        let repeats = generated.windows(self.size).filter_map(|ngram| ngram.split_last());
        let forbidden = repeats.filter(|(_, before)| *before == prefix).map(|(&last, _)| last);
        for token in distinct(forbidden.collect()) {
            scores.update(token, |_| f32::NEG_INFINITY);
        }
    }
}

/// Forbids eos until `length` tokens were generated.
struct MinNewTokens {
    length: usize,
    eos: TokenId,
}

impl LogitsProcessor for MinNewTokens {
    fn process(&self, generated: &[TokenId], scores: &mut Scores<'_>) {
        if generated.len() < self.length {
            scores.update(self.eos, |_| f32::NEG_INFINITY);
        }
    }
}

/// The tokens in ascending order, each once. Ascending, so that the overlay grows at its end.
fn distinct(mut tokens: Vec<TokenId>) -> Vec<TokenId> {
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// The processors that the settings switch on, in the reference's order.
pub(super) struct Processors {
    processors: Vec<Box<dyn LogitsProcessor>>,
}

impl Processors {
    pub(super) fn new(settings: &GenerationSettings, eos: TokenId) -> Self {
        let mut processors: Vec<Box<dyn LogitsProcessor>> = Vec::new();
        let penalty = settings.repetition_penalty;
        if (penalty - 1.0).abs() > 0.0 {
            processors.push(Box::new(RepetitionPenalty { penalty }));
        }
        if settings.no_repeat_ngram_size > 0 {
            processors.push(Box::new(NoRepeatNgram { size: settings.no_repeat_ngram_size }));
        }
        if settings.min_new_tokens > 0 {
            processors.push(Box::new(MinNewTokens { length: settings.min_new_tokens, eos }));
        }
        Self { processors }
    }

    /// Fills `edits` with the scores that differ from those of `logits` for the token after
    /// `generated`.
    pub(super) fn apply(&self, generated: &[TokenId], logits: &[f32], normalizer: Normalizer, edits: &mut Edits) {
        edits.entries.clear();
        let mut scores = Scores { logits, normalizer, edits };
        for processor in &self.processors {
            processor.process(generated, &mut scores);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Strategy;
    use super::*;

    const BANNED: f32 = f32::NEG_INFINITY;

    fn run(processor: &dyn LogitsProcessor, generated: &[TokenId], logits: &[f32]) -> Vec<(TokenId, f32)> {
        let mut edits = Edits::default();
        processor.process(generated, &mut Scores { logits, normalizer: Normalizer::RAW, edits: &mut edits });
        edits.entries
    }

    #[test]
    fn repetition_penalty_multiplies_negative_and_divides_other_scores() {
        let penalty = RepetitionPenalty { penalty: 2.0 };
        let logits = [3.0, -1.5, 0.0, 7.0];
        assert_eq!(run(&penalty, &[2, 0, 1], &logits), [(0, 1.5), (1, -3.0), (2, 0.0)]);
        assert_eq!(run(&penalty, &[], &logits), []);
    }

    #[test]
    fn repetition_penalty_counts_a_token_once() {
        assert_eq!(run(&RepetitionPenalty { penalty: 2.0 }, &[1, 1, 1], &[0.0, -1.0]), [(1, -2.0)]);
    }

    #[test]
    fn repetition_penalty_below_one_favours_repetition() {
        assert_eq!(run(&RepetitionPenalty { penalty: 0.5 }, &[0, 1], &[2.0, -1.0]), [(0, 4.0), (1, -0.5)]);
    }

    #[test]
    fn repetition_penalty_never_gives_infinity() {
        assert_eq!(run(&RepetitionPenalty { penalty: 1e-40 }, &[0], &[5.0]), [(0, f32::MAX)]);
        assert_eq!(run(&RepetitionPenalty { penalty: 2.0 }, &[0], &[BANNED]), [(0, BANNED)]);
    }

    #[test]
    fn no_repeat_bigram_forbids_every_successor_seen_before() {
        let bigram = NoRepeatNgram { size: 2 };
        let logits = [0.0; 10];
        // 5 was followed by 7 and by 6.
        assert_eq!(run(&bigram, &[5, 7, 5, 6, 5], &logits), [(6, BANNED), (7, BANNED)]);
        assert_eq!(run(&bigram, &[5, 5], &logits), [(5, BANNED)]);
        assert_eq!(run(&bigram, &[5], &logits), []);
        assert_eq!(run(&bigram, &[], &logits), []);
    }

    #[test]
    fn no_repeat_trigram_looks_at_the_last_two() {
        let trigram = NoRepeatNgram { size: 3 };
        assert_eq!(run(&trigram, &[1, 2, 3, 4, 1, 2], &[0.0; 5]), [(3, BANNED)]);
        assert_eq!(run(&trigram, &[1, 2, 3, 4, 2, 1], &[0.0; 5]), []);
    }

    #[test]
    fn no_repeat_unigram_forbids_all_that_was_generated() {
        assert_eq!(run(&NoRepeatNgram { size: 1 }, &[3, 1, 3], &[0.0; 5]), [(1, BANNED), (3, BANNED)]);
    }

    #[test]
    fn min_new_tokens_forbids_eos_until_then() {
        let minimum = MinNewTokens { length: 2, eos: 1 };
        assert_eq!(run(&minimum, &[0], &[0.0; 3]), [(1, BANNED)]);
        assert_eq!(run(&minimum, &[0, 0], &[0.0; 3]), []);
        // An eos outside the vocabulary has no score to forbid.
        assert_eq!(run(&MinNewTokens { length: 2, eos: 9 }, &[0], &[0.0; 3]), []);
    }

    #[test]
    fn processors_run_one_after_the_other_on_normalised_scores() {
        let settings = GenerationSettings {
            max_new_tokens: 9,
            min_new_tokens: 5,
            repetition_penalty: 3.0,
            no_repeat_ngram_size: 2,
            num_return_sequences: 1,
            strategy: Strategy::Greedy,
        };
        let logits = ndarray::arr2(&[[0.0_f32, 0.0, 0.0, 0.0]]);
        let batch = super::super::logits::LogitsBatch::new(&logits.view(), 1, None).unwrap();
        let row = batch.rows().next().unwrap();
        let mut edits = Edits::default();
        let processors = Processors::new(&settings, 3);
        processors.apply(&[0, 1, 0], row.values, Normalizer::log_softmax(row), &mut edits);
        // log(1/4), three times as negative for 0; 1 is penalised and then forbidden after 0; eos
        // is forbidden.
        let quarter = -(4.0_f32.ln());
        assert!((edits.get(0).unwrap() - 3.0 * quarter).abs() < 1e-6);
        assert_eq!(edits.get(1), Some(BANNED));
        assert_eq!(edits.get(2), None);
        assert_eq!(edits.get(3), Some(BANNED));
    }

    proptest! {
        /// The overlay equals the processors written on a dense copy.
        #[test]
        fn the_overlay_equals_a_dense_row(
            logits in prop::collection::vec(-8.0_f32..8.0, 6),
            generated in prop::collection::vec(0_u32..6, 0..12),
            penalty in prop::sample::select(vec![0.7_f32, 1.0, 1.3, 3.5]),
            size in 0_usize..4,
            minimum in 0_usize..14,
        ) {
            let settings = GenerationSettings {
                max_new_tokens: 20,
                min_new_tokens: minimum,
                repetition_penalty: penalty,
                no_repeat_ngram_size: size,
                num_return_sequences: 1,
                strategy: Strategy::Greedy,
            };
            let mut edits = Edits::default();
            Processors::new(&settings, 3).apply(&generated, &logits, Normalizer::RAW, &mut edits);
            let expected = super::super::reference::process(&settings, 3, &generated, logits.clone());
            let found: Vec<f32> =
                (0..6).map(|token| edits.get(token).unwrap_or(logits[token as usize])).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
