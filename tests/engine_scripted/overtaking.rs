//! A short question need not wait for a long prompt.

use vintern::engine::{Event, Request, RequestId};

use crate::harness::{Lab, Setup, beams, greedy, picture, question, sequences, to_the_end};
use crate::oracle;

/// A question about a page of many tiles.
fn page(number: usize) -> Request {
    let tiles: Vec<u8> = (0..12).map(|tile| (20 * tile + number) as u8).collect();
    Request { images: vec![picture(&tiles)], ..question(number, to_the_end(beams(3, 5))) }
}

/// In which order requests ended.
pub fn ended(lab: &Lab) -> Vec<RequestId> {
    let finished = lab.events.iter().filter_map(|event| match event {
        Event::Finished { id, .. } => Some(*id),
        _ => None,
    });
    finished.collect()
}

#[test]
fn a_short_question_overtakes_a_page() {
    let setup = Setup::remembering().chunk(8);
    let mut lab = setup.build();
    let (long, short) = (page(1), question("2?", to_the_end(greedy(4))));
    let first = lab.submit(long.clone());
    lab.steps(3);
    let tiles = lab.probe.look().tiles[0];
    let second = lab.submit(short.clone());
    let chunks = oracle::prompt(&short).len().div_ceil(8);
    lab.step_until(|lab| lab.outcome(second).is_some());
    // A tile of the page after each three of its chunks, and one in each of its steps.
    let meanwhile = lab.probe.look().tiles[0] - tiles;
    assert!((chunks / 3..=chunks / 3 + 4).contains(&meanwhile), "{meanwhile} tiles beside {chunks} chunks");
    lab.finish();
    assert_eq!(ended(&lab), [second, first]);
    assert_eq!(sequences(lab.completion(first)), oracle::answers(&setup, &long));
    assert_eq!(sequences(lab.completion(second)), oracle::answers(&setup, &short));
}

/// Only what is less work than what is left of the page.
#[test]
fn a_question_that_is_longer_than_the_rest_waits() {
    let setup = Setup::remembering().chunk(2);
    for (words, overtakes) in [(1, true), (400, false)] {
        let mut lab = setup.build();
        let first = lab.submit(page(1));
        lab.step_until(|lab| lab.probe.look().tiles[0] == 11);
        let second = lab.submit(question(format!("2{}", " more".repeat(words)), to_the_end(greedy(4))));
        lab.finish();
        assert_eq!(ended(&lab) == [second, first], overtakes, "{words} words");
    }
}

/// A question on the page that is worked on waits for it though it is less work.
#[test]
fn a_shorter_question_on_the_same_page_waits_for_it() {
    let setup = Setup::remembering().chunk(8);
    let mut lab = setup.build();
    let long = Request { question: "1: and a few words more".to_owned(), ..page(1) };
    let short = Request { images: long.images.clone(), ..question("1", to_the_end(greedy(4))) };
    let (first, second) = (lab.submit(long.clone()), lab.submit(short.clone()));
    lab.finish();
    assert_eq!(ended(&lab), [first, second]);
    assert_eq!(lab.probe.look().tiles[0], long.images[0].tiles().len());
}

/// One at a time, those that came first before those that came later.
#[test]
fn many_short_questions_do_not_starve_a_page() {
    let setup = Setup::remembering().chunk(8).rows(6);
    let mut lab = setup.build();
    let long = page(1);
    let first = lab.submit(long.clone());
    let shorts: Vec<Request> = (2..90).map(|number| question(number, to_the_end(greedy(3)))).collect();
    let ids: Vec<RequestId> = shorts.iter().map(|short| lab.submit(short.clone())).collect();
    lab.finish();
    let order = ended(&lab);
    let others: Vec<RequestId> = order.iter().copied().filter(|id| *id != first).collect();
    assert_eq!(others, ids);
    let place = order.iter().position(|id| *id == first).unwrap();
    assert!((5..80).contains(&place), "the page came {place}th");
    assert_eq!(sequences(lab.completion(first)), oracle::answers(&setup, &long));
    for (id, short) in ids.iter().zip(&shorts) {
        assert_eq!(sequences(lab.completion(*id)), oracle::answers(&setup, short));
    }
}

/// A second question on the page that is worked on finds it in the cache; it does not begin before.
#[test]
fn a_question_on_the_same_page_waits_for_it() {
    let setup = Setup::remembering().chunk(8);
    let mut lab = setup.build();
    let long = page(1);
    let again = Request { images: long.images.clone(), ..question("1 and what else?", to_the_end(greedy(4))) };
    let (first, second) = (lab.submit(long.clone()), lab.submit(again.clone()));
    lab.finish();
    assert_eq!(lab.probe.look().tiles[0], long.images[0].tiles().len());
    assert!(lab.completion(second).usage.cached_tokens > lab.completion(first).usage.image_tokens);
    assert_eq!(sequences(lab.completion(second)), oracle::answers(&setup, &again));
}

/// The overtaker is cancelled, then the page.
#[test]
fn either_may_be_cancelled() {
    let setup = Setup::remembering().chunk(2);
    let (long, short) = (page(1), question("2: a few words more", to_the_end(greedy(4))));
    for cancel_first in [true, false] {
        let mut lab = setup.build();
        let (first, stop_first) = lab.submit_with_switch(long.clone());
        lab.steps(2);
        let (second, stop_second) = lab.submit_with_switch(short.clone());
        lab.steps(3);
        let stop = if cancel_first { stop_first } else { stop_second };
        stop.raise();
        lab.finish();
        let (kept, request) = if cancel_first { (second, &short) } else { (first, &long) };
        assert_eq!(sequences(lab.completion(kept)), oracle::answers(&setup, request));
    }
}
