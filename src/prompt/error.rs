//! What can go wrong between messages, token ids and text.

use std::path::PathBuf;

use thiserror::Error;

/// An error of the `tokenizers` library.
pub(super) type TokenizersError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of the `prompt` module.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PromptError {
    /// A template name that is not one of [`Template::ALL`](super::Template::ALL).
    #[error("unknown chat template {name:?}; the known templates are {known}")]
    UnknownTemplate {
        /// The name asked for.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },

    /// More images than `<image>` marks in the whole conversation.
    #[error(
        "{images} image(s) given, but the conversation has {marks} <image> mark(s)\n\
         hint: write one <image> for each image in the question or in the history \
         (a mark is added by itself only when no history is given)"
    )]
    ImageMarks {
        /// Images given.
        images: usize,
        /// Marks found.
        marks: usize,
    },

    /// The prompt has more or fewer image placeholder tokens than there are image embeddings.
    #[error(
        "the prompt has {found} <IMG_CONTEXT> token(s), but the images give {expected} \
         embedding(s)\n\
         hint: remove any literal <IMG_CONTEXT> from the question, the history and \
         the system message"
    )]
    ImageTokens {
        /// Image embeddings to be placed.
        expected: usize,
        /// Placeholder tokens found.
        found: usize,
    },

    /// The tokenizer file cannot be read or understood.
    #[error("cannot load the tokenizer file {}; it must be a Hugging Face tokenizer.json", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// The reason given by the reader.
        #[source]
        source: TokenizersError,
    },

    /// A vocabulary entry is not written in the byte-level alphabet.
    #[error(
        "token {id} ({token:?}) of {} is not written in the byte-level BPE alphabet; \
         only byte-level tokenizers (Qwen2) are supported",
        path.display()
    )]
    NotByteLevel {
        /// The tokenizer file.
        path: PathBuf,
        /// Token id.
        id: u32,
        /// The entry as written in the file.
        token: String,
    },

    /// A token the package names is not in the tokenizer file.
    #[error(
        "the package says that the {role} token has id {id}, but {} has no such token\n\
         hint: the tokenizer and the manifest are not of the same checkpoint; copy the package again",
        path.display()
    )]
    MissingToken {
        /// The tokenizer file.
        path: PathBuf,
        /// What the token is for, by its name in the manifest.
        role: &'static str,
        /// Token id.
        id: u32,
    },

    /// A token the package names has another text in the tokenizer file.
    #[error(
        "the package says that the {role} token has id {id}, which should be {expected:?}, \
         but in {} it is {found:?}\n\
         hint: the tokenizer and the manifest are not of the same checkpoint; copy the package again",
        path.display()
    )]
    TokenText {
        /// The tokenizer file.
        path: PathBuf,
        /// What the token is for, by its name in the manifest.
        role: &'static str,
        /// Token id.
        id: u32,
        /// The text it should have.
        expected: &'static str,
        /// The text it has.
        found: String,
    },

    /// The tokenizer failed on a text.
    #[error("the tokenizer cannot encode a text of {bytes} bytes")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// The reason given by the tokenizer.
        #[source]
        source: TokenizersError,
    },

    /// A stop string without characters, which would end every text at its start.
    #[error("stop string number {position} is empty; give at least one character or leave it out")]
    EmptyStopString {
        /// Position in the list, counted from 1.
        position: usize,
    },
}
