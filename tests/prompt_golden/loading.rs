//! What is read of a tokenizer file, and what is refused.

use serde_json::json;
use vintern::prompt::{PromptError, TokenRoles, Tokenizer};

use crate::support::{TokenizerTable, golden, tokenizer, tokenizer_json};

/// The file as the checkpoint has it, not put together by the test.
#[test]
fn the_tokenizer_file_of_the_checkpoint_is_read() {
    let roles = TokenizerTable::of("ckpt_a").roles();
    let file = golden("ckpt_a/tokenizer.json");
    let (own, built) = (Tokenizer::from_file(&file, &roles).unwrap(), tokenizer("ckpt_a"));
    let text = "Trích xuất toàn bộ văn bản có trong ảnh.<ref>";
    assert_eq!(own.encode(text).unwrap(), built.encode(text).unwrap());
    assert_eq!(own.roles(), &roles);
}

/// Truncation and padding saved with the file would cut prompts.
#[test]
fn truncation_and_padding_of_the_file_are_ignored() {
    let mut json = tokenizer_json("ckpt_a");
    json["truncation"] = json!({
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 900, "pad_type_id": 0, "pad_token": "<|endoftext|>"
    });
    let tokenizer = load(&json, &TokenizerTable::of("ckpt_a").roles()).unwrap();
    assert_eq!(tokenizer.encode("xin chào").unwrap(), [87, 847, 260, 259, 254, 78]);
}

fn load(json: &serde_json::Value, roles: &TokenRoles) -> Result<Tokenizer, PromptError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, json).unwrap();
    Tokenizer::from_file(file.path(), roles)
}

#[test]
fn roles_that_do_not_fit_the_file_are_refused() {
    let json = tokenizer_json("ckpt_a");
    let good = TokenizerTable::of("ckpt_a").roles();

    let error = load(&json, &TokenRoles { eos: 900, ..good.clone() }).unwrap_err();
    assert!(matches!(&error, PromptError::TokenText { role: "eos", id: 900, .. }), "{error}");
    assert!(error.to_string().contains("should be \"<|im_end|>\""), "{error}");
    assert!(error.to_string().contains("it is \"<|endoftext|>\""), "{error}");

    let error = load(&json, &TokenRoles { image_context: 151_667, ..good.clone() }).unwrap_err();
    let PromptError::MissingToken { role: "image_context", id: 151_667, .. } = error else {
        panic!("{error}");
    };
    let error = load(&json, &TokenRoles { pad: 931, ..good.clone() }).unwrap_err();
    assert!(matches!(error, PromptError::MissingToken { role: "pad", id: 931, .. }), "{error}");
    let error = load(&json, &TokenRoles { skipped_in_text: vec![902, 5000], ..good }).unwrap_err();
    assert!(matches!(error, PromptError::MissingToken { role: "skipped_in_text", id: 5000, .. }), "{error}");
}

#[test]
fn files_that_are_no_byte_level_tokenizer_are_refused() {
    let roles = TokenizerTable::of("ckpt_a").roles();
    let missing = Tokenizer::from_file(&golden("no_such_file.json"), &roles).unwrap_err();
    assert!(matches!(missing, PromptError::TokenizerFile { .. }));
    assert!(missing.to_string().contains("no_such_file.json"));
    assert!(std::error::Error::source(&missing).is_some());
    assert!(matches!(load(&json!({}), &roles), Err(PromptError::TokenizerFile { .. })));

    let mut json = tokenizer_json("ckpt_a");
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let id = vocab.remove("Ā").unwrap();
    vocab.insert("▁xin".to_owned(), id);
    let error = load(&json, &roles).unwrap_err();
    let PromptError::NotByteLevel { id: 188, token, .. } = error else { panic!("{error}") };
    assert_eq!(token, "▁xin");
}

/// One tokenizer serves all threads, and a stream may move between them.
#[test]
fn tokenizer_and_stream_are_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Tokenizer>();
    is_shared::<vintern::prompt::TextStream>();
    is_shared::<vintern::prompt::StopStrings>();
    is_shared::<PromptError>();
}
