//! Beam search by hand: probabilities in, rows and results out.

use ndarray::{Array2, arr2};

use super::super::{EarlyStopping, Strategy, start};
use super::*;

const A: TokenId = 0;
const B: TokenId = 1;
const EOS: TokenId = 2;

fn settings(num_beams: usize, max_new_tokens: usize, returned: usize) -> GenerationSettings {
    let early_stopping = EarlyStopping::False;
    GenerationSettings {
        max_new_tokens,
        min_new_tokens: 0,
        repetition_penalty: 1.0,
        no_repeat_ngram_size: 0,
        num_return_sequences: returned,
        strategy: Strategy::Beam(BeamSearch { num_beams, length_penalty: 1.0, early_stopping }),
    }
}

fn begin(settings: &GenerationSettings) -> Box<dyn Search> {
    start(settings, EOS, None).unwrap()
}

/// Feeds rows of probabilities.
fn feed<const N: usize>(search: &mut dyn Search, probabilities: &[[f32; N]]) -> Advance {
    search.advance(arr2(probabilities).mapv(f32::ln).view()).unwrap()
}

fn next(rows: &[(usize, TokenId)]) -> Advance {
    Advance::Continue(rows.iter().map(|&(parent, token)| NextRow { parent, token }).collect())
}

fn close(found: Option<f32>, expected: f64) -> bool {
    found.is_some_and(|found| (f64::from(found) - expected).abs() < 1e-6)
}

#[test]
fn two_beams_by_hand() {
    let mut search = begin(&settings(2, 3, 2));
    assert_eq!(feed(search.as_mut(), &[[0.5, 0.4, 0.1]]), next(&[(0, A), (0, B)]));
    // Sums: A-eos .35, BA .24, BB .12, AB .10, AA .05, B-eos .04.
    let advance = feed(search.as_mut(), &[[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]);
    assert_eq!(advance, next(&[(1, A), (1, B)]));
    // BA-eos .216, then BAA, BAB .012; BB has nothing to add.
    assert_eq!(feed(search.as_mut(), &[[0.05, 0.05, 0.9], [0.01, 0.01, 0.98]]), Advance::Finished);
    let results = search.results();
    // ln(.216) / 3 beats ln(.35) / 2.
    assert_eq!(results[0].tokens, [B, A, EOS]);
    assert_eq!(results[1].tokens, [A, EOS]);
    assert!(close(results[0].score, 0.216_f64.ln() / 3.0), "{:?}", results[0]);
    assert!(close(results[1].score, 0.35_f64.ln() / 2.0), "{:?}", results[1]);
    assert!(results.iter().all(|result| result.finish == FinishReason::Eos));
    assert_eq!(search.settled(), [B, A, EOS]);
    let again = search.advance(arr2(&[[0.0; 3]; 2]).view()).unwrap_err();
    assert_eq!(again, SearchError::Finished);
}

#[test]
fn the_length_limit_ends_the_running_beams() {
    let mut search = begin(&settings(2, 2, 2));
    feed(search.as_mut(), &[[0.5, 0.4, 0.1]]);
    assert_eq!(feed(search.as_mut(), &[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]]), Advance::Finished);
    let results = search.results();
    assert_eq!((&results[0].tokens[..], results[0].finish), (&[A, A][..], FinishReason::Length));
    assert_eq!((&results[1].tokens[..], results[1].finish), (&[B, A][..], FinishReason::Length));
    assert!(close(results[1].score, 0.24_f64.ln() / 2.0));
}

#[test]
fn eos_behind_the_first_candidates_is_ignored() {
    // One of two beams: A-eos .40, AA .09, B-eos .08, BA .07 ... B-eos has rank 2.
    let mut search = begin(&settings(2, 3, 2));
    feed(search.as_mut(), &[[0.5, 0.16, 0.0]]);
    let p = [[0.18, 0.02, 0.80], [0.44, 0.06, 0.50]];
    let advance = feed(search.as_mut(), &p);
    assert_eq!(advance, next(&[(0, A), (1, A)]));
    feed(search.as_mut(), &[[0.3, 0.3, 0.4], [0.3, 0.3, 0.4]]);
    assert!(search.results().iter().all(|result| result.tokens != [B, EOS]));
}

