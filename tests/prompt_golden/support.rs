//! The golden checkpoints' tokenizers and tables.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use vintern::prompt::{TokenRoles, Tokenizer};

pub use crate::reference_data::{golden, golden_json};

pub const CHECKPOINTS: [&str; 2] = ["ckpt_a", "ckpt_b"];

/// What the slow tokenizer of the reference makes of texts and ids.
#[derive(Deserialize)]
pub struct TokenizerTable {
    /// `(text, ids)`.
    pub encode: Vec<(String, Vec<u32>)>,
    /// `(ids, without special tokens, with them, response)`.
    pub decode: Vec<(Vec<u32>, String, String, String)>,
    pub special_ids_skipped: Vec<u32>,
    pub all_added: BTreeMap<String, u32>,
}

impl TokenizerTable {
    pub fn of(checkpoint: &str) -> Self {
        golden_json(&format!("{checkpoint}.tokenizer.json"))
    }

    pub fn roles(&self) -> TokenRoles {
        TokenRoles {
            eos: self.all_added["<|im_end|>"],
            pad: self.all_added["<|endoftext|>"],
            image_start: self.all_added["<img>"],
            image_end: self.all_added["</img>"],
            image_context: self.all_added["<IMG_CONTEXT>"],
            skipped_in_text: self.special_ids_skipped.clone(),
        }
    }
}

/// A `tokenizer.json` of the checkpoint: the file of `ckpt_a` with the checkpoint's own vocabulary
/// and merges (`ckpt_b` comes without one; the added tokens are the same).
pub fn tokenizer_json(checkpoint: &str) -> Value {
    let mut json: Value = golden_json("ckpt_a/tokenizer.json");
    let merges = std::fs::read_to_string(golden(&format!("{checkpoint}/merges.txt"))).unwrap();
    json["model"]["vocab"] = golden_json(&format!("{checkpoint}/vocab.json"));
    json["model"]["merges"] =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).map(Value::from).collect();
    json
}

pub fn tokenizer(checkpoint: &str) -> Tokenizer {
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, &tokenizer_json(checkpoint)).unwrap();
    Tokenizer::from_file(file.path(), &TokenizerTable::of(checkpoint).roles()).unwrap()
}
