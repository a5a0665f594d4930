//! Progress on stderr, on a terminal only.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::note;
use crate::engine::Stage;
use crate::package::Component;

/// A line that tells what is being done; silent when stderr is not a terminal. Clones are one line.
#[derive(Clone)]
pub(super) struct Progress {
    /// What is shown now, with the template it is shown by.
    shown: Arc<Mutex<Option<(String, ProgressBar)>>>,
    visible: bool,
}

impl Progress {
    /// A line that is empty yet.
    pub(super) fn new() -> Self {
        Self { shown: Arc::default(), visible: std::io::stderr().is_terminal() }
    }

    /// A graph is being loaded.
    pub(super) fn loading(&self, component: Component) {
        self.show("{spinner} {msg} {elapsed}", format!("loading {component}"), 0, 0);
    }

    /// Part of a prompt is done.
    pub(super) fn prompt(&self, stage: Stage, done: usize, total: usize) {
        match stage {
            Stage::Vision => self.count("reading the image", "tiles", done as u64, total as u64),
            Stage::Prefill if done < total => self.count("reading the prompt", "tokens", done as u64, total as u64),
            // Beam search may take many steps before a word is settled.
            Stage::Prefill => self.show("{spinner} {msg} {elapsed}", "answering".to_owned(), 0, 0),
        }
    }

    /// Something that takes as long as it takes.
    pub(super) fn show_work(&self, message: &str) {
        self.show("{spinner} {msg} {elapsed}", message.to_owned(), 0, 0);
    }

    /// `done` of `total` units are done.
    pub(super) fn count(&self, message: &str, unit: &str, done: u64, total: u64) {
        self.show(&format!("{{msg}} {{bar:30}} {{pos}}/{{len}} {unit} {{elapsed}}"), message.to_owned(), done, total);
    }

    /// Takes the line away, so that other text can be printed.
    pub(super) fn clear(&self) {
        if let Some((_, bar)) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// Prints a line to stderr in place of the progress.
    pub(super) fn warn(&self, message: &str) {
        self.clear();
        note(&format!("warning: {message}"));
    }

    fn show(&self, template: &str, message: String, done: u64, total: u64) {
        if !self.visible {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(current, _)| current != template) {
            if let Some((_, bar)) = shown.take() {
                bar.finish_and_clear();
            }
            let Ok(style) = ProgressStyle::with_template(template) else { return };
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                .with_style(style)
                .with_message(message)
                .with_position(done);
            bar.enable_steady_tick(Duration::from_millis(100));
            *shown = Some((template.to_owned(), bar));
        } else if let Some((_, bar)) = &*shown {
            bar.set_length(total);
            bar.set_message(message);
            bar.set_position(done);
        }
    }
}
