//! The command line: the engine's first user.
//!
//! Arguments are parsed into strings and options (`args`), made into typed settings (`settings`), and only then does
//! a command start to work.

mod args;
mod bench;
mod caller;
mod chat;
mod conversation;
mod doctor;
mod engine;
mod error;
mod inspect;
mod origins;
mod output;
mod progress;
mod serve;
mod session;
mod settings;
mod settings_file;
mod system;
mod verify;

use std::path::Path;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

pub use args::Cli;
pub use error::CliError;

use args::Command;

/// Parses the arguments of this process, runs the command, prints its error if it fails, and returns the exit code:
/// 0 done, 1 part of the work failed, 2 wrong usage or configuration, 3 the environment.
pub fn main() -> u8 {
    let matches = Cli::command().get_matches();
    let command = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    match run(command, origins::innermost(&matches)) {
        Ok(()) => 0,
        Err(CliError::Terminal(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            output::note(&format!("error: {}", with_causes(&error)));
            error.exit_code()
        }
    }
}

fn run(mut command: Command, matches: &ArgMatches) -> Result<(), CliError> {
    command.runtime().map_or(Ok(()), |runtime| runtime.complete(matches))?;
    match command {
        Command::Chat(args) => chat::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args, matches),
        Command::Engine(args) => engine::run(&args),
        Command::Serve(args) => serve::run(&args),
    }
}

/// The message of an error, and of what caused it where the message does not say so itself.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}\ncause: {message}");
        }
        cause = error.source();
    }
    text
}

/// Reads a file; `what` names its role in the message of a failure.
fn read_file(what: &'static str, file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| CliError::Read { what, file: file.to_path_buf(), error })
}
