use serde_json::{Value, json};

use super::{ApiError, ChatRequest};
use crate::generate::EarlyStopping;
use crate::prompt::Turn;

fn parse(fields: &Value) -> Result<ChatRequest, ApiError> {
    let mut request = json!({"messages": [{"role": "user", "content": "q"}]});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ChatRequest::parse(request.to_string().as_bytes())
}

fn refused(fields: Value) -> (String, String) {
    let error = parse(&fields).unwrap_err();
    (error.param.unwrap_or_default(), error.message)
}

/// Names that mean the same setting, each with a value and what it becomes.
#[test]
fn aliases_are_one_setting() {
    for (names, value) in [
        (&["max_tokens", "max_completion_tokens", "max_new_tokens"][..], json!(7)),
        (&["repetition_penalty", "repeat_penalty"], json!(1.5)),
        (&["min_tokens", "min_new_tokens"], json!(2)),
        (&["n", "num_return_sequences"], json!(3)),
        (&["max_tiles", "max_dynamic_patch"], json!(4)),
        (&["min_tiles", "min_dynamic_patch"], json!(2)),
    ] {
        let read: Vec<ChatRequest> = names.iter().map(|name| parse(&json!({*name: value})).unwrap()).collect();
        assert!(read.windows(2).all(|pair| pair[0] == pair[1]), "{names:?}");
        assert_ne!(read[0], parse(&json!({})).unwrap(), "{names:?} has no effect");
        assert!(parse(&json!({names[0]: value, names[1]: value})).is_ok());
        let (param, message) = refused(json!({names[0]: value, names[1]: 9}));
        assert_eq!(param, names[1]);
        assert!(message.contains("with different values"), "{message}");
    }
    let nested = parse(&json!({"mm_processor_kwargs": {"max_dynamic_patch": 4}})).unwrap();
    assert_eq!(nested, parse(&json!({"max_tiles": 4})).unwrap());
    assert_eq!(refused(json!({"mm_processor_kwargs": {"max_dynamic_patch": 4}, "max_tiles": 5})).0, "max_tiles");
    assert_eq!(refused(json!({"mm_processor_kwargs": {"size": 4}})).0, "mm_processor_kwargs.size");
}

#[test]
fn beams_in_the_words_of_other_servers() {
    let beams = |fields: Value| parse(&fields).map(|request| request.generation.num_beams);
    assert_eq!(beams(json!({"use_beam_search": true, "best_of": 4, "n": 2})), Ok(Some(4)));
    assert_eq!(beams(json!({"use_beam_search": true, "n": 2})), Ok(Some(2)));
    assert_eq!(beams(json!({"use_beam_search": true, "num_beams": 5})), Ok(Some(5)));
    assert_eq!(beams(json!({"use_beam_search": false})), Ok(Some(1)));
    assert_eq!(beams(json!({"use_beam_search": false, "best_of": 1})), Ok(Some(1)));
    assert_eq!(beams(json!({"best_of": 1})), Ok(None));
    assert_eq!(refused(json!({"use_beam_search": true})).0, "use_beam_search");
    assert_eq!(refused(json!({"use_beam_search": false, "num_beams": 3})).0, "use_beam_search");
    assert_eq!(refused(json!({"use_beam_search": true, "num_beams": 3, "best_of": 4})).0, "best_of");
    assert_eq!(refused(json!({"best_of": 4})).0, "best_of");
}

#[test]
fn values_of_many_forms() {
    let request = parse(&json!({
        "early_stopping": "never", "max_tokens": 5.0, "top_k": -1, "temperature": 1, "seed": -1, "stop": "x",
        "logprobs": null, "user": "me", "tools": [], "response_format": {"type": "text"}, "frequency_penalty": 0,
    }));
    let request = request.unwrap();
    assert_eq!(request.generation.early_stopping, Some(EarlyStopping::Never));
    assert_eq!((request.generation.max_new_tokens, request.generation.top_k), (Some(5), Some(0)));
    assert_eq!(request.generation.seed, Some(u64::MAX));
    assert_eq!(request.stop, ["x"]);
    for (fields, param) in [
        (json!({"max_tokens": 5.5}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"early_stopping": "soon"}), "early_stopping"),
        (json!({"stream": 1}), "stream"),
        (json!({"stop": [1]}), "stop"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"a": {"b": 1}}), "a"),
    ] {
        assert_eq!(refused(fields).0, param);
    }
}

#[test]
fn log_probabilities_are_asked_for_with_two_fields() {
    let asked = |fields: Value| parse(&fields).unwrap().logprobs;
    assert_eq!(asked(json!({"logprobs": true, "top_logprobs": 20})), Some(20));
    assert_eq!(asked(json!({"logprobs": true})), Some(0));
    assert_eq!(asked(json!({"logprobs": false, "top_logprobs": 0})), None);
    assert_eq!(asked(json!({"logprobs": null, "top_logprobs": null})), None);
}

/// Clients send these whatever they ask for.
#[test]
fn neutral_filters_ask_for_no_sampling() {
    let neutral = json!({"top_p": 1.0, "top_k": -1, "min_p": 0, "seed": 4});
    assert_eq!(parse(&neutral).unwrap().generation, parse(&json!({})).unwrap().generation);
    let greedy = parse(&json!({"temperature": 0, "top_p": 1, "seed": 4})).unwrap().generation;
    assert_eq!((greedy.temperature, greedy.top_p, greedy.seed), (Some(0.0), None, None));
    let sampling = parse(&json!({"top_p": 0.9, "seed": 4})).unwrap().generation;
    assert_eq!((sampling.top_p, sampling.seed), (Some(0.9), Some(4)));
}

