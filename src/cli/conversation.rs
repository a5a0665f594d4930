//! A conversation on the terminal: turns, images, commands.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::args::ChatArgs;
use super::chat::Caller;
use super::error::CliError;
use super::session::load_image;
use crate::engine::TiledImage;
use crate::prompt::{IMAGE_MARK, Turn};

const HELP: &str = "commands: /image FILE  add an image   /reset  forget everything   /quit  leave";

/// Where lines come from: an editor on a terminal, plain lines otherwise.
enum Lines {
    Editor(Box<DefaultEditor>),
    Plain(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Lines {
    fn open() -> Result<Self, CliError> {
        if std::io::stdin().is_terminal() {
            eprintln!("{HELP}");
            let editor = DefaultEditor::new().map_err(std::io::Error::other)?;
            return Ok(Self::Editor(Box::new(editor)));
        }
        Ok(Self::Plain(std::io::stdin().lock().lines()))
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, CliError> {
        match self {
            Self::Plain(lines) => Ok(lines.next().transpose()?),
            Self::Editor(editor) => match editor.readline("> ") {
                Ok(line) => {
                    // A line that cannot be remembered was still read.
                    let _ = editor.add_history_entry(&line);
                    Ok(Some(line))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(std::io::Error::other(error).into()),
            },
        }
    }
}

/// The turns so far and the images they speak of.
struct Conversation {
    images: Vec<TiledImage>,
    /// Images that no turn has a mark for yet.
    new_images: usize,
    history: Option<Vec<Turn>>,
}

impl Conversation {
    /// The question with a mark for every image that has none yet. The first question of a conversation with one
    /// image is left to the engine, which puts the mark as the reference does.
    fn mark(&self, question: &str) -> String {
        let missing = self.new_images.saturating_sub(question.matches(IMAGE_MARK).count());
        format!("{}{question}", format!("{IMAGE_MARK}\n").repeat(missing))
    }
}

/// Runs the conversation until its input ends.
///
/// # Errors
/// When the terminal fails; what is wrong with a turn is printed and the conversation goes on.
pub(super) fn run(
    caller: &mut Caller,
    args: &ChatArgs,
    images: Vec<TiledImage>,
    history: Option<Vec<Turn>>,
) -> Result<(), CliError> {
    let new_images = if history.is_some() { 0 } else { images.len() };
    let mut conversation = Conversation { images, new_images, history };
    let mut lines = Lines::open()?;
    let mut failed = 0;
    while let Some(line) = lines.next()? {
        let outcome = match line.trim() {
            "" => Ok(()),
            "/quit" | "/exit" => break,
            "/reset" => {
                conversation = Conversation { images: Vec::new(), new_images: 0, history: None };
                Ok(())
            }
            "/help" => {
                eprintln!("{HELP}");
                Ok(())
            }
            command if command.starts_with('/') => add_image(command, &mut conversation, caller, args),
            question => turn(question, &mut conversation, caller, args),
        };
        match outcome {
            Err(CliError::Terminal(error)) => return Err(error.into()),
            Err(error) => {
                failed += 1;
                eprintln!("error: {}", super::with_causes(&error));
            }
            Ok(()) => (),
        }
    }
    if failed == 0 { Ok(()) } else { Err(CliError::Check(format!("{failed} line(s) could not be carried out"))) }
}

fn add_image(
    command: &str,
    conversation: &mut Conversation,
    caller: &Caller,
    args: &ChatArgs,
) -> Result<(), CliError> {
    let Some(file) = command.strip_prefix("/image ").map(str::trim).filter(|file| !file.is_empty()) else {
        return Err(CliError::usage(format!("unknown command {command:?}"), HELP));
    };
    let decode = args.tiling.decode_options(args.generation.preset);
    let image = load_image(&PathBuf::from(file), caller.engine(), &args.tiling, &decode)?;
    eprintln!("{file}: {} tiles", image.tiles().len());
    conversation.images.push(image);
    conversation.new_images += 1;
    Ok(())
}

fn turn(
    question: &str,
    conversation: &mut Conversation,
    caller: &mut Caller,
    args: &ChatArgs,
) -> Result<(), CliError> {
    let settings = args.generation.resolve(!conversation.images.is_empty())?;
    let question = conversation.mark(question);
    let completion =
        caller.print_text(&question, conversation.images.clone(), conversation.history.clone(), settings)?;
    let answer = completion.answers.into_iter().next().map(|answer| answer.text);
    conversation.history.get_or_insert_default().push(Turn { question: completion.question, answer });
    conversation.new_images = 0;
    Ok(())
}
