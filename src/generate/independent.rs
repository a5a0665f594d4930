//! Sequences that grow side by side without regard to each other: one for greedy search, any number
//! of samples.

use ndarray::ArrayView2;

use super::logits::{LogitsBatch, LogitsRow, Normalizer};
use super::logprobs::Recorder;
use super::processors::{Edits, Processors};
use super::search::common_prefix;
use super::{
    Advance, FinishReason, GeneratedSequence, GenerationSettings, NextRow, Search, SearchError, StopRule, TokenId,
    TokenLogprob,
};

/// Chooses the next token of a sequence.
pub(super) trait Pick: Send {
    /// A token of `row`, whose scores are replaced by `edits` where they have an entry; none if
    /// there is no token to choose. `sequence` is the sequence's number.
    fn pick(&mut self, sequence: usize, row: LogitsRow<'_>, edits: &Edits) -> Option<TokenId>;
}

#[derive(Clone, Default)]
struct Sequence {
    tokens: Vec<TokenId>,
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
}

/// The search over independent sequences. A finished sequence leaves the batch.
pub(super) struct IndependentRows<P> {
    picker: P,
    processors: Processors,
    max_new_tokens: usize,
    eos: TokenId,
    stop: Option<Box<dyn StopRule>>,
    sequences: Vec<Sequence>,
    /// Numbers of the sequences that are running, in the order of their rows.
    live: Vec<usize>,
    generated: usize,
    vocab: Option<usize>,
    edits: Edits,
    recorder: Option<Recorder>,
}

impl<P: Pick> IndependentRows<P> {
    pub(super) fn new(settings: &GenerationSettings, eos: TokenId, stop: Option<Box<dyn StopRule>>, picker: P) -> Self {
        let number = settings.num_return_sequences;
        Self {
            picker,
            processors: Processors::new(settings, eos),
            max_new_tokens: settings.max_new_tokens,
            eos,
            stop,
            sequences: vec![Sequence::default(); number],
            live: (0..number).collect(),
            generated: 0,
            vocab: None,
            edits: Edits::default(),
            recorder: None,
        }
    }

    /// The next token of every live row.
    fn picks(&mut self, batch: &LogitsBatch<'_>) -> Result<Vec<TokenId>, SearchError> {
        let mut picks = Vec::with_capacity(self.live.len());
        // The first row stands for all at the first call; later there are as many rows as
        // sequences.
        for ((position, &sequence), row) in self.live.iter().enumerate().zip(batch.rows().cycle()) {
            let generated = &self.sequences[sequence].tokens;
            self.processors.apply(generated, row.values, Normalizer::RAW, &mut self.edits);
            let token = self.picker.pick(sequence, row, &self.edits);
            picks.push(token.ok_or(SearchError::NothingLeft { row: position })?);
        }
        Ok(picks)
    }

    /// Keeps the log-probabilities of the tokens picked, where that was asked for.
    fn record(&mut self, batch: &LogitsBatch<'_>, picks: &[TokenId]) {
        let Some(recorder) = &mut self.recorder else { return };
        let rows: Vec<_> = batch.rows().map(|row| recorder.read(row, Normalizer::log_softmax(row))).collect();
        for ((&sequence, &token), row) in self.live.iter().zip(picks).zip(rows.iter().cycle()) {
            self.sequences[sequence].logprobs.push(row.of(token));
        }
    }

    /// Why the sequence ends with the token it was just given, if it does.
    fn finish(&self, tokens: &[TokenId]) -> Option<FinishReason> {
        if tokens.last() == Some(&self.eos) {
            Some(FinishReason::Eos)
        } else if self.stop.as_ref().is_some_and(|rule| rule.stops(tokens)) {
            Some(FinishReason::StopRule)
        } else if tokens.len() >= self.max_new_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }
}

impl<P: Pick> Search for IndependentRows<P> {
    fn advance(&mut self, logits: ArrayView2<'_, f32>) -> Result<Advance, SearchError> {
        if self.live.is_empty() {
            return Err(SearchError::Finished);
        }
        let first = self.generated == 0;
        let rows = if first { 1 } else { self.live.len() };
        let batch = LogitsBatch::new(&logits, rows, self.vocab)?;
        let picks = self.picks(&batch)?;
        self.record(&batch, &picks);
        self.vocab = Some(batch.vocab());
        self.generated += 1;

        let mut next = Vec::with_capacity(picks.len());
        let mut live = Vec::with_capacity(picks.len());
        for (row, (&sequence, token)) in self.live.iter().zip(picks).enumerate() {
            self.sequences[sequence].tokens.push(token);
            let finish = self.finish(&self.sequences[sequence].tokens);
            self.sequences[sequence].finish = finish;
            if finish.is_none() {
                live.push(sequence);
                next.push(NextRow { parent: if first { 0 } else { row }, token });
            }
        }
        self.live = live;
        Ok(if next.is_empty() { Advance::Finished } else { Advance::Continue(next) })
    }

