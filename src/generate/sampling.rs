//! Sampling: temperature, top-k, top-p and min-p, then a draw. The filters follow transformers'
//! logits warpers and their order.

use std::cmp::Ordering;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::independent::Pick;
use super::logits::{LogitsRow, exp_of_nonpositive};
use super::processors::Edits;
use super::settings::as_written;
use super::{Sampling, TokenId};

/// Candidates that top-p sorts first; it goes on in growing blocks where they do not hold enough
/// probability.
const FIRST_BLOCK: usize = 64;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: TokenId,
    /// Score less the highest score, divided by the temperature; at most 0.
    score: f32,
    /// exp(score): its probability relative to the likeliest token, for which it is exactly 1.
    weight: f32,
}

/// Draws tokens, each sequence from a random stream of its own.
pub(super) struct Sampler {
    settings: Sampling,
    streams: Vec<ChaCha8Rng>,
    /// Reused from step to step; holds up to a vocabulary.
    candidates: Vec<Candidate>,
}

impl Sampler {
    pub(super) fn new(settings: &Sampling, sequences: usize) -> Self {
        let stream = |number| {
            let mut generator = ChaCha8Rng::seed_from_u64(settings.seed);
            generator.set_stream(number);
            generator
        };
        let streams = (0..sequences as u64).map(stream).collect();
        Self { settings: settings.clone(), streams, candidates: Vec::new() }
    }
}

impl Pick for Sampler {
    fn pick(&mut self, sequence: usize, row: LogitsRow<'_>, edits: &Edits) -> Option<TokenId> {
        let candidates = &mut self.candidates;
        fill(candidates, row.values, edits, self.settings.temperature);
        if self.settings.top_k > 0 {
            keep_top_k(candidates, self.settings.top_k);
        }
        if self.settings.top_p < 1.0 {
            keep_top_p(candidates, as_written(self.settings.top_p));
        }
        candidates.retain(|candidate| candidate.weight >= self.settings.min_p);
        draw(candidates, uniform(&mut self.streams[sequence]))
    }
}

/// Lists the tokens of non-zero probability, ascending.
fn fill(candidates: &mut Vec<Candidate>, logits: &[f32], edits: &Edits, temperature: f32) {
    let candidate = |(token, &score): (TokenId, &f32)| Candidate { token, score, weight: 0.0 };
    candidates.clear();
    candidates.extend((0..).zip(logits).map(candidate));
    for (token, score) in edits.iter() {
        candidates[token as usize].score = score;
    }
    let max = candidates.iter().map(|candidate| candidate.score).fold(f32::NEG_INFINITY, f32::max);
    for candidate in candidates.iter_mut() {
        // Subtracting first keeps a tiny temperature from making infinities of all scores.
        candidate.score = (candidate.score - max) / temperature;
        candidate.weight = exp_of_nonpositive(candidate.score);
    }
    // Also what is left when every token is forbidden: -inf - -inf is NaN, and NaN is not above 0.
    candidates.retain(|candidate| candidate.weight > 0.0);
}

/// Likelier first; of equals the lower token.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(a.token.cmp(&b.token))
}

/// Keeps the `k` likeliest candidates and those that tie with the last of them, likeliest first.
fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k < candidates.len() {
        let (_, &mut last, _) = candidates.select_nth_unstable_by(k - 1, likelier);
        candidates.retain(|candidate| candidate.score >= last.score);
    }
    // In a fixed order, because the draw depends on it and a partial selection may leave any.
    candidates.sort_unstable_by(likelier);
}

/// Keeps the candidates that less than `p` of the probability comes before, likeliest first: the
/// fewest that together hold at least `p` (nucleus sampling, Holtzman et al. 2020).
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64) {
    let enough = p * total(candidates);
    let mut before = 0.0;
    let mut sorted = 0;
    let mut block = FIRST_BLOCK;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let count = block.min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count, likelier);
        }
        rest[..count].sort_unstable_by(likelier);
        for (number, candidate) in rest[..count].iter().enumerate() {
            if before >= enough && sorted + number > 0 {
                candidates.truncate(sorted + number);
                return;
            }
            before += f64::from(candidate.weight);
        }
        sorted += count;
        block *= 4;
    }
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// A double in [0, 1) from the upper 53 bits of one draw.
fn uniform(generator: &mut impl Rng) -> f64 {
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    (generator.next_u64() >> 11) as f64 * STEP
}

/// The candidate at `position` in [0, 1) when they are laid end to end by weight.
fn draw(candidates: &[Candidate], position: f64) -> Option<TokenId> {
    let target = position * total(candidates);
    let mut end = 0.0;
    let reached = |candidate: &&Candidate| {
        end += f64::from(candidate.weight);
        end > target
    };
    // Rounding may leave the end of the last one at the target.
    candidates.iter().find(reached).or(candidates.last()).map(|candidate| candidate.token)
}

#[cfg(test)]
mod tests {
    use super::super::logits::Normalizer;
    use super::super::processors::Processors;
    use super::super::{GenerationSettings, Strategy};
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

    /// The candidates of a row of these probabilities.
    fn candidates(probabilities: &[f32]) -> Vec<Candidate> {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut candidates = Vec::new();
        fill(&mut candidates, &logits, &Edits::default(), 1.0);
        candidates
    }

    fn tokens(candidates: &[Candidate]) -> Vec<TokenId> {
        candidates.iter().map(|candidate| candidate.token).collect()
    }