#[test]
fn penalties_apply_to_log_probabilities_and_are_not_normalised() {
    let mut search = begin(&GenerationSettings { repetition_penalty: 2.0, ..settings(2, 2, 2) });
    feed(search.as_mut(), &[[0.6, 0.3, 0.1]]);
    // AA: .6 * .9^2 = .486; BA: .3 * .8 = .24.
    assert_eq!(feed(search.as_mut(), &[[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]]), Advance::Finished);
    let results = search.results();
    assert_eq!((&results[0].tokens[..], &results[1].tokens[..]), (&[A, A][..], &[B, A][..]));
    assert!(close(results[0].score, 0.486_f64.ln() / 2.0));
    assert!(close(results[1].score, 0.24_f64.ln() / 2.0));
}

#[test]
fn more_beams_than_the_first_step_offers() {
    // Five beams, three tokens: the rest of the ten candidates come from beams at -1e9, lowest
    // index first.
    let mut search = begin(&settings(5, 4, 5));
    let advance = feed(search.as_mut(), &[[0.5, 0.3, 0.2]]);
    // A, B, eos, then A and B of beams 1 and 2; all continue row 0.
    assert_eq!(advance, next(&[(0, A), (0, B), (0, A), (0, B), (0, A)]));
    assert_eq!(search.results().len(), 5);
    assert_eq!(search.results()[0].tokens, [A]);
}

#[test]
fn forbidden_tokens_rank_below_unreachable_beams() {
    // Eos is forbidden at first: it must not fill the place of a candidate at -1e9.
    let mut search = begin(&GenerationSettings { min_new_tokens: 1, ..settings(3, 4, 1) });
    assert_eq!(feed(search.as_mut(), &[[0.2, 0.1, 0.7]]), next(&[(0, A), (0, B), (0, A)]));
}

#[test]
fn a_search_in_which_everything_is_forbidden_still_ends() {
    let all = GenerationSettings { min_new_tokens: 9, no_repeat_ngram_size: 1, ..settings(2, 4, 2) };
    let mut search = begin(&all);
    feed(search.as_mut(), &[[0.4, 0.4, 0.2]]);
    feed(search.as_mut(), &[[0.4, 0.4, 0.2]; 2]);
    // Nothing above -inf remains: the lowest indices go on, as in a stable sort.
    assert_eq!(feed(search.as_mut(), &[[0.4, 0.4, 0.2]; 2]), next(&[(0, A), (0, B)]));
    let results = search.results();
    assert!(results.iter().all(|result| result.score == Some(f32::NEG_INFINITY)));
}

