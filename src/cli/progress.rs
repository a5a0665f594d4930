//! Progress on stderr, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Stage;
use crate::package::Component;

/// A line that tells what is being done; silent when stderr is not a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A line that is empty yet.
    pub(super) fn new() -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    /// A graph is being loaded.
    pub(super) fn loading(&self, component: Component) {
        self.spinner(format!("loading {component}"));
    }

    /// Something of unknown length is being done.
    pub(super) fn spinner(&self, message: String) {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            self.bar.set_style(style);
        }
        self.bar.set_message(message);
    }

    /// Part of a prompt is done.
    pub(super) fn prompt(&self, stage: Stage, done: usize, total: usize) {
        let (message, unit) = match stage {
            Stage::Vision => ("reading the image", "tiles"),
            Stage::Prefill => ("reading the prompt", "tokens"),
        };
        self.count(message, unit, done as u64, total as u64);
    }

    /// `done` of `total` units are done.
    pub(super) fn count(&self, message: &'static str, unit: &str, done: u64, total: u64) {
        let template = format!("{{msg}} {{bar:30}} {{pos}}/{{len}} {unit} {{elapsed}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// Takes the line away, so that other text can be printed.
    pub(super) fn clear(&self) {
        self.bar.set_message("");
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
        self.bar.reset();
    }

    /// Prints a line to stderr above the progress.
    pub(super) fn warn(&self, message: &str) {
        self.bar.suspend(|| eprintln!("warning: {message}"));
    }
}
