//! The wire: `OpenAI`'s chat completions, with the fields of this engine.

mod chat;
mod content;
mod error;
mod fields;
mod inspect;
mod response;

#[cfg(test)]
mod tests;

pub use chat::ChatRequest;
pub(super) use chat::{MAX_STOP_LENGTH, MAX_STOPS, MOST_TOP_LOGPROBS, WITHOUT_EFFECT};
pub use content::{Conversation, ImageFile, ImageSource};
pub use error::ApiError;
pub(super) use error::on_one_line;
#[cfg(test)]
pub(super) use fields::asked_for;
pub(super) use fields::shortened;
pub use inspect::InspectRequest;
pub use response::{Reply, ReplyForm};
