//! A conversation: turns, images, commands.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};

use super::caller::{Ask, Caller, complete, is_cancelled};
use super::error::CliError;
use super::output::note;
use crate::engine::TiledImage;
use crate::prompt::{IMAGE_MARK, Turn};

const COMMANDS: &str = "/image FILE  add an image   /reset  forget everything   /help  list these   /quit  leave";

/// Where lines come from: an editor on a terminal, plain lines otherwise.
enum Lines {
    Editor(Box<DefaultEditor>),
    Plain(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Lines {
    fn open() -> Result<Self, CliError> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Plain(std::io::stdin().lock().lines()));
        }
        note(COMMANDS);
        // The prompt belongs on the terminal also when the answers go to a file.
        let config = Config::builder().behavior(Behavior::PreferTerm).build();
        let editor = DefaultEditor::with_config(config).map_err(std::io::Error::other)?;
        Ok(Self::Editor(Box::new(editor)))
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, CliError> {
        let editor = match self {
            Self::Plain(lines) => return Ok(lines.next().transpose()?),
            Self::Editor(editor) => editor,
        };
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    // A line that cannot be remembered was still read.
                    let _ = editor.add_history_entry(&line);
                    return Ok(Some(line));
                }
                // Ctrl-C drops the line, as in a shell.
                Err(ReadlineError::Interrupted) => (),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(std::io::Error::other(error).into()),
            }
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Editor(_))
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
    fn new(images: Vec<TiledImage>, history: Option<Vec<Turn>>) -> Self {
        let questions = history.iter().flatten().map(|turn| turn.question.as_str());
        let marks: usize = questions.map(|question| question.matches(IMAGE_MARK).count()).sum();
        Self { new_images: images.len().saturating_sub(marks), images, history }
    }

    /// The question with a mark for every image that has none yet.
    fn mark(&self, question: &str) -> String {
        let missing = self.new_images.saturating_sub(question.matches(IMAGE_MARK).count());
        format!("{}{question}", format!("{IMAGE_MARK}\n").repeat(missing))
    }
}

/// Runs the conversation until its input ends.
///
/// # Errors
/// When the terminal fails. What is wrong with a line is printed and the conversation goes on; if the lines do not come
/// from a terminal, it is an error at the end.
pub(super) fn run(
    caller: &mut Caller<'_>,
    images: Vec<TiledImage>,
    history: Option<Vec<Turn>>,
) -> Result<(), CliError> {
    let mut conversation = Conversation::new(images, history);
    let mut lines = Lines::open()?;
    let on_terminal = lines.is_terminal();
    let mut failed = 0;
    while let Some(line) = lines.next()? {
        let line = line.trim();
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let outcome = match command {
            "" => Ok(()),
            "/quit" | "/exit" => break,
            "/reset" => {
                conversation = Conversation::new(Vec::new(), None);
                Ok(())
            }
            "/help" => {
                note(COMMANDS);
                Ok(())
            }
            "/image" => add_image(argument.trim(), &mut conversation, caller),
            command if command.starts_with('/') => Err(unknown(command)),
            _ => turn(line, &mut conversation, caller, on_terminal),
        };
        match outcome {
            Err(error @ (CliError::Terminal(_) | CliError::Check(_))) => return Err(error),
            Err(error) => {
                failed += 1;
                note(&format!("error: {}", super::with_causes(&error)));
            }
            Ok(()) => (),
        }
    }
    if failed == 0 || on_terminal {
        return Ok(());
    }
    Err(CliError::Check(format!("{failed} line(s) of the conversation could not be carried out")))
}

fn unknown(command: &str) -> CliError {
    CliError::usage(format!("unknown command {command}"), COMMANDS)
}

fn add_image(argument: &str, conversation: &mut Conversation, caller: &Caller<'_>) -> Result<(), CliError> {
    // A file dropped on a terminal comes in quotes.
    let quoted = |quote| argument.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let file = quoted('\'').or_else(|| quoted('"')).unwrap_or(argument);
    if file.is_empty() {
        return Err(CliError::usage("/image needs a file", "/image FILE"));
    }
    let image = caller.load_image(Path::new(file))?;
    note(&format!("{file}: {} tiles", image.tiles().len()));
    conversation.images.push(image);
    conversation.new_images += 1;
    Ok(())
}

fn turn(
    question: &str,
    conversation: &mut Conversation,
    caller: &mut Caller<'_>,
    on_terminal: bool,
) -> Result<(), CliError> {
    let settings = caller.generation(!conversation.images.is_empty())?;
    let question = conversation.mark(question);
    let (images, history) = (conversation.images.clone(), conversation.history.clone());
    let completion = caller.print_text(Ask { question, images, history, settings })?;
    if !on_terminal {
        complete(&completion)?;
    } else if is_cancelled(&completion) {
        note("(stopped; the conversation goes on with what was said)");
    }
    let answer = completion.answers.into_iter().next().map(|answer| answer.text);
    conversation.history.get_or_insert_default().push(Turn { question: completion.question, answer });
    conversation.new_images = 0;
    Ok(())
}
