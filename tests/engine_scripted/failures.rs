//! What goes wrong for one request, for several, and before a request is taken in.

use std::sync::Arc;

use vintern::engine::{EngineError, Request};
use vintern::generate::{FinishReason, SearchError};
use vintern::graph::GraphError;
use vintern::prompt::PromptError;

use crate::harness::{Lab, Setup, beams, greedy, picture, question, samples, sequences, to_the_end};
use crate::network::{number, remembering};
use crate::oracle;

fn assert_served(lab: &mut Lab, request: &Request) {
    assert_eq!(sequences(&lab.ask(request.clone())), oracle::answers(&lab.setup, request));
}

/// The remembering model, but with NaN among the logits for question 13 once it has `tokens` of its answer.
fn sick(tokens: usize) -> Setup {
    let healthy = remembering(14, 14, 3);
    Setup::small(Arc::new(move |prompt, answer| {
        let mut logits = healthy(prompt, answer);
        if number(prompt) == 13 && answer.len() == tokens {
            logits[5] = f32::NAN;
        }
        logits
    }))
}

#[test]
fn unusable_logits_fail_their_request_alone() {
    for (tokens, settings) in [(0, greedy(9)), (3, greedy(9)), (3, beams(3, 9)), (1, samples(2, 1, 9))] {
        let setup = sick(tokens);
        let mut lab = setup.build();
        let healthy: Vec<Request> = (1..4).map(|number| question(number, to_the_end(beams(2, 15)))).collect();
        let mut ids: Vec<_> = healthy[..2].iter().map(|request| lab.submit(request.clone())).collect();
        let ill = lab.submit(question(13, to_the_end(settings)));
        ids.push(lab.submit(healthy[2].clone()));
        lab.finish();
        let error = lab.error(ill);
        assert!(matches!(error, EngineError::Search(SearchError::InvalidLogits { .. })), "{error}");
        for (id, request) in ids.into_iter().zip(&healthy) {
            assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, request));
        }
        assert_served(&mut lab, &question(4, beams(3, 5)));
    }
}

/// Makes the decoder calls with these numbers fail.
fn fail_calls(lab: &Lab, wanted: impl Fn(usize) -> bool + Send + 'static) {
    lab.probe.look().on_decoder = Some(Box::new(move |number| {
        let error = || GraphError::Run { graph: "decoder".into(), message: "the device is gone".into() };
        if wanted(number) { Err(error()) } else { Ok(()) }
    }));
}

#[test]
fn a_failed_step_fails_what_ran_in_it_and_nothing_else() {
    let setup = Setup::remembering().chunk(4).rows(8);
    let long = question("3: a prompt that is being prefilled while the step fails", to_the_end(beams(3, 9)));
    for prefilled in 0..4 {
        let mut lab = setup.build();
        let running: Vec<_> = (1..3).map(|number| lab.submit(question(number, to_the_end(beams(2, 40))))).collect();
        lab.step_until(|lab| lab.probe.look().calls.last().is_some_and(|call| call.rows == (0..4)));
        let preparing = lab.submit(long.clone());
        let waiting = lab.submit(question(4, beams(4, 9)));
        lab.steps(prefilled);
        let calls = lab.probe.look().calls.len();
        // The next call is a chunk of prefill, the one after it the step.
        fail_calls(&lab, move |number| number == calls + 1);
        lab.finish();
        for id in running {
            let error = lab.error(id);
            assert!(matches!(error, EngineError::Step(_)));
            assert!(error.to_string().contains("the device is gone"), "{error}");
        }
        assert_eq!(sequences(lab.completion(preparing)), oracle::answers(&setup, &long), "{prefilled} chunks");
        assert_eq!(sequences(lab.completion(waiting)), oracle::answers(&setup, &question(4, beams(4, 9))));
        for number in 1..4 {
            assert_served(&mut lab, &question(number, beams(3, 6)));
        }
    }
}

#[test]
fn a_failed_prefill_fails_its_request_alone() {
    let setup = Setup::remembering().chunk(4);
    let mut lab = setup.build();
    let running = question(1, to_the_end(beams(2, 30)));
    let id = lab.submit(running.clone());
    lab.step_until(|lab| !lab.probe.look().decodes().is_empty());
    let calls = lab.probe.look().calls.len();
    fail_calls(&lab, move |number| number == calls + 2);
    let failing = question("2: its second chunk fails", greedy(5));
    let failed = lab.submit(failing.clone());
    lab.finish();
    assert!(matches!(lab.error(failed), EngineError::Model(_)));
    assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, &running));
    assert_served(&mut lab, &failing);
}

#[test]
fn a_failed_tile_fails_its_request_alone() {
    let mut lab = Setup::remembering().build();
    lab.probe.look().on_vision = Some(Box::new(|tile| match tile {
        1 => Err(GraphError::Run { graph: "vision".into(), message: "no memory".into() }),
        _ => Ok(()),
    }));
    let request = Request { images: vec![picture(&[1, 2])], ..question(1, greedy(5)) };
    let other = question(2, greedy(5));
    let (failed, id) = (lab.submit(request.clone()), lab.submit(other.clone()));
    lab.finish();
    assert!(lab.error(failed).to_string().contains("no memory"));
    assert_eq!(sequences(lab.completion(id)), oracle::answers(&lab.setup, &other));
    assert_served(&mut lab, &request);
}

