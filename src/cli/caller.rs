//! Asks the engine and prints the answer: what `chat` does once and a conversation does each turn.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::args::ChatArgs;
use super::error::CliError;
use super::output::{ChatOutput, note, print_json, summary};
use super::progress::Progress;
use super::session::load_image;
use super::settings::ChatSettings;
use crate::engine::{Completion, Engine, Event, Request, Stage, TiledImage};
use crate::generate::{FinishReason, GenerationSettings, Strategy};
use crate::graph::Interrupt;
use crate::prompt::Turn;

/// The parts of a request that stay the same through a conversation.
pub(super) struct Caller<'a> {
    args: &'a ChatArgs,
    settings: ChatSettings,
    engine: Engine,
    progress: Progress,
    running: Running,
}

/// One question with all that belongs to it.
pub(super) struct Ask {
    pub(super) question: String,
    pub(super) images: Vec<TiledImage>,
    pub(super) history: Option<Vec<Turn>>,
    pub(super) settings: GenerationSettings,
}

/// The interrupt of the call in progress, for the signal handler.
#[derive(Clone)]
pub(super) struct Running {
    interrupt: Arc<Mutex<Option<Interrupt>>>,
    progress: Progress,
}

impl Running {
    /// No call is in progress yet.
    pub(super) fn new(progress: Progress) -> Self {
        Self { interrupt: Arc::default(), progress }
    }

    fn set(&self, interrupt: Option<Interrupt>) {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = interrupt;
    }

    /// Stops the call in progress; without one, or the second time, ends the process as the signal would have.
    pub(super) fn stop(&self) {
        match &*self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(interrupt) if !interrupt.is_raised() => interrupt.raise(),
            _ => {
                self.progress.clear();
                std::process::exit(1);
            }
        }
    }
}

impl<'a> Caller<'a> {
    /// A caller of a loaded engine.
    pub(super) fn new(
        args: &'a ChatArgs,
        settings: ChatSettings,
        engine: Engine,
        progress: Progress,
        running: Running,
    ) -> Self {
        Self { args, settings, engine, progress, running }
    }

    /// Reads an image for the engine's model.
    ///
    /// # Errors
    /// When the file cannot be read or is no usable image.
    pub(super) fn load_image(&self, file: &Path) -> Result<TiledImage, CliError> {
        load_image(file, &self.settings.images, &self.progress)
    }

    /// How a call with or without images generates.
    ///
    /// # Errors
    /// When flags contradict each other or a preset.
    pub(super) fn generation(&self, has_images: bool) -> Result<GenerationSettings, CliError> {
        self.settings.generation(has_images)
    }

    /// Asks, and prints the answer as it becomes settled.
    ///
    /// # Errors
    /// When the request fails or stdout cannot be written.
    pub(super) fn print_text(&mut self, ask: Ask) -> Result<Completion, CliError> {
        let mut stdout = std::io::stdout();
        let on_terminal = stdout.is_terminal();
        let interrupt = Interrupt::new();
        let mut begun = false;
        let mut written = Ok(());
        let outcome = self.ask(ask, &interrupt, |text| {
            if written.is_ok() {
                begun = true;
                let text = if on_terminal { without_controls(text) } else { Cow::Borrowed(text) };
                written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
                if written.is_err() {
                    // Nobody reads on, so nothing need be generated.
                    interrupt.raise();
                }
            }
        });
        written?;
        if begun || outcome.is_ok() {
            writeln!(stdout)?;
        }
        let answered = outcome?;
        self.report(&answered);
        Ok(answered.completion)
    }

    /// Asks, and prints the answer as one JSON object.
    ///
    /// # Errors
    /// When the request fails or stdout cannot be written.
    pub(super) fn print_json(&mut self, ask: Ask) -> Result<Completion, CliError> {
        let answered = self.ask(ask, &Interrupt::new(), |_| ())?;
        print_json(&ChatOutput::new(&answered.completion, &self.engine, answered.seed))?;
        self.report(&answered);
        Ok(answered.completion)
    }

    fn ask(&mut self, ask: Ask, interrupt: &Interrupt, mut on_text: impl FnMut(&str)) -> Result<Answered, CliError> {
        let seed = match &ask.settings.strategy {
            Strategy::Sample(sampling) => Some(sampling.seed),
            _ => None,
        };
        let request = Request {
            question: ask.question,
            images: ask.images,
            history: ask.history,
            template: self.settings.template,
            system_message: self.args.prompt.system.clone(),
            settings: ask.settings,
            stop: self.args.generation.stop.clone(),
            logprobs: None,
        };
        self.running.set(Some(interrupt.clone()));
        let progress = &self.progress;
        let mut encoded = 0;
        let outcome = self.engine.run(request, interrupt, |event| match event {
            Event::Progress { stage, done, total, .. } => {
                if *stage == Stage::Vision {
                    encoded = *done;
                }
                progress.prompt(*stage, *done, *total);
            }
            Event::Text { text, .. } => {
                progress.clear();
                on_text(text);
            }
            Event::Finished { .. } | Event::Failed { .. } => (),
        });
        self.running.set(None);
        self.progress.clear();
        Ok(Answered { completion: outcome?, encoded, seed })
    }

    /// What there is to say about a call besides its answer.
    fn report(&self, answered: &Answered) {
        let marks = answered.completion.surplus_marks;
        if marks > 0 {
            note(&format!("warning: {marks} <image> mark(s) have no image and stay plain text, as in the reference"));
        }
        if self.args.runtime.verbose > 0 {
            note(&summary(&answered.completion, answered.encoded, answered.seed));
        }
    }
}

/// A finished call.
struct Answered {
    completion: Completion,
    /// Tiles that went through the vision encoder; the others' embeddings were at hand.
    encoded: usize,
    seed: Option<u64>,
}

/// Text that cannot steer a terminal: control characters other than line breaks and tabs become U+FFFD. What an image
/// says may end up in an answer, escape sequences included.
fn without_controls(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(steers) { text.replace(steers, "\u{fffd}").into() } else { text.into() }
}

/// Whether the call was stopped before its end.
pub(super) fn is_cancelled(completion: &Completion) -> bool {
    completion.answers.first().is_none_or(|answer| answer.finish == FinishReason::Cancelled)
}

/// A call that was stopped did only part of its work.
///
/// # Errors
/// [`CliError::Check`] when it was.
pub(super) fn complete(completion: &Completion) -> Result<(), CliError> {
    if is_cancelled(completion) {
        return Err(CliError::Check("stopped before the answer was complete".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        assert_eq!(without_controls("chữ\n\tnghĩa"), "chữ\n\tnghĩa");
        assert_eq!(without_controls("\x1b[2Ja\x07\r\u{9b}b"), "\u{fffd}[2Ja\u{fffd}\u{fffd}\u{fffd}b");
    }
}