/// Whatever the request holds, and on one line.
#[test]
fn a_refusal_is_short() {
    let long = "\n<long>".repeat(10_000);
    for (fields, param) in [
        (json!({"messages": [{"role": long, "content": "a"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": [{"type": long}]}]}), "messages[0].content[0].type"),
        (json!({"stop": {"a": long}}), "stop"),
        (json!({"early_stopping": long}), "early_stopping"),
    ] {
        let (found, message) = refused(fields);
        assert_eq!(found, param);
        assert!(message.len() < 500 && !message.contains('\n'), "{message}");
    }
    let (param, message) = refused(json!({long.as_str(): 1}));
    assert!(param.len() < 500 && message.len() < 500 && !message.contains('\n'), "{param} {message}");
}

/// `param` is a field's name or null, not an empty text.
#[test]
fn a_body_that_is_no_object_has_no_field_at_fault() {
    let error = ChatRequest::parse(b"[]").unwrap_err();
    assert_eq!((error.param, error.message.as_str()), (None, "the body: expected an object, found a list"));
}

const PIXEL: &str = "data:image/png;base64,AAAA";

fn messages(messages: Value) -> Result<super::Conversation, ApiError> {
    ChatRequest::parse(json!({"messages": messages}).to_string().as_bytes()).map(|request| request.conversation)
}

fn shown(parts: Value) -> Result<String, ApiError> {
    messages(json!([{"role": "user", "content": parts}])).map(|conversation| conversation.question)
}

#[test]
fn images_stand_where_they_are_shown() {
    let image = json!({"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}});
    let text = |text: &str| json!({"type": "text", "text": text});
    for (parts, expected) in [
        (json!([image, text("q")]), "<image>\nq"),
        (json!([text("a"), image, text("b"), image]), "a\n<image>\nb\n<image>"),
        (json!([image, text("see <image> here")]), "see <image> here"),
        (json!([text("no <image> shown")]), "no <image> shown"),
        (json!([{"type": "image_url", "image_url": PIXEL}]), "<image>"),
        (json!([]), ""),
    ] {
        assert_eq!(shown(parts).unwrap(), expected);
    }
    let mixed = shown(json!([image, image, text("one <image> only")])).unwrap_err();
    assert_eq!(mixed.param.unwrap(), "messages[0].content");
    assert!(mixed.message.contains("1 <image> mark(s) for 2 image(s)"), "{}", mixed.message);
}

/// The engine gives the first mark of a prompt the first image, so a mark elsewhere would take it.
#[test]
fn a_mark_without_an_image_is_refused_beside_images() {
    let image = json!([{"type": "image_url", "image_url": {"url": PIXEL}}, {"type": "text", "text": "q"}]);
    let turn = |role: &str, content: Value| json!({"role": role, "content": content});
    let mark = || json!("what is <image>?");
    for (turns, at) in [
        ([turn("system", mark()), turn("user", image.clone())].to_vec(), 0),
        ([turn("user", mark()), turn("assistant", json!("a")), turn("user", image.clone())].to_vec(), 0),
        ([turn("user", image.clone()), turn("assistant", mark()), turn("user", json!("q"))].to_vec(), 1),
        ([turn("user", image.clone()), turn("assistant", json!("a")), turn("user", mark())].to_vec(), 2),
    ] {
        let refused = messages(json!(turns)).unwrap_err();
        assert_eq!(refused.param, Some(format!("messages[{at}].content")), "{}", refused.message);
    }
    let without_images = [turn("user", mark()), turn("assistant", mark()), turn("user", mark())];
    assert!(messages(json!(without_images)).is_ok());
}

#[test]
fn turns_become_a_history() {
    let conversation = messages(json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}, {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": "c", "name": "me"},
    ]));
    let conversation = conversation.unwrap();
    assert_eq!(conversation.system.as_deref(), Some("be brief"));
    assert_eq!(conversation.history, [Turn { question: "<image>\na".to_owned(), answer: Some("b".to_owned()) }]);
    assert_eq!((conversation.question.as_str(), conversation.images.len()), ("c", 1));
    assert_eq!(conversation.images[0].path, "messages[1].content[0].image_url");
    assert_eq!(conversation.images[0].source, super::ImageSource::Bytes(vec![0, 0, 0]));
}

#[test]
fn what_is_wrong_with_a_message_is_named() {
    let user = |content: Value| json!({"role": "user", "content": content});
    let image = |url: &str| user(json!([{"type": "image_url", "image_url": {"url": url}}]));
    for (given, param) in [
        (json!("hi"), "messages"),
        (json!([1]), "messages[0]"),
        (json!([{"content": "a"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "tool", "content": "a"}]), "messages[0].role"),
        (json!([user(json!("a")), user(json!("b"))]), "messages[1].role"),
        (json!([user(json!("a")), {"role": "assistant", "content": "b"}]), "messages"),
        (json!([user(json!("a")), {"role": "system", "content": "b"}]), "messages[1].role"),
        (json!([user(json!([{"type": "video"}]))]), "messages[0].content[0].type"),
        (json!([user(json!([{"type": "text"}]))]), "messages[0].content[0].text"),
        (json!([user(json!([{"type": "text", "text": "a", "more": 1}]))]), "messages[0].content[0].more"),
        (json!([image("file:///etc/passwd")]), "messages[0].content[0].image_url"),
        (json!([image("https://")]), "messages[0].content[0].image_url"),
        (json!([image("data:image/png,abc")]), "messages[0].content[0].image_url"),
        (json!([image("data:image/png;base64")]), "messages[0].content[0].image_url"),
        (
            json!([{"role": "system", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]),
            "messages[0].content[0].type",
        ),
    ] {
        assert_eq!(messages(given.clone()).unwrap_err().param.as_deref(), Some(param), "{given}");
    }
}
