//! The prompt module against the reference: templates, token ids, decoded text.

use ndarray::Array1;
use ndarray_npy::NpzReader;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use vintern::prompt::{
    Conversation, IMAGE_CONTEXT, PromptError, StopStrings, Tokenizer, Turn, encode_prompt, expand_images,
    insert_image_mark, render,
};

use crate::support::{CHECKPOINTS, TokenizerTable, golden, golden_json, tokenizer};

#[derive(Deserialize)]
struct PromptRow {
    template: String,
    system_message: Option<String>,
    history: Option<Vec<Turn>>,
    question: String,
    num_patches_list: Vec<usize>,
    num_image_token: usize,
    prompt: String,
    stop_token: String,
}

#[test]
fn prompts_are_those_of_the_reference() {
    let rows: Vec<PromptRow> = golden_json("prompts.json");
    assert_eq!(rows.len(), 63);
    for row in rows {
        let mut conversation = Conversation::new(row.template.parse().unwrap());
        if let Some(system_message) = row.system_message {
            conversation.system_message = system_message;
        }
        conversation.history = row.history;
        let question =
            insert_image_mark(&row.question, !row.num_patches_list.is_empty(), conversation.history.is_some());
        let placeholders: Vec<usize> = row.num_patches_list.iter().map(|tiles| tiles * row.num_image_token).collect();
        let expanded = expand_images(&render(&conversation, &question), &placeholders).unwrap();
        assert_eq!(expanded.text, row.prompt);
        assert_eq!(expanded.image_tokens, placeholders.iter().sum::<usize>());
        assert_eq!(expanded.surplus_marks, row.prompt.matches("<image>").count());
        assert_eq!(conversation.template.separator().trim_end(), row.stop_token);
        assert_eq!(conversation.template.to_string(), row.template);
    }
}

#[derive(Deserialize)]
struct CaseFile {
    num_image_token: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    num_patches: Vec<usize>,
    num_patches_list_passed: Option<Vec<usize>>,
    question: String,
    history_in: Option<Vec<Turn>>,
    prompt_collapsed: String,
    prompt_sha256: String,
    n_prompt_tokens: usize,
    output_ids: Vec<u32>,
    response: String,
    history_out: Vec<Turn>,
}

#[derive(Deserialize)]
struct Config {
    template: String,
    system_message: Option<String>,
}

fn conversation_of(checkpoint: &str) -> Conversation {
    let config: Config = golden_json(&format!("{checkpoint}/config.json"));
    let mut conversation = Conversation::new(config.template.parse().unwrap());
    if let Some(system_message) = config.system_message {
        conversation.system_message = system_message;
    }
    conversation
}

/// `<IMG_CONTEXT>*n` for each run of n.
fn collapse(prompt: &str, placeholders: &[usize]) -> String {
    placeholders
        .iter()
        .fold(prompt.to_owned(), |text, &n| text.replacen(&IMAGE_CONTEXT.repeat(n), &format!("\u{0}*{n}"), 1))
        .replace('\0', IMAGE_CONTEXT)
}

fn bytes_of_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn check_case(checkpoint: &str, tokenizer: &Tokenizer, tokens_per_tile: usize, case: &Case) {
    let name = format!("{checkpoint} {}", case.id);
    let mut conversation = conversation_of(checkpoint);
    conversation.history.clone_from(&case.history_in);
    let patches = case.num_patches_list_passed.as_ref().unwrap_or(&case.num_patches);
    let placeholders: Vec<usize> = patches.iter().map(|tiles| tiles * tokens_per_tile).collect();
    let question = insert_image_mark(&case.question, !case.num_patches.is_empty(), conversation.history.is_some());
    assert_eq!(case.history_out.last().unwrap().question, question, "{name}");

    let expanded = expand_images(&render(&conversation, &question), &placeholders).unwrap();
    assert_eq!(collapse(&expanded.text, &placeholders), case.prompt_collapsed, "{name}");
    assert_eq!(Sha256::digest(&expanded.text).to_vec(), bytes_of_hex(&case.prompt_sha256), "{name}");

    let encoded = encode_prompt(tokenizer, &expanded.text, expanded.image_tokens).unwrap();
    let arrays = std::fs::File::open(golden(&format!("{checkpoint}.arrays.npz"))).unwrap();
    let ids: Array1<i32> = NpzReader::new(arrays).unwrap().by_name(&format!("{}.input_ids", case.id)).unwrap();
    let ids: Vec<u32> = ids.iter().map(|&id| u32::try_from(id).unwrap()).collect();
    assert_eq!(encoded.ids, ids, "{name}");
    assert_eq!(ids.len(), case.n_prompt_tokens, "{name}");
    let spans: Vec<usize> = encoded.image_spans.iter().map(ExactSizeIterator::len).collect();
    assert_eq!(spans, placeholders, "{name}");
    assert!(
        encoded
            .image_spans
            .iter()
            .all(|span| { ids[span.clone()].iter().all(|&id| id == tokenizer.roles().image_context) })
    );

    assert_eq!(tokenizer.response(&case.output_ids), case.response, "{name}");
    assert_eq!(stream(tokenizer, &case.output_ids), case.response, "{name}");
    assert_eq!(case.history_out.last().unwrap().answer.as_ref(), Some(&case.response));
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.text_stream(&StopStrings::default());
    let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
    text.extend(stream.finish());
    text
}