    fn settled(&self) -> &[TokenId] {
        if self.live.is_empty() {
            return self.sequences.first().map_or(&[], |sequence| &sequence.tokens);
        }
        common_prefix(self.sequences.iter().map(|sequence| sequence.tokens.as_slice()))
    }

    fn record_logprobs(&mut self, count: usize) {
        self.recorder = Some(Recorder::new(count));
    }

    fn settled_logprobs(&self) -> &[TokenLogprob] {
        let kept = self.sequences.first().map_or(&[][..], |sequence| &sequence.logprobs);
        &kept[..self.settled().len().min(kept.len())]
    }

    fn generated(&self) -> usize {
        self.generated
    }

    fn results(&self) -> Vec<GeneratedSequence> {
        let result = |sequence: &Sequence| GeneratedSequence {
            tokens: sequence.tokens.clone(),
            logprobs: sequence.logprobs.clone(),
            score: None,
            finish: sequence.finish.unwrap_or(FinishReason::Cancelled),
        };
        self.sequences.iter().map(result).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ndarray::{Array2, arr2};

    use super::super::{Sampling, Strategy, start};
    use super::*;

    const EOS: TokenId = 0;

    fn neutral() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7 }
    }

    fn settings(sampling: Sampling, sequences: usize) -> GenerationSettings {
        GenerationSettings {
            max_new_tokens: 12,
            min_new_tokens: 0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            num_return_sequences: sequences,
            strategy: Strategy::Sample(sampling),
        }
    }

    fn greedy() -> GenerationSettings {
        GenerationSettings { strategy: Strategy::Greedy, ..settings(neutral(), 1) }
    }

    /// A table model over 5 tokens: what follows depends on the last token.
    fn logits_after(token: Option<TokenId>) -> [f32; 5] {
        match token {
            None => [-1.0, 0.5, 0.3, 0.0, 0.2],
            Some(token) => std::array::from_fn(|next| ((next * 3 + token as usize * 5) % 7) as f32 * 0.4 - 1.0),
        }
    }

    fn run(settings: &GenerationSettings) -> Box<dyn Search> {
        let mut search = start(settings, EOS, None).unwrap();
        let mut logits = arr2(&[logits_after(None)]);
        while let Advance::Continue(rows) = search.advance(logits.view()).unwrap() {
            let next: Vec<[f32; 5]> = rows.iter().map(|row| logits_after(Some(row.token))).collect();
            logits = arr2(&next);
        }
        search
    }

    #[test]
    fn a_seed_repeats_itself_and_another_does_not() {
        let sampling = |seed| settings(Sampling { seed, top_p: 0.95, ..neutral() }, 4);
        assert_eq!(run(&sampling(1)).results(), run(&sampling(1)).results());
        assert_ne!(run(&sampling(1)).results(), run(&sampling(2)).results());
    }

    #[test]
    fn a_sequence_does_not_depend_on_the_others() {
        let six = run(&settings(neutral(), 6)).results();
        let ends: HashSet<usize> = six.iter().map(|sequence| sequence.tokens.len()).collect();
        assert!(ends.len() > 2, "sequences must leave the batch at different times: {ends:?}");
        for fewer in 1..6 {
            assert_eq!(run(&settings(neutral(), fewer)).results(), six[..fewer]);
        }
    }

    #[test]
    fn finished_sequences_leave_the_batch() {
        // Token 1 goes on, token 0 (eos) ends.
        let mut search = start(&settings(neutral(), 8), EOS, None).unwrap();
        let Advance::Continue(rows) = search.advance(arr2(&[[0.0, 0.0]]).view()).unwrap() else { panic!() };
        assert!(rows.len() < 8 && rows.iter().all(|row| row.parent == 0 && row.token == 1));
        let live = rows.len();
        let Advance::Continue(rows) = search.advance(Array2::zeros((live, 2)).view()).unwrap() else { panic!() };
        assert!(rows.len() < live);
        assert!(rows.is_sorted_by_key(|row| row.parent) && rows.iter().all(|row| row.parent < live));
        let error = search.advance(Array2::zeros((live, 2)).view()).unwrap_err();
        assert!(matches!(error, SearchError::Shape { .. }));
        let results = search.results();
        assert_eq!(results.iter().filter(|r| r.finish == FinishReason::Cancelled).count(), rows.len());
        assert_eq!(results.iter().filter(|r| r.finish == FinishReason::Eos && r.tokens.len() == 1).count(), 8 - live);
    }

    #[test]
    fn nothing_left_to_draw_is_an_error() {
        let all = GenerationSettings { no_repeat_ngram_size: 1, min_new_tokens: 9, ..settings(neutral(), 1) };
        let mut search = start(&all, EOS, None).unwrap();
        search.advance(arr2(&[[0.0, 0.0]]).view()).unwrap();
        let error = search.advance(arr2(&[[0.0, 0.0]]).view()).unwrap_err();
        assert_eq!(error, SearchError::NothingLeft { row: 0 });
        assert_eq!(search.results()[0].tokens, [1]);
    }

    struct After(usize);

    impl StopRule for After {
        fn stops(&self, tokens: &[TokenId]) -> bool {
            tokens.len() >= self.0
        }
    }

