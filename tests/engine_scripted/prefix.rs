//! Prompts that begin like something the cache still holds.

use vintern::engine::Request;
use vintern::prompt::Turn;

use crate::harness::{Lab, Setup, beams, greedy, picture, question, samples, sequences, to_the_end};
use crate::oracle;

/// Length of the beginning that two prompts share.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Runs a request, checks its answers, and returns how many of its positions were reused and how many computed.
fn reused(lab: &mut Lab, request: &Request) -> (usize, usize) {
    let before = lab.probe.look().prefilled();
    let completion = lab.ask(request.clone());
    assert_eq!(sequences(&completion), oracle::answers(&lab.setup, request));
    let computed = lab.probe.look().prefilled() - before;
    assert_eq!(completion.usage.prompt_tokens, oracle::prompt(request).len());
    assert_eq!(completion.usage.cached_tokens + computed, completion.usage.prompt_tokens);
    (completion.usage.cached_tokens, computed)
}

#[test]
fn only_what_is_new_is_prefilled() {
    let first = question("1: the sky is blue, and the sea?", greedy(6));
    let second = question("1: the sky is blue, or is it green?", beams(3, 6));
    let mut lab = Setup::remembering().build();
    assert_eq!(reused(&mut lab, &first).0, 0);
    let expected = shared(&oracle::prompt(&first), &oracle::prompt(&second));
    assert!(expected > 10);
    assert_eq!(reused(&mut lab, &second).0, expected);
}

#[test]
fn the_last_position_runs_even_when_all_is_cached() {
    let request = question("1: again", greedy(6));
    let mut lab = Setup::remembering().build();
    reused(&mut lab, &request);
    assert_eq!(reused(&mut lab, &request).1, 1);
    assert_eq!(reused(&mut lab, &request).1, 1);
}

#[test]
fn an_answer_is_reused_by_the_next_turn() {
    let setup = Setup::remembering();
    for settings in [greedy(8), beams(4, 8), samples(3, 5, 8)] {
        let mut lab = setup.build();
        let first = question("1: begin", to_the_end(settings));
        let answer = lab.ask(first.clone()).answers.remove(0);
        let turn = Turn { question: first.question.clone(), answer: Some(answer.text) };
        let second = Request { history: Some(vec![turn]), ..question("2: go on", greedy(8)) };
        let row = [oracle::prompt(&first), answer.token_ids].concat();
        // The last token of an answer is not fed to the decoder, so at most all but that one is cached.
        let expected = shared(&row[..row.len() - 1], &oracle::prompt(&second));
        assert!(expected > oracle::prompt(&first).len(), "the text of the answer encodes to other tokens");
        let found = reused(&mut lab, &second).0;
        assert!(found >= oracle::prompt(&first).len());
        assert!(found <= expected);
    }
}

#[test]
fn a_running_row_may_be_the_source() {
    let setup = Setup::remembering();
    let mut lab = setup.build();
    let first = question("1: a long beginning that both share, then this", to_the_end(beams(3, 30)));
    let second = question("1: a long beginning that both share, then that", to_the_end(beams(2, 10)));
    let expected = shared(&oracle::prompt(&first), &oracle::prompt(&second));
    let one = lab.submit(first.clone());
    lab.step_until(|lab| lab.probe.look().decodes().len() == 4);
    let two = lab.submit(second.clone());
    lab.finish();
    assert_eq!(lab.completion(two).usage.cached_tokens, expected);
    assert_eq!(sequences(lab.completion(one)), oracle::answers(&setup, &first));
    assert_eq!(sequences(lab.completion(two)), oracle::answers(&setup, &second));
}

#[test]
fn rows_that_moved_are_reused() {
    let setup = Setup::remembering().chunk(1000).rows(8);
    let mut lab = setup.build();
    let requests: Vec<Request> =
        [4, 14, 6, 20].iter().zip(0..).map(|(length, number)| moved(number, *length)).collect();
    let ids: Vec<_> = requests.iter().map(|request| lab.submit(request.clone())).collect();
    lab.finish();
    for (id, request) in ids.into_iter().zip(&requests) {
        assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, request));
    }
    // Whatever the rows hold now: what is claimed to be cached must be what the prompt says.
    let (cached, _) = reused(&mut lab, &requests[3]);
    assert_eq!(cached, oracle::prompt(&requests[3]).len() - 1, "the last to run was not overwritten");
    for request in requests.iter().rev().chain(&requests) {
        reused(&mut lab, request);
    }
}

fn moved(number: usize, length: usize) -> Request {
    let settings = if number.is_multiple_of(2) { beams(2, length) } else { greedy(length) };
    question(format!("{number}: the rows of this one move"), to_the_end(settings))
}

