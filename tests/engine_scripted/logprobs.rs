//! Log-probabilities: the model's own of each token of the text, whatever the search, its reordering and the company.

use std::ops::Range;

use vintern::engine::{Completion, Event, Request, RequestId};
use vintern::generate::{GenerationSettings, TokenId, TokenLogprob};

use crate::harness::{END_OF_TURN, Lab, Setup, beams, greedy, question, samples, sequences};
use crate::network::{EMBEDDINGS, remembering};
use crate::oracle::{self, TOKENIZER};

/// Largest difference from log-probabilities computed in double precision.
const TOLERANCE: f64 = 2e-5;

/// Answers are bytes of the byte-level alphabet at random, so few of them are whole characters.
fn setup() -> Setup {
    Setup::text(remembering(EMBEDDINGS, 256, END_OF_TURN)).rows(40).chunk(4)
}

/// Numbers of the tokens that have a byte in a character of the answer's text, by the definition.
fn tokens_of_text(tokens: &[TokenId], text: &str) -> Vec<usize> {
    let visible = |token: TokenId| if token == END_OF_TURN { &[][..] } else { TOKENIZER.token_bytes(token).unwrap() };
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| visible(*token)).copied().collect();
    let decoded = String::from_utf8_lossy(&bytes).into_owned();
    let start = decoded.len() - decoded.trim_start().len();
    assert!(decoded[start..].starts_with(text), "{decoded:?} {text:?}");
    // The character of each byte, as a place in the decoded text.
    let mut characters: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            characters.extend(std::iter::repeat_n(at..at + character.len_utf8(), character.len_utf8()));
            at += character.len_utf8();
        }
        characters.extend(std::iter::repeat_n(at..at + 3, chunk.invalid().len()));
        at += if chunk.invalid().is_empty() { 0 } else { 3 };
    }
    let mut characters = characters.into_iter();
    let told = start..start + text.len();
    let belongs = |token: &TokenId| {
        let own: Vec<_> = characters.by_ref().take(visible(*token).len()).collect();
        own.iter().any(|character| character.start >= told.start && character.end <= told.end)
    };
    tokens.iter().map(belongs).enumerate().filter_map(|(number, belongs)| belongs.then_some(number)).collect()
}

/// Compares an entry with the log-softmax of the model's logits.
fn check_entry(entry: &TokenLogprob, logits: &[f32], top: usize) {
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let logprob = |token: TokenId| f64::from(logits[token as usize]) - sum.ln();
    let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < TOLERANCE;
    assert!(close(entry.logprob, logprob(entry.token)), "{entry:?}");
    let mut sorted: Vec<f64> = (0..logits.len() as TokenId).map(logprob).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(entry.top.len(), top);
    for (rank, (token, found)) in entry.top.iter().enumerate() {
        assert!(close(*found, sorted[rank]) && close(*found, logprob(*token)), "rank {rank} of {entry:?}");
        assert!(entry.top[..rank].iter().all(|(other, _)| other != token));
    }
}

/// Compares all entries of a completion with the model.
fn check(lab: &Lab, request: &Request, completion: &Completion) {
    let prompt = oracle::prompt(request);
    for answer in &completion.answers {
        let entries = answer.logprobs.as_ref().unwrap();
        let numbers = tokens_of_text(&answer.token_ids, &answer.text);
        assert_eq!(entries.len(), numbers.len(), "{answer:?}");
        for (entry, number) in entries.iter().zip(numbers) {
            assert_eq!(entry.token, answer.token_ids[number]);
            let logits = (lab.setup.model)(&prompt, &answer.token_ids[..number]);
            check_entry(entry, &logits, request.logprobs.unwrap());
        }
    }
}

/// At each piece of text the tokens told are those of the text told, and in the end they are those of the answer.
fn check_pieces(lab: &Lab, id: RequestId, completion: &Completion) {
    let answer = &completion.answers[0];
    let (mut text, mut told) = (String::new(), Vec::new());
    for event in &lab.events {
        if let Event::Text { id: of, text: piece, logprobs } = event
            && *of == id
        {
            text += piece;
            told.extend(logprobs.clone());
            assert_eq!(told.len(), tokens_of_text(&answer.token_ids, &text).len(), "{text:?} of {answer:?}");
        }
    }
    assert_eq!(&told, answer.logprobs.as_ref().unwrap());
}

fn requests() -> Vec<Request> {
    let penalised = |settings| GenerationSettings { repetition_penalty: 1.4, min_new_tokens: 8, ..settings };
    let settings = [
        greedy(30),
        penalised(greedy(30)),
        samples(1, 5, 30),
        samples(3, 6, 20),
        beams(3, 25),
        penalised(beams(4, 25)),
        beams(5, 40),
        GenerationSettings { num_return_sequences: 2, ..beams(3, 15) },
    ];
    let stops = [&[][..], &["a", "!", ")"], &["e", "x)", "0"]];
    let mut requests = Vec::new();
    for settings in settings {
        for stop in stops {
            let stop = stop.iter().map(ToString::to_string).collect();
            let number = requests.len();
            requests.push(Request { stop, logprobs: Some(number % 6), ..question(number, settings.clone()) });
        }
    }
    requests
}

#[test]
fn they_are_those_of_the_model_alone_and_in_company() {
    let setup = setup();
    let requests = requests();
    for together in [1, 7] {
        let mut lab = setup.build();
        for some in requests.chunks(together) {
            let mut ids = Vec::new();
            for request in some {
                ids.push(lab.submit(request.clone()));
                lab.steps(2);
            }
            lab.finish();
            for (request, id) in some.iter().zip(ids) {
                let completion = lab.completion(id);
                assert_eq!(sequences(completion), oracle::answers(&setup, request));
                check(&lab, request, completion);
                if completion.answers.len() == 1 {
                    check_pieces(&lab, id, completion);
                }
            }
        }
    }
}

#[test]
fn they_end_where_a_cancelled_answer_does() {
    for settings in [greedy(60), beams(3, 60)] {
        let mut lab = setup().build();
        let request =
            Request { logprobs: Some(2), ..question(3, GenerationSettings { min_new_tokens: 50, ..settings }) };
        let (id, switch) = lab.submit_with_switch(request.clone());
        lab.step_until(|lab| lab.probe.look().decodes().len() == 20);
        switch.raise();
        lab.finish();
        let completion = lab.completion(id);
        assert!(!completion.answers[0].logprobs.as_ref().unwrap().is_empty());
        check(&lab, &request, completion);
        check_pieces(&lab, id, completion);
    }
}

#[test]
fn nothing_is_recorded_that_nobody_asked_for() {
    let mut lab = setup().build();
    for settings in [greedy(10), samples(2, 1, 10), beams(3, 10)] {
        let completion = lab.ask(question(1, settings));
        assert!(completion.answers.iter().all(|answer| answer.logprobs.is_none()));
    }
    let silent = |event: &Event| !matches!(event, Event::Text { logprobs, .. } if !logprobs.is_empty());
    assert!(lab.events.iter().all(silent));
}
