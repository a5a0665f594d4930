//! Text is told while it grows: the pieces are the answer's text, and none is ever taken back.

use std::sync::Arc;

use vintern::engine::{Event, Request};
use vintern::generate::{FinishReason, GenerationSettings};

use crate::harness::{END_OF_TURN, Lab, Setup, beams, greedy, question, samples, sequences};
use crate::network::{EMBEDDINGS, LanguageModel, mix, number, remembering};
use crate::oracle::{self, TOKENIZER};

/// Asks, checks the answer against the search alone and the pieces against the answer; returns pieces and text.
fn told(lab: &mut Lab, request: &Request) -> (Vec<String>, String) {
    let id = lab.submit(request.clone());
    lab.finish();
    let completion = lab.completion(id).clone();
    assert_eq!(sequences(&completion), oracle::answers(&lab.setup, request));
    let pieces: Vec<String> = lab.pieces(id).into_iter().map(str::to_owned).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    assert_eq!(pieces.concat(), completion.answers[0].text);
    let end = lab.events.iter().rposition(|event| matches!(event, Event::Finished { .. }));
    assert!(!lab.events[end.unwrap()..].iter().any(|event| matches!(event, Event::Text { .. })));
    (pieces, completion.answers[0].text.clone())
}

/// Ids of the byte-level alphabet, one a byte: text falls apart in the middle of its characters.
fn bytes(text: &str) -> Vec<u32> {
    let printable: Vec<u8> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let others = (0..=255).filter(|byte| !printable.contains(byte));
    let alphabet: Vec<u8> = printable.iter().copied().chain(others).collect();
    text.bytes().map(|byte| alphabet.iter().position(|letter| *letter == byte).unwrap() as u32).collect()
}

const DICTATIONS: [&str; 6] = [
    "Tiếng Việt: Xin chào, tôi là Vintern.",
    "  white space around \n and within\t ",
    "👩‍👩‍👧‍👦 e\u{301} 🇻🇳 ok",
    "",
    "one, two, STOP, three, four",
    "price: 5 < 7 <|im_x and on",
];

/// Writes the dictation of the question's number byte by byte, then eos, with rivals close behind.
fn dictating() -> LanguageModel {
    Arc::new(|prompt, answer| {
        let dictation = bytes(DICTATIONS[number(prompt)]);
        let next = dictation.get(answer.len()).copied().unwrap_or(END_OF_TURN);
        let faithful = dictation.starts_with(answer);
        let rival = answer.iter().fold(answer.len() as u64, |hash, token| mix(hash ^ u64::from(*token)));
        let mut logits = vec![-20.0; EMBEDDINGS];
        logits[(rival % 90) as usize] = 3.0;
        logits[(rival >> 8) as usize % 90] = 2.5;
        logits[next as usize] = if faithful { 4.0 } else { 1.0 };
        logits
    })
}

#[test]
fn greedy_text_is_told_as_it_grows() {
    let mut lab = Setup::text(dictating()).build();
    for (number, dictation) in DICTATIONS.iter().enumerate() {
        let (pieces, text) = told(&mut lab, &question(number, greedy(100)));
        assert_eq!(text, dictation.trim());
        assert!(pieces.len() > text.split_whitespace().count() || text.is_empty(), "{pieces:?}");
    }
}

#[test]
fn a_character_split_between_tokens_is_told_whole() {
    let mut lab = Setup::text(dictating()).build();
    let (pieces, _) = told(&mut lab, &question(2, greedy(100)));
    assert_eq!(pieces[0], "👩‍👩‍👧‍👦");
    assert!(pieces.contains(&"e\u{301}".to_owned()) || pieces.contains(&" e\u{301}".to_owned()), "{pieces:?}");
}

#[test]
fn an_answer_cut_in_a_character_ends_in_the_replacement_character() {
    let mut lab = Setup::text(dictating()).build();
    let (_, text) = told(&mut lab, &question(2, greedy(6)));
    assert_eq!(text, "👩\u{fffd}");
}

#[test]
fn stop_strings_cut_the_text_and_never_show() {
    let mut lab = Setup::text(dictating()).build();
    let request = Request { stop: vec!["four".into(), ", STOP".into()], ..question(4, greedy(100)) };
    let (pieces, text) = told(&mut lab, &request);
    assert_eq!(text, "one, two");
    assert!(pieces.iter().all(|piece| !piece.contains(", S")));
    let Some(Event::Finished { completion, .. }) = lab.events.last() else { panic!() };
    assert_eq!(completion.answers[0].finish, FinishReason::StopRule);
    assert_eq!(completion.answers[0].token_ids, bytes("one, two, STOP"));
}

#[test]
fn beams_tell_what_they_agree_on() {
    let mut early = 0;
    for number in 0..DICTATIONS.len() {
        for width in [2, 3, 5] {
            let mut lab = Setup::text(dictating()).build();
            let id = lab.submit(question(number, beams(width, 60)));
            lab.step_until(|lab| lab.engine.is_idle() || !lab.pieces(id).is_empty());
            early += usize::from(!lab.engine.is_idle());
            let mut lab = Setup::text(dictating()).build();
            told(&mut lab, &question(number, beams(width, 60)));
            let stop = vec!["o".into(), "ờ".into(), "à".into(), "ok".into()];
            told(&mut lab, &Request { stop, ..question(number, beams(width, 60)) });
        }
    }
    assert!(early >= 9, "only {early} of 18 beam searches told something before their end");
}

#[test]
fn several_answers_are_told_at_the_end_only() {
    let mut lab = Setup::text(dictating()).build();
    let several = [GenerationSettings { num_return_sequences: 2, ..beams(3, 20) }, samples(3, 1, 20)];
    for settings in several {
        let id = lab.submit(question(0, settings));
        lab.finish();
        assert!(lab.pieces(id).is_empty());
        assert!(lab.completion(id).answers.len() > 1);
    }
}

#[test]
fn random_bytes_are_told_as_they_decode() {
    let setup = Setup::text(remembering(EMBEDDINGS, 256, END_OF_TURN)).rows(32);
    let mut lab = setup.build();
    for number in 0..60 {
        let settings = match number % 3 {
            0 => greedy(40),
            1 => beams(2 + number % 4, 25),
            _ => samples(1, number as u64, 40),
        };
        let stop = if number % 2 == 0 { vec!["a".into(), ")".into()] } else { Vec::new() };
        let request = Request { stop, ..question(number, settings) };
        let (_, text) = told(&mut lab, &request);
        let Some(Event::Finished { completion, .. }) = lab.events.last() else { panic!() };
        let decoded = TOKENIZER.decode(&completion.answers[0].token_ids, true);
        assert!(decoded.contains(text.as_str()));
    }
}

/// The pieces told before a request is cancelled, and those told then, are its text as it stands.
#[test]
fn a_cancelled_answer_is_told_to_where_it_got() {
    for settings in [greedy(60), beams(3, 60)] {
        for steps in [5, 12, 25] {
            let mut lab = Setup::text(dictating()).build();
            let (id, switch) = lab.submit_with_switch(question(0, settings.clone()));
            lab.step_until(|lab| lab.probe.look().decodes().len() == steps);
            switch.raise();
            lab.finish();
            let answer = &lab.completion(id).answers[0];
            assert_eq!(answer.finish, FinishReason::Cancelled);
            assert_eq!(lab.pieces(id).concat(), answer.text);
            assert!(!answer.text.is_empty());
        }
    }
}