#[test]
fn cases_give_the_prompts_ids_and_responses_of_the_reference() {
    for checkpoint in CHECKPOINTS {
        let file: CaseFile = golden_json(&format!("{checkpoint}.cases.json"));
        let tokenizer = tokenizer(checkpoint);
        assert_eq!(file.cases.len(), 24);
        for case in &file.cases {
            check_case(checkpoint, &tokenizer, file.num_image_token, case);
        }
    }
}

#[test]
fn texts_encode_as_with_the_slow_tokenizer() {
    for checkpoint in CHECKPOINTS {
        let tokenizer = tokenizer(checkpoint);
        for (text, ids) in TokenizerTable::of(checkpoint).encode {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{checkpoint} {text:?}");
        }
    }
}

#[test]
fn ids_decode_as_with_the_slow_tokenizer() {
    for checkpoint in CHECKPOINTS {
        let tokenizer = tokenizer(checkpoint);
        for (ids, skipped, kept, response) in TokenizerTable::of(checkpoint).decode {
            assert_eq!(tokenizer.decode(&ids, true), skipped, "{checkpoint} {ids:?}");
            assert_eq!(tokenizer.decode(&ids, false), kept, "{checkpoint} {ids:?}");
            assert_eq!(tokenizer.response(&ids), response, "{checkpoint} {ids:?}");
            assert_eq!(stream(&tokenizer, &ids), response, "{checkpoint} {ids:?}");
        }
    }
}

/// A decomposed accent is composed before anything else, even with the `>` of an added token, so
/// that the token is no longer there.
#[test]
fn normalization_comes_before_added_tokens() {
    let tokenizer = tokenizer("ckpt_a");
    let composed = tokenizer.encode("tiếng").unwrap();
    assert_eq!(tokenizer.encode("tie\u{302}\u{301}ng").unwrap(), composed);
    let ids = tokenizer.encode("<img>\u{338}").unwrap();
    assert!(!ids.contains(&tokenizer.roles().image_start));
    assert_eq!(tokenizer.decode(&ids, false), "<img\u{226f}");
}

#[test]
fn typed_placeholders_are_an_error_with_images_and_a_token_without() {
    let tokenizer = tokenizer("ckpt_a");
    let expanded = expand_images("<image> and <IMG_CONTEXT>", &[3]).unwrap();
    let error = encode_prompt(&tokenizer, &expanded.text, 3).unwrap_err();
    assert!(matches!(error, PromptError::ImageTokens { expected: 3, found: 4 }), "{error}");
    assert!(error.to_string().contains("4 <IMG_CONTEXT> token(s)"), "{error}");
    let error = encode_prompt(&tokenizer, "no placeholder", 3).unwrap_err();
    assert!(matches!(error, PromptError::ImageTokens { expected: 3, found: 0 }), "{error}");

    let text_only = encode_prompt(&tokenizer, "a<IMG_CONTEXT>", 0).unwrap();
    assert_eq!(text_only.ids, [64, 924]);
    assert_eq!((text_only.image_spans.len(), text_only.image_tokens), (0, 0));
}

#[test]
fn spans_tell_where_each_image_goes() {
    let tokenizer = tokenizer("ckpt_a");
    let expanded = expand_images("<image><image>\na", &[2, 3]).unwrap();
    let encoded = encode_prompt(&tokenizer, &expanded.text, expanded.image_tokens).unwrap();
    assert_eq!(encoded.ids, [922, 924, 924, 923, 922, 924, 924, 924, 923, 198, 64]);
    assert_eq!(encoded.image_spans, [1..3, 5..8]);
    assert_eq!(encoded.image_tokens, 5);
}
