//! Beam search.
//!
//! B sequences grow side by side. Each step scores every continuation of every beam by the sum of
//! its log-probabilities (after the logits processors, not normalised again), walks the best 2B
//! from the top, and lets the first B that do not end a sequence be the next beams. Those that end
//! one before B candidates were passed join the finished [`Hypotheses`]. With 2B candidates and one
//! eos a beam, B always remain.

use ndarray::ArrayView2;

use super::hypotheses::Hypotheses;
use super::logits::{LogitsBatch, LogitsRow, Normalizer};
use super::logprobs::{Recorder, RowLogprobs};
use super::processors::{Edits, Processors};
use super::search::common_prefix;
use super::top_candidates::{Candidate, TopCandidates};
use super::{
    Advance, BeamSearch, FinishReason, GeneratedSequence, GenerationSettings, NextRow, Search, SearchError, StopRule,
    TokenId, TokenLogprob,
};

/// The sum that all beams but the first start with: the first step then continues one beam, not B
/// equal ones.
const UNREACHABLE: f32 = -1e9;

/// A stop rule may end more than B of the 2B candidates. Then the walk goes on, over at most this
/// many times B; a search that finds too few beams even there goes on with those it has.
const WIDEST: usize = 16;

/// A running sequence.
#[derive(Clone, Debug, Default)]
struct Beam {
    tokens: Vec<TokenId>,
    logprobs: Vec<TokenLogprob>,
    sum: f32,
}

/// The logits of a beam.
#[derive(Clone)]
struct BeamRow<'a> {
    row: LogitsRow<'a>,
    normalizer: Normalizer,
    /// Where they are recorded.
    logprobs: Option<RowLogprobs<'a>>,
}

/// A beam of the next step.
struct Extension {
    parent: usize,
    token: TokenId,
    sum: f32,
    logprob: Option<TokenLogprob>,
}

/// The search over B beams, B at least 2.
pub(super) struct BeamGroup {
    num_beams: usize,
    num_return_sequences: usize,
    max_new_tokens: usize,
    eos: TokenId,
    stop: Option<Box<dyn StopRule>>,
    processors: Processors,
    hypotheses: Hypotheses,
    beams: Vec<Beam>,
    generated: usize,
    vocab: Option<usize>,
    /// Set at the end.
    results: Option<Vec<GeneratedSequence>>,
    // Reused from step to step.
    parents: Vec<Beam>,
    edits: Vec<Edits>,
    top: TopCandidates,
    candidate_tokens: Vec<TokenId>,
    recorder: Option<Recorder>,
}

impl BeamGroup {
    pub(super) fn new(
        settings: &GenerationSettings,
        beam: &BeamSearch,
        eos: TokenId,
        stop: Option<Box<dyn StopRule>>,
    ) -> Self {
        let start = |number| Beam { sum: if number == 0 { 0.0 } else { UNREACHABLE }, ..Beam::default() };
        Self {
            num_beams: beam.num_beams,
            num_return_sequences: settings.num_return_sequences,
            max_new_tokens: settings.max_new_tokens,
            eos,
            stop,
            processors: Processors::new(settings, eos),
            hypotheses: Hypotheses::new(beam, settings.max_new_tokens),
            beams: (0..beam.num_beams).map(start).collect(),
            generated: 0,
            vocab: None,
            results: None,
            parents: (0..beam.num_beams).map(|_| Beam::default()).collect(),
            edits: (0..beam.num_beams).map(|_| Edits::default()).collect(),
            top: TopCandidates::default(),
            candidate_tokens: Vec::new(),
            recorder: None,
        }
    }

    /// Runs the logits processors and gives the row of each beam.
    fn score<'a>(&mut self, batch: &'a LogitsBatch<'_>) -> Vec<BeamRow<'a>> {
        let recorder = &mut self.recorder;
        let read = |row| {
            let normalizer = Normalizer::log_softmax(row);
            let logprobs = recorder.as_mut().map(|recorder| recorder.read(row, normalizer));
            BeamRow { row, normalizer, logprobs }
        };
        let rows: Vec<_> = batch.rows().map(read).collect();
        // The first row stands for all beams at the first call; later there are as many rows as
        // beams.
        let rows: Vec<_> = rows.into_iter().cycle().take(self.beams.len()).collect();
        for ((beam, edits), BeamRow { row, normalizer, .. }) in self.beams.iter().zip(&mut self.edits).zip(&rows) {
            self.processors.apply(&beam.tokens, row.values, *normalizer, edits);
        }
        rows
    }

