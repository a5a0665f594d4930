//! What the engine asks of the network, and when requests get their rows.

use std::sync::Arc;

use vintern::engine::Request;
use vintern::generate::{BeamSearch, EarlyStopping, GenerationSettings, Strategy};

use crate::harness::{END_OF_TURN, Setup, beams, greedy, question, samples, sequences, to_the_end};
use crate::network::{Call, EMBEDDINGS, remembering};
use crate::oracle;

#[test]
fn one_prefill_a_request_however_many_beams() {
    for settings in [greedy(6), beams(2, 6), beams(5, 6), samples(7, 1, 6)] {
        let request = question("1: what is this?", to_the_end(settings));
        let prompt = oracle::prompt(&request).len();
        let mut lab = Setup::remembering().chunk(5).build();
        let rows = request.settings.rows();
        lab.ask(request);
        let seen = lab.probe.look();
        let positions: Vec<usize> = seen.prefills().iter().map(|call| call.positions).collect();
        let mut expected = vec![5; prompt / 5];
        expected.extend(Some(prompt % 5).filter(|rest| *rest > 0));
        assert_eq!(positions, expected);
        assert!(seen.prefills().iter().all(|call| call.rows == (0..1)));
        let decodes = seen.decodes();
        assert_eq!(decodes.len(), 5, "the first token comes from the prompt's logits, the last is not fed");
        assert!(decodes.iter().all(|call| call.rows == (0..rows) && call.positions == 1));
    }
}

#[test]
fn a_decode_step_is_one_call_for_all_rows() {
    let mut lab = Setup::remembering().chunk(1000).build();
    for (number, settings) in [greedy(9), beams(3, 8), samples(2, 3, 7)].into_iter().enumerate() {
        lab.submit(question(number, to_the_end(settings)));
    }
    lab.finish();
    let seen = lab.probe.look();
    assert_eq!(seen.prefills().len(), 3);
    // The first is fed its tokens 1 to 8, the second joins one step later with 3 rows, the third after that with 2.
    let rows: Vec<_> = seen.decodes().iter().map(|call| call.rows.clone()).collect();
    assert_eq!(rows, [0..1, 0..4, 0..6, 0..6, 0..6, 0..6, 0..6, 0..6]);
    let lengths = seen.decodes()[2].generated.clone();
    assert_eq!(lengths, [3, 2, 2, 2, 1, 1].map(Some));
}

#[test]
fn rows_of_groups_that_end_are_closed_up() {
    let setup = Setup::remembering().chunk(1000).rows(10);
    let mut lab = setup.build();
    let lengths = [4, 9, 3, 12, 7];
    let requests: Vec<_> =
        lengths.iter().enumerate().map(|(number, length)| question(number, to_the_end(beams(2, *length)))).collect();
    let ids: Vec<_> = requests.iter().map(|request| lab.submit(request.clone())).collect();
    lab.finish();
    for (id, request) in ids.into_iter().zip(&requests) {
        assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, request));
    }
    let seen = lab.probe.look();
    assert!(seen.decodes().iter().all(|call| call.rows.start == 0));
    assert_eq!(seen.decodes().last().unwrap().rows, 0..2);
}

#[test]
fn prefill_and_decode_alternate() {
    let mut lab = Setup::remembering().chunk(3).build();
    lab.submit(question(1, to_the_end(greedy(40))));
    lab.step_until(|lab| !lab.probe.look().decodes().is_empty());
    let before = lab.probe.look().calls.len();
    lab.submit(question("2 and a question that takes more than a chunk or two", greedy(3)));
    lab.steps(6);
    let seen = lab.probe.look();
    let kinds: Vec<bool> = seen.calls[before..].iter().map(Call::is_prefill).collect();
    assert_eq!(kinds, [true, false].repeat(6));
}

#[test]
fn a_chunk_of_no_tokens_is_one_of_one() {
    let setup = Setup::remembering().chunk(0);
    let request = question(1, beams(2, 4));
    let mut lab = setup.build();
    assert_eq!(sequences(&lab.ask(request.clone())), oracle::answers(&setup, &request));
    assert_eq!(lab.probe.look().prefills().len(), oracle::prompt(&request).len());
}

