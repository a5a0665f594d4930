//! Chat messages to token ids, and token ids to text.
//!
//! The way in: [`insert_image_mark`] puts the `<image>` mark where none was written, [`render`]
//! lays the conversation out in the checkpoint's [`Template`], [`expand_images`] turns each mark
//! into one placeholder token for every image embedding, and [`encode_prompt`] gives the token ids
//! and says where the placeholders are.
//!
//! The way out: [`Tokenizer::response`] for a finished sequence, [`TextStream`] while it is still
//! growing. Both give the text that the reference gives, byte for byte: `InternVL`'s `chat()` with
//! the slow Qwen2 tokenizer of transformers 4.44.

mod byte_level;
mod error;
mod images;
mod stop;
mod template;
mod text_stream;
mod token_spans;
mod token_table;
mod tokenizer;
mod utf8;
mod white_space;

pub use error::PromptError;
pub use images::{
    EncodedPrompt, Expanded, IMAGE_CONTEXT, IMAGE_END, IMAGE_MARK, IMAGE_START, encode_prompt, expand_images,
    insert_image_mark,
};
pub use stop::StopStrings;
pub use template::{Conversation, END_OF_TURN, Template, Turn, render};
pub use text_stream::{StreamEnd, TextStream};
pub use token_spans::TokenSpans;
pub use tokenizer::{TokenRoles, Tokenizer};