#[test]
fn beams_leave_a_prompt_that_is_reused() {
    let mut lab = Setup::remembering().rows(6).build();
    let prompts = ["1: abc", "1: abd", "2: abc", "1: abc and more", "1: ab"];
    for (prompt, settings) in prompts.iter().zip([beams(6, 9), beams(2, 9), samples(5, 1, 9), greedy(9), beams(3, 9)]) {
        let (cached, _) = reused(&mut lab, &question(prompt, settings));
        assert!(cached > 0 || *prompt == prompts[0]);
    }
}

#[test]
fn an_image_is_encoded_once() {
    let mut lab = Setup::remembering().build();
    let image = picture(&[10, 20, 30]);
    let ask = |text: &str| Request { images: vec![image.clone()], ..question(text, greedy(5)) };
    assert_eq!(reused(&mut lab, &ask("1: what is it?")).0, 0);
    assert_eq!(lab.probe.look().tiles, [4, 4]);
    let prompt = oracle::prompt(&ask("1: what is it?"));
    let end_of_image = prompt.iter().rposition(|token| *token >= 2000).unwrap() + 1;
    assert!(reused(&mut lab, &ask("1: what colour has it?")).0 > end_of_image);
    assert_eq!(lab.probe.look().tiles, [4, 4]);
}

#[test]
fn the_image_cache_serves_a_prompt_that_begins_otherwise() {
    let mut lab = Setup::remembering().build();
    let image = picture(&[10, 20]);
    let ask = |text: &str| Request { images: vec![image.clone()], ..question(text, greedy(5)) };
    reused(&mut lab, &ask("1: <image> first"));
    let (cached, _) = reused(&mut lab, &ask("2: last <image>"));
    let prompt = oracle::prompt(&ask("2: last <image>"));
    assert!(cached < prompt.iter().position(|token| *token >= 2000).unwrap(), "its image positions are computed");
    assert_eq!(lab.probe.look().tiles, [3, 3]);
}

#[test]
fn without_an_image_cache_reused_positions_still_need_no_vision() {
    let mut setup = Setup::remembering();
    setup.config.image_cache_bytes = 0;
    let mut lab = setup.build();
    let image = picture(&[40, 50]);
    let ask = |text: &str| Request { images: vec![image.clone()], ..question(text, greedy(5)) };
    reused(&mut lab, &ask("1: one"));
    assert!(reused(&mut lab, &ask("2: two")).0 > 12);
    assert_eq!(lab.probe.look().tiles, [3, 3]);
    reused(&mut lab, &ask("3: before <image>"));
    assert_eq!(lab.probe.look().tiles, [6, 6]);
}

#[test]
fn another_image_is_another_prompt() {
    let mut lab = Setup::remembering().build();
    let ask = |brightness: &[u8]| Request { images: vec![picture(brightness)], ..question("1: what?", greedy(5)) };
    let start = oracle::prompt(&ask(&[1])).iter().position(|token| *token >= 2000).unwrap();
    reused(&mut lab, &ask(&[10, 20]));
    assert_eq!(reused(&mut lab, &ask(&[30, 20])).0, start);
    assert_eq!(reused(&mut lab, &ask(&[10, 21])).0, start, "an image counts as a whole, not tile by tile");
    assert_eq!(lab.probe.look().tiles, [9, 9]);
}

/// What a request left is there for the next turn though others ran meanwhile, in its rows and beside it.
#[test]
fn a_conversation_outlives_other_requests() {
    for (spare, kept) in [(0, false), (1, true), (3, true)] {
        let setup = Setup::remembering().spare(spare);
        let mut lab = setup.build();
        let first = question("1: a page that is asked about twice", to_the_end(beams(3, 8)));
        let others = [question("2: something else", to_the_end(beams(3, 30))), question("3: more", beams(4, 9))];
        let begun = lab.submit(others[0].clone());
        lab.step_until(|lab| lab.probe.look().decodes().len() == 3);
        let answer = lab.submit(first.clone());
        lab.step_until(|lab| lab.outcome(answer).is_some());
        let answer = lab.completion(answer).answers[0].text.clone();
        assert_eq!(sequences(&lab.ask(others[1].clone())), oracle::answers(&setup, &others[1]));
        assert_eq!(sequences(lab.completion(begun)), oracle::answers(&setup, &others[0]));
        let turn = Turn { question: first.question.clone(), answer: Some(answer) };
        let second = Request { history: Some(vec![turn]), ..question("4: and now?", greedy(8)) };
        let found = reused(&mut lab, &second).0;
        assert_eq!(found >= oracle::prompt(&first).len(), kept, "{spare} spare rows: {found} positions reused");
    }
}