#[test]
fn requests_wait_for_rows_and_all_are_served() {
    let setup = Setup::remembering().rows(4);
    let mut lab = setup.build();
    let requests: Vec<_> = (0..3).map(|number| question(number, beams(3, 8))).collect();
    let ids: Vec<_> = requests.iter().map(|request| lab.submit(request.clone())).collect();
    lab.finish();
    for (id, request) in ids.into_iter().zip(&requests) {
        assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, request));
    }
    assert!(lab.probe.look().decodes().iter().all(|call| call.rows.end <= 4));
}

#[test]
fn rows_never_exceed_the_limit_whatever_the_mix() {
    let setup = Setup::remembering().rows(6).chunk(2);
    let mut lab = setup.build();
    let settings = [samples(6, 1, 5), beams(4, 9), greedy(12), beams(2, 3), samples(3, 2, 12), greedy(1), beams(6, 5)];
    let requests: Vec<_> = (0..21).map(|number| question(number, settings[number % 7].clone())).collect();
    let ids: Vec<_> = requests.iter().map(|request| lab.submit(request.clone())).collect();
    lab.finish();
    for (id, request) in ids.into_iter().zip(&requests) {
        assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, request));
    }
    assert!(lab.probe.look().calls.iter().all(|call| call.rows.end <= 6));
}

/// Stop strings may leave a beam search fewer beams than it had; later it has as many as before again.
#[test]
fn beams_that_stop_strings_took_away_come_back() {
    let stops = stops_after_all_but('!');
    let mut grown = 0;
    for number in 0..40 {
        let setup = Setup::remembering().chunk(1000);
        let mut request = question(number, to_the_end(beams(4, 8)));
        request.stop = stops.clone();
        let expected = oracle::answers(&setup, &request);
        let mut lab = setup.build();
        let other = question(1000 + number, to_the_end(greedy(14)));
        let (id, company) = (lab.submit(request.clone()), lab.submit(other.clone()));
        lab.finish();
        assert_eq!(sequences(lab.completion(id)), expected, "question {number}");
        assert_eq!(sequences(lab.completion(company)), oracle::answers(&setup, &other));
        grown +=
            usize::from(oracle::widths(&setup, &request)[1..].windows(2).any(|pair| pair[0] > 0 && pair[1] > pair[0]));
    }
    assert!(grown > 0, "no search lost beams and found others");
}

/// Of the 16 B candidates that a search of B beams looks at in its first step, stop strings end all but one.
#[test]
fn a_search_that_starts_with_one_beam_gets_the_others_later() {
    let likely = 0..32_u32;
    let later = remembering(EMBEDDINGS, 90, END_OF_TURN);
    let setup = Setup::text(Arc::new(move |prompt, answer| match answer {
        [] => (0..EMBEDDINGS).map(|id| if id < 32 { 5.0 - id as f32 / 100.0 } else { -5.0 }).collect(),
        _ => later(prompt, answer),
    }));
    let stop: Vec<String> = likely.take(31).map(|id| oracle::TOKENIZER.decode(&[id], false)).collect();
    // Never done before the end, for the first step finishes as many sequences as a search keeps.
    let beam = BeamSearch { num_beams: 2, length_penalty: 2.0, early_stopping: EarlyStopping::Never };
    let settings = GenerationSettings { strategy: Strategy::Beam(beam), ..to_the_end(greedy(10)) };
    let request = Request { stop, ..question(1, settings) };
    assert_eq!(oracle::widths(&setup, &request)[1..3], [1, 2]);
    let mut lab = setup.build();
    let other = question(2, to_the_end(beams(3, 15)));
    let (id, company) = (lab.submit(request.clone()), lab.submit(other.clone()));
    lab.finish();
    assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, &request));
    assert_eq!(sequences(lab.completion(company)), oracle::answers(&setup, &other));
}

/// Stop strings of two characters: every pair of the small vocabulary's characters whose first is not `free`, except
/// the pairs that end in `free`.
fn stops_after_all_but(free: char) -> Vec<String> {
    let characters = oracle::TOKENIZER.decode(&(0..14).collect::<Vec<_>>(), false);
    let pairs = characters.chars().flat_map(|first| characters.chars().map(move |second| (first, second)));
    pairs
        .filter(|(first, second)| *first != free && (*second != free || (*first as u32).is_multiple_of(3)))
        .map(|(first, second)| format!("{first}{second}"))
        .collect()
}
