//! Any mix of requests: each is answered as if it were alone.

use proptest::prelude::*;
use vintern::engine::Request;
use vintern::generate::{BeamSearch, EarlyStopping, FinishReason, GenerationSettings, Sampling, Strategy as Search};
use vintern::prompt::Turn;

use crate::harness::{Setup, picture, question, sequences};
use crate::oracle;

/// A request, the step it comes at, and the step it is cancelled at.
#[derive(Clone, Debug)]
struct Visit {
    request: Request,
    arrives: usize,
    leaves: Option<usize>,
}

fn search() -> impl Strategy<Value = (Search, usize)> {
    let early = prop::sample::select(vec![EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never]);
    let beam = (1..6_usize, -1.0..2.0_f32, early).prop_flat_map(|(num_beams, length_penalty, early_stopping)| {
        let beam = BeamSearch { num_beams, length_penalty, early_stopping };
        (Just(Search::Beam(beam)), 1..=num_beams)
    });
    let sample = (0.3..2.0_f32, 0..6_usize, 0.3..=1.0_f32, 0..4_u64, 1..5_usize).prop_map(
        |(temperature, top_k, top_p, seed, sequences)| {
            (Search::Sample(Sampling { temperature, top_k, top_p, min_p: 0.0, seed }), sequences)
        },
    );
    prop_oneof![2 => Just((Search::Greedy, 1)), 4 => beam, 2 => sample]
}

fn settings() -> impl Strategy<Value = GenerationSettings> {
    let penalty = prop_oneof![Just(1.0_f32), 0.5..4.0_f32];
    (search(), 1..12_usize, 0..6_usize, penalty, prop_oneof![3 => Just(0_usize), 1 => 2..4_usize]).prop_map(
        |((strategy, num_return_sequences), max_new_tokens, min_new_tokens, repetition_penalty, size)| {
            // Sampling refuses to go on when n-grams leave nothing to draw, which 14 tokens may.
            let sampled = matches!(strategy, Search::Sample(_));
            GenerationSettings {
                max_new_tokens,
                min_new_tokens,
                repetition_penalty,
                no_repeat_ngram_size: if sampled { 0 } else { size },
                num_return_sequences,
                strategy,
            }
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let stops = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec("[!-.]{1,2}", 1..4),
        1 => prop::collection::vec("[!-.]{2}", 40..120),
    ];
    let texts = prop::sample::select(vec!["1", "2", "2 and more", "2 and more still", "3: a rather longer question"]);
    let history = prop_oneof![
        3 => Just(None),
        1 => Just(Some(vec![Turn { question: "5".to_owned(), answer: Some("!\"".to_owned()) }])),
    ];
    let images = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::sample::select(vec![vec![9_u8], vec![10, 20], vec![10, 21]]).prop_map(|tiles| vec![tiles]),
        1 => Just(vec![vec![9_u8], vec![10, 20]]),
    ];
    (settings(), stops, texts, history, images).prop_map(|(settings, stop, text, history, images)| {
        let marks = "<image>".repeat(images.len());
        let images = images.iter().map(|tiles| picture(tiles)).collect();
        Request { stop, history, images, ..question(format!("{marks}{text}"), settings) }
    })
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let leaves = prop_oneof![3 => Just(None), 1 => (0..25_usize).prop_map(Some)];
    let visit = (request(), 0..25_usize, leaves).prop_map(|(request, arrives, leaves)| Visit {
        request,
        arrives,
        leaves: leaves.map(|after| arrives + after),
    });
    prop::collection::vec(visit, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_request_is_answered_as_if_it_were_alone(
        visits in visits(),
        max_rows in 5..14_usize,
        chunk in prop::sample::select(vec![1_usize, 2, 3, 8, 100]),
        image_cache_bytes in prop::sample::select(vec![0_usize, 64, 1 << 20]),
        // Any of the requests fits the smallest cache.
        cache in prop_oneof![Just(None), (500..1500_usize).prop_map(Some)],
        spare_rows in 0..4_usize,
        vision_beside in any::<bool>(),
    ) {
        let mut setup = Setup::remembering().rows(max_rows).chunk(chunk).spare(spare_rows);
        if let Some(positions) = cache {
            setup = setup.cache(positions);
        }
        setup.config.image_cache_bytes = image_cache_bytes;
        setup.config.vision_beside = vision_beside;
        let mut lab = setup.build();
        let mut inside = Vec::new();
        for step in 0..50 {
            for visit in visits.iter().filter(|visit| visit.arrives == step) {
                let (id, switch) = lab.submit_with_switch(visit.request.clone());
                inside.push((visit, id, switch));
            }
            for (_, _, switch) in inside.iter().filter(|(visit, ..)| visit.leaves == Some(step)) {
                switch.raise();
            }
            lab.step();
            prop_assert!(lab.engine.cache_bytes() <= 8 * cache.unwrap_or(usize::MAX / 8));
        }
        lab.finish();
        prop_assert_eq!(inside.len(), visits.len());
        for (visit, id, _) in inside {
            let completion = lab.completion(id);
            let found = sequences(completion);
            let course = oracle::course(&setup, &visit.request);
            let cancelled = found.iter().any(|answer| answer.finish == FinishReason::Cancelled);
            if cancelled {
                prop_assert!(visit.leaves.is_some());
                prop_assert!(course.contains(&found), "{:?} is no step of {:?}", found, visit);
            } else {
                prop_assert_eq!(&found, course.last().unwrap(), "{:?}", visit);
            }
            if visit.request.settings.num_return_sequences == 1 {
                prop_assert_eq!(lab.pieces(id).concat(), completion.answers[0].text.clone());
            }
        }
        let seen = lab.probe.look();
        let decodes = seen.decodes();
        prop_assert!(seen.calls.iter().all(|call| call.rows.len() == 1 || call.positions == 1));
        prop_assert!(decodes.iter().all(|call| call.rows.start == 0 && call.rows.end <= max_rows));
        let unowned = |call: &&super::network::Call| call.generated.iter().any(|generated| generated.unwrap_or(0) == 0);
        prop_assert_eq!(decodes.iter().filter(|call| unowned(call)).count(), 0);
    }
}