    /// Walks the candidates from the best down: adds hypotheses and gives the next beams and the
    /// highest sum.
    fn walk(&mut self, rows: &[BeamRow<'_>], vocab: usize) -> (Vec<Extension>, f32) {
        let length = self.generated + 1;
        let mut next = Vec::with_capacity(self.num_beams);
        let mut rank = 0;
        let mut wanted = 2 * self.num_beams;
        loop {
            self.select(rows, vocab, wanted);
            let found = self.top.as_slice().len();
            while rank < found && next.len() < self.num_beams {
                let Candidate { score: sum, index } = self.top.as_slice()[rank];
                let (parent, token) = (index / vocab, (index % vocab) as TokenId);
                let logprob = || rows[parent].logprobs.as_ref().map(|logprobs| logprobs.of(token));
                match self.ending(parent, token) {
                    None => next.push(Extension { parent, token, sum, logprob: logprob() }),
                    Some(finish) if rank < self.num_beams => {
                        self.finish(Extension { parent, token, sum, logprob: logprob() }, finish);
                    }
                    Some(_) => {}
                }
                rank += 1;
            }
            let best = self.top.as_slice().first().map_or(f32::NEG_INFINITY, |candidate| candidate.score);
            let widest = found < wanted || wanted >= WIDEST * self.num_beams;
            if next.len() == self.num_beams || widest || self.hypotheses.is_done(best, length) {
                return (next, best);
            }
            wanted *= 2;
        }
    }

    fn select(&mut self, rows: &[BeamRow<'_>], vocab: usize, wanted: usize) {
        self.top.restart(wanted);
        for (number, (beam, edits)) in self.beams.iter().zip(&self.edits).enumerate() {
            let BeamRow { row, normalizer, .. } = &rows[number];
            self.top.offer_row(*row, *normalizer, edits, beam.sum, number * vocab);
        }
    }

    /// Why `token` after beam `parent` ends the sequence, if it does.
    fn ending(&mut self, parent: usize, token: TokenId) -> Option<FinishReason> {
        if token == self.eos {
            return Some(FinishReason::Eos);
        }
        let rule = self.stop.as_ref()?;
        self.candidate_tokens.clone_from(&self.beams[parent].tokens);
        self.candidate_tokens.push(token);
        rule.stops(&self.candidate_tokens).then_some(FinishReason::StopRule)
    }

    fn finish(&mut self, last: Extension, finish: FinishReason) {
        let Beam { mut tokens, mut logprobs, .. } = self.beams[last.parent].clone();
        tokens.push(last.token);
        logprobs.extend(last.logprob);
        self.hypotheses.add(tokens, logprobs, last.sum, finish);
    }

    /// Makes the extensions the running beams.
    fn extend(&mut self, next: &[Extension]) {
        std::mem::swap(&mut self.beams, &mut self.parents);
        self.beams.resize_with(next.len(), Beam::default);
        for (beam, extension) in self.beams.iter_mut().zip(next) {
            let parent = &self.parents[extension.parent];
            beam.tokens.clone_from(&parent.tokens);
            beam.tokens.push(extension.token);
            beam.logprobs.clone_from(&parent.logprobs);
            beam.logprobs.extend(extension.logprob.clone());
            beam.sum = extension.sum;
        }
        self.generated += 1;
    }

    /// The best sequences if the running beams end here.
    fn ranked(&self, finish: FinishReason) -> Vec<GeneratedSequence> {
        let mut hypotheses = self.hypotheses.clone();
        for beam in &self.beams {
            hypotheses.add(beam.tokens.clone(), beam.logprobs.clone(), beam.sum, finish);
        }
        hypotheses.best(self.num_return_sequences).into_iter().map(GeneratedSequence::from).collect()
    }
}

impl Search for BeamGroup {
    fn advance(&mut self, logits: ArrayView2<'_, f32>) -> Result<Advance, SearchError> {
        if self.results.is_some() {
            return Err(SearchError::Finished);
        }
        let first = self.generated == 0;
        let batch = LogitsBatch::new(&logits, if first { 1 } else { self.beams.len() }, self.vocab)?;
        self.vocab = Some(batch.vocab());
        let rows = self.score(&batch);
        let (next, best) = self.walk(&rows, batch.vocab());
        self.extend(&next);

        if next.is_empty() || self.hypotheses.is_done(best, self.generated) {
            // What still runs no longer counts.
            self.beams.clear();
        }
        if self.beams.is_empty() || self.generated >= self.max_new_tokens {
            self.results = Some(self.ranked(FinishReason::Length));
            return Ok(Advance::Finished);
        }
        let parent = |extension: &Extension| if first { 0 } else { extension.parent };
        let row = |extension| NextRow { parent: parent(extension), token: extension.token };
        Ok(Advance::Continue(next.iter().map(row).collect()))
    }

    fn settled(&self) -> &[TokenId] {
        if let Some(results) = &self.results {
            return results.first().map_or(&[], |best| &best.tokens);
        }
        // A hypothesis that is not among the best now never will be.
        let hypotheses = self.hypotheses.best(self.num_return_sequences);
        let hypotheses = hypotheses.into_iter().map(|hypothesis| hypothesis.tokens.as_slice());
        common_prefix(self.beams.iter().map(|beam| beam.tokens.as_slice()).chain(hypotheses))
    }

    fn record_logprobs(&mut self, count: usize) {
        self.recorder = Some(Recorder::new(count));
    }

    fn settled_logprobs(&self) -> &[TokenLogprob] {
        let kept = match &self.results {
            Some(results) => results.first().map(|best| &best.logprobs),
            None => self.beams.first().map(|beam| &beam.logprobs),
        };
        let kept = kept.map_or(&[][..], Vec::as_slice);
        &kept[..self.settled().len().min(kept.len())]
    }

    fn generated(&self) -> usize {
        self.generated
    }

    fn results(&self) -> Vec<GeneratedSequence> {
        if let Some(results) = &self.results {
            return results.clone();
        }
        let cancelled = |sequence| GeneratedSequence { finish: FinishReason::Cancelled, ..sequence };
        if self.generated == 0 {
            let (tokens, logprobs) = (Vec::new(), Vec::new());
            let nothing = GeneratedSequence { tokens, logprobs, score: None, finish: FinishReason::Cancelled };
            return vec![nothing; self.num_return_sequences];
        }
        self.ranked(FinishReason::Cancelled).into_iter().map(cancelled).collect()
    }
}

#[cfg(test)]
mod tests;
