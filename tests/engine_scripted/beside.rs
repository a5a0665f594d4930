//! Tiles that are encoded beside the decoder.

use vintern::engine::Request;
use vintern::generate::FinishReason;
use vintern::graph::GraphError;

use crate::harness::{Setup, beams, greedy, picture, question, sequences, to_the_end};
use crate::oracle;

fn page(number: usize) -> Request {
    Request { images: vec![picture(&[10, 20, number as u8])], ..question(number, to_the_end(beams(2, 6))) }
}

/// A tile takes as long as it takes: meanwhile answers go on, and short questions are answered from beginning to end.
#[test]
fn nobody_waits_for_a_tile_but_who_needs_it() {
    let setup = Setup::remembering().beside();
    let mut lab = setup.build();
    let (running, short) = (question(1, to_the_end(greedy(20))), question("2?", to_the_end(beams(3, 4))));
    let first = lab.submit(running.clone());
    lab.step_until(|lab| !lab.probe.look().decodes().is_empty());
    lab.probe.hold_tiles(true);
    let held = lab.submit(page(3));
    lab.step_until(|lab| lab.outcome(first).is_some());
    let asked = lab.submit(short.clone());
    lab.step_until(|lab| lab.outcome(asked).is_some());
    assert!(lab.outcome(held).is_none());
    assert_eq!(lab.probe.look().tiles, [0, 0]);
    lab.probe.hold_tiles(false);
    lab.finish();
    for (id, request) in [(first, running), (asked, short), (held, page(3))] {
        assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, &request));
    }
    let timings = &lab.completion(held).timings;
    assert!(timings.vision > std::time::Duration::ZERO);
}

/// One that leaves while its tile is on its way leaves the tower to the others.
#[test]
fn a_request_leaves_while_its_tile_is_on_its_way() {
    let setup = Setup::remembering().beside();
    let mut lab = setup.build();
    lab.probe.hold_tiles(true);
    let (leaves, switch) = lab.submit_with_switch(page(1));
    let stays = lab.submit(page(2));
    lab.steps(3);
    switch.raise();
    lab.step();
    assert_eq!(lab.completion(leaves).answers[0].finish, FinishReason::Cancelled);
    lab.probe.hold_tiles(false);
    lab.finish();
    assert_eq!(sequences(lab.completion(stays)), oracle::answers(&setup, &page(2)));
    assert_eq!(sequences(&lab.ask(page(1))), oracle::answers(&setup, &page(1)));
}

#[test]
fn a_failed_tile_fails_its_request_alone() {
    let setup = Setup::remembering().beside();
    let mut lab = setup.build();
    lab.probe.look().on_vision = Some(Box::new(|tile| match tile {
        1 => Err(GraphError::Run { graph: "vision".into(), message: "no memory".into() }),
        _ => Ok(()),
    }));
    let (failed, other) = (lab.submit(page(1)), lab.submit(question(2, greedy(5))));
    lab.finish();
    assert!(lab.error(failed).to_string().contains("no memory"));
    assert_eq!(sequences(lab.completion(other)), oracle::answers(&setup, &question(2, greedy(5))));
    assert_eq!(sequences(&lab.ask(page(1))), oracle::answers(&setup, &page(1)));
}

/// A panic in the tower is the end of one tile: its request is told, and the next image is encoded again.
#[test]
fn a_panic_in_a_tile_fails_its_request_alone() {
    let setup = Setup::remembering().beside();
    let mut lab = setup.build();
    lab.probe.break_tiles(true);
    let (failed, other) = (lab.submit(page(1)), lab.submit(question(2, greedy(5))));
    lab.finish();
    assert!(lab.error(failed).to_string().contains("panicked"), "{}", lab.error(failed));
    assert_eq!(sequences(lab.completion(other)), oracle::answers(&setup, &question(2, greedy(5))));
    lab.probe.break_tiles(false);
    assert_eq!(sequences(&lab.ask(page(1))), oracle::answers(&setup, &page(1)));
}