    #[test]
    fn a_stop_rule_ends_each_sequence() {
        let mut search = start(&settings(neutral(), 2), 9, Some(Box::new(After(2)))).unwrap();
        search.advance(arr2(&[[0.0, 0.0]]).view()).unwrap();
        assert_eq!(search.advance(Array2::zeros((2, 2)).view()).unwrap(), Advance::Finished);
        assert!(search.results().iter().all(|r| r.finish == FinishReason::StopRule && r.tokens.len() == 2));
    }

    #[test]
    fn settled_is_what_all_samples_share() {
        let mut search = start(&settings(neutral(), 3), 9, None).unwrap();
        search.advance(arr2(&[[9.0, 100.0]]).view()).unwrap();
        assert_eq!(search.settled(), [1]);
        search.advance(arr2(&[[100.0, 0.0], [0.0, 100.0], [100.0, 0.0]]).view()).unwrap();
        assert_eq!(search.settled(), [1]);
        assert_eq!(search.generated(), 2);
    }

    fn one(search: &mut dyn Search, logits: &[f32]) -> Option<TokenId> {
        let logits = Array2::from_shape_vec((1, logits.len()), logits.to_vec()).unwrap();
        match search.advance(logits.view()).unwrap() {
            Advance::Continue(rows) => Some(rows[0].token),
            Advance::Finished => None,
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut search = start(&greedy(), EOS, None).unwrap();
        assert_eq!(one(search.as_mut(), &[-1.0, 2.0, 5.0, 5.0]), Some(2));
        assert_eq!(search.settled(), [2]);
        assert_eq!(one(search.as_mut(), &[5.0, 5.0, 1.0, 2.0]), None);
        let results = search.results();
        assert_eq!((&results[0].tokens[..], results[0].finish), (&[2, EOS][..], FinishReason::Eos));
        assert_eq!(search.advance(arr2(&[[0.0; 4]]).view()), Err(SearchError::Finished));
    }

    #[test]
    fn greedy_penalises_raw_logits() {
        let penalized = GenerationSettings { repetition_penalty: 2.0, ..greedy() };
        let mut search = start(&penalized, EOS, None).unwrap();
        assert_eq!(one(search.as_mut(), &[0.0, 3.0, 0.0]), Some(1));
        // 3 / 2 loses to 2; on log-probabilities it would have lost to 0.0 as well.
        assert_eq!(one(search.as_mut(), &[0.0, 3.0, 1.4]), Some(1));
        assert_eq!(one(search.as_mut(), &[0.0, 3.0, 1.6]), Some(2));
    }

    #[test]
    fn greedy_with_every_token_forbidden_takes_the_first_as_the_reference_does() {
        let all = GenerationSettings { no_repeat_ngram_size: 1, min_new_tokens: 9, ..greedy() };
        let mut search = start(&all, EOS, None).unwrap();
        assert_eq!(one(search.as_mut(), &[0.0, 1.0]), Some(1));
        assert_eq!(one(search.as_mut(), &[0.0, 1.0]), None);
        assert_eq!(search.results()[0].tokens, [1, EOS]);
    }

    #[test]
    fn greedy_ends_at_the_limit_and_when_cancelled() {
        let mut search = start(&GenerationSettings { max_new_tokens: 2, ..greedy() }, EOS, None).unwrap();
        assert!(search.results()[0].tokens.is_empty());
        one(search.as_mut(), &[0.0, 1.0]);
        let cancelled = &search.results()[0];
        assert_eq!((&cancelled.tokens[..], cancelled.finish), (&[1][..], FinishReason::Cancelled));
        assert_eq!(one(search.as_mut(), &[0.0, 1.0]), None);
        let results = search.results();
        assert_eq!((&results[0].tokens[..], results[0].finish), (&[1, 1][..], FinishReason::Length));
    }

    #[test]
    fn eos_comes_before_the_stop_rule_and_that_before_the_limit() {
        let two = GenerationSettings { max_new_tokens: 2, ..greedy() };
        for (last, finish) in [([1.0, 0.0], FinishReason::Eos), ([0.0, 1.0], FinishReason::StopRule)] {
            let mut search = start(&two, EOS, Some(Box::new(After(2)))).unwrap();
            one(search.as_mut(), &[0.0, 1.0]);
            assert_eq!(one(search.as_mut(), &last), None);
            assert_eq!(search.results()[0].finish, finish);
        }
    }

    #[test]
    fn unusable_logits_leave_the_sequences_as_they_were() {
        let mut search = start(&greedy(), EOS, None).unwrap();
        one(search.as_mut(), &[0.0, 1.0]);
        let error = search.advance(arr2(&[[f32::INFINITY, f32::NAN]]).view()).unwrap_err();
        assert_eq!(error, SearchError::InvalidLogits { row: 0, invalid: 2, vocab: 2 });
        assert_eq!(search.settled(), [1]);
        assert_eq!(one(search.as_mut(), &[0.0, 1.0]), Some(1));
    }
}