#[test]
fn cancelled_results_rank_finished_and_running_sequences() {
    let mut search = begin(&settings(2, 5, 2));
    let nothing = search.results();
    assert_eq!(nothing.len(), 2);
    assert!(nothing.iter().all(|result| result.tokens.is_empty() && result.score.is_none()));
    feed(search.as_mut(), &[[0.5, 0.4, 0.1]]);
    feed(search.as_mut(), &[[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]);
    let results = search.results();
    assert_eq!((&results[0].tokens[..], &results[1].tokens[..]), (&[A, EOS][..], &[B, A][..]));
    assert!(close(results[1].score, 0.24_f64.ln() / 2.0));
    assert!(results.iter().all(|result| result.finish == FinishReason::Cancelled));
    // Asking does not end anything.
    assert!(matches!(feed(search.as_mut(), &[[0.3, 0.4, 0.3]; 2]), Advance::Continue(_)));
}

#[test]
fn unusable_logits_leave_the_search_as_it_was() {
    let mut search = begin(&settings(2, 5, 1));
    feed(search.as_mut(), &[[0.5, 0.4, 0.1]]);
    let before = search.results();
    let error = search.advance(arr2(&[[0.0; 3], [0.0, f32::NAN, 0.0]]).view()).unwrap_err();
    assert_eq!(error, SearchError::InvalidLogits { row: 1, invalid: 1, vocab: 3 });
    let error = search.advance(Array2::zeros((2, 4)).view()).unwrap_err();
    assert!(matches!(error, SearchError::Shape { rows: 2, vocab: Some(3), .. }));
    let error = search.advance(Array2::zeros((1, 3)).view()).unwrap_err();
    assert!(matches!(error, SearchError::Shape { found_rows: 1, .. }));
    assert_eq!((search.results(), search.generated()), (before, 1));
    feed(search.as_mut(), &[[0.5, 0.4, 0.1]; 2]);
    assert_eq!(search.generated(), 2);
}

struct Rule<F>(F);

impl<F: Fn(&[TokenId]) -> bool + Send> StopRule for Rule<F> {
    fn stops(&self, tokens: &[TokenId]) -> bool {
        assert!(!tokens.contains(&EOS), "eos is not the rule's business");
        (self.0)(tokens)
    }
}

fn begin_with(settings: &GenerationSettings, rule: impl Fn(&[TokenId]) -> bool + Send + 'static) -> Box<dyn Search> {
    start(settings, EOS, Some(Box::new(Rule(rule)))).unwrap()
}

#[test]
fn a_stopped_candidate_is_a_hypothesis_with_its_token() {
    let mut search = begin_with(&settings(2, 3, 2), |tokens| tokens == [A, B]);
    feed(search.as_mut(), &[[0.5, 0.4, 0.1]]);
    // AB .40 stops; BA .24 and BB .12 go on.
    let advance = feed(search.as_mut(), &[[0.1, 0.8, 0.1], [0.6, 0.3, 0.1]]);
    assert_eq!(advance, next(&[(1, A), (1, B)]));
    feed(search.as_mut(), &[[0.4, 0.3, 0.3]; 2]);
    let best = &search.results()[0];
    assert_eq!((&best.tokens[..], best.finish), (&[A, B][..], FinishReason::StopRule));
    assert!(close(best.score, 0.4_f64.ln() / 2.0));
}

#[test]
fn the_walk_goes_on_when_the_rule_ends_too_many_candidates() {
    // Tokens 3 to 8 stop and lead; the next beams are ranks 6 and 7, beyond the first 2B = 4.
    let mut search = begin_with(&settings(2, 3, 2), |tokens| tokens.iter().any(|&token| token >= 3));
    let advance = feed(search.as_mut(), &[[0.02, 0.01, 0.0, 0.3, 0.2, 0.15, 0.12, 0.11, 0.09]]);
    // Two hypotheses and no better candidate left at this length would end it; the first is
    // better than both.
    assert_eq!(advance, next(&[(0, A), (0, B)]));
}

#[test]
fn a_rule_that_stops_everything_ends_the_search() {
    for early_stopping in [EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never] {
        let beam = BeamSearch { num_beams: 3, length_penalty: 1.0, early_stopping };
        let mut search =
            begin_with(&GenerationSettings { strategy: Strategy::Beam(beam), ..settings(3, 9, 3) }, |_| true);
        let wide = Array2::from_shape_fn((1, 5000), |(_, token)| -(token as f32) * 0.01);
        assert_eq!(search.advance(wide.view()).unwrap(), Advance::Finished);
        let tokens: Vec<_> = search.results().into_iter().map(|result| result.tokens).collect();
        // Eos, at rank 2, is among the best three.
        assert_eq!(tokens, [vec![0], vec![1], vec![2]]);
    }
}

#[test]
fn the_rule_sees_only_what_the_walk_reaches() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let mut search = begin_with(&settings(2, 3, 1), move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    });
    feed(search.as_mut(), &[[0.3, 0.2, 0.4, 0.1]]);
    // Eos needs no rule, and the fourth candidate comes after the beams are full.
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn a_vocabulary_of_one() {
    let mut search = begin(&settings(2, 2, 2));
    assert_eq!(feed(search.as_mut(), &[[1.0]]), next(&[(0, A), (0, A)]));
    assert_eq!(feed(search.as_mut(), &[[1.0]; 2]), Advance::Finished);
    assert_eq!(search.results()[0].tokens, [A, A]);
}

#[test]
fn one_beam_is_greedy_search() {
    let mut search = begin(&settings(1, 2, 1));
    feed(search.as_mut(), &[[0.5, 0.4, 0.1]]);
    feed(search.as_mut(), &[[0.1, 0.2, 0.7]]);
    let results = search.results();
    assert_eq!((&results[0].tokens[..], results[0].score), (&[A, EOS][..], None));
}
