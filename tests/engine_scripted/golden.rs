//! Greedy and beam search through the whole engine, against what transformers 4.44.2 returned on table language models.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use vintern::engine::Request;
use vintern::generate::{BeamSearch, GeneratedSequence, GenerationSettings, Strategy, TokenId};

use crate::harness::{Lab, Setup, greedy, question, sequences};
use crate::network::{LanguageModel, number};
use crate::oracle;
use crate::reference_data::golden_json;

/// Largest difference from a reference score.
const SCORE_TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    vocab: usize,
    eos_token_id: TokenId,
    pad_token_id: TokenId,
    tables: Vec<Table>,
    cases: Vec<Case>,
}

/// logits(next | answer) = trans\[last\] (or start) + step\[length\], in float32.
#[derive(Deserialize)]
struct Table {
    start: Vec<f32>,
    trans: Vec<Vec<f32>>,
    step: Vec<Vec<f32>>,
}

impl Table {
    fn logits(&self, answer: &[TokenId]) -> Vec<f32> {
        let from = answer.last().map_or(&self.start, |last| &self.trans[*last as usize]);
        let step = &self.step[answer.len().min(self.step.len() - 1)];
        from.iter().zip(step).map(|(from, step)| from + step).collect()
    }
}

#[derive(Deserialize)]
struct Case {
    table: usize,
    generation: Generation,
    sequences: Vec<Vec<TokenId>>,
    sequence_scores: Option<Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generation {
    max_new_tokens: usize,
    #[serde(default)]
    min_new_tokens: usize,
    #[serde(default = "one")]
    repetition_penalty: f32,
    #[serde(default = "one_sequence")]
    num_return_sequences: usize,
    #[serde(default = "one_sequence")]
    num_beams: usize,
    #[serde(default = "one")]
    length_penalty: f32,
    #[serde(default)]
    early_stopping: serde_json::Value,
}

fn one() -> f32 {
    1.0
}

fn one_sequence() -> usize {
    1
}

impl Generation {
    fn settings(&self) -> GenerationSettings {
        let early_stopping = match &self.early_stopping {
            serde_json::Value::Null => "false".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let beam = BeamSearch {
            num_beams: self.num_beams,
            length_penalty: self.length_penalty,
            early_stopping: early_stopping.parse().unwrap(),
        };
        GenerationSettings {
            min_new_tokens: self.min_new_tokens,
            repetition_penalty: self.repetition_penalty,
            num_return_sequences: self.num_return_sequences,
            strategy: Strategy::Beam(beam),
            ..greedy(self.max_new_tokens)
        }
    }
}

static GOLDEN: LazyLock<Golden> = LazyLock::new(|| golden_json("search.json"));

/// The question of a case is its number, by which the model finds its table.
fn request(case: usize) -> Request {
    question(case, GOLDEN.cases[case].generation.settings())
}

fn tables() -> Setup {
    let model: LanguageModel = Arc::new(|prompt, answer| {
        let table = GOLDEN.cases[number(prompt)].table;
        GOLDEN.tables[table].logits(answer)
    });
    assert_eq!((GOLDEN.vocab, GOLDEN.eos_token_id), (14, 3));
    Setup::small(model)
}

/// How the answers to a case differ from the reference's, if they do.
fn difference(case: usize, found: &[GeneratedSequence]) -> Option<String> {
    let Case { sequences, sequence_scores, .. } = &GOLDEN.cases[case];
    let width = sequences[0].len();
    let padded = found.iter().map(|sequence| {
        let mut tokens = sequence.tokens.clone();
        tokens.resize(width.max(tokens.len()), GOLDEN.pad_token_id);
        tokens
    });
    let scores: Option<Vec<f64>> = found.iter().map(|sequence| sequence.score.map(f64::from)).collect();
    let close = match (&scores, sequence_scores) {
        (Some(found), Some(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= SCORE_TOLERANCE)
        }
        (found, expected) => found.is_none() && expected.is_none(),
    };
    let same = padded.eq(sequences.iter().cloned()) && close;
    (!same).then(|| format!("case {case}: {found:?}\n  expected {sequences:?} {sequence_scores:?}"))
}

fn assert_none(differences: &[String]) {
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn every_case_alone() {
    let mut lab = tables().build();
    let differences: Vec<String> =
        (0..GOLDEN.cases.len()).filter_map(|case| difference(case, &sequences(&lab.ask(request(case))))).collect();
    assert_eq!(GOLDEN.cases.len(), 322);
    assert_none(&differences);
}

/// Submits the cases one after another, a few steps apart, so that they join and leave each other midway.
fn in_company(lab: &mut Lab, cases: &[usize]) -> Vec<Vec<GeneratedSequence>> {
    let mut ids = Vec::new();
    for case in cases {
        ids.push(lab.submit(request(*case)));
        lab.steps(case % 4);
    }
    lab.finish();
    ids.into_iter().map(|id| sequences(lab.completion(id))).collect()
}

/// Cases of one slice are neighbours in the file, so alike; taking them from all over mixes the settings.
fn mixed_eights() -> Vec<Vec<usize>> {
    let count = GOLDEN.cases.len();
    let order: Vec<usize> = (0..count).map(|index| index * 89 % count).collect();
    order.chunks(8).map(<[usize]>::to_vec).collect()
}

#[test]
fn every_case_in_the_company_of_seven() {
    let mut differences = Vec::new();
    let mut lab = tables().rows(64).chunk(3).build();
    for cases in mixed_eights() {
        let found = in_company(&mut lab, &cases);
        differences.extend(cases.iter().zip(&found).filter_map(|(case, found)| difference(*case, found)));
    }
    assert_none(&differences);
}

#[test]
fn all_cases_through_few_rows_at_once() {
    let mut lab = tables().rows(12).chunk(7).build();
    let cases: Vec<usize> = (0..GOLDEN.cases.len()).collect();
    let ids: Vec<_> = cases.iter().map(|case| lab.submit(request(*case))).collect();
    lab.finish();
    let found = ids.iter().map(|id| sequences(lab.completion(*id)));
    let differences: Vec<String> =
        cases.iter().zip(found).filter_map(|(case, found)| difference(*case, &found)).collect();
    assert_none(&differences);
}

/// The tables look at the last token only. Under a model that looks at the whole row, the same settings find rows that
/// were copied wrongly too.
#[test]
fn every_setting_on_a_model_that_remembers() {
    let setup = Setup::remembering().rows(64).chunk(4);
    let mut lab = setup.build();
    for cases in mixed_eights() {
        let found = in_company(&mut lab, &cases);
        for (case, found) in cases.into_iter().zip(found) {
            assert_eq!(found, oracle::answers(&setup, &request(case)), "case {case}");
        }
    }
}
