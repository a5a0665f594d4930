//! Images on their way into the prompt.

use vintern::engine::{Event, Request, Stage};
use vintern::prompt::Turn;

use crate::harness::{Lab, Setup, beams, greedy, picture, question, sequences};
use crate::oracle;

fn answered(lab: &mut Lab, request: &Request) {
    let completion = lab.ask(request.clone());
    assert_eq!(sequences(&completion), oracle::answers(&lab.setup, request));
}

#[test]
fn every_embedding_lands_in_its_position() {
    let images = vec![picture(&[10, 20, 30]), picture(&[40]), picture(&[50, 60])];
    let text = "1: <image> then <image> and in the end <image>?";
    for chunk in [1, 3, 7, 1000] {
        let mut lab = Setup::remembering().chunk(chunk).build();
        let request = Request { images: images.clone(), ..question(text, beams(3, 6)) };
        answered(&mut lab, &request);
        assert_eq!(lab.probe.look().tiles, [8, 8]);
    }
}

#[test]
fn usage_counts_images_and_the_question_gets_its_mark() {
    let mut lab = Setup::remembering().build();
    let request = Request { images: vec![picture(&[1, 2])], ..question("1: what?", greedy(4)) };
    let completion = lab.ask(request.clone());
    let usage = completion.usage;
    assert_eq!((usage.tiles, usage.image_tokens), (3, 12));
    assert_eq!(usage.prompt_tokens, oracle::prompt(&request).len());
    assert_eq!(usage.completion_tokens, completion.answers[0].token_ids.len());
    assert_eq!((completion.question.as_str(), completion.surplus_marks), ("<image>\n1: what?", 0));
    let surplus = Request { images: vec![picture(&[1])], ..question("1: <image><image>", greedy(4)) };
    assert_eq!(lab.ask(surplus).surplus_marks, 1);
}

#[test]
fn images_of_earlier_turns_stand_in_the_history() {
    let mut lab = Setup::remembering().build();
    let turn = Turn { question: "<image>\n1: what?".to_owned(), answer: Some("a cat".to_owned()) };
    let request = Request {
        images: vec![picture(&[70, 80])],
        history: Some(vec![turn]),
        ..question("2: which colour?", greedy(6))
    };
    answered(&mut lab, &request);
}

#[test]
fn the_same_image_twice_is_encoded_once() {
    let images = vec![picture(&[10, 20]), picture(&[10, 20])];
    let mut lab = Setup::remembering().build();
    answered(&mut lab, &Request { images, ..question("1: <image> or <image>?", greedy(5)) });
    assert_eq!(lab.probe.look().tiles, [3, 3]);
}

#[test]
fn progress_counts_tiles_then_positions() {
    let mut lab = Setup::remembering().chunk(10).build();
    let request = Request { images: vec![picture(&[1, 2])], ..question("1: what?", greedy(2)) };
    let prompt = oracle::prompt(&request).len();
    lab.ask(request);
    let told: Vec<_> = lab
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Progress { stage, done, total, .. } => Some((*stage, *done, *total)),
            _ => None,
        })
        .collect();
    let vision = (1..=3).map(|done| (Stage::Vision, done, 3));
    let prefill = (1..=prompt.div_ceil(10)).map(|chunk| (Stage::Prefill, prompt.min(chunk * 10), prompt));
    assert_eq!(told, vision.chain(prefill).collect::<Vec<_>>());
}

#[test]
fn running_answers_go_on_while_tiles_are_encoded() {
    let mut lab = Setup::remembering().build();
    lab.submit(question(1, crate::harness::to_the_end(greedy(30))));
    lab.step_until(|lab| !lab.probe.look().decodes().is_empty());
    let before = lab.probe.look().decodes().len();
    lab.submit(Request { images: vec![picture(&[1, 2, 3])], ..question(2, greedy(3)) });
    lab.steps(4);
    let seen = lab.probe.look();
    assert_eq!((seen.tiles[0], seen.decodes().len() - before), (4, 4));
}
