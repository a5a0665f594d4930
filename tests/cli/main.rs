//! The command line through the program: exit code, stdout and stderr of what people type.

#[path = "../common/mod.rs"]
mod common;

mod bundled;
mod chat_json;
mod conversation;
mod doctor;
mod engine;
mod help;
mod images;
mod inspect;
mod library;
mod packages;
mod presets;
mod processes;
mod prompts;
mod providers;
mod settings;
mod settings_file;
mod support;
mod terminal;
mod verify;
