//! Samples repeat by their seed, whoever runs beside them.

use std::collections::HashSet;

use crate::harness::{Setup, beams, greedy, question, samples, sequences, to_the_end};
use crate::oracle;

#[test]
fn a_seed_repeats_itself_alone_and_in_company() {
    let setup = Setup::remembering().chunk(3);
    let request = question(1, to_the_end(samples(3, 42, 12)));
    let alone = sequences(&setup.build().ask(request.clone()));
    assert_eq!(alone, oracle::answers(&setup, &request));
    let mut lab = setup.build();
    let before = [question(2, beams(4, 7)), question(3, samples(2, 42, 20))].map(|request| lab.submit(request));
    lab.steps(9);
    let id = lab.submit(request.clone());
    let after = [question(1, greedy(9)), question(4, samples(4, 1, 5))].map(|request| lab.submit(request));
    lab.finish();
    assert_eq!(sequences(lab.completion(id)), alone);
    assert!(before.into_iter().chain(after).all(|id| !lab.completion(id).answers.is_empty()));
    assert_eq!(sequences(&lab.ask(request)), alone, "and again on a cache full of others");
}

#[test]
fn another_seed_is_another_answer() {
    let mut lab = Setup::remembering().build();
    let answers: HashSet<Vec<u32>> =
        (0..8).map(|seed| lab.ask(question(1, to_the_end(samples(1, seed, 12)))).answers.remove(0).token_ids).collect();
    assert_eq!(answers.len(), 8);
}

#[test]
fn fewer_samples_are_the_first_of_more() {
    let mut lab = Setup::remembering().build();
    let five = sequences(&lab.ask(question(1, samples(5, 9, 12))));
    let two = sequences(&lab.ask(question(1, samples(2, 9, 12))));
    assert_eq!(two, five[..2]);
}

/// Samples that ended leave the batch; the rest close up.
#[test]
fn samples_that_end_give_their_rows_back() {
    let setup = Setup::remembering();
    let mut ended_early = false;
    for seed in 0..10 {
        let request = question(1, samples(6, seed, 15));
        let mut lab = setup.build();
        assert_eq!(sequences(&lab.ask(request.clone())), oracle::answers(&setup, &request));
        let seen = lab.probe.look();
        let rows: Vec<usize> = seen.decodes().iter().map(|call| call.rows.len()).collect();
        assert!(rows.is_sorted_by(|a, b| a >= b), "{rows:?}");
        ended_early |= rows.first() != rows.last();
    }
    assert!(ended_early);
}