#[test]
fn a_decoder_that_stays_broken_fails_all_and_the_engine_comes_to_rest() {
    let mut lab = Setup::remembering().rows(4).build();
    fail_calls(&lab, |_| true);
    let ids: Vec<_> = (0..5).map(|number| lab.submit(question(number, beams(3, 5)))).collect();
    lab.finish();
    for id in ids {
        assert!(lab.outcome(id).unwrap().is_err());
    }
    lab.probe.look().on_decoder = None;
    assert_served(&mut lab, &question(1, beams(3, 5)));
}

#[test]
fn a_cache_that_cannot_grow_fails_its_request_alone() {
    let setup = Setup::remembering().chunk(1000);
    for running in [false, true] {
        let mut lab = setup.build();
        let small = question(1, to_the_end(greedy(20)));
        let first = lab.submit(small.clone());
        lab.step_until(|lab| !running && lab.engine.is_idle() || running && lab.probe.look().calls.len() == 3);
        lab.probe.look().on_reserve =
            Some(Box::new(|_| Err(GraphError::OutOfMemory { what: "a cache".into(), message: "bad_alloc".into() })));
        let large = lab.submit(question("7: a prompt with another beginning", beams(15, 900)));
        lab.step();
        lab.probe.look().on_reserve = None;
        lab.finish();
        assert!(lab.error(large).to_string().contains("no memory for a cache"));
        assert_eq!(sequences(lab.completion(first)), oracle::answers(&setup, &small));
        for request in [question("1", beams(3, 5)), small] {
            assert_served(&mut lab, &request);
        }
    }
}

#[test]
fn a_prompt_that_leaves_no_room_is_refused_and_the_message_says_what_takes_it() {
    let mut setup = Setup::remembering();
    setup.max_length = 40;
    let mut lab = setup.build();
    let error = lab.refuse(question("word ".repeat(40), greedy(5)));
    let EngineError::PromptTooLong { prompt, image: 0, tiles: 0, text, max_length: 40 } = error else {
        panic!("{error}")
    };
    assert_eq!(prompt, text);
    assert!(error.to_string().contains("shorten the question"), "{error}");
    let request = Request { images: vec![picture(&[1; 10])], ..question("1", greedy(5)) };
    let error = lab.refuse(request);
    assert!(matches!(error, EngineError::PromptTooLong { image: 44, tiles: 11, .. }), "{error}");
    assert!(error.to_string().contains("44 from 11 image tiles") && error.to_string().contains("fewer tiles"));
    assert!(lab.engine.is_idle());
}

#[test]
fn an_answer_takes_the_room_there_is() {
    let request = question(1, to_the_end(beams(2, 500)));
    let prompt = oracle::prompt(&request).len();
    for room in [1, 2, 7] {
        let mut setup = Setup::remembering();
        setup.max_length = prompt + room;
        let mut lab = setup.build();
        let completion = lab.ask(request.clone());
        assert_eq!(sequences(&completion), oracle::answers(&setup, &request));
        assert_eq!(completion.answers[0].token_ids.len(), room);
        assert_eq!(completion.answers[0].finish, FinishReason::Length);
    }
}

#[test]
fn requests_that_cannot_be_honoured_are_refused() {
    let mut lab = Setup::remembering().rows(3).build();
    let image = || vec![picture(&[1])];
    let mark = |error| matches!(error, EngineError::Prompt(PromptError::ImageMarks { images: 1, marks: 0 }));
    assert!(matches!(lab.refuse(question(1, beams(4, 5))), EngineError::TooManyRows { rows: 4, max_rows: 3 }));
    assert!(matches!(lab.refuse(question(1, samples(4, 1, 5))), EngineError::TooManyRows { rows: 4, max_rows: 3 }));
    assert!(mark(lab.refuse(Request { images: image(), history: Some(vec![]), ..question(1, greedy(5)) })));
    let typed = Request { images: image(), ..question("1 <IMG_CONTEXT>", greedy(5)) };
    let error = lab.refuse(typed);
    assert!(matches!(error, EngineError::Prompt(PromptError::ImageTokens { expected: 4, found: 5 })), "{error}");
    assert!(matches!(lab.refuse(question(1, greedy(0))), EngineError::Settings(_)));
    let empty_stop = Request { stop: vec![String::new()], ..question(1, greedy(5)) };
    assert!(matches!(lab.refuse(empty_stop), EngineError::Prompt(PromptError::EmptyStopString { position: 1 })));
    assert!(lab.engine.is_idle());
    assert_served(&mut lab, &question(1, beams(3, 5)));
}

#[test]
fn tiles_of_another_size_are_refused() {
    use image::RgbImage;
    use vintern::engine::TiledImage;
    use vintern::preprocess::TilingOptions;
    let options = TilingOptions { tile_size: 16, min_tiles: 1, max_tiles: 1, thumbnail: false };
    let images = vec![TiledImage::from_rgb(&RgbImage::new(20, 20), &options).unwrap()];
    let mut lab = Setup::remembering().build();
    let error = lab.refuse(Request { images, ..question(1, greedy(5)) });
    assert!(matches!(error, EngineError::TileSize { found: 16, expected: 8 }), "{error}");
}
