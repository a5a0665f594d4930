//! The prompt module against the reference: templates, token ids, text whole and streamed.

mod loading;
mod reference;
mod stream;
mod support;
