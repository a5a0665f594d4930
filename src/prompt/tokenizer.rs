//! Byte-level BPE with the added tokens of an `InternVL` checkpoint.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenizers::{NormalizedString, Normalizer};

use super::stop::StopStrings;
use super::token_table::{Piece, TokenTable};
use super::{
    END_OF_TURN, IMAGE_CONTEXT, IMAGE_END, IMAGE_START, PromptError, TextStream, TokenSpans, byte_level, white_space,
};

/// Which ids play a role outside the vocabulary: `tokens` of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRoles {
    /// `<|im_end|>`, the only token that ends a sequence.
    pub eos: u32,
    /// The padding token.
    pub pad: u32,
    /// `<img>`.
    pub image_start: u32,
    /// `</img>`.
    pub image_end: u32,
    /// `<IMG_CONTEXT>`, whose embeddings are overwritten by those of the images.
    pub image_context: u32,
    /// The ids that leave no trace in a response. In the reference these are the eos, pad, bos
    /// and unk tokens and the `additional_special_tokens`; other added tokens keep their text.
    pub skipped_in_text: Vec<u32>,
}

/// Text to ids and back, as the slow Qwen2 tokenizer does it.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    table: Arc<TokenTable>,
    roles: TokenRoles,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` and checks the roles against it.
    ///
    /// # Errors
    /// [`PromptError::TokenizerFile`] if the file cannot be read or is not a tokenizer;
    /// [`PromptError::NotByteLevel`] if its vocabulary is of another kind;
    /// [`PromptError::MissingToken`] and [`PromptError::TokenText`] if an id of `tokens` is not in
    /// it, or has another text than its role asks for.
    pub fn from_file(path: &Path, tokens: &TokenRoles) -> Result<Self, PromptError> {
        let unreadable = |source| PromptError::TokenizerFile { path: path.to_owned(), source };
        let mut encoder = tokenizers::Tokenizer::from_file(path).map_err(unreadable)?;
        // A prompt is neither cut nor padded, whatever the file was saved with.
        encoder.with_truncation(None).map_err(unreadable)?;
        encoder.with_padding(None);
        let table = read_table(&encoder, path, tokens)?;
        check_roles(&table, path, tokens)?;
        Ok(Self { encoder, table: Arc::new(table), roles: tokens.clone() })
    }

    /// The roles given to [`Tokenizer::from_file`].
    pub const fn roles(&self) -> &TokenRoles {
        &self.roles
    }

    /// Token ids of a text; no token is added at either end. Added tokens are recognised wherever
    /// their text stands, also in what a user wrote.
    ///
    /// # Errors
    /// [`PromptError::Encode`] if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let failed = |source| PromptError::Encode { bytes: text.len(), source };
        // The slow tokenizer normalises the whole text before it looks for added tokens. The
        // library does it after, which differs where a combining mark follows such a token.
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = self.encoder.get_normalizer() {
            normalizer.normalize(&mut normalized).map_err(failed)?;
        }
        let encoding = self.encoder.encode_fast(normalized.get(), false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids. With `skip_special`, the ids of
    /// [`TokenRoles::skipped_in_text`] are left out; all other added tokens keep their text.
    /// Each maximal broken part of UTF-8 becomes one U+FFFD; an id without a token adds nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.table.decode(ids, skip_special)
    }

    /// The answer in generated ids: decoded without special tokens, cut at the first literal
    /// `<|im_end|>`, stripped of white space as Python's `str.strip` does.
    pub fn response(&self, ids: &[u32]) -> String {
        self.response_until(ids, &StopStrings::default())
    }

    /// Like [`Tokenizer::response`], and also cut before the stop string that is complete first.
    pub fn response_until(&self, ids: &[u32], stops: &StopStrings) -> String {
        let text = self.decode(ids, true);
        let end = stops.with_end_of_turn().find(&text).unwrap_or(text.len());
        white_space::strip(&text[..end]).to_owned()
    }

    /// The answer piece by piece, as [`Tokenizer::response_until`] gives it in the end.
    pub fn text_stream(&self, stops: &StopStrings) -> TextStream {
        TextStream::new(Arc::clone(&self.table), stops)
    }

    /// Finds which tokens the text of a [`TextStream`] was made of.
    pub fn token_spans(&self) -> TokenSpans {
        TokenSpans::new(Arc::clone(&self.table))
    }

    /// The bytes of a token: of an added token those of its text, of any other perhaps not whole characters. `None` for an
    /// id without a token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        match self.table.piece(id, false) {
            Piece::Bytes(bytes) => Some(bytes),
            Piece::Text(text) => Some(text.as_bytes()),
            Piece::Nothing => None,
        }
    }

    /// Whether the text of `ids` holds a stop string, given that the text of all but the last id
    /// holds none. The text is that of [`Tokenizer::decode`] with `skip_special`, except that a
    /// character still unfinished at its end does not count yet. Takes time in the length of the
    /// stop strings, not of the text.
    pub fn completes_stop(&self, ids: &[u32], stops: &StopStrings) -> bool {
        self.table.completes_stop(ids, stops)
    }
}

/// The bytes of every vocabulary entry and the text of every added token.
fn read_table(encoder: &tokenizers::Tokenizer, path: &Path, tokens: &TokenRoles) -> Result<TokenTable, PromptError> {
    let mut table = TokenTable::new(&tokens.skipped_in_text);
    for (id, added) in encoder.get_added_tokens_decoder() {
        table.insert_added(id, added.content);
    }
    for (token, id) in encoder.get_vocab(false) {
        if table.contains(id) {
            continue;
        }
        let Some(bytes) = byte_level::decode(&token) else {
            return Err(PromptError::NotByteLevel { path: path.to_owned(), id, token });
        };
        table.insert_bytes(id, bytes);
    }
    Ok(table)
}

/// Checks that the tokens of the roles exist and have the text that the templates write.
fn check_roles(table: &TokenTable, path: &Path, tokens: &TokenRoles) -> Result<(), PromptError> {
    let missing = |role, id| PromptError::MissingToken { path: path.to_owned(), role, id };
    for (role, id, expected) in [
        ("eos", tokens.eos, END_OF_TURN),
        ("image_start", tokens.image_start, IMAGE_START),
        ("image_end", tokens.image_end, IMAGE_END),
        ("image_context", tokens.image_context, IMAGE_CONTEXT),
    ] {
        let found = table.added(id).ok_or_else(|| missing(role, id))?;
        if found != expected {
            let (path, found) = (path.to_owned(), found.to_owned());
            return Err(PromptError::TokenText { path, role, id, expected, found });
        }
    }
    let others = tokens.skipped_in_text.iter().map(|&id| ("skipped_in_text", id));
    for (role, id) in others.chain([("pad", tokens.pad)]) {
        if !table.contains(id) {
            return Err(missing(role, id));
        }
    }
    Ok(())
}
