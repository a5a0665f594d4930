//! Requests within a bound of the cache's memory: what waits, what is refused, what makes way.

use vintern::engine::{EngineError, Request, RequestId};
use vintern::prompt::Turn;

use crate::harness::{Lab, Setup, beams, greedy, question, samples, sequences, to_the_end};
use crate::oracle;
use crate::overtaking::ended;

/// Positions a request needs.
fn positions(request: &Request) -> usize {
    request.settings.rows() * (oracle::prompt(request).len() + request.settings.max_new_tokens)
}

/// Steps until all is done; the cache is never larger than it may be.
fn finish_within(lab: &mut Lab, positions: usize) {
    lab.step_until(|lab| {
        assert!(lab.engine.cache_bytes() <= 8 * positions);
        lab.engine.is_idle()
    });
}

#[test]
fn what_could_never_fit_is_refused() {
    let request = question("1?", to_the_end(beams(3, 40)));
    let most = positions(&request);
    let mut lab = Setup::remembering().cache(most).build();
    lab.ask(request.clone());
    let mut lab = Setup::remembering().cache(most - 1).build();
    let error = lab.refuse(request);
    let EngineError::CacheTooSmall { rows, positions, bytes, max_bytes } = error else { panic!("{error}") };
    assert_eq!((rows, rows * positions, bytes, max_bytes), (3, most, 8 * most, 8 * (most - 1)));
    // It disturbs nobody, and a smaller one is answered.
    lab.ask(question("1?", greedy(4)));
}

#[test]
fn what_does_not_fit_now_waits() {
    let requests: Vec<Request> = (1..7).map(|number| question(number, to_the_end(samples(2, number, 20)))).collect();
    let most = 2 * positions(&requests[0]);
    let setup = Setup::remembering().chunk(100).cache(most);
    let mut lab = setup.build();
    let ids: Vec<RequestId> = requests.iter().map(|request| lab.submit(request.clone())).collect();
    lab.steps(8);
    assert_eq!(lab.engine.waiting(), 4, "two are at work");
    finish_within(&mut lab, most);
    assert_eq!(ended(&lab), ids);
    for (id, request) in ids.iter().zip(&requests) {
        assert_eq!(sequences(lab.completion(*id)), oracle::answers(&setup, request));
    }
    let seen = lab.probe.look();
    assert!(seen.decodes().iter().all(|call| call.rows.len() <= 4));
    assert!(seen.decodes().iter().any(|call| call.rows.len() == 4));
}

/// However many small requests come, a large one has its turn after those that came before it.
#[test]
fn a_large_request_is_not_starved() {
    let large = question("9: a question that needs all there is", to_the_end(beams(4, 60)));
    let most = positions(&large);
    let setup = Setup::remembering().chunk(8).cache(most);
    let mut lab = setup.build();
    let small = |number: usize| question(number, to_the_end(greedy(10)));
    let before: Vec<RequestId> = (0..3).map(|number| lab.submit(small(number))).collect();
    lab.steps(12);
    let wanted = lab.submit(large.clone());
    let mut after = Vec::new();
    for number in 10..60 {
        after.push(lab.submit(small(number)));
        lab.steps(2);
        assert!(lab.engine.cache_bytes() <= 8 * most);
    }
    finish_within(&mut lab, most);
    let order = ended(&lab);
    let place = |id: &RequestId| order.iter().position(|ended| ended == id).unwrap();
    assert!(before.iter().all(|id| place(id) < place(&wanted)));
    let overtakers = after.iter().filter(|id| place(id) < place(&wanted)).count();
    assert!(overtakers <= 2, "{overtakers} came later and were first");
    assert_eq!(sequences(lab.completion(wanted)), oracle::answers(&setup, &large));
    for (id, number) in after.iter().zip(10..) {
        assert_eq!(sequences(lab.completion(*id)), oracle::answers(&setup, &small(number)));
    }
}

/// Many short rows, then one long one, then many short ones again: the cache changes its shape, and what is kept is right.
#[test]
fn the_cache_changes_its_shape() {
    let long = question(format!("1{}", " and more".repeat(30)), to_the_end(greedy(100)));
    let most = positions(&long) + 20;
    let wide: Vec<Request> = (2..5).map(|number| question(number, to_the_end(samples(2, 7, 6)))).collect();
    let setup = Setup::remembering().chunk(16).spare(3).cache(most);
    let mut lab = setup.build();
    for _ in 0..2 {
        for request in wide.iter().chain([&long]).chain(&wide) {
            let id = lab.submit(request.clone());
            finish_within(&mut lab, most);
            assert_eq!(sequences(lab.completion(id)), oracle::answers(&setup, request));
        }
    }
}

/// A conversation goes on from the cache though a request between its turns took the spare rows' memory.
#[test]
fn what_was_used_last_is_kept_longest() {
    let first = question("1: tell me of it", to_the_end(greedy(5)));
    let other = question(format!("2{}", " and more".repeat(8)), to_the_end(beams(2, 30)));
    let most = positions(&other) + positions(&other) / 2;
    let setup = Setup::text(crate::network::remembering(931, 900, 902)).chunk(16).spare(4).cache(most);
    let mut lab = setup.build();
    let answer = lab.ask(first.clone());
    lab.ask(other);
    assert!(lab.engine.cache_bytes() <= 8 * most);
    let turn = Turn { question: answer.question.clone(), answer: Some(answer.answers[0].text.clone()) };
    let second = Request { history: Some(vec![turn]), ..question("3: and then?", greedy(5)) };
    let completion = lab.ask(second);
    assert!(completion.usage.cached_tokens >= oracle::prompt(&first).len(), "{:?}", completion.usage);
}
