//! The prompt module against the reference: templates, token ids, text whole and streamed.

#[path = "../common/reference_data.rs"]
mod reference_data;

mod loading;
mod reference;
mod stream;
mod support;
