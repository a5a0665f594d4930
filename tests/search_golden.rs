//! Greedy and beam search against what transformers 4.44.2 returned on table language models.

#[path = "common/reference_data.rs"]
mod reference_data;

use ndarray::Array2;
use reference_data::golden_json;
use serde_json::Value;
use vintern::generate::{
    Advance, BeamSearch, EarlyStopping, GeneratedSequence, GenerationSettings, Strategy, TokenId, start,
};

/// Largest difference from a reference score: float32 sums of at most 14 log-probabilities.
const SCORE_TOLERANCE: f64 = 2e-5;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn table_rows(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

/// logits(next | tokens) = transitions\[last\] (or start) + steps\[length\], in float32.
struct Table {
    start: Vec<f32>,
    transitions: Vec<Vec<f32>>,
    steps: Vec<Vec<f32>>,
}

impl Table {
    fn new(value: &Value) -> Self {
        Self {
            start: floats(&value["start"]),
            transitions: table_rows(&value["trans"]),
            steps: table_rows(&value["step"]),
        }
    }

    fn logits(&self, tokens: &[TokenId]) -> Vec<f32> {
        let from = tokens.last().map_or(&self.start, |&last| &self.transitions[last as usize]);
        let step = &self.steps[tokens.len().min(self.steps.len() - 1)];
        from.iter().zip(step).map(|(a, b)| a + b).collect()
    }
}

/// The generation arguments of a case. An argument this does not know is an error, not a default.
fn settings(generation: &Value) -> GenerationSettings {
    let mut beam = BeamSearch { num_beams: 1, length_penalty: 1.0, early_stopping: EarlyStopping::False };
    let mut settings = GenerationSettings {
        max_new_tokens: 0,
        min_new_tokens: 0,
        repetition_penalty: 1.0,
        no_repeat_ngram_size: 0,
        num_return_sequences: 1,
        strategy: Strategy::Greedy,
    };
    for (name, value) in generation.as_object().unwrap() {
        let number = || value.as_u64().unwrap() as usize;
        let float = || value.as_f64().unwrap() as f32;
        match name.as_str() {
            "max_new_tokens" => settings.max_new_tokens = number(),
            "min_new_tokens" => settings.min_new_tokens = number(),
            "repetition_penalty" => settings.repetition_penalty = float(),
            "num_return_sequences" => settings.num_return_sequences = number(),
            "num_beams" => beam.num_beams = number(),
            "length_penalty" => beam.length_penalty = float(),
            "early_stopping" => {
                let text = value.as_bool().map_or(value.as_str().unwrap_or_default().to_owned(), |b| b.to_string());
                beam.early_stopping = text.parse().unwrap();
            }
            other => panic!("unknown generation argument {other}"),
        }
    }
    settings.strategy = Strategy::Beam(beam);
    settings
}

fn run(table: &Table, settings: &GenerationSettings, eos: TokenId) -> Vec<GeneratedSequence> {
    let mut search = start(settings, eos, None).unwrap();
    let mut rows: Vec<Vec<TokenId>> = vec![Vec::new()];
    loop {
        let flat: Vec<f32> = rows.iter().flat_map(|tokens| table.logits(tokens)).collect();
        let logits = Array2::from_shape_vec((rows.len(), table.start.len()), flat).unwrap();
        match search.advance(logits.view()).unwrap() {
            Advance::Finished => return search.results(),
            Advance::Continue(next) => {
                rows = next.iter().map(|row| [&rows[row.parent][..], &[row.token]].concat()).collect();
            }
        }
    }
}

#[test]
fn every_search_case() {
    let golden: Value = golden_json("search.json");
    let eos = golden["eos_token_id"].as_u64().unwrap() as TokenId;
    let pad = golden["pad_token_id"].as_u64().unwrap() as TokenId;
    let tables: Vec<Table> = golden["tables"].as_array().unwrap().iter().map(Table::new).collect();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 322);

    let mut failures = Vec::new();
    let mut worst = 0.0_f64;
    for (number, case) in cases.iter().enumerate() {
        let table = &tables[case["table"].as_u64().unwrap() as usize];
        let found = run(table, &settings(&case["generation"]), eos);
        let expected: Vec<Vec<TokenId>> = serde_json::from_value(case["sequences"].clone()).unwrap();
        let width = expected[0].len();
        let padded: Vec<Vec<TokenId>> = found
            .iter()
            .map(|sequence| {
                let mut tokens = sequence.tokens.clone();
                tokens.resize(width.max(tokens.len()), pad);
                tokens
            })
            .collect();
        let scores: Option<Vec<f64>> = serde_json::from_value(case["sequence_scores"].clone()).unwrap();
        let found_scores: Option<Vec<f64>> = found.iter().map(|sequence| sequence.score.map(f64::from)).collect();
        let mut ok = padded == expected && scores.is_some() == found_scores.is_some();
        for (a, b) in scores.iter().flatten().zip(found_scores.iter().flatten()) {
            worst = worst.max((a - b).abs());
            ok &= (a - b).abs() <= SCORE_TOLERANCE;
        }
        if !ok {
            failures.push(format!("case {number}: {case}\n found {padded:?} {found_scores:?}"));
        }
    }
    assert!(failures.is_empty(), "{} cases differ:\n{}", failures.len(), failures.join("\n"));
    assert!(worst <= SCORE_TOLERANCE, "{worst:e}");
    println!("largest score difference {worst:e}");
}
