//! Requests that are taken back, at every point of their way.

use vintern::engine::Request;
use vintern::generate::{FinishReason, GenerationSettings};
use vintern::graph::{GraphError, Interrupt};

use crate::harness::{Lab, Setup, beams, greedy, picture, question, samples, sequences, to_the_end};
use crate::network::Hook;
use crate::oracle;

/// A companion that runs beside the cancelled request, and must not notice.
fn companion() -> Request {
    question("7: a companion", to_the_end(beams(2, 25)))
}

/// Lets a companion run, then a request that is cancelled at some point; both must end well, and the next request too.
fn cancelled(setup: &Setup, request: Request, until: impl FnMut(&Lab) -> bool) -> Lab {
    let mut lab = setup.build();
    let beside = lab.submit(companion());
    lab.step_until(|lab| !lab.probe.look().decodes().is_empty());
    let (id, switch) = lab.submit_with_switch(request.clone());
    lab.step_until(until);
    switch.raise();
    lab.step();
    assert!(lab.outcome(id).is_some(), "it ends with the next step");
    let found = sequences(lab.completion(id));
    assert!(found.iter().all(|answer| answer.finish == FinishReason::Cancelled));
    assert!(oracle::course(setup, &request).contains(&found), "its answers are those of some step: {found:?}");
    lab.finish();
    assert_eq!(sequences(lab.completion(beside)), oracle::answers(setup, &companion()));
    let next = question("8: afterwards", beams(3, 6));
    assert_eq!(sequences(&lab.ask(next.clone())), oracle::answers(setup, &next));
    lab
}

fn no_answer(lab: &Lab) -> bool {
    lab.events.iter().any(|event| match event {
        vintern::engine::Event::Finished { completion, .. } => {
            completion.answers.iter().all(|answer| answer.token_ids.is_empty() && answer.text.is_empty())
        }
        _ => false,
    })
}

#[test]
fn before_it_was_let_in() {
    let setup = Setup::remembering().rows(4);
    let lab = cancelled(&setup, question(1, beams(4, 5)), |_| true);
    assert!(no_answer(&lab));
}

#[test]
fn before_the_first_step() {
    let mut lab = Setup::remembering().build();
    let switch = Interrupt::new();
    switch.raise();
    let request = Request { images: vec![picture(&[1])], ..question(1, greedy(3)) };
    let id = lab.submit_under(request, &switch);
    lab.finish();
    assert_eq!(lab.completion(id).answers[0].finish, FinishReason::Cancelled);
    let seen = lab.probe.look();
    assert_eq!((seen.calls.len(), seen.tiles), (0, [0, 0]));
}

#[test]
fn between_tiles() {
    let request = Request { images: vec![picture(&[1, 2, 3])], ..question(1, beams(2, 5)) };
    let lab = cancelled(&Setup::remembering(), request, |lab| lab.probe.look().tiles[0] == 2);
    assert!(no_answer(&lab));
    assert_eq!(lab.probe.look().tiles, [2, 2]);
}

#[test]
fn between_chunks_of_prefill() {
    let setup = Setup::remembering().chunk(3);
    let request = question("1: and a long text after it that takes several chunks", beams(2, 5));
    let lab = cancelled(&setup, request, |lab| {
        lab.probe.look().prefills().iter().filter(|call| call.rows.start == 2).count() == 2
    });
    assert!(no_answer(&lab));
}

#[test]
fn during_decode() {
    let kinds: [GenerationSettings; 4] = [greedy(20), beams(3, 20), beams(5, 20), samples(4, 3, 20)];
    for settings in kinds {
        for steps in [1, 2, 5, 11] {
            let request = question(1, to_the_end(settings.clone()));
            let lab = cancelled(&Setup::remembering(), request, |lab| {
                lab.probe.look().decodes().iter().filter(|call| call.rows.len() > 2).count() == steps
            });
            assert!(!no_answer(&lab));
        }
    }
}

#[test]
fn rows_are_free_again_and_few_steps_later_taken() {
    let setup = Setup::remembering().rows(5);
    let mut lab = setup.build();
    let (first, switch) = lab.submit_with_switch(question(1, to_the_end(beams(5, 50))));
    let waiting = lab.submit(question(2, beams(4, 6)));
    lab.step_until(|lab| lab.probe.look().decodes().len() == 3);
    switch.raise();
    lab.finish();
    assert_eq!(lab.completion(first).answers[0].token_ids.len(), 4);
    assert_eq!(sequences(lab.completion(waiting)), oracle::answers(&setup, &question(2, beams(4, 6))));
    let after: Vec<_> = lab.probe.look().decodes()[3..].iter().map(|call| call.rows.clone()).collect();
    assert!(after.iter().all(|rows| *rows == (0..4)), "no call on rows nobody owns: {after:?}");
}

/// A switch raised while the network runs: the run itself ends early.
#[test]
fn inside_a_run() {
    let setup = Setup::remembering();
    let request = Request { images: vec![picture(&[1, 2])], ..question("1: with an image", greedy(5)) };
    for (tile, call) in [(Some(1), None), (None, Some(2))] {
        let mut lab = setup.build();
        let (id, switch) = lab.submit_with_switch(request.clone());
        let hook = |at: Option<usize>| {
            let switch = switch.clone();
            let raise = move |number| {
                if at == Some(number) {
                    switch.raise();
                    return Err(GraphError::Interrupted);
                }
                Ok(())
            };
            Some(Box::new(raise) as Hook)
        };
        lab.probe.look().on_vision = hook(tile);
        lab.probe.look().on_decoder = hook(call);
        lab.finish();
        let answer = &lab.completion(id).answers[0];
        assert_eq!((answer.token_ids.len(), answer.finish), (0, FinishReason::Cancelled));
        assert_eq!(sequences(&lab.ask(request.clone())), oracle::answers(&setup, &request));
    }
}

#[test]
fn all_at_once() {
    let mut lab = Setup::remembering().rows(6).build();
    let switch = Interrupt::new();
    for number in 0..6 {
        let images = if number % 2 == 0 { vec![picture(&[number, 2])] } else { Vec::new() };
        let request = Request { images, ..question(number, to_the_end(beams(3, 30))) };
        lab.submit_under(request, &switch);
    }
    lab.steps(25);
    switch.raise();
    lab.step();
    assert!(lab.engine.is_idle());
    lab.finish();
    let calls = lab.probe.look().calls.len();
    lab.ask(question(9, greedy(3)));
    assert!(lab.probe.look().calls[calls..].iter().all(|call| call.rows == (0..1) || call.is_prefill()));
}