    #[test]
    fn top_k_keeps_ties_with_the_last() {
        let mut kept = candidates(&[0.1, 0.4, 0.2, 0.2, 0.1]);
        keep_top_k(&mut kept, 2);
        assert_eq!(tokens(&kept), [1, 2, 3]);
        keep_top_k(&mut kept, 9);
        assert_eq!(tokens(&kept), [1, 2, 3]);
        keep_top_k(&mut kept, 1);
        assert_eq!(tokens(&kept), [1]);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_hold_enough() {
        for (p, expected) in
            [(0.3, &[2][..]), (0.41, &[2, 0]), (0.69, &[2, 0]), (0.71, &[2, 0, 1]), (0.999, &[2, 0, 1, 3])]
        {
            let mut kept = candidates(&[0.3, 0.2, 0.4, 0.1]);
            keep_top_p(&mut kept, p);
            assert_eq!(tokens(&kept), expected, "{p}");
        }
    }

    #[test]
    fn top_p_at_a_boundary_drops_what_comes_after() {
        // Exactly representable: half the mass lies before the second token.
        let mut kept = candidates(&[0.5, 0.5]);
        keep_top_p(&mut kept, 0.5);
        assert_eq!(tokens(&kept), [0]);
    }

    #[test]
    fn top_p_always_keeps_one() {
        let mut kept = candidates(&[0.2, 0.8]);
        keep_top_p(&mut kept, 1e-320);
        assert_eq!(tokens(&kept), [1]);
    }

    #[test]
    fn top_p_reaches_beyond_its_first_block() {
        // 1000 equal tokens: 30% of the mass is 300 of them, the lowest first.
        let mut kept = candidates(&[0.001; 1000]);
        keep_top_p(&mut kept, 0.2995);
        assert_eq!(tokens(&kept), (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn temperature_sharpens_and_flattens() {
        let mut cold = Vec::new();
        fill(&mut cold, &[0.0, 1.0], &Edits::default(), 0.5);
        assert!((f64::from(cold[0].weight) - (-2.0_f64).exp()).abs() < 1e-7);
        fill(&mut cold, &[0.0, 1.0], &Edits::default(), 4.0);
        assert!((f64::from(cold[0].weight) - (-0.25_f64).exp()).abs() < 1e-7);
        // Tokens that can no longer be drawn leave the list.
        fill(&mut cold, &[0.0, 1.0], &Edits::default(), 1e-38);
        assert_eq!(tokens(&cold), [1]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let mut sampler = Sampler::new(&Sampling { min_p: 0.5, ..neutral() }, 1);
        let logits: Vec<f32> = [0.19_f32, 0.4, 0.21, 0.2].iter().map(|p| p.ln()).collect();
        sampler.pick(0, LogitsRow { values: &logits, max: 0.4_f32.ln() }, &Edits::default());
        assert_eq!(tokens(&sampler.candidates)[..2], [1, 2]);
        assert!(!tokens(&sampler.candidates).contains(&0));
    }

    #[test]
    fn top_p_looks_at_what_top_k_left_and_min_p_is_last() {
        // After top_k = 3 the masses are 4/9, 3/9, 2/9: 0.75 needs two of them, and of all four it
        // needs three.
        let mut sampler = Sampler::new(&Sampling { top_k: 3, top_p: 0.75, min_p: 0.7, ..neutral() }, 1);
        let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].iter().map(|p| p.ln()).collect();
        sampler.pick(0, LogitsRow { values: &logits, max: 0.4_f32.ln() }, &Edits::default());
        assert_eq!(tokens(&sampler.candidates), [3, 2]);
    }

    #[test]
    fn the_draw_lays_weights_end_to_end() {
        let list = candidates(&[0.25, 0.5, 0.25]);
        let at = |position| draw(&list, position);
        assert_eq!([at(0.0), at(0.24), at(0.26), at(0.74), at(0.76)], [Some(0), Some(0), Some(1), Some(1), Some(2)]);
        assert_eq!(at(1.0), Some(2));
        assert_eq!(draw(&[], 0.5), None);
    }

    #[test]
    fn draws_follow_the_distribution() {
        // Chi-square over 20,000 draws from 5 tokens; 4 degrees of freedom, 18.5 is the 0.1% point.
        let probabilities = [0.4_f32, 0.3, 0.15, 0.1, 0.05];
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut sampler = Sampler::new(&neutral(), 1);
        let mut counts = [0_u32; 5];
        for _ in 0..20_000 {
            let token = sampler.pick(0, LogitsRow { values: &logits, max: logits[0] }, &Edits::default()).unwrap();
            counts[token as usize] += 1;
        }
        let chi_square: f64 = counts
            .iter()
            .zip(probabilities)
            .map(|(&count, p)| {
                let expected = 20_000.0 * f64::from(p);
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        assert!(chi_square < 18.5, "{counts:?} {chi_square}");
    }

    #[test]
    fn processors_come_before_the_filters() {
        // The penalty makes token 1, just generated, unlikelier than token 2, which top_k = 1 then
        // keeps.
        let penalized =
            GenerationSettings { repetition_penalty: 4.0, ..settings(Sampling { top_k: 1, ..neutral() }, 1) };
        let mut edits = Edits::default();
        let logits = [-9.0, 2.0, 1.0];
        Processors::new(&penalized, EOS).apply(&[1], &logits, Normalizer::RAW, &mut edits);
        let mut sampler = Sampler::new(&Sampling { top_k: 1, ..neutral() }, 1);
        assert_eq!(sampler.pick(0, LogitsRow { values: &logits, max: 2.0 }, &edits), Some(2));
    }
}
