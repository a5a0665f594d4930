//! `vintern chat`: one question, or a conversation.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::args::ChatArgs;
use super::conversation;
use super::error::CliError;
use super::output::{ChatOutput, print_json};
use super::progress::Progress;
use super::session::{load_engine, load_image};
use super::settings::read_history;
use crate::engine::{Completion, Engine, Event, Request, TiledImage};
use crate::generate::{FinishReason, GenerationSettings, Strategy};
use crate::graph::Interrupt;
use crate::prompt::{Template, Turn};

/// The parts of a request that stay the same through a conversation.
pub(super) struct Caller {
    engine: Engine,
    template: Option<Template>,
    system_message: Option<String>,
    stop: Vec<String>,
    progress: Progress,
    running: Running,
}

/// The interrupt of the call in progress, for the signal handler.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<Option<Interrupt>>>);

impl Running {
    fn set(&self, interrupt: Option<Interrupt>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = interrupt;
    }

    /// Stops the call in progress; without one, ends the process as the signal would have.
    fn stop(&self) {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(interrupt) => interrupt.raise(),
            None => std::process::exit(1),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever keeps the question from being answered.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let has_images = !args.images.is_empty();
    let settings = args.generation.resolve(has_images)?;
    let template = args.prompt.template.as_deref().map(str::parse).transpose()?;
    let history = args.history.as_deref().map(read_history).transpose()?;
    if args.question.is_none() && args.json {
        return Err(CliError::usage("--json needs a question", "put the question at the end of the command"));
    }
    let running = Running::default();
    let handler = running.clone();
    ctrlc::set_handler(move || handler.stop()).map_err(std::io::Error::other)?;
    let progress = Progress::new();
    let engine = load_engine(&args.model, &args.runtime, &progress)?;
    let decode = args.tiling.decode_options(args.generation.preset);
    let images = args
        .images
        .iter()
        .map(|file| load_image(file, &engine, &args.tiling, &decode))
        .collect::<Result<Vec<_>, _>>()?;
    let system_message = args.prompt.system.clone();
    let stop = args.generation.stop.clone();
    let mut caller = Caller { engine, template, system_message, stop, progress, running };
    match &args.question {
        Some(question) if args.json => caller.print_json(question, images, history, settings),
        Some(question) => {
            let completion = caller.print_text(question, images, history, settings)?;
            if is_cancelled(&completion) { Err(CliError::Check("stopped before the answer was complete".into())) } else { Ok(()) }
        }
        None => conversation::run(&mut caller, args, images, history),
    }
}

impl Caller {
    /// The engine.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Asks, and prints the answer as it becomes settled.
    ///
    /// # Errors
    /// When the request fails or stdout cannot be written.
    pub(super) fn print_text(
        &mut self,
        question: &str,
        images: Vec<TiledImage>,
        history: Option<Vec<Turn>>,
        settings: GenerationSettings,
    ) -> Result<Completion, CliError> {
        let mut stdout = std::io::stdout();
        let mut written = Ok(());
        let completion = self.ask(question, images, history, settings, |text| {
            let result = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            if written.is_ok() {
                written = result;
            }
        })?;
        written?;
        writeln!(stdout)?;
        Ok(completion)
    }

    fn print_json(
        &mut self,
        question: &str,
        images: Vec<TiledImage>,
        history: Option<Vec<Turn>>,
        settings: GenerationSettings,
    ) -> Result<(), CliError> {
        let seed = match &settings.strategy {
            Strategy::Sample(sampling) => Some(sampling.seed),
            _ => None,
        };
        let completion = self.ask(question, images, history, settings, |_| ())?;
        print_json(&ChatOutput::new(&completion, &self.engine, seed))?;
        if is_cancelled(&completion) { Err(CliError::Check("stopped before the answer was complete".into())) } else { Ok(()) }
    }

    fn ask(
        &mut self,
        question: &str,
        images: Vec<TiledImage>,
        history: Option<Vec<Turn>>,
        settings: GenerationSettings,
        mut on_text: impl FnMut(&str),
    ) -> Result<Completion, CliError> {
        let request = Request {
            question: question.to_owned(),
            images,
            history,
            template: self.template,
            system_message: self.system_message.clone(),
            settings,
            stop: self.stop.clone(),
        };
        let interrupt = Interrupt::new();
        self.running.set(Some(interrupt.clone()));
        let progress = &self.progress;
        let completion = self.engine.run(request, &interrupt, |event| match event {
            Event::Progress { stage, done, total, .. } => progress.prompt(*stage, *done, *total),
            Event::Text { text, .. } => {
                progress.clear();
                on_text(text);
            }
            Event::Finished { .. } | Event::Failed { .. } => (),
        });
        self.running.set(None);
        self.progress.clear();
        let completion = completion?;
        if completion.surplus_marks > 0 {
            self.progress.warn(&format!(
                "{} <image> mark(s) have no image and stay plain text, as in the reference",
                completion.surplus_marks
            ));
        }
        Ok(completion)
    }
}

fn is_cancelled(completion: &Completion) -> bool {
    completion.answers.first().is_none_or(|answer| answer.finish == FinishReason::Cancelled)
}
