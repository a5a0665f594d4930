//! `vintern chat`: one question, or a conversation.

use super::args::ChatArgs;
use super::caller::{Ask, Caller, Running, complete};
use super::conversation;
use super::error::CliError;
use super::progress::Progress;
use super::session::{load_engine, load_image};
use super::settings::read_history;
use crate::package::Package;

/// Runs the command. What can be wrong with the arguments and the images is found before the model is loaded.
///
/// # Errors
/// Whatever keeps the question from being answered.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let providers = args.runtime.providers()?;
    if args.question.is_none() && args.json {
        return Err(CliError::usage("--json needs a question", "put the question at the end of the command"));
    }
    let history = args.history.as_deref().map(read_history).transpose()?;
    let package = Package::open(&args.model)?;
    let settings = args.resolve(&package)?;
    let generation = settings.generation(!args.images.is_empty())?;
    let progress = Progress::new();
    let read = |file| load_image(file, &settings.images, &progress);
    let images = args.images.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let running = Running::new(progress.clone());
    let handler = running.clone();
    ctrlc::set_handler(move || handler.stop()).map_err(std::io::Error::other)?;
    let engine = load_engine(&package, &args.runtime, &providers, &progress)?;
    let mut caller = Caller::new(args, settings, engine, progress, running);
    match &args.question {
        Some(question) => {
            let ask = Ask { question: question.clone(), images, history, settings: generation };
            let completion = if args.json { caller.print_json(ask) } else { caller.print_text(ask) }?;
            complete(&completion)
        }
        None => conversation::run(&mut caller, images, history),
    }
}
