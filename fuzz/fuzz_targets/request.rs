//! The body of a request, read until the engine could take it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use vintern::engine::Request;
use vintern::preprocess::MAX_TILES;
use vintern::prompt::IMAGE_MARK;
use vintern::serve::RequestReader;
use vintern::serve::api::{ApiError, ChatRequest, InspectRequest};
use vintern::settings::ImageChoices;
use vintern_fuzz::{check_short, let_decoders_panic, reader};

static READER: LazyLock<RequestReader> = LazyLock::new(reader);

fuzz_target!(init: let_decoders_panic(), |body: &[u8]| {
    let parsed = ChatRequest::parse(body).inspect(|request| check_choices(&request.images));
    match parsed.and_then(|request| READER.read(request)) {
        Ok(request) => check_request(&request),
        Err(error) => check_refusal(&error, body),
    }
    let parsed = InspectRequest::parse(body).inspect(|request| check_choices(&request.images));
    let resolved = parsed.and_then(|request| READER.resolve_tiles(request));
    match resolved.and_then(|(image, options)| READER.read_tiles(&image, &options)) {
        Ok(image) => assert!(image.tiles().len() * READER.limits().tokens_per_tile <= READER.limits().max_length),
        Err(error) => check_refusal(&error, body),
    }
});

fn check_choices(choices: &ImageChoices) {
    let tiles = [choices.min_tiles, choices.max_tiles];
    assert!(tiles.into_iter().flatten().all(|tiles| (1..=MAX_TILES).contains(&tiles)), "{choices:?}");
}

/// Checks what the documentation promises of every field, and that each image has a place of its own.
fn check_request(request: &Request) {
    let limits = READER.limits();
    request.settings.validate().unwrap();
    assert!(request.settings.rows() <= limits.max_rows);
    assert!(request.logprobs.is_none_or(|top| top <= 20));
    assert!(request.stop.iter().all(|stop| !stop.is_empty()));
    let tiles: usize = request.images.iter().map(|image| image.tiles().len()).sum();
    assert!(tiles * limits.tokens_per_tile <= limits.max_length);
    let history = request.history.iter().flatten();
    assert!(history.clone().all(|turn| turn.answer.is_some()), "{:?}", request.history);
    let questions = history.clone().map(|turn| &turn.question).chain([&request.question]);
    let answers = history.filter_map(|turn| turn.answer.as_ref()).chain(&request.system_message);
    let marks: usize = questions.map(|text| text.matches(IMAGE_MARK).count()).sum();
    let others = answers.map(|text| text.matches(IMAGE_MARK).count()).sum::<usize>();
    assert!(request.images.is_empty() || (marks, others) == (request.images.len(), 0), "{marks} {others}");
}

/// Checks that a refusal is the client's fault and says of which field it is, unless the body has no fields at all.
fn check_refusal(error: &ApiError, body: &[u8]) {
    check_short(&error.message);
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{}", error.message);
    assert_eq!(error.status, 400, "{error:?}");
    let has_fields = serde_json::from_slice::<Map<String, Value>>(body).is_ok();
    assert_eq!(error.param.is_some(), has_fields, "{error:?}");
    // A field may have an empty name.
    error.param.iter().for_each(|param| check_short(param));
}
