//! The searches against their slow versions on random table models, and what must hold whatever the
//! model says.

use std::collections::BTreeSet;

use ndarray::Array2;
use proptest::prelude::*;
use proptest::strategy::Strategy as Generated;

use super::reference::{EOS, Table, beams, greedy};
use super::{
    Advance, BeamSearch, EarlyStopping, FinishReason, GenerationSettings, Search, StopRule, Strategy, TokenId, start,
};

/// Stops after a token that the set holds, from a length on.
#[derive(Clone, Debug)]
struct StopTokens {
    tokens: BTreeSet<TokenId>,
    from: usize,
}

impl StopRule for StopTokens {
    fn stops(&self, tokens: &[TokenId]) -> bool {
        tokens.len() >= self.from && tokens.last().is_some_and(|last| self.tokens.contains(last))
    }
}

/// Drives a search on the table to its end, at most `calls` times; gives what was settled after
/// each call.
fn drive(table: &Table, search: &mut dyn Search, calls: usize) -> Vec<Vec<TokenId>> {
    let mut rows: Vec<Vec<TokenId>> = vec![Vec::new()];
    let mut settled = vec![search.settled().to_vec()];
    for call in 1..=calls {
        let flat: Vec<f32> = rows.iter().flat_map(|tokens| table.logits(tokens)).collect();
        let logits = Array2::from_shape_vec((rows.len(), table.start.len()), flat).unwrap();
        let advance = search.advance(logits.view()).unwrap();
        settled.push(search.settled().to_vec());
        assert_eq!(search.generated(), call);
        let Advance::Continue(next) = advance else {
            break;
        };
        rows = next.iter().map(|row| [&rows[row.parent][..], &[row.token]].concat()).collect();
    }
    settled
}

fn row(vocab: usize) -> impl Generated<Value = Vec<f32>> {
    prop::collection::vec((-400_000_i32..400_000).prop_map(|value| value as f32 * 1e-5), vocab)
}

fn table(vocab: usize) -> impl Generated<Value = Table> {
    (row(vocab), prop::collection::vec(row(vocab), vocab), prop::collection::vec(row(vocab), 5))
        .prop_map(|(start, transitions, steps)| Table { start, transitions, steps })
}

fn any_table() -> impl Generated<Value = Table> {
    prop_oneof![table(4), table(6), table(14), table(40)]
}

fn no_rule() -> impl Generated<Value = StopTokens> {
    Just(StopTokens { tokens: BTreeSet::new(), from: 0 })
}

fn some_rule() -> impl Generated<Value = StopTokens> {
    (prop::collection::btree_set(0_u32..6, 1..3), 0_usize..5).prop_map(|(tokens, from)| StopTokens { tokens, from })
}

fn any_beam() -> impl Generated<Value = BeamSearch> {
    let stopping = prop::sample::select(vec![EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never]);
    let penalty = prop::sample::select(vec![-1.0_f32, 0.0, 0.5, 1.0, 2.0]);
    (2_usize..8, penalty, stopping).prop_map(|(num_beams, length_penalty, early_stopping)| BeamSearch {
        num_beams,
        length_penalty,
        early_stopping,
    })
}

prop_compose! {
    /// Limits and processors, greedy.
    fn any_settings()(
        max_new_tokens in 1_usize..14,
        min_new_tokens in prop_oneof![Just(0_usize), 0_usize..16],
        repetition_penalty in prop::sample::select(vec![0.8_f32, 1.0, 1.2, 3.5]),
        no_repeat_ngram_size in prop_oneof![3 => Just(0_usize), 2 => 1_usize..4],
    ) -> GenerationSettings {
        GenerationSettings {
            max_new_tokens, min_new_tokens, repetition_penalty, no_repeat_ngram_size,
            num_return_sequences: 1,
            strategy: Strategy::Greedy,
        }
    }
}

/// The results of the slow search; settled tokens that grow and never turn out wrong; cancelled
/// results.
fn check_beams(
    table: &Table,
    mut settings: GenerationSettings,
    beam: &BeamSearch,
    returned: usize,
    rule: &StopTokens,
    cancel_after: usize,
) -> Result<(), TestCaseError> {
    settings.num_return_sequences = 1 + returned % beam.num_beams;
    settings.strategy = Strategy::Beam(beam.clone());
    let expected = beams(table, &settings, beam, &|tokens| rule.stops(tokens));
    // Nearer than this, float32 rounding may decide.
    prop_assume!(expected.margin > 1e-5);

    let mut search = start(&settings, EOS, Some(Box::new(rule.clone()))).unwrap();
    let settled = drive(table, search.as_mut(), 100);
    let found = search.results();
    prop_assert_eq!(found.len(), expected.list.len());
    for (found, expected) in found.iter().zip(&expected.list) {
        prop_assert_eq!(&found.tokens, &expected.tokens);
        prop_assert_eq!(found.finish, expected.finish);
        let (found, expected) = (f64::from(found.score.unwrap()), expected.score.unwrap());
        let close = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
        // Two sequences of forbidden tokens differ by NaN.
        prop_assert!(close || (found < -1e38 && expected < -1e38));
    }

    let (last, before) = settled.split_last().unwrap();
    prop_assert_eq!(last, &found[0].tokens);
    for (earlier, later) in settled.iter().zip(&settled[1..]) {
        prop_assert!(later.starts_with(earlier));
    }
    for prefix in before {
        prop_assert!(found.iter().all(|sequence| sequence.tokens.starts_with(prefix)));
    }

    let mut cancelled = start(&settings, EOS, Some(Box::new(rule.clone()))).unwrap();
    let settled = drive(table, cancelled.as_mut(), cancel_after);
    let results = cancelled.results();
    prop_assert_eq!(results.len(), settings.num_return_sequences);
    if cancelled.generated() == search.generated() {
        prop_assert_eq!(results, found);
    } else {
        let settled = settled.last().unwrap();
        prop_assert!(results.iter().all(|result| result.tokens.starts_with(settled)));
        prop_assert!(results.iter().all(|result| result.finish == FinishReason::Cancelled));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_global_rejects: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn greedy_search_equals_the_slow_one(
        table in any_table(),
        settings in any_settings(),
        rule in prop_oneof![no_rule().boxed(), some_rule().boxed()],
    ) {
        let expected = greedy(&table, &settings, &|tokens| rule.stops(tokens));
        let mut search = start(&settings, EOS, Some(Box::new(rule))).unwrap();
        let settled = drive(&table, search.as_mut(), 100);
        let found = search.results();
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(&found[0].tokens, &expected.tokens);
        prop_assert_eq!(found[0].finish, expected.finish);
        prop_assert_eq!(found[0].score, None);
        for (length, settled) in settled.iter().enumerate() {
            prop_assert_eq!(settled, &expected.tokens[..length]);
        }
    }

    #[test]
    fn beam_search_equals_the_slow_one(
        table in any_table(),
        settings in any_settings(),
        beam in any_beam(),
        returned in 0_usize..8,
        cancel_after in 0_usize..6,
    ) {
        let rule = StopTokens { tokens: BTreeSet::new(), from: 0 };
        check_beams(&table, settings, &beam, returned, &rule, cancel_after)?;
    }

    #[test]
    fn beam_search_with_a_stop_rule_equals_the_slow_one(
        table in any_table(),
        settings in any_settings(),
        beam in any_beam(),
        returned in 0_usize..8,
        rule in some_rule(),
        cancel_after in 0_usize..6,
    ) {
        check_beams(&table, settings, &beam, returned, &rule, cancel_after)?;
    }
}
