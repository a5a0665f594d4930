//! A second, slow and plain version of processors, greedy and beam search, for the tests: dense
//! rows, double precision normaliser, full sorts, everything kept. Written from the description of
//! the algorithm, sharing no code with the searches.

use std::collections::BTreeSet;

use super::{BeamSearch, EarlyStopping, FinishReason, GenerationSettings, TokenId};

pub(super) const EOS: TokenId = 3;

/// The logits processors on a dense row.
pub(super) fn process(
    settings: &GenerationSettings,
    eos: TokenId,
    generated: &[TokenId],
    mut scores: Vec<f32>,
) -> Vec<f32> {
    let penalty = settings.repetition_penalty;
    for token in generated.iter().copied().collect::<BTreeSet<_>>() {
        let score = &mut scores[token as usize];
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
    let size = settings.no_repeat_ngram_size;
    for (token, score) in (0..).zip(&mut scores) {
        let extended = [generated, &[token]].concat();
        if size > 0 && extended.len() > size {
            let last = &extended[extended.len() - size..];
            if generated.windows(size).any(|ngram| ngram == last) {
                *score = f32::NEG_INFINITY;
            }
        }
    }
    if generated.len() < settings.min_new_tokens {
        scores[eos as usize] = f32::NEG_INFINITY;
    }
    scores
}

/// A language model as a table: what follows depends on the last token and on the position.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) start: Vec<f32>,
    pub(super) transitions: Vec<Vec<f32>>,
    pub(super) steps: Vec<Vec<f32>>,
}

impl Table {
    pub(super) fn logits(&self, generated: &[TokenId]) -> Vec<f32> {
        let from = generated.last().map_or(&self.start, |&last| &self.transitions[last as usize]);
        from.iter().zip(&self.steps[generated.len() % self.steps.len()]).map(|(a, b)| a + b).collect()
    }
}

/// A finished sequence.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) tokens: Vec<TokenId>,
    pub(super) score: Option<f64>,
    pub(super) finish: FinishReason,
}

pub(super) fn greedy(table: &Table, settings: &GenerationSettings, stops: &dyn Fn(&[TokenId]) -> bool) -> Finished {
    let mut tokens = Vec::new();
    loop {
        let scores = process(settings, EOS, &tokens, table.logits(&tokens));
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        tokens.push(scores.iter().position(|score| *score >= best).unwrap() as TokenId);
        let finish = if tokens.last() == Some(&EOS) {
            FinishReason::Eos
        } else if stops(&tokens) {
            FinishReason::StopRule
        } else if tokens.len() == settings.max_new_tokens {
            FinishReason::Length
        } else {
            continue;
        };
        return Finished { tokens, score: None, finish };
    }
}

/// The finished sequences, and the smallest difference that any decision of the search hung on,
/// relative where the values are above 1.
pub(super) struct Pool {
    width: usize,
    length_penalty: f64,
    pub(super) list: Vec<Finished>,
    pub(super) margin: f64,
}

impl Pool {
    fn score(&self, sum: f32, length: usize) -> f64 {
        f64::from(sum) / (length as f64).powf(self.length_penalty)
    }

    fn decide(&mut self, a: f64, b: f64) {
        // Sums of beams that cannot be reached yet tie by design, and so do forbidden tokens.
        if a > -1e8 && b > -1e8 {
            self.margin = self.margin.min((a - b).abs() / a.abs().max(1.0));
        }
    }

    fn worst(&self) -> f64 {
        self.list.iter().map(|h| h.score.unwrap()).fold(f64::INFINITY, f64::min)
    }

    fn is_full(&self) -> bool {
        self.list.len() == self.width
    }

    fn add(&mut self, tokens: Vec<TokenId>, sum: f32, finish: FinishReason) {
        let score = self.score(sum, tokens.len());
        let new = Finished { tokens, score: Some(score), finish };
        if !self.is_full() {
            self.list.push(new);
            return;
        }
        self.decide(score, self.worst());
        if score > self.worst() {
            self.list.push(new);
            let worst = self.worst();
            let oldest = self.list.iter().position(|h| h.score.unwrap() <= worst).unwrap();
            self.list.remove(oldest);
        }
    }

    fn is_done(&mut self, early_stopping: EarlyStopping, best: f32, length: usize, longest: usize) -> bool {
        if !self.is_full() {
            return false;
        }
        let attainable = match early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if self.length_penalty > 0.0 => self.score(best, longest),
            _ => self.score(best, length),
        };
        self.decide(self.worst(), attainable);
        self.worst() >= attainable
    }

    fn sorted(mut self, count: usize) -> Self {
        self.list.reverse();
        self.list.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap());
        let scores: Vec<f64> = self.list.iter().map(|h| h.score.unwrap()).collect();
        for pair in scores.windows(2) {
            self.decide(pair[0], pair[1]);
        }
        self.list.truncate(count);
        self
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|logit| (logit - max) - sum.ln() as f32).collect()
}

/// Every continuation of every beam with its sum, best first.
fn continuations(
    table: &Table,
    settings: &GenerationSettings,
    running: &[(Vec<TokenId>, f32)],
) -> Vec<(Vec<TokenId>, f32)> {
    let mut all = Vec::new();
    for (tokens, sum) in running {
        let scores = process(settings, EOS, tokens, log_softmax(&table.logits(tokens)));
        for (token, score) in (0..).zip(scores) {
            all.push(([&tokens[..], &[token]].concat(), score + sum));
        }
    }
    // Stable: of equal sums the earlier beam, then the lower token.
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
    all
}

pub(super) fn beams(
    table: &Table,
    settings: &GenerationSettings,
    beam: &BeamSearch,
    stops: &dyn Fn(&[TokenId]) -> bool,
) -> Pool {
    let width = beam.num_beams;
    let length_penalty = f64::from(beam.length_penalty);
    let mut pool = Pool { width, length_penalty, list: Vec::new(), margin: f64::INFINITY };
    let mut running = vec![(Vec::new(), -1e9_f32); width];
    running[0].1 = 0.0;
    for length in 1..=settings.max_new_tokens {
        let all = continuations(table, settings, &running);
        for pair in all.windows(2).take(2 * width) {
            pool.decide(pair[0].1.into(), pair[1].1.into());
        }
        let best = all[0].1;
        running.clear();
        for (rank, (tokens, sum)) in all.into_iter().enumerate() {
            let finish = match tokens.last() {
                Some(&EOS) => Some(FinishReason::Eos),
                _ if stops(&tokens) => Some(FinishReason::StopRule),
                _ => None,
            };
            match finish {
                Some(finish) if rank < width => pool.add(tokens, sum, finish),
                Some(_) => {}
                None => running.push((tokens, sum)),
            }
            if running.len() == width {
                break;
            }
        }
        let done = pool.is_done(beam.early_stopping, best, length, settings.max_new_tokens);
        if done || running.is_empty() {
            return pool.sorted(settings.num_return_sequences);
        }
    }
    for (tokens, sum) in running {
        pool.add(tokens, sum, FinishReason::Length);
    }
    pool.sorted(settings.num_return_sequences)
}
